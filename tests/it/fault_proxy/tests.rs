//! Tests of the proxy: what the client sees of each fault, and what Azurite does.

use super::{Fault, FaultProxy, Plan, Service, seeded};
use crate::support::{azurite, canned, http_client};
use coremachine::ports::{ContainerName, Queue, Store};
use coremachine::store::azure::{self, Connection, StorageSettings};
use reqwest::{Response, StatusCode};
use std::time::Duration;

/// One request to one endpoint through the proxy: how it ended, what the service got, and the fault as counted.
async fn asked(service: &str, fault: Option<Fault>) -> (reqwest::Result<Response>, Vec<String>, u64) {
    let (address, requests) = canned::serve(vec![canned::answer("200 OK", &["x-a: b"], "the whole body")]).await;
    let plan: Plan = Box::new(move || (fault, Duration::from_millis(50)));
    let proxy = FaultProxy::before(&format!("AccountName=a;{service}Endpoint={address}/a"), plan).await;
    let endpoint = proxy.connection().split_once("Endpoint=").expect("an endpoint").1.to_owned();
    let answer = http_client().put(format!("{endpoint}/it?comp=x%20y")).body("sent").send().await;
    let counters = proxy.counters();
    assert_eq!(counters.requests.values().sum::<u64>(), 1);
    (answer, requests.all(), fault.map_or(0, |fault| counters.of(fault)))
}

#[tokio::test]
async fn a_request_and_its_answer_pass_as_they_are() {
    for fault in [None, Some(Fault::Delay)] {
        let (answer, requests, _) = asked("Blob", fault).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.headers()["x-a"], "b");
        assert_eq!(answer.text().await.expect("a body"), "the whole body");
        assert!(requests[0].starts_with("PUT /a/it?comp=x%20y HTTP/1.1\r\n"), "{requests:?}");
        assert!(requests[0].ends_with("\r\n\r\nsent"), "{requests:?}");
    }
}

#[tokio::test]
async fn a_busy_service_says_so_in_its_own_form_and_applies_nothing() {
    for (service, has_header) in [("Blob", true), ("Queue", true), ("Table", false)] {
        let (answer, requests, count) = asked(service, Some(Fault::Busy)).await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.status(), count, requests.len()), (StatusCode::SERVICE_UNAVAILABLE, 1, 0));
        assert_eq!(answer.headers().contains_key("x-ms-error-code"), has_header);
        assert!(answer.text().await.expect("a body").contains("ServerBusy"));
    }
}

#[tokio::test]
async fn a_reset_loses_the_request_or_its_answer_or_half_of_it() {
    for (fault, applied) in [(Fault::LoseRequest, 0), (Fault::LoseAnswer, 1), (Fault::CutAnswer, 1)] {
        let (answer, requests, count) = asked("Table", Some(fault)).await;
        let body = match answer {
            Ok(answer) => answer.bytes().await.map(drop),
            Err(error) => Err(error),
        };
        assert!(body.is_err(), "{fault:?}");
        assert_eq!((requests.len(), count), (applied, 1), "{fault:?}");
    }
}

#[tokio::test]
async fn a_signed_request_is_let_in_by_azurite() {
    let proxy = FaultProxy::before(&azurite::account(), seeded(0, 1)).await;
    let parsed = Connection::parse("X", proxy.connection()).expect("a connection string");
    let store: Store = azure::connect(&StorageSettings { state: parsed.clone(), data: parsed }).expect("a store");
    store.queues.send(Queue::Tasks, "text".into(), Duration::ZERO).await.expect("sent");
    let container = ContainerName::parse("docs").expect("a name");
    store.data.create_container(&container).await.expect("created");
    assert!(store.data.container_exists(&container).await.expect("an answer"));
    let counters = proxy.counters();
    assert!(counters.requests[&Service::Blob] == 2 && counters.requests[&Service::Queue] >= 2, "{counters:?}");
}

#[test]
fn a_seed_gives_the_same_faults_again_and_about_as_many_as_asked_for() {
    let drawn = |seed| {
        let plan = seeded(10, seed);
        (0..10_000).map(|_| plan()).collect::<Vec<_>>()
    };
    assert_eq!(drawn(7), drawn(7));
    assert_ne!(drawn(7), drawn(8));
    for fault in Fault::ALL {
        let count = drawn(7).iter().filter(|(drawn, _)| *drawn == Some(fault)).count();
        assert!((140..260).contains(&count), "{fault:?} came {count} times of 10,000");
    }
    let delays = drawn(7).into_iter().map(|(_, delay)| delay.as_millis());
    assert!(delays.clone().min() == Some(50) && delays.max() == Some(500));
}
