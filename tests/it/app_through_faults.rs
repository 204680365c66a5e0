//! The packaged app under the test host, on storage that fails a tenth of the app's requests.

use crate::app_on_azurite::{PATIENCE, Running, assert_listed};
use crate::fault_proxy::{Fault, FaultProxy, Service, seeded};
use crate::functions_host::{Counters, Options};
use crate::support::azurite;
use reqwest::{RequestBuilder, StatusCode, header};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How many of a hundred requests fail.
const PERCENT: u64 = 10;
/// How often each kind of fault must have come about, and how often each service must have failed, or the test has not
/// tried what it says. About a third, and a sixth, of what is to be expected: few requests are for blobs.
const OF_EACH_KIND: u64 = 10;
const OF_EACH_SERVICE: u64 = 3;

#[tokio::test(flavor = "multi_thread")]
async fn five_jobs_complete_exactly_through_a_tenth_of_all_storage_requests_failing() {
    let (app, proxy) = start(1, Options::default()).await;
    let submissions = submissions();
    let submitted = submissions.iter().map(|Submission { job_type, parameters, .. }| {
        let url = format!("{}/api/jobs/{job_type}", app.host.http());
        answered(app.client.post(url).json(parameters))
    });
    let submitted = futures_util::future::join_all(submitted).await;
    for (submission, submitted) in submissions.iter().zip(&submitted) {
        let link = submitted["links"]["completion"].as_str().expect("a link");
        submission.judge(&ended(&app, link).await);
    }
    let counters = settled(&app, &proxy).await;
    assert_eq!((counters.kills, counters.hangs, counters.poisoned), (0, 0, 0), "{counters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_jobs_complete_exactly_through_faults_kills_and_duplicates() {
    let options = Options { kill_every: Some(50), duplicate_every: Some(10), instances: 2, ..Options::default() };
    let (app, proxy) = start(2, options).await;
    let submissions = submissions();
    let submitted = submissions.iter().map(|submission| app.submit(submission.job_type, &submission.parameters));
    let submitted = futures_util::future::join_all(submitted).await;
    for (submission, submitted) in submissions.iter().zip(&submitted) {
        submission.judge(&app.completion(submitted).await);
    }
    let counters = settled(&app, &proxy).await;
    assert_eq!((counters.hangs, counters.poisoned), (0, 0), "{counters:?}");
    assert!(counters.kills >= 3 && counters.duplicates >= 10, "nothing was tried: {counters:?}");
}

/// The host itself reaches the account without faults: it is not what is tested.
async fn start(seed: u64, options: Options) -> (Running, FaultProxy) {
    let connection = azurite::account();
    let proxy = FaultProxy::before(&connection, seeded(PERCENT, seed)).await;
    let app = Running::start_on(&connection, proxy.connection(), options).await;
    app.fill("docs", 120).await;
    app.fill("more", 40).await;
    (app, proxy)
}

struct Submission {
    job_type: &'static str,
    parameters: Value,
    /// How many tasks greet, or how many blobs there are.
    count: u64,
}

fn submissions() -> [Submission; 5] {
    let hello = |message: &str, count| Submission {
        job_type: "hello_world",
        parameters: json!({ "message": message, "count": count }),
        count,
    };
    let listing = |container: &str, checksum, count| Submission {
        job_type: "list_container",
        parameters: json!({ "container_name": container, "checksum": checksum }),
        count,
    };
    [
        hello("one", 3200),
        hello("two", 1600),
        hello("three", 640),
        listing("docs", true, 120),
        listing("more", false, 40),
    ]
}

impl Submission {
    fn judge(&self, ended: &Value) {
        let count = self.count;
        if self.job_type == "list_container" {
            return assert_listed(ended, count);
        }
        let result = json!({ "greeting": self.parameters["message"], "count": count });
        assert_eq!((ended["status"].as_str(), &ended["result"]), (Some("completed"), &result), "{ended}");
        let tasks = json!({ "total": count, "completed": count, "failed": 0, "pending": 0 });
        assert_eq!(ended["stages"][0]["tasks"], tasks, "{ended}");
    }
}

/// Follows the completion link until the job has ended.
async fn ended(app: &Running, link: &str) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let document = answered(app.client.get(link)).await;
        if document["status"] != "queued" && document["status"] != "processing" {
            return document;
        }
        assert!(Instant::now() < deadline, "the job has not ended: {document}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// The answer to a request that is repeated as the API says: after `Retry-After`, and only if storage was unavailable.
async fn answered(request: RequestBuilder) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = request.try_clone().expect("a body in memory").send().await.expect("an answer");
        let (status, retry_after) = (answer.status(), answer.headers().get(header::RETRY_AFTER).cloned());
        let body: Value = answer.json().await.expect("JSON");
        if status.is_success() {
            return body;
        }
        assert_eq!((status, &body["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("storage_unavailable")), "{body}");
        assert!(Instant::now() < deadline, "storage stays unavailable");
        let seconds = retry_after.and_then(|seconds| seconds.to_str().ok()?.parse().ok()).expect("a `Retry-After`");
        sleep(Duration::from_secs(seconds)).await;
    }
}

/// Waits until nothing is left to do, and says what was tried.
async fn settled(app: &Running, proxy: &FaultProxy) -> Counters {
    let counters = app.settled().await;
    let faults = proxy.counters();
    println!("{counters:?}\n{faults:?}");
    assert_eq!(faults.unanswered, 0, "{faults:?}");
    for fault in Fault::ALL {
        assert!(faults.of(fault) >= OF_EACH_KIND, "{fault:?} is too rare: {faults:?}");
    }
    for service in Service::ALL {
        assert!(faults.at(service) >= OF_EACH_SERVICE, "{service:?} is spared: {faults:?}");
    }
    counters
}
