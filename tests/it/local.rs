//! `coremachine run` and `coremachine dev`: the embedded engine, as a user starts it.

use crate::support;
use coremachine::contract::JobId;
use coremachine::contract::registry::Registry;
use coremachine::machine::{CoreMachine, JobReport};
use coremachine::store::{EmbeddedStore, SystemEnvironment};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const BINARY: &str = env!("CARGO_BIN_EXE_coremachine");

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

async fn run(folder: &Path, arguments: &[&str]) -> Output {
    let command = Command::new(BINARY).args(arguments).current_dir(folder).stdin(Stdio::null()).output();
    tokio::time::timeout(Duration::from_mins(2), command).await.expect("it ends").expect("it starts")
}

fn stdout_json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn run_prints_the_result_and_nothing_else() {
    let folder = folder();
    let output = run(folder.path(), &["run", "hello_world", "message=Welcome"]).await;
    assert_eq!((output.status.code(), stderr(&output).as_str()), (Some(0), ""));
    assert_eq!(stdout_json(&output), json!({ "greeting": "Welcome", "count": 1 }));
}

#[tokio::test]
async fn run_does_ended_work_afresh() {
    let (folder, docs) = (folder(), folder());
    let container = format!("docs={}", docs.path().display());
    let arguments = ["run", "list_container", "container_name=docs", "--container", &container];
    for count in 0..3 {
        let output = run(folder.path(), &arguments).await;
        assert_eq!(stdout_json(&output)["blob_count"], count, "{output:?}");
        fs::write(docs.path().join(format!("{count}.txt")), "text").expect("a file");
    }
}

#[tokio::test]
async fn run_lists_thousands_of_real_files_exactly() {
    let (folder, docs) = (folder(), folder());
    let mut total = 0;
    for number in 0..3000_usize {
        let (extension, body) = match number % 3 {
            0 => ("txt", "text\n".repeat(number % 50)),
            1 => ("json", format!("{{\"n\":{number}}}")),
            _ => ("pdf", format!("%PDF-1.7\n{number}")),
        };
        let nested = docs.path().join(format!("level {}/é {}", number % 7, number % 11));
        fs::create_dir_all(&nested).expect("a folder");
        fs::write(nested.join(format!("{number}.{extension}")), &body).expect("a file");
        total += body.len();
    }
    let container = format!("docs={}", docs.path().display());
    let output = run(folder.path(), &["run", "list_container", "container_name=docs", "--container", &container]).await;
    let result = stdout_json(&output);
    let analysis = &result["analysis"];
    assert_eq!((result["blob_count"].as_u64(), analysis["total_size"].as_u64()), (Some(3000), Some(total as u64)));
    for (extension, media_type) in
        [(".txt", None), (".json", Some("application/json")), (".pdf", Some("application/pdf"))]
    {
        assert_eq!(analysis["by_extension"][extension]["count"], 1000, "{extension}");
        if let Some(media_type) = media_type {
            assert_eq!(analysis["by_type"][media_type]["count"], 1000, "{media_type}: {}", analysis["by_type"]);
        }
    }
    assert_eq!(analysis["analyses"].as_array().map(Vec::len), Some(1000));
    let all = folder
        .path()
        .join(".coremachine/payloads")
        .join(analysis["analyses_blob"]["container"].as_str().expect("a container"));
    let all =
        fs::read_to_string(all.join(analysis["analyses_blob"]["name"].as_str().expect("a name"))).expect("a file");
    assert_eq!(all.lines().count(), 3000);
}

