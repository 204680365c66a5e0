use super::analysis::BlobAnalysis;
use super::fake::FakeContainer;
use super::*;
use crate::contract::registry::Registry;
use sha2::{Digest, Sha256};
use std::sync::Arc;

fn job(parameters: &Value) -> ListContainer {
    serde_json::from_value(parameters.clone()).expect("parameters")
}

/// What the job is once its parameters were checked against the schema, as JSON, or the faults.
fn accepted(parameters: &Value) -> Result<Value, Vec<(String, String)>> {
    let registry = Registry::linked().expect("a registry");
    let job_type = registry.get("list_container").expect("registered");
    match job_type.read(parameters) {
        Ok(job) => Ok(job.parameters().expect("parameters")),
        Err(faults) => Err(faults.into_iter().map(|fault| (fault.pointer, fault.detail)).collect()),
    }
}

async fn listed(container: &FakeContainer, parameters: Value) -> TaskResult<Vec<BlobProperties>> {
    let listing = ListBlobs(job(&parameters)).execute(&container.context()).await?;
    assert_eq!(listing.blob_count, listing.blobs.len());
    Ok(listing.blobs.into_iter().map(BlobProperties::from).collect())
}

async fn names(container: &FakeContainer, parameters: Value) -> Vec<String> {
    listed(container, parameters).await.expect("a listing").into_iter().map(|blob| blob.name).collect()
}

async fn analyzed(container: &FakeContainer, blob: BlobProperties, checksum: bool) -> TaskResult<BlobAnalysis> {
    let container_name = ContainerName::parse("bronze").expect("a name");
    AnalyzeBlob { container_name, checksum, blob: blob.into() }.execute(&container.context()).await
}

#[test]
fn the_canonical_form_has_the_defaults_and_no_absent_parameter() {
    assert_eq!(
        accepted(&json!({"container_name": "bronze", "prefix": null, "min_size": null})),
        Ok(json!({"container_name": "bronze", "limit": 100_000, "checksum": false}))
    );
}

#[test]
fn extensions_that_mean_the_same_are_the_same_job() {
    let canonical = Ok(json!({
        "container_name": "bronze", "extensions": [".jpg", ".tif"], "limit": 100_000, "checksum": false
    }));
    for same in [json!([".tif", ".jpg"]), json!(["JPG", "TIF"]), json!([".jpg", ".TIF", "tif", "jpg"])] {
        assert_eq!(accepted(&json!({"container_name": "bronze", "extensions": same})), canonical);
    }
}

#[test]
fn parameters_out_of_range_are_named_all_at_once() {
    let faults = accepted(&json!({
        "prefix": "", "extensions": [], "min_size": -1, "max_size": 1.5, "limit": 1_000_001, "checksum": "yes", "foo": 1
    }))
    .expect_err("seven faults and one missing");
    let pointers: Vec<_> = faults.iter().map(|(pointer, _)| pointer.as_str()).collect();
    assert_eq!(
        pointers,
        ["/checksum", "/container_name", "/extensions", "/foo", "/limit", "/max_size", "/min_size", "/prefix"]
    );
}

#[test]
fn what_is_no_extension_is_named_by_its_place() {
    let faults = accepted(&json!({"container_name": "bronze", "extensions": [".tif", "*.jpg"]}));
    let detail = "`*.jpg` is not an extension; write it like `.tif` or `.tar.gz`";
    assert_eq!(faults, Err(vec![("/extensions/1".to_owned(), detail.to_owned())]));
}

#[tokio::test]
async fn a_missing_container_and_crossed_sizes_refuse_the_submission() {
    let context = SubmitContext { data: Arc::new(FakeContainer::default()) };
    let crossed = job(&json!({"container_name": "absent", "min_size": 10, "max_size": 5}));
    let faults = Job::check(&crossed, &context).await.expect("a container that answers");
    assert_eq!(
        faults,
        [
            ParameterFault::new(
                "/container_name",
                "there is no container `absent`; create it, or name one of the storage that `COREMACHINE_DATA` points to"
            ),
            ParameterFault::new("/min_size", "must be at most `max_size` (5), got 10"),
        ]
    );
    let fine = job(&json!({"container_name": "bronze", "min_size": 5, "max_size": 5}));
    assert_eq!(Job::check(&fine, &context).await.expect("a container that answers"), []);
}

