//! The HTTP API through the router, without a socket.

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use coremachine::host::{App, PublicUrl, router};
use coremachine::ports::Time;
use coremachine::testing::Bench;
use serde_json::{Value, json};
use std::time::Duration;
use tower::ServiceExt;

struct Server {
    bench: Bench,
    router: Router,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Value,
}

impl Server {
    fn new() -> Self {
        Self::with(None)
    }

    fn with(public_url: Option<PublicUrl>) -> Self {
        let bench = Bench::new();
        let router = router(App { machine: bench.machine().clone(), public_url });
        Self { bench, router }
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "app.example");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.into()).expect("a request");
        let (parts, body) = self.router.clone().oneshot(request).await.expect("an answer").into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.expect("a body");
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    async fn submit(&self, job_type: &str, parameters: &Value, headers: &[(&str, &str)]) -> Answer {
        self.send(Method::POST, &format!("/api/jobs/{job_type}"), headers, parameters.to_string()).await
    }
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), self.body["code"].as_str()), (status, Some(code)), "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["status"], status);
        for member in ["type", "title", "detail", "instance"] {
            assert!(self.body[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {}", self.body);
        }
    }
}

fn path_of(link: &Value) -> &str {
    link.as_str().and_then(|link| link.strip_prefix("http://app.example")).expect("an absolute link")
}

#[tokio::test]
async fn a_submission_is_answered_with_links_to_its_job() {
    let server = Server::new();
    let answer = server.submit("hello_world", &json!({ "message": "Welcome" }), &[]).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    let body = &answer.body;
    let id = body["job_id"].as_str().expect("an id");
    assert_eq!((body["status"].as_str(), body["deduplicated"].as_bool()), (Some("queued"), Some(false)));
    assert_eq!(body["parameters"], json!({ "message": "Welcome", "count": 1 }));
    assert_eq!(body["links"]["self"], format!("http://app.example/api/jobs/{id}"));
    assert_eq!(body["links"]["completion"], answer.header("location"));
    assert_eq!((&body["id"], &body["statusQueryGetUri"]), (&body["job_id"], &body["links"]["completion"]));
    assert_eq!(body["terminatePostUri"], body["links"]["cancel"]);
    assert_eq!(answer.header("retry-after"), "2");
    assert_eq!(answer.header("idempotency-replayed"), "");

    let again = server.submit("hello_world", &json!({ "message": "Welcome", "count": 1 }), &[]).await;
    assert_eq!((again.status, again.body["deduplicated"].as_bool()), (StatusCode::ACCEPTED, Some(true)));
    assert_eq!((again.header("location"), again.header("idempotency-replayed")), (answer.header("location"), "true"));
}

#[tokio::test]
async fn the_status_document_follows_the_job() {
    let server = Server::new();
    let submitted = server.submit("hello_world", &json!({ "count": 70 }), &[]).await;
    let path = path_of(&submitted.body["links"]["self"]).to_owned();
    let queued = server.get(&path).await;
    assert_eq!((queued.status, queued.body["status"].as_str()), (StatusCode::OK, Some("queued")));
    assert_eq!(
        (&queued.body["stages"], &queued.body["result"], &queued.body["started_at"]),
        (&json!([]), &Value::Null, &Value::Null)
    );
    server.bench.settle().await;
    let ended = server.get(&path).await;
    assert_eq!(ended.body["status"], "completed");
    assert_eq!(ended.body["result"], json!({ "greeting": "Hello", "count": 70 }));
    assert_eq!(ended.body["stages"][0]["tasks"], json!({ "total": 70, "completed": 70, "failed": 0, "pending": 0 }));
    assert_eq!(
        (ended.body["progress"].as_f64(), ended.body["run"].as_u64(), &ended.body["error"]),
        (Some(1.0), Some(1), &Value::Null)
    );
    assert!(ended.body["ended_at"].as_str().is_some_and(|time| Time::parse(time).is_ok()));

    let etag = ended.header("etag").to_owned();
    assert!(etag.starts_with("W/\""));
    assert_ne!(etag, queued.header("etag"));
    let unchanged = server.send(Method::GET, &path, &[("if-none-match", &etag)], "").await;
    assert_eq!((unchanged.status, unchanged.header("etag")), (StatusCode::NOT_MODIFIED, etag.as_str()));
}

