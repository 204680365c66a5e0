//! What the host itself is tested with: queues in memory, and a handler that does what its messages say.

use async_trait::async_trait;
use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use coremachine::host::invocation::{Answer, QueueInvocation, TimerInvocation};
use coremachine::ports::{Queue, Queues, Receipt, Received, StoreError};
use serde_json::json;
use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Queues with the semantics of the port, in this process.
#[derive(Default)]
pub(crate) struct FakeQueues {
    messages: Mutex<Vec<Message>>,
    deliveries: Mutex<u64>,
}

struct Message {
    queue: Queue,
    id: String,
    pop: String,
    body: Bytes,
    visible_at: Instant,
    dequeue_count: u32,
}

impl FakeQueues {
    pub(crate) fn shared() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Every message in a queue, visible or not.
    pub(crate) fn bodies(&self, queue: Queue) -> Vec<String> {
        let messages = self.messages.lock().unwrap();
        let bodies = messages.iter().filter(|message| message.queue == queue);
        bodies.map(|message| String::from_utf8_lossy(&message.body).into_owned()).collect()
    }

    fn next(&self) -> String {
        let mut deliveries = self.deliveries.lock().unwrap();
        *deliveries += 1;
        deliveries.to_string()
    }

    fn settle<T>(
        &self,
        receipt: &Receipt,
        settle: impl FnOnce(&mut Vec<Message>, usize) -> T,
    ) -> Result<T, StoreError> {
        let mut messages = self.messages.lock().unwrap();
        let held = |message: &Message| message.id == receipt.id && message.pop == receipt.pop;
        let index = messages.iter().position(held).ok_or_else(|| StoreError::NotFound(receipt.id.clone()))?;
        Ok(settle(&mut messages, index))
    }
}

#[async_trait]
impl Queues for FakeQueues {
    async fn send(&self, queue: Queue, body: Bytes, delay: Duration) -> Result<(), StoreError> {
        let (id, pop) = (format!("message-{}", self.next()), String::new());
        let message = Message { queue, id, pop, body, visible_at: Instant::now() + delay, dequeue_count: 0 };
        self.messages.lock().unwrap().push(message);
        Ok(())
    }

    async fn receive(&self, queue: Queue, max: u32, visibility: Duration) -> Result<Vec<Received>, StoreError> {
        let (now, mut messages) = (Instant::now(), self.messages.lock().unwrap());
        let due = messages.iter_mut().filter(|message| message.queue == queue && message.visible_at <= now);
        let taken = due.take(max as usize).map(|message| {
            message.visible_at = now + visibility;
            message.dequeue_count += 1;
            message.pop = self.next();
            let receipt = Receipt { id: message.id.clone(), pop: message.pop.clone() };
            Received { receipt, body: message.body.clone(), dequeue_count: message.dequeue_count }
        });
        Ok(taken.collect())
    }

    async fn delete(&self, _: Queue, receipt: &Receipt) -> Result<(), StoreError> {
        self.settle(receipt, |messages, index| drop(messages.remove(index)))
    }

    async fn hide(&self, _: Queue, receipt: &Receipt, visibility: Duration) -> Result<Receipt, StoreError> {
        let pop = self.next();
        self.settle(receipt, |messages, index| {
            messages[index].visible_at = Instant::now() + visibility;
            messages[index].pop.clone_from(&pop);
        })?;
        Ok(Receipt { id: receipt.id.clone(), pop })
    }

    async fn length(&self, queue: Queue) -> Result<u64, StoreError> {
        Ok(self.bodies(queue).len() as u64)
    }
}

/// An app folder whose handler is this test binary.
pub(crate) fn app(functions: &BTreeMap<&str, serde_json::Value>) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    // The app's own, but that what these tests count on does not change with it.
    let host_json = include_str!("../../../host.json");
    let mut host_json: serde_json::Value = serde_json::from_str(host_json).unwrap();
    host_json["functionTimeout"] = "00:10:00".into();
    host_json["extensions"]["queues"]["maxDequeueCount"] = 5.into();
    fs::write(folder.path().join("host.json"), serde_json::to_vec_pretty(&host_json).unwrap()).unwrap();
    for (name, binding) in functions {
        fs::create_dir(folder.path().join(name)).unwrap();
        let mut bindings = vec![binding.clone()];
        if binding["type"] == "httpTrigger" {
            bindings.push(json!({ "type": "http", "direction": "out", "name": "res" }));
        }
        let function_json = json!({ "bindings": bindings }).to_string();
        fs::write(folder.path().join(name).join("function.json"), function_json).unwrap();
    }
    let handler = folder.path().join("coremachine");
    let binary = env::current_exe().unwrap();
    let script = format!("#!/bin/sh\nexec '{}' --exact {FAKE_HANDLER} --nocapture\n", binary.display());
    fs::write(&handler, script).unwrap();
    fs::set_permissions(&handler, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

const FAKE_HANDLER: &str = "functions_host::fake::the_fake_handler_serves_when_it_is_started_as_one";

#[tokio::test]
async fn the_fake_handler_serves_when_it_is_started_as_one() {
    let Ok(port) = env::var("FUNCTIONS_CUSTOMHANDLER_PORT") else { return };
    if let Ok(code) = env::var("FAKE_EXITS_WITH") {
        std::process::exit(code.parse().unwrap());
    }
    let router =
        axum::Router::new().route("/", get(|| async { "ready" })).route("/{function}", post(call)).fallback(echo);
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{port}")).await.unwrap();
    axum::serve(listener, router).await.unwrap();
}

async fn call(Path(function): Path<String>, request: Request) -> Response {
    let framing = if request.headers().contains_key("transfer-encoding") { "chunked" } else { "whole" };
    let body = axum::body::to_bytes(request.into_body(), usize::MAX).await.unwrap();
    if let Ok(timer) = TimerInvocation::parse(&body) {
        println!("fired {function} {}", timer.is_past_due);
        return Answer::Done.into_response();
    }
    let invocation = QueueInvocation::parse(&body).unwrap();
    let message = String::from_utf8_lossy(&invocation.message).into_owned();
    println!("handled {function} `{message}` {:?} {framing}", invocation.dequeue_count);
    match message.split(' ').next().unwrap_or_default() {
        "fail" => Answer::Failed.into_response(),
        "nothing" => StatusCode::NO_CONTENT.into_response(),
        "exit" => std::process::exit(0),
        "crash" => std::process::exit(3),
        "stuck" => std::future::pending().await,
        "slow" => {
            tokio::time::sleep(Duration::from_millis(30)).await;
            println!("finished `{message}`");
            Answer::Done.into_response()
        }
        _ => Answer::Done.into_response(),
    }
}

async fn echo(request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let header = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        (name.to_string(), value.to_str().unwrap().to_owned())
    };
    let headers: BTreeMap<_, _> = parts.headers.iter().map(header).collect();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let echo = json!({
        "method": parts.method.as_str(),
        "uri": parts.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(&body),
    });
    (StatusCode::ACCEPTED, [("Location", "/elsewhere")], echo.to_string()).into_response()
}
