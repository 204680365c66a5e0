//! The host's own tests, against fake queues and a fake handler.

use super::fake::{self, FakeQueues};
use super::verdict::{Outcome, judge};
use super::wire::replay;
use super::{App, Counters, Framing, FunctionsHost, Loss, Options};
use coremachine::ports::{Queue, Queues};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

const LONG_ENOUGH: Duration = Duration::from_mins(1);

fn queue_trigger(queue: Queue) -> Value {
    json!({
        "type": "queueTrigger", "direction": "in", "name": "message", "dataType": "binary",
        "queueName": queue.name(), "connection": "AzureWebJobsStorage"
    })
}

fn http_trigger(route: &str, methods: Option<&[&str]>, auth_level: &str) -> Value {
    let mut trigger =
        json!({ "type": "httpTrigger", "direction": "in", "name": "req", "route": route, "authLevel": auth_level });
    if let Some(methods) = methods {
        trigger["methods"] = json!(methods);
    }
    trigger
}

fn app() -> TempDir {
    fake::app(&BTreeMap::from([
        ("take_task", queue_trigger(Queue::Tasks)),
        ("take_stage", queue_trigger(Queue::Stages)),
        ("take_poison", queue_trigger(Queue::StagesPoison)),
        ("sweep", json!({ "type": "timerTrigger", "direction": "in", "name": "timer", "schedule": "0 * * * * *" })),
        ("Get_one", http_trigger("things/{id}/one", Some(&["get"]), "anonymous")),
        ("get_thing", http_trigger("things/{id}/{*rest}", Some(&["get"]), "function")),
    ]))
}

async fn started(queues: &Arc<FakeQueues>, options: Options) -> (TempDir, FunctionsHost) {
    let folder = app();
    let queues: Arc<dyn Queues> = Arc::clone(queues) as _;
    let host = FunctionsHost::start(folder.path(), queues, "UseDevelopmentStorage=true", options).await.unwrap();
    (folder, host)
}

async fn send(queues: &FakeQueues, queue: Queue, messages: impl IntoIterator<Item = String>) {
    for message in messages {
        queues.send(queue, message.into(), Duration::ZERO).await.unwrap();
    }
}

/// Waits until the handlers have written a text so many times.
async fn writes(host: &FunctionsHost, text: &str, times: usize) {
    host.writes(|output| output.matches(text).count() == times, LONG_ENOUGH).await.unwrap();
}

#[tokio::test]
async fn every_message_is_delivered_once_in_either_framing_and_either_form() {
    for (framing, as_text) in [(Framing::Chunked, false), (Framing::ContentLength, true)] {
        let queues = FakeQueues::shared();
        let (_app, host) = started(&queues, Options { framing, as_text, ..Options::default() }).await;
        // Longer than a chunk, and not ASCII.
        send(&queues, Queue::Tasks, (0..40).map(|n| format!("done {n:03}{}", "é".repeat(2000)))).await;
        send(&queues, Queue::Stages, ["{\"a\":1}".to_owned()]).await;
        host.quiesced(LONG_ENOUGH).await.unwrap();
        let calls = BTreeMap::from([("take_task".to_owned(), 40), ("take_stage".to_owned(), 1)]);
        assert_eq!(host.counters(), Counters { calls, ..Counters::default() });
        let arrived = if framing == Framing::Chunked { "Some(1) chunked" } else { "Some(1) whole" };
        writes(&host, arrived, 41).await;
        writes(&host, &"é".repeat(2000), 40).await;
    }
}

#[tokio::test]
async fn a_message_whose_calls_fail_comes_back_and_moves_to_the_poison_queue_after_the_fifth() {
    let queues = FakeQueues::shared();
    let options = Options { visibility_timeout: Some(Duration::from_millis(5)), ..Options::default() };
    let (_app, host) = started(&queues, options).await;
    send(&queues, Queue::Tasks, ["fail 1".to_owned()]).await;
    host.quiesced(LONG_ENOUGH).await.unwrap();
    writes(&host, "`fail 1`", 5).await;
    let seen: Vec<_> = host.output().lines().filter_map(|line| line.split('`').nth(2)).map(str::to_owned).collect();
    assert_eq!(seen, (1..=5).map(|count| format!(" Some({count}) chunked")).collect::<Vec<_>>());
    assert_eq!((host.counters().failures, host.counters().poisoned), (5, 1));
    assert_eq!(queues.bodies(Queue::TasksPoison), ["fail 1"]);
}