#[tokio::test]
async fn every_page_is_listed() {
    let container = FakeContainer::with(&[("a", b"1"), ("b", b"2"), ("c", b"3"), ("d", b"4"), ("e", b"5")]);
    let blobs = listed(&container, json!({"container_name": "bronze"})).await.expect("a listing");
    assert_eq!(blobs.iter().map(|blob| blob.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d", "e"]);
    assert_eq!(blobs[0], container.properties_of("a"));
    assert_eq!(container.requests(), ["list", "list", "list"]);
}

#[tokio::test]
async fn an_empty_container_has_no_blobs() {
    assert!(names(&FakeContainer::default(), json!({"container_name": "bronze"})).await.is_empty());
}

#[tokio::test]
async fn filters_apply_together() {
    let container = FakeContainer::with(&[
        ("in/large.tif", b"12345"),
        ("in/right.TIF", b"123"),
        ("in/right.txt", b"123"),
        ("in/small.tif", b"1"),
        ("out/right.tif", b"123"),
    ]);
    let all = json!({
        "container_name": "bronze", "prefix": "in/", "extensions": ["tif"], "min_size": 2, "max_size": 4
    });
    assert_eq!(names(&container, all).await, ["in/right.TIF"]);
    let bounds_included = json!({"container_name": "bronze", "min_size": 1, "max_size": 1});
    assert_eq!(names(&container, bounds_included).await, ["in/small.tif"]);
}

#[tokio::test]
async fn one_blob_more_than_the_limit_is_an_error_that_says_so() {
    let container = FakeContainer::with(&[("a.tif", b""), ("b.txt", b""), ("c.tif", b""), ("d.tif", b"")]);
    let parameters = |limit| json!({"container_name": "bronze", "extensions": [".tif"], "limit": limit});
    assert_eq!(names(&container, parameters(3)).await, ["a.tif", "c.tif", "d.tif"]);
    let error = listed(&container, parameters(2)).await.expect_err("three blobs match");
    assert_eq!((&*error.code, error.retryable), ("too_many_blobs", false));
    assert_eq!(
        error.message,
        "more than 2 blobs of `bronze` match; raise `limit` (at most 1000000), or ask for fewer by `prefix`, `extensions`, `min_size` or `max_size`"
    );
}

#[tokio::test]
async fn a_container_deleted_after_the_submission_is_a_named_failure() {
    let error = listed(&FakeContainer::default(), json!({"container_name": "absent"})).await.expect_err("no container");
    assert_eq!((&*error.code, error.retryable), ("container_not_found", false));
}

#[tokio::test]
async fn an_unchanged_blob_is_analyzed_by_one_request() {
    let container = FakeContainer::with(&[("a/Note.TXT", b"Hello")]);
    let blob = container.properties_of("a/Note.TXT");
    let analysis = analyzed(&container, blob.clone(), false).await.expect("an analysis");
    assert_eq!(
        serde_json::to_value(analysis).expect("json"),
        json!({
            "name": "a/Note.TXT", "size": 5, "content_type": "application/octet-stream", "detected_type": "text/plain",
            "extension": ".txt", "last_modified": blob.last_modified, "etag": blob.etag
        })
    );
    assert_eq!(container.requests(), ["read 0..8192"]);
}

#[tokio::test]
async fn the_checksum_is_of_every_byte_read_in_ranges() {
    let body: Vec<u8> = (0..=250u8).cycle().take(9_000_000).collect();
    let container = FakeContainer::with(&[("large", &body)]);
    let analysis = analyzed(&container, container.properties_of("large"), true).await.expect("an analysis");
    assert_eq!(analysis.sha256, Some(format!("{:x}", Sha256::digest(&body))));
    assert_eq!(
        container.requests(),
        ["read 0..8192", "read 8192..4202496", "read 4202496..8396800", "read 8396800..12591104"]
    );
}

#[tokio::test]
async fn an_empty_blob_has_a_checksum_and_no_type() {
    let container = FakeContainer::with(&[("empty", b"")]);
    let analysis = analyzed(&container, container.properties_of("empty"), true).await.expect("an analysis");
    assert_eq!(analysis.sha256.as_deref(), Some("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"));
    assert_eq!((analysis.detected_type, analysis.extension), (None, None));
}

#[tokio::test]
async fn a_blob_deleted_since_it_was_listed_is_a_finding() {
    let container = FakeContainer::with(&[("a.txt", b"Hello")]);
    let blob = container.properties_of("a.txt");
    container.remove("a.txt");
    let analysis = analyzed(&container, blob.clone(), true).await.expect("a finding");
    assert_eq!(analysis, BlobAnalysis { gone: true, ..blob.into() });
}

#[tokio::test]
async fn a_blob_deleted_while_it_is_looked_at_is_the_same_finding() {
    let container = FakeContainer::with(&[("a.txt", b"Hello")]);
    let blob = container.properties_of("a.txt");
    container.put("a.txt", b"Hello again");
    container.after_requests(1, |container| container.remove("a.txt"));
    let analysis = analyzed(&container, blob, false).await.expect("a finding");
    assert!(analysis.gone);
    assert_eq!(container.requests(), ["read 0..8192", "properties"]);
}

#[tokio::test]
async fn a_blob_written_since_it_was_listed_is_analyzed_as_it_is_now() {
    let container = FakeContainer::with(&[("a", b"Hello")]);
    let blob = container.properties_of("a");
    container.put("a", b"%PDF-1.7");
    let analysis = analyzed(&container, blob, true).await.expect("an analysis");
    assert_eq!(analysis.etag, container.properties_of("a").etag);
    assert_eq!((analysis.size, analysis.detected_type.as_deref()), (8, Some("application/pdf")));
    assert_eq!(analysis.sha256, Some(format!("{:x}", Sha256::digest(b"%PDF-1.7"))));
}

#[tokio::test]
async fn a_blob_written_in_the_middle_of_its_checksum_is_tried_again() {
    let container = FakeContainer::with(&[("a", &[1; 10_000])]);
    let blob = container.properties_of("a");
    container.after_requests(1, |container| container.put("a", &[2; 10_000]));
    let error = analyzed(&container, blob.clone(), true).await.expect_err("two versions");
    assert!(error.retryable);
    let analysis = analyzed(&container, blob, true).await.expect("an analysis");
    assert_eq!(analysis.sha256, Some(format!("{:x}", Sha256::digest([2; 10_000]))));
}

#[tokio::test]
async fn a_blob_whose_content_storage_refuses_is_a_finding_that_says_why() {
    let container = FakeContainer::with(&[("cold.tif", b"II*\0")]);
    container.archive("cold.tif");
    let blob = container.properties_of("cold.tif");
    let analysis = analyzed(&container, blob.clone(), false).await.expect("a finding");
    let why = Some("reading `cold.tif`: storage refused: the blob is archived".to_owned());
    assert_eq!(analysis, BlobAnalysis { unreadable: why, ..blob.into() });
}

#[tokio::test]
async fn a_listed_name_that_cannot_be_asked_for_is_a_finding() {
    let container = FakeContainer::with(&[("a/../b", b"Hello")]);
    let analysis = analyzed(&container, container.properties_of("a/../b"), false).await.expect("a finding");
    assert_eq!(
        analysis.unreadable.as_deref(),
        Some("`a/../b` is not a blob name: `.` and `..` are not path segments of a blob")
    );
    assert!(container.requests().is_empty());
}