#[tokio::test]
async fn a_poller_learns_the_end_from_the_completion_link() {
    let server = Server::new();
    let submitted = server.submit("hello_world", &json!({}), &[]).await;
    let link = path_of(&submitted.body["links"]["completion"]).to_owned();
    let underway = server.get(&link).await;
    assert_eq!(underway.status, StatusCode::ACCEPTED);
    assert_eq!((underway.header("location"), underway.header("retry-after")), (submitted.header("location"), "2"));
    assert_eq!(underway.body["status"], "queued");
    server.bench.pass(Duration::from_hours(1));
    assert_eq!(server.get(&link).await.header("retry-after"), "30");
    server.bench.settle().await;
    let ended = server.get(&link).await;
    assert_eq!((ended.status, ended.body["result"]["greeting"].as_str()), (StatusCode::OK, Some("Hello")));

    let bare = link.split('?').next().expect("a path");
    server.get(bare).await.assert_problem(401, "invalid_token");
    server.get(&format!("{bare}?token=00")).await.assert_problem(401, "invalid_token");
    server.get(&format!("{bare}?token=é")).await.assert_problem(401, "invalid_token");
    let other = "a".repeat(64);
    let stolen = link.replace(submitted.body["job_id"].as_str().expect("an id"), &other);
    server.get(&stolen).await.assert_problem(401, "invalid_token");
}

#[tokio::test]
async fn a_failed_job_turns_its_poller_red_as_it_asks() {
    let server = Server::new();
    let job = json!({ "stages": [[{ "give": 1 }, "give_up"]], "batch_size": 1 });
    let submitted = server.submit("scripted", &job, &[]).await;
    server.bench.settle().await;
    let link = path_of(&submitted.body["links"]["completion"]).to_owned();
    let failed = server.get(&link).await;
    failed.assert_problem(422, "job_failed");
    assert_eq!(failed.body["error"]["tasks"][0]["code"], "given_up");
    server.get(&format!("{link}&failure=500")).await.assert_problem(500, "job_failed");
    let tamed = server.get(&format!("{link}&failure=200")).await;
    assert_eq!((tamed.status, tamed.body["status"].as_str()), (StatusCode::OK, Some("failed")));
    server.get(&format!("{link}&failure=204")).await.assert_problem(400, "invalid_query");
    let status = server.get(path_of(&submitted.body["links"]["self"])).await;
    assert_eq!((status.status, status.body["stages"][0]["tasks"]["failed"].as_u64()), (StatusCode::OK, Some(1)));
}