#[tokio::test]
async fn on_a_poison_queue_a_failed_message_stays_hidden_and_is_not_run_again_after_the_fifth_fetch() {
    let queues = FakeQueues::shared();
    let options = Options { in_flight: Duration::from_millis(40), ..Options::default() };
    let (_app, host) = started(&queues, options).await;
    send(&queues, Queue::StagesPoison, ["fail 1".to_owned()]).await;
    let left = host.quiesced(Duration::from_secs(2)).await.unwrap_err();
    assert_eq!(left.matches("`fail 1`").count(), 5);
    assert_eq!(queues.bodies(Queue::StagesPoison), ["fail 1"]);
    assert_eq!(host.counters().poisoned, 0);
}

#[tokio::test]
async fn no_message_is_lost_when_handlers_are_killed_and_messages_delivered_twice() {
    for loss in [Loss::Handler, Loss::Instance] {
        let queues = FakeQueues::shared();
        let options = Options {
            instances: 2,
            batch_size: Some(8),
            in_flight: Duration::from_millis(300),
            visibility_timeout: Some(Duration::from_millis(20)),
            kill_every: Some(50),
            loss,
            duplicate_every: Some(10),
            ..Options::default()
        };
        let (_app, host) = started(&queues, options).await;
        send(&queues, Queue::Tasks, (0..200).map(|n| format!("slow {n:03}"))).await;
        host.quiesced(LONG_ENOUGH).await.unwrap();
        let counters = host.counters();
        // Two kills may meet the same life, and the last one's restart may be still to come.
        assert!(counters.kills >= 2 && counters.restarts >= 1, "{counters:?}");
        assert!(counters.duplicates >= 20, "{counters:?}");
        // A message that was in five killed calls is given up, as it would be by the host.
        let given_up = queues.bodies(Queue::TasksPoison);
        assert_eq!(given_up.len() as u64, counters.poisoned);
        let is_safe = |output: &str, message: &String| {
            given_up.contains(message) || output.contains(&format!("finished `{message}`"))
        };
        let all_are_safe = |output: &str| (0..200).all(|n| is_safe(output, &format!("slow {n:03}")));
        host.writes(all_are_safe, LONG_ENOUGH).await.unwrap();
    }
}

#[tokio::test]
async fn each_kind_of_second_delivery_takes_its_turn() {
    let queues = FakeQueues::shared();
    let (_app, host) = started(&queues, Options { duplicate_every: Some(1), ..Options::default() }).await;
    send(&queues, Queue::Tasks, (0..4).map(|n| format!("done {n}"))).await;
    host.quiesced(LONG_ENOUGH).await.unwrap();
    assert_eq!((host.counters().duplicates, host.counters().calls["take_task"]), (4, 8));
    writes(&host, "Some(2)", 2).await;
}

#[tokio::test]
async fn a_killed_instance_leaves_its_messages_hidden_until_their_time_is_up() {
    let queues = FakeQueues::shared();
    let in_flight = Duration::from_millis(500);
    let (_app, host) = started(&queues, Options { in_flight, ..Options::default() }).await;
    send(&queues, Queue::Tasks, ["stuck 1".to_owned()]).await;
    writes(&host, "`stuck 1`", 1).await;
    let killed = std::time::Instant::now();
    host.kill(0, Loss::Instance).await.unwrap();
    writes(&host, "`stuck 1`", 2).await;
    // It may have been renewed just before.
    assert!(killed.elapsed() > in_flight / 4, "{:?}", killed.elapsed());
    assert_eq!((host.counters().kills, host.counters().restarts), (1, 1));
}

