//! The packaged handler under the test host, with a storage account that nobody serves.

use crate::functions_host::fake::FakeQueues;
use crate::functions_host::verdict::{Outcome, judge};
use crate::functions_host::wire::replay;
use crate::functions_host::{FunctionsHost, Options};
use crate::support::app;
use serde_json::Value;

/// Nothing listens on port 1.
const NO_STORAGE: &str = "AccountName=nobody;AccountKey=bm9ib2R5;BlobEndpoint=http://127.0.0.1:1/nobody;QueueEndpoint=http://127.0.0.1:1/nobody;TableEndpoint=http://127.0.0.1:1/nobody";

async fn started(options: Options) -> FunctionsHost {
    FunctionsHost::start(&app::folder(), FakeQueues::shared(), NO_STORAGE, options).await.unwrap()
}

#[tokio::test]
async fn without_storage_the_handler_starts_and_no_call_hangs() {
    let host = started(Options::default()).await;
    let handler = host.handler(0).await.unwrap();
    assert_eq!(replay(&handler, "wire_readiness_ping", None).await.status, 200);
    for function in ["/function_process_task", "/function_advance_stage"] {
        for fixture in
            ["wire_queue_azure_chunked", "wire_queue_azure_chunked_small_chunks", "wire_queue_coretools_content_length"]
        {
            // A message of another app: it fails, and ends where it can be looked at.
            let answer = replay(&handler, fixture, Some(function)).await;
            assert_eq!(judge(answer.status, answer.header("content-type"), answer.body.as_bytes()), Outcome::Failure);
            assert_eq!(answer.status, 500, "{answer:?}");
            assert!(!answer.body.is_empty());
        }
    }
    for (fixture, status) in
        [("wire_forwarded_get", 400), ("wire_forwarded_post", 404), ("wire_forwarded_post_empty", 404)]
    {
        let answer = replay(&handler, fixture, None).await;
        assert_eq!((answer.status, answer.header("content-type")), (status, Some("application/problem+json")));
    }
    assert_eq!(host.counters().restarts, 0);
}

#[tokio::test]
async fn the_apps_own_answers_come_through_the_hosts_front() {
    let options = Options { key: Some("secret".to_owned()), ..Options::default() };
    let host = started(options).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (method, path, key, status, code) in [
        ("GET", "jobs/7", "secret", 400, Some("invalid_job_id")),
        ("POST", "jobs/no_such_job", "secret", 404, Some("unknown_job_type")),
        ("GET", "no/such/path", "secret", 404, Some("not_found")),
        ("PUT", "jobs/hello_world", "secret", 405, Some("method_not_allowed")),
        ("GET", "job_types", "secret", 200, None),
        ("GET", "job_types", "wrong", 401, None),
        ("POST", "jobs/hello_world", "wrong", 401, None),
    ] {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let request = client.request(method, format!("{}/api/{path}", host.http())).header("x-functions-key", key);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{path}");
        if let Some(code) = code {
            let problem: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
            assert_eq!(problem["code"], code, "{problem}");
        }
    }
}