#[tokio::test]
async fn a_key_names_the_work_instead_of_its_parameters() {
    let server = Server::new();
    let tonight = [("idempotency-key", "night-1")];
    let first = server.submit("hello_world", &json!({}), &tonight).await;
    let again = server.submit("hello_world", &json!({ "message": "Hello" }), &tonight).await;
    assert_eq!(again.body["deduplicated"], true);
    assert_eq!(first.body["job_id"], again.body["job_id"]);
    assert_ne!(first.body["job_id"], server.submit("hello_world", &json!({}), &[]).await.body["job_id"]);
    server.submit("hello_world", &json!({ "count": 2 }), &tonight).await.assert_problem(422, "idempotency_key_reused");
    for wrong in ["", " ", "a b", "é", &"k".repeat(256)] {
        let answer = server.submit("hello_world", &json!({}), &[("idempotency-key", wrong)]).await;
        answer.assert_problem(400, "invalid_idempotency_key");
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_may_wait_for_the_end() {
    let server = Server::new();
    let too_short = server.submit("hello_world", &json!({}), &[("prefer", "respond-async, wait=1")]).await;
    assert_eq!((too_short.status, too_short.header("preference-applied")), (StatusCode::ACCEPTED, ""));
    let waiting = async { server.submit("hello_world", &json!({}), &[("prefer", "wait=30")]).await };
    let working = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        server.bench.settle().await;
    };
    let (answer, ()) = tokio::join!(waiting, working);
    assert_eq!((answer.status, answer.header("preference-applied")), (StatusCode::OK, "wait=30"));
    assert_eq!(answer.body["status"], "completed");
}

#[tokio::test]
async fn what_is_wrong_with_a_submission_is_told_in_full() {
    let server = Server::new();
    let unknown = server.submit("helo_world", &json!({}), &[]).await;
    unknown.assert_problem(404, "unknown_job_type");
    assert!(unknown.body["detail"].as_str().is_some_and(|detail| detail.contains("hello_world, list_container")));

    let invalid = server.submit("hello_world", &json!({ "message": "", "count": 0, "colour": "red" }), &[]).await;
    invalid.assert_problem(422, "invalid_parameters");
    let errors = json!([
        { "pointer": "/colour", "detail": "is not a parameter of this job type; remove it" },
        { "pointer": "/count", "detail": "must be at least 1, got `0`" },
        { "pointer": "/message", "detail": "must have at least 1 character" },
    ]);
    assert_eq!(invalid.body["errors"], errors);

    let missing = server.submit("list_container", &json!({ "container_name": "not-there" }), &[]).await;
    missing.assert_problem(422, "invalid_parameters");
    assert_eq!(missing.body["errors"][0]["pointer"], "/container_name");

    let post = async |body: Vec<u8>, headers: &[(&str, &str)]| {
        server.send(Method::POST, "/api/jobs/hello_world", headers, body).await
    };
    let broken = post(b"{\n  \"message\": }".to_vec(), &[]).await;
    broken.assert_problem(400, "invalid_json");
    assert!(
        broken.body["detail"].as_str().is_some_and(|detail| detail.contains("line 2 column 14")),
        "{}",
        broken.body
    );
    for body in ["[]", "null", "3", "\"a\"", "{} {}", &format!("{}1", "[".repeat(10_000))] {
        post(body.as_bytes().to_vec(), &[]).await.assert_problem(400, "invalid_json");
    }
    post(vec![b'{', 0xff, b'}'], &[]).await.assert_problem(400, "invalid_json");
    post(vec![b' '; 1024 * 1024 + 1], &[]).await.assert_problem(413, "body_too_large");
    post(b"a=b".to_vec(), &[("content-type", "text/plain")]).await.assert_problem(415, "unsupported_media_type");
    for fine in ["application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"] {
        assert_eq!(post(b"{}".to_vec(), &[("content-type", fine)]).await.status, StatusCode::ACCEPTED, "{fine}");
    }
    assert_eq!(post(Vec::new(), &[]).await.status, StatusCode::ACCEPTED);

    server
        .submit("hello_world", &json!({}), &[("callback-url", "https://a")])
        .await
        .assert_problem(422, "callback_not_allowed");
    let callback = server.submit("hello_world", &json!({ "callBackUri": "https://a" }), &[]).await;
    callback.assert_problem(422, "callback_not_allowed");
}

#[tokio::test]
async fn tasks_are_told_in_order_page_by_page() {
    let server = Server::new();
    let deeds: Vec<Value> = (0..70).map(|n| if n == 65 { json!("give_up") } else { json!({ "give": n }) }).collect();
    let job = json!({ "stages": [[{ "give": 7 }], deeds], "batch_size": 3, "name": "pages" });
    let submitted = server.submit("scripted", &job, &[]).await;
    let path = path_of(&submitted.body["links"]["tasks"]).to_owned();
    assert_eq!(server.get(&path).await.body, json!({ "tasks": [], "next_cursor": null }));
    server.bench.settle().await;

    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("{path}?limit=20{cursor}")).await.body;
        let tasks = page["tasks"].as_array().expect("tasks");
        assert!(tasks.len() <= 20);
        all.extend(tasks.clone());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let places: Vec<_> = all.iter().map(|task| (task["stage"].as_u64(), task["index"].as_u64())).collect();
    let expected: Vec<_> =
        [(1, 0)].into_iter().chain((0..70).map(|n| (2, n))).map(|(s, n)| (Some(s), Some(n))).collect();
    assert_eq!(places, expected);
    let (first, failed) = (&all[0], &all[66]);
    assert_eq!((&first["task_type"], &first["parameters"]), (&json!("act"), &json!({ "deed": { "give": 7 } })));
    assert_eq!((&first["status"], &first["result"], &first["attempts"]), (&json!("completed"), &json!(7), &json!(1)));
    assert_eq!(
        (&failed["status"], &failed["error"]["code"], &failed["result"]),
        (&json!("failed"), &json!("given_up"), &Value::Null)
    );
    assert!(failed["task_id"].as_str().is_some_and(|id| id.ends_with("-2-65")));

    let only =
        async |query: &str| server.get(&format!("{path}?{query}")).await.body["tasks"].as_array().expect("tasks").len();
    assert_eq!(
        (only("status=failed").await, only("stage=1").await, only("stage=2&status=completed").await),
        (1, 1, 69)
    );
    for wrong in ["limit=0", "limit=1001", "limit=x", "stage=a", "status=done", "cursor=x", "cursor=1-"] {
        server.get(&format!("{path}?{wrong}")).await.assert_problem(400, "invalid_query");
    }
    server.get(&format!("/api/jobs/{}/tasks", "a".repeat(64))).await.assert_problem(404, "job_not_found");
}