#[tokio::test]
async fn an_answer_without_a_body_costs_the_handler_its_life_at_the_functions_timeout() {
    let queues = FakeQueues::shared();
    let options = Options { function_timeout: Some(Duration::from_millis(50)), ..Options::default() };
    let (_app, host) = started(&queues, options).await;
    send(&queues, Queue::Tasks, ["nothing".to_owned(), "stuck".to_owned()]).await;
    host.quiesced(LONG_ENOUGH).await.unwrap();
    assert_eq!(queues.bodies(Queue::TasksPoison).len(), 2);
    assert!(host.counters().hangs >= 5, "{:?}", host.counters());
}

#[tokio::test]
async fn a_handler_that_ends_by_itself_is_restarted_twice_and_never_after_exit_code_0() {
    for (message, restarts, words) in [("crash", 2, "3 errors, the last one"), ("exit", 0, "exited with 0")] {
        let queues = FakeQueues::shared();
        let options = Options { visibility_timeout: Some(Duration::ZERO), ..Options::default() };
        let (_app, host) = started(&queues, options).await;
        send(&queues, Queue::Tasks, [message.to_owned()]).await;
        let fault = host.quiesced(LONG_ENOUGH).await;
        assert_eq!(host.counters().restarts, restarts, "{fault:?}");
        let stopped = host.handler(0).await.unwrap_err();
        assert!(stopped.contains(words), "{stopped}");
    }
}

#[tokio::test]
async fn a_handler_that_does_not_start_is_reported_with_what_it_wrote() {
    let folder = app();
    let settings = BTreeMap::from([("FAKE_EXITS_WITH".to_owned(), "7".to_owned())]);
    let options = Options { settings, ..Options::default() };
    let fault = FunctionsHost::start(folder.path(), FakeQueues::shared(), "", options).await.err().unwrap();
    assert!(fault.contains("3 errors, the last one: the handler ended with exit status: 7"), "{fault}");
    assert!(fault.contains("running 1 test"), "{fault}");
}

#[tokio::test]
async fn a_timer_fires_on_demand() {
    let (_app, host) = started(&FakeQueues::shared(), Options::default()).await;
    assert!(host.fire_timer("sweep", true).await.unwrap());
    writes(&host, "fired sweep true", 1).await;
    host.fire_timer("take_task", true).await.unwrap_err();
}

#[tokio::test]
async fn a_request_is_forwarded_as_the_host_does_it() {
    let (_app, host) = started(&FakeQueues::shared(), Options::default()).await;
    let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let answer = client
        .get(format!("{}/api/Things/7?tag=a&tag=b&q=x%20y", host.http()))
        .header("Content-Encoding", "identity")
        .header("If-None-Match", "\"e\"")
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 202);
    assert_eq!(answer.headers()["location"], "/elsewhere");
    let seen: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    assert_eq!(seen["uri"], "/api/Things/7?tag=a%2Cb&q=x+y");
    let headers = &seen["headers"];
    assert_eq!(headers["host"], host.http().replace("http://", ""));
    assert_eq!(headers["if-none-match"], "\"e\"");
    assert_eq!(headers["content-encoding"], Value::Null);
    assert_eq!(headers["x-azure-functions-hostversion"], "4.1037.0");
    assert_eq!(headers["x-azure-functions-invocationid"].as_str().unwrap().len(), 36);
    assert!(headers["x-forwarded-for"].as_str().unwrap().starts_with("127.0.0.1:"), "{headers}");

    for (method, path, status) in [
        ("POST", "/api/things/7", 404),
        ("GET", "/api/other", 404),
        ("GET", "/apix", 404),
        ("GET", "/", 404),
        ("GET", "/api/things/7/one", 202),
    ] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let answer = client.request(method, format!("{}{path}", host.http())).send().await.unwrap();
        assert_eq!((answer.status().as_u16(), path), (status, path));
    }
    assert_eq!(host.counters().calls, BTreeMap::from([("Get_one".to_owned(), 1), ("get_thing".to_owned(), 1)]));

    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("{}")]));
    let request = client.get(format!("{}/api/things/7", host.http())).header("Transfer-Encoding", "chunked");
    let answer = request.body(chunked).send().await.unwrap();
    assert_eq!(answer.status(), 500);
}

