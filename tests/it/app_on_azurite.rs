//! The packaged app under the test host on Azurite: what ships, run as the Functions host runs it.

use crate::functions_host::{Counters, Framing, FunctionsHost, Options};
use crate::support::{app, azurite, http_client};
use bytes::Bytes;
use coremachine::ports::{BlobName, ContainerName, Queue, Store};
use coremachine::store::azure::{self, Connection, StorageSettings};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a job may take here; far more than it does, since the machine may be busy with other tests.
pub(crate) const PATIENCE: Duration = Duration::from_mins(4);

/// The app, its host, and a client of it.
pub(crate) struct Running {
    store: Store,
    pub(crate) host: FunctionsHost,
    pub(crate) client: Client,
}

impl Running {
    async fn start(options: Options) -> Self {
        let connection = azurite::account();
        Self::start_on(&connection, &connection, options).await
    }

    /// On the account of `connection`, which the app's own setting `apps` may reach by another way than the host does.
    pub(crate) async fn start_on(connection: &str, apps: &str, options: Options) -> Self {
        let parsed = Connection::parse("AzureWebJobsStorage", connection).expect("a connection string");
        let settings = StorageSettings { state: parsed.clone(), data: parsed };
        let store = azure::connect(&settings).expect("a store");
        let host = FunctionsHost::start(&app::folder(), store.queues.clone(), apps, options).await;
        Self { store, host: host.unwrap_or_else(|fault| panic!("{fault}")), client: http_client() }
    }

    pub(crate) async fn submit(&self, job_type: &str, parameters: &Value) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let url = format!("{}/api/jobs/{job_type}", self.host.http());
        loop {
            // A handler that is killed under the request answers nothing; a client repeats, and it is the same job.
            if let Ok(answer) = self.client.post(&url).json(parameters).send().await
                && answer.status() == StatusCode::ACCEPTED
            {
                return answer.json().await.expect("a JSON answer");
            }
            assert!(Instant::now() < deadline, "the job was not accepted\n{}", self.host.output());
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Follows the completion link, as a pipeline does, until the job has ended.
    pub(crate) async fn completion(&self, submitted: &Value) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let link = submitted["links"]["completion"].as_str().expect("a link");
        loop {
            if let Ok(answer) = self.client.get(link).send().await {
                let status = answer.status();
                let body: Value = answer.json().await.unwrap_or_default();
                match status {
                    StatusCode::OK => return body,
                    StatusCode::ACCEPTED
                    | StatusCode::INTERNAL_SERVER_ERROR
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE => {}
                    status => panic!("{status}: {body}"),
                }
            }
            if Instant::now() > deadline {
                let status = self.status(submitted).await;
                panic!("the job has not ended: {status}\n{:?}\n{}", self.host.counters(), self.host.output());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn status(&self, submitted: &Value) -> Value {
        let link = submitted["links"]["self"].as_str().expect("a link");
        match self.client.get(link).send().await {
            Ok(answer) => answer.json().await.unwrap_or_default(),
            Err(error) => json!(error.to_string()),
        }
    }

    /// Puts `count` blobs into a container, the n-th of n bytes.
    pub(crate) async fn fill(&self, container: &str, count: u64) {
        let container = ContainerName::parse(container).expect("a name");
        self.store.data.create_container(&container).await.expect("a container");
        for number in 0..count {
            let name = BlobName::parse(&format!("folder {}/blob {number}.txt", number % 3)).expect("a name");
            let size = usize::try_from(number).expect("a size");
            self.store
                .data
                .write(&container, &name, Bytes::from(vec![b'x'; size]), "text/plain")
                .await
                .expect("a blob");
        }
    }

    /// Waits until nothing is under way; then every queue must be empty, poison included.
    pub(crate) async fn settled(&self) -> Counters {
        self.host.quiesced(PATIENCE).await.unwrap_or_else(|fault| panic!("{fault}"));
        for queue in Queue::ALL {
            let length = self.store.queues.length(queue).await.expect("a length");
            assert_eq!(length, 0, "{} holds messages\n{}", queue.name(), self.host.output());
        }
        self.host.counters()
    }
}

pub(crate) fn assert_listed(ended: &Value, count: u64) {
    let (result, total) = (&ended["result"], count * (count - 1) / 2);
    assert_eq!((ended["status"].as_str(), result["blob_count"].as_u64()), (Some("completed"), Some(count)), "{ended}");
    assert_eq!(result["analysis"]["total_size"], total);
    assert_eq!(result["analysis"]["by_extension"][".txt"]["count"], count);
    assert_eq!(ended["stages"][1]["tasks"], json!({ "total": count, "completed": count, "failed": 0, "pending": 0 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn both_jobs_complete_from_submission_to_result() {
    let app = Running::start(Options::default()).await;
    app.fill("docs", 60).await;
    let hello = app.submit("hello_world", &json!({ "message": "Welcome", "count": 2000 })).await;
    let listing = app.submit("list_container", &json!({ "container_name": "docs", "checksum": true })).await;
    assert_eq!(app.completion(&hello).await["result"], json!({ "greeting": "Welcome", "count": 2000 }));
    let listed = app.completion(&listing).await;
    assert_listed(&listed, 60);
    // printf '' | sha256sum
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(
        listed["result"]["analysis"]["analyses"][0]["sha256"], empty,
        "{}",
        listed["result"]["analysis"]["analyses"][0]
    );
    let counters = app.settled().await;
    assert_eq!((counters.failures, counters.hangs, counters.poisoned), (0, 0, 0), "{counters:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_container_is_refused_before_a_job_exists() {
    let app = Running::start(Options { framing: Framing::ContentLength, ..Options::default() }).await;
    let url = format!("{}/api/jobs/list_container", app.host.http());
    let answer = app.client.post(&url).json(&json!({ "container_name": "missing" })).send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let problem: Value = answer.json().await.expect("a problem");
    assert_eq!(
        (&problem["code"], &problem["errors"][0]["pointer"]),
        (&json!("invalid_parameters"), &json!("/container_name"))
    );
    app.settled().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_jobs_survive_kills_and_duplicates_with_exact_counts() {
    let options = Options { kill_every: Some(50), duplicate_every: Some(10), instances: 2, ..Options::default() };
    let app = Running::start(options).await;
    app.fill("docs", 120).await;
    app.fill("more", 40).await;
    let mut greetings = Vec::new();
    for (message, count) in [("one", 2000), ("two", 1000), ("three", 640)] {
        let parameters = json!({ "message": message, "count": count });
        greetings.push((app.submit("hello_world", &parameters).await, json!({ "greeting": message, "count": count })));
    }
    let docs = app.submit("list_container", &json!({ "container_name": "docs", "checksum": true })).await;
    let more = app.submit("list_container", &json!({ "container_name": "more" })).await;
    for (submitted, result) in &greetings {
        let ended = app.completion(submitted).await;
        assert_eq!((ended["status"].as_str(), &ended["result"]), (Some("completed"), result), "{ended}");
    }
    assert_listed(&app.completion(&docs).await, 120);
    assert_listed(&app.completion(&more).await, 40);
    let counters = app.settled().await;
    assert_eq!((counters.hangs, counters.poisoned), (0, 0), "{counters:?}");
    assert!(counters.kills >= 3 && counters.duplicates >= 10, "nothing was tried: {counters:?}");
    println!("{counters:?}");
}