#[tokio::test]
async fn wrong_usage_is_told_in_words_and_exits_with_2() {
    let folder = folder();
    for (arguments, words) in [
        (vec!["run", "helo"], "there is no job type `helo`; the registered ones are hello_world, list_container"),
        (
            vec!["run", "hello_world", "count=0", "colour=red"],
            "/colour: is not a parameter of this job type; remove it",
        ),
        (vec!["run", "hello_world", "message"], "expected name=value, got `message`"),
        (vec!["run", "hello_world", "--params", "missing.json"], "reading the parameters from `missing.json`"),
        (vec!["run", "list_container", "container_name=none"], "/container_name"),
        (vec!["run", "hello_world", "--container", "Docs=."], "is not a container name"),
        (vec!["dev", "--storage", "AccountName=a;AccountKey=se cret"], "--storage"),
        (vec![], "name a command, or set FUNCTIONS_CUSTOMHANDLER_PORT"),
    ] {
        let output = run(folder.path(), &arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
        assert!(output.stdout.is_empty() && !stderr(&output).contains("se cret"), "{arguments:?}");
    }
}

/// A local server on a free port.
struct Dev {
    child: Child,
    base: String,
}

impl Dev {
    async fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[]).await
    }

    async fn start_with(folder: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(BINARY)
            .args(["dev", "--port", "0"])
            .args(arguments)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let line = lines.next_line().await.expect("a line").expect("it says where it listens");
        let base = line.split_whitespace().last().expect("an address").to_owned();
        Self { child, base }
    }

    async fn submit(&self, client: &Client, job_type: &str, parameters: &Value) -> String {
        let answer = client.post(format!("{}/jobs/{job_type}", self.base)).json(parameters);
        let submitted: Value = answer.send().await.expect("an answer").json().await.expect("JSON");
        submitted["job_id"].as_str().expect("an id").to_owned()
    }

    async fn status(&self, client: &Client, id: &str) -> Value {
        let answer = client.get(format!("{}/jobs/{id}", self.base)).send().await;
        answer.expect("an answer").json().await.expect("JSON")
    }

    /// Waits until a stage is open and so many of its tasks have ended.
    async fn reaches(&self, client: &Client, id: &str, stage: usize, completed: usize) {
        let waited = async {
            loop {
                let status = self.status(client, id).await;
                match status["stages"][stage - 1]["tasks"]["completed"].as_u64() {
                    Some(reached) if reached >= completed as u64 => return,
                    Some(_) | None => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        };
        tokio::time::timeout(Duration::from_mins(1), waited).await.expect("the job comes so far");
    }

    /// Submits the same work again, and waits for its end.
    async fn ended(&self, client: &Client, job_type: &str, parameters: &Value) -> Value {
        let waited = async {
            loop {
                let answer = client.post(format!("{}/jobs/{job_type}", self.base)).header("prefer", "wait=60");
                let answer = answer.json(parameters).send().await.expect("an answer");
                if answer.status() == StatusCode::OK {
                    return answer.json().await.expect("JSON");
                }
            }
        };
        tokio::time::timeout(Duration::from_mins(3), waited).await.expect("the job ends")
    }

    async fn kill(mut self) {
        self.child.kill().await.expect("SIGKILL");
    }
}

#[tokio::test]
async fn a_job_survives_kill_9_in_its_middle() {
    let folder = folder();
    let client = support::http_client();
    let dev = Dev::start(folder.path()).await;
    let parameters = json!({ "message": "on", "count": 30_000 });
    let id = dev.submit(&client, "hello_world", &parameters).await;
    // Killed as soon as it is under way, and again whenever it has gone on a little.
    let (mut dev, mut kills, mut reached) = (dev, 0, 0.0);
    while kills < 4 {
        let status = dev.status(&client, &id).await;
        let progress = status["progress"].as_f64().expect("a number");
        assert_ne!(status["status"], "completed", "too quick to be killed: raise the count");
        if progress > reached {
            reached = progress + 0.1;
            kills += 1;
            dev.kill().await;
            dev = Dev::start(folder.path()).await;
        } else {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let ended = dev.ended(&client, "hello_world", &parameters).await;
    assert_eq!(
        (&ended["status"], &ended["result"]),
        (&json!("completed"), &json!({ "greeting": "on", "count": 30_000 }))
    );
    assert_eq!(ended["stages"][0]["tasks"]["completed"], 30_000);
}

#[tokio::test]
async fn a_job_of_two_stages_survives_kill_9_in_each() {
    const FILES: usize = 5000;
    let (folder, docs) = (folder(), folder());
    let mut total = 0;
    for number in 0..FILES {
        fs::write(docs.path().join(format!("{number}.txt")), "x".repeat(number % 100)).expect("a file");
        total += number % 100;
    }
    let container = format!("docs={}", docs.path().display());
    let arguments = ["--container", container.as_str()];
    let parameters = json!({ "container_name": "docs" });
    let client = support::http_client();
    let mut dev = Dev::start_with(folder.path(), &arguments).await;
    let id = dev.submit(&client, "list_container", &parameters).await;
    // Twice while the one task of stage 1 lists or its stage is closed, and twice between the batches of stage 2.
    let mut kept = 0;
    for (stage, completed) in [(1, 0), (1, 0), (2, 1), (2, FILES / 3)] {
        dev.reaches(&client, &id, stage, completed).await;
        dev.kill().await;
        let report = at_rest(folder.path(), &id).await;
        assert_eq!(report.job.stage as usize, stage, "too quick to be killed in stage {stage}: raise the count");
        let tally = report.stages[stage - 1].tally;
        if stage == 2 {
            assert!(tally.completed >= kept && tally.completed < FILES as u64, "{} after {kept}", tally.completed);
            kept = tally.completed;
        }
        dev = Dev::start_with(folder.path(), &arguments).await;
    }
    let ended = dev.ended(&client, "list_container", &parameters).await;
    let (result, analysis) = (&ended["result"], &ended["result"]["analysis"]);
    assert_eq!((ended["status"].as_str(), result["blob_count"].as_u64()), (Some("completed"), Some(FILES as u64)));
    assert_eq!((&analysis["total_size"], &analysis["by_extension"][".txt"]["count"]), (&json!(total), &json!(FILES)));
    for (stage, count) in [(0, 1), (1, FILES)] {
        let tasks = json!({ "total": count, "completed": count, "failed": 0, "pending": 0 });
        assert_eq!(ended["stages"][stage]["tasks"], tasks, "stage {}", stage + 1);
    }
}

/// A job as a process that was killed has left it.
async fn at_rest(folder: &Path, id: &str) -> JobReport {
    let environment = Arc::new(SystemEnvironment);
    let store =
        EmbeddedStore::open(&folder.join(".coremachine"), Arc::clone(&environment) as _, Vec::new()).expect("a store");
    let registry = Registry::linked().expect("the registered jobs");
    let machine = CoreMachine::new(Arc::new(registry), store, environment);
    let report = machine.status(&JobId::parse(id).expect("an id")).await;
    report.expect("it is read").expect("it is there")
}

#[tokio::test]
async fn one_folder_has_one_engine() {
    let folder = folder();
    let dev = Dev::start(folder.path()).await;
    let output = run(folder.path(), &["run", "hello_world"]).await;
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains(".coremachine"), "{}", stderr(&output));
    dev.kill().await;
    assert_eq!(run(folder.path(), &["run", "hello_world"]).await.status.code(), Some(0));
}

#[tokio::test]
async fn run_leaves_a_job_that_it_may_not_wait_for_and_goes_on_with_it() {
    let folder = folder();
    let arguments = ["run", "hello_world", "count=20000", "--timeout", "0"];
    let output = run(folder.path(), &arguments).await;
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("run the same command again to go on with it"), "{}", stderr(&output));
    let output = run(folder.path(), &arguments[..3]).await;
    assert_eq!(stdout_json(&output), json!({ "greeting": "Hello", "count": 20_000 }));
}