#[tokio::test]
async fn a_job_is_cancelled_retried_and_deleted_when_that_makes_sense() {
    let server = Server::new();
    let submitted = server
        .submit("scripted", &json!({ "stages": [[{ "give": 1 }]], "batch_size": 1, "name": "changes" }), &[])
        .await;
    let path = path_of(&submitted.body["links"]["self"]).to_owned();
    let post = async |verb: &str| server.send(Method::POST, &format!("{path}/{verb}"), &[], "").await;
    let delete = async || server.send(Method::DELETE, &path, &[], "").await;

    post("retry").await.assert_problem(409, "not_retryable");
    delete().await.assert_problem(409, "not_terminal");
    let cancelled = post("cancel").await;
    assert_eq!((cancelled.status, &cancelled.body["status"]), (StatusCode::ACCEPTED, &json!("cancelled")));
    assert_eq!(path_of(&submitted.body["terminatePostUri"]), format!("{path}/cancel"));
    post("cancel").await.assert_problem(409, "already_terminal");
    let link = path_of(&submitted.body["links"]["completion"]).to_owned();
    server.get(&link).await.assert_problem(409, "job_cancelled");

    let retried = post("retry").await;
    assert_eq!(
        (retried.status, &retried.body["run"], retried.header("location")),
        (StatusCode::ACCEPTED, &json!(2), submitted.header("location"))
    );
    server.bench.settle().await;
    assert_eq!(server.get(&link).await.body["result"], json!([[1]]));
    post("retry").await.assert_problem(409, "not_retryable");
    assert_eq!(delete().await.status, StatusCode::NO_CONTENT);
    for answer in [delete().await, post("cancel").await, post("retry").await, server.get(&path).await] {
        answer.assert_problem(404, "job_not_found");
    }
}

#[tokio::test]
async fn every_other_request_is_answered_with_words() {
    let server = Server::new();
    server.get("/api/jobs/xyz").await.assert_problem(400, "invalid_job_id");
    server.get(&format!("/api/jobs/{}", "a".repeat(64))).await.assert_problem(404, "job_not_found");
    server.get("/api/nothing").await.assert_problem(404, "not_found");
    server.get("/nothing").await.assert_problem(404, "not_found");
    server.get("/api/job_types/nothing").await.assert_problem(404, "unknown_job_type");
    let wrong = server.send(Method::PUT, "/api/jobs/hello_world", &[], "").await;
    wrong.assert_problem(405, "method_not_allowed");
    assert_eq!(wrong.header("allow"), "POST,GET,HEAD,DELETE");
}

#[tokio::test]
async fn the_job_types_are_told_with_their_schemas() {
    let server = Server::new();
    let all = server.get("/api/job_types").await;
    let names: Vec<_> = all.body["job_types"].as_array().expect("a list").iter().map(|job| &job["job_type"]).collect();
    assert!(names.contains(&&json!("hello_world")) && names.contains(&&json!("list_container")), "{names:?}");
    let one = server.get("/api/job_types/hello_world").await.body;
    assert_eq!(one["description"], "Greets, once or many times.");
    assert_eq!(one["parameters"]["properties"]["count"]["maximum"], 1_000_000);
    assert_eq!(one["parameters"]["additionalProperties"], false);
}

#[tokio::test]
async fn health_is_one_real_operation_on_each_store() {
    let answer = Server::new().get("/api/health").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body["checks"], json!({ "tables": "ok", "queues": "ok", "blobs": "ok" }));
    assert_eq!(Server::new().get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn links_follow_the_public_url_and_never_carry_a_key() {
    let server = Server::with(Some(PublicUrl::parse("https://jobs.example/").expect("a URL")));
    let headers = [("x-functions-key", "SECRET"), ("x-forwarded-host", "evil.example")];
    let answer = server.send(Method::POST, "/api/jobs/hello_world?code=SECRET", &headers, "").await;
    assert!(answer.header("location").starts_with("https://jobs.example/api/jobs/"));
    assert!(!answer.body.to_string().contains("SECRET") && !answer.body.to_string().contains("evil"));
}
