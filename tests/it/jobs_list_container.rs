//! `list_container` from submission to result.

use bytes::Bytes;
use coremachine::machine::{Delivery, SubmitError};
use coremachine::model::JobStatus;
use coremachine::ports::{BlobName, ContainerName, Queue};
use coremachine::testing::Bench;
use serde_json::{Value, json};
use std::time::Duration;

/// A bench with a container `bronze` that holds these blobs.
async fn bronze(blobs: impl IntoIterator<Item = (String, &'static [u8])>) -> Bench {
    let bench = Bench::new();
    let data = bench.store().data;
    let bronze = container("bronze");
    data.create_container(&bronze).await.expect("a container");
    for (name, body) in blobs {
        data.write(&bronze, &blob(&name), Bytes::from_static(body), "application/octet-stream").await.expect("a blob");
    }
    bench
}

fn container(name: &str) -> ContainerName {
    ContainerName::parse(name).expect("a container's name")
}

fn blob(name: &str) -> BlobName {
    BlobName::parse(name).expect("a blob's name")
}

/// Delivers one message of a queue that must have one.
async fn deliver_one(bench: &Bench, queue: Queue) {
    let queues = bench.store().queues;
    let message = queues.receive(queue, 1, Duration::from_mins(1)).await.expect("messages").remove(0);
    let done = match queue {
        Queue::Stages => bench.machine().advance_stage(&message.body, Delivery::First).await,
        _ => bench.machine().process_task(&message.body, Delivery::First).await,
    };
    done.expect("processed");
    queues.delete(queue, &message.receipt).await.expect("deleted");
}

#[tokio::test]
async fn blobs_are_listed_analyzed_and_summed_up() {
    let bench = bronze([
        ("in/a.tif".to_owned(), &b"II*\0\x08\0\0\0\x10\0"[..]),
        ("in/b.TXT".to_owned(), b"Hello"),
        ("in/c.tif".to_owned(), b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0"),
        ("out/d.tif".to_owned(), b"not looked at"),
    ])
    .await;
    let report = bench.run("list_container", json!({"container_name": "bronze", "prefix": "in/"})).await;
    assert_eq!(report.job.status, JobStatus::Completed);
    assert_eq!(report.stages.iter().map(|stage| stage.tally.completed).collect::<Vec<_>>(), [1, 3]);

    let now = bench.now();
    let seen = |name: &str, size: u64| json!({"name": name, "size": size, "last_modified": now});
    let analysis = |name: &str, size: u64, extension: &str, detected_type: &str, etag: &str| {
        json!({
            "name": name, "size": size, "content_type": "application/octet-stream", "detected_type": detected_type,
            "extension": extension, "last_modified": now, "etag": etag
        })
    };
    let tiffs = json!({"count": 2, "size": 25, "share": 25.0 / 30.0});
    let texts = json!({"count": 1, "size": 5, "share": 5.0 / 30.0});
    assert_eq!(
        report.result,
        json!({
            "container": "bronze",
            "blob_count": 3,
            "analysis": {
                "total_blobs": 3,
                "total_size": 30,
                "gone": 0,
                "unreadable": 0,
                "by_extension": { ".tif": tiffs, ".txt": texts },
                "by_type": { "image/tiff": tiffs, "text/plain": texts },
                "largest": [seen("in/c.tif", 15), seen("in/a.tif", 10), seen("in/b.TXT", 5)],
                "smallest": seen("in/b.TXT", 5),
                "average_size": 10,
                "newest": seen("in/a.tif", 10),
                "oldest": seen("in/a.tif", 10),
                "analyses": [
                    analysis("in/a.tif", 10, ".tif", "image/tiff", "1"),
                    analysis("in/b.TXT", 5, ".txt", "text/plain", "2"),
                    analysis("in/c.tif", 15, ".tif", "image/tiff", "3"),
                ],
            }
        })
    );
}

#[tokio::test]
async fn an_empty_container_comes_to_nothing() {
    let report = bronze([]).await.run("list_container", json!({"container_name": "bronze"})).await;
    assert_eq!(report.job.status, JobStatus::Completed);
    assert_eq!((&report.result["blob_count"], &report.result["analysis"]["total_blobs"]), (&json!(0), &json!(0)));
}

#[tokio::test]
async fn a_missing_container_is_refused_before_a_job_exists() {
    let bench = Bench::new();
    let refusal = bench.submit("list_container", json!({"container_name": "absent"})).await.expect_err("no container");
    let SubmitError::InvalidParameters(faults) = refusal else { panic!("{refusal}") };
    assert_eq!(faults.iter().map(|fault| fault.pointer.as_str()).collect::<Vec<_>>(), ["/container_name"]);
    assert_eq!(bench.store().queues.length(Queue::Stages).await.expect("a length"), 0);
}

#[tokio::test]
async fn the_same_filters_written_differently_are_one_job() {
    let bench = bronze([]).await;
    let submit = |extensions: Value| {
        bench.submit("list_container", json!({"container_name": "bronze", "extensions": extensions}))
    };
    let first = submit(json!([".tif", ".jpg"])).await.expect("accepted");
    let second = submit(json!(["JPG", "TIF"])).await.expect("accepted");
    assert_eq!((first.job.job_id, first.deduplicated), (second.job.job_id, false));
    assert!(second.deduplicated);
}

#[tokio::test]
async fn more_blobs_than_the_limit_fail_the_job_at_once_and_in_words() {
    let bench = bronze([("a".to_owned(), &b""[..]), ("b".to_owned(), b"")]).await;
    let report = bench.run("list_container", json!({"container_name": "bronze", "limit": 1})).await;
    assert_eq!(report.job.status, JobStatus::Failed);
    let failure = report.job.error.expect("an error");
    assert_eq!((failure.stage, failure.tasks[0].code.as_str()), (1, "too_many_blobs"));
}

#[tokio::test]
async fn a_blob_deleted_between_the_stages_is_a_finding() {
    let bench = bronze([("a".to_owned(), &b"Hello"[..]), ("b".to_owned(), b"World")]).await;
    let job = bench.submit("list_container", json!({"container_name": "bronze"})).await.expect("accepted").job;
    deliver_one(&bench, Queue::Stages).await;
    deliver_one(&bench, Queue::Tasks).await;
    bench.store().data.delete(&container("bronze"), &blob("a")).await.expect("deleted");
    bench.settle().await;

    let report = bench.report(&job.job_id).await;
    assert_eq!(report.job.status, JobStatus::Completed);
    assert_eq!(report.result["blob_count"], 2);
    let analysis = &report.result["analysis"];
    assert_eq!(
        (&analysis["gone"], &analysis["total_blobs"], &analysis["total_size"]),
        (&json!(1), &json!(1), &json!(5))
    );
    assert_eq!((&analysis["analyses"][0]["name"], &analysis["analyses"][0]["gone"]), (&json!("a"), &json!(true)));
}

#[tokio::test]
async fn beyond_a_thousand_all_analyses_are_kept_as_lines() {
    let bench = bronze((0..1234).map(|index| (format!("{index:04}.txt"), &b"Hello"[..]))).await;
    let report = bench.run("list_container", json!({"container_name": "bronze", "checksum": true})).await;
    let analysis = &report.result["analysis"];
    assert_eq!(analysis["analyses"].as_array().map(Vec::len), Some(1000));

    let kept = &analysis["analyses_blob"];
    let text = |member: &str| kept[member].as_str().expect("text");
    let lines = bench
        .store()
        .payloads
        .read(&container(text("container")), &blob(text("name")), 0..u64::MAX, None)
        .await
        .expect("the blob");
    assert_eq!(kept["size"], lines.len());
    let lines: Vec<Value> = lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).expect("a line of JSON"))
        .collect();
    assert_eq!(lines.len(), 1234);
    assert_eq!(&lines[..1000], analysis["analyses"].as_array().expect("a list"));
    assert_eq!(lines[1233]["sha256"], "185f8db32271fe25f561a6fc938b2e264306ec304eda518007d1764826381969");
}