#[tokio::test]
async fn every_captured_request_is_understood() {
    let (_app, host) = started(&FakeQueues::shared(), Options::default()).await;
    let handler = host.handler(0).await.unwrap();
    assert_eq!(replay(&handler, "wire_readiness_ping", None).await.body, "ready");
    for (fixture, function, line) in [
        ("wire_queue_azure_chunked", "take_task", "`{\"jobId\":\"j-1\","),
        ("wire_queue_azure_chunked_small_chunks", "take_stage", "`{\"jobId\":\"j-1\","),
        ("wire_queue_coretools_content_length", "take_poison", "`{\"id\":\"order-42\",\"v\":1}` Some(2) whole"),
        ("wire_timer_azure_chunked", "sweep", "fired sweep false"),
    ] {
        let answer = replay(&handler, fixture, Some(&format!("/{function}"))).await;
        assert_eq!(judge(answer.status, answer.header("content-type"), answer.body.as_bytes()), Outcome::Success);
        let wanted = |written: &str| written.contains(function) && written.contains(line);
        host.writes(|output| output.lines().any(wanted), LONG_ENOUGH).await.unwrap();
    }
    for (fixture, body) in
        [("wire_forwarded_get", ""), ("wire_forwarded_post", "{\"name\":\"a\"}"), ("wire_forwarded_post_empty", "")]
    {
        let answer = replay(&handler, fixture, None).await;
        let seen: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(
            (answer.status, seen["uri"].as_str(), seen["body"].as_str()),
            (202, Some("/api/jobs/7?tag=a%2Cb"), Some(body))
        );
        assert_eq!(seen["headers"]["host"], "myapp.azurewebsites.net");
    }
}

#[tokio::test]
async fn a_key_is_asked_for_only_if_keys_are_enforced() {
    let options = Options { key: Some("secret".to_owned()), ..Options::default() };
    let (_app, host) = started(&FakeQueues::shared(), options).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (path, key, status) in [
        ("things/7", None, 401),
        ("things/7", Some("wrong"), 401),
        ("things/7", Some("secret"), 202),
        ("things/7?code=secret", None, 202),
        ("things/7/one", None, 202),
    ] {
        let mut request = client.get(format!("{}/api/{path}", host.http()));
        if let Some(key) = key {
            request = request.header("x-functions-key", key);
        }
        assert_eq!(request.send().await.unwrap().status(), status, "{path} {key:?}");
    }
}

#[test]
fn a_wrong_app_folder_is_refused_with_words() {
    type Break = dyn Fn(&std::path::Path);
    let refused = |breaks: &Break| {
        let folder = app();
        breaks(folder.path());
        App::read(folder.path()).unwrap_err()
    };
    let function = |name: &'static str, binding: Value| {
        move |folder: &std::path::Path| {
            fs::create_dir_all(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("function.json"), json!({ "bindings": [binding] }).to_string()).unwrap();
        }
    };
    let host_json = |from: &'static str, to: &'static str| {
        move |folder: &std::path::Path| {
            let text = fs::read_to_string(folder.join("host.json")).unwrap();
            assert!(text.contains(from));
            fs::write(folder.join("host.json"), text.replace(from, to)).unwrap();
        }
    };
    let mut no_connection = queue_trigger(Queue::Tasks);
    no_connection["connection"] = Value::Null;
    let cases: [(&Break, &str); 8] = [
        (&host_json("\"coremachine\"", "\"./coremachine\""), "is not the bare name"),
        (&host_json("00:10:00", "10m"), "expected `hh:mm:ss`, got `10m`"),
        (&host_json("Request\": true", "Request\": false"), "`enableForwardingHttpRequest` is off"),
        (&|folder| fs::remove_file(folder.join("coremachine")).unwrap(), "No such file"),
        (&function("1st", queue_trigger(Queue::Tasks)), "`1st` is not a function's name"),
        (&function("TAKE_TASK", queue_trigger(Queue::Tasks)), "there are two functions"),
        (&function("take_task", no_connection), "expected the connection `AzureWebJobsStorage`"),
        (&function("odd", http_trigger("x", None, "anonymous")), "a `httpTrigger` with the outputs []"),
    ];
    for (breaks, words) in cases {
        let fault = refused(breaks);
        assert!(fault.contains(words), "{fault}");
    }
}
