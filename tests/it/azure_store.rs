//! What is special to the Azure adapter, on Azurite and on answers written in advance.

use crate::support::{azurite, canned};
use bytes::Bytes;
use coremachine::ports::{
    BlobName, CommitError, ContainerName, Query, Queue, Select, Store, StoreError, Table, Tables, TablesExt as _, Write,
};
use coremachine::store::azure::{self, Connection, StorageSettings};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::error::Error;
use std::time::{Duration, Instant};

const SETTING: &str = "AzureWebJobsStorage";
const HIDDEN: Duration = Duration::from_mins(1);

type Check = fn(&StoreError) -> bool;

fn connect(text: &str) -> Store {
    let connection = Connection::parse(SETTING, text).expect("a connection string");
    azure::connect(&StorageSettings { state: connection.clone(), data: connection }).expect("a store")
}

fn fresh() -> Store {
    connect(&azurite::account())
}

fn insert(key: &str, document: Value) -> Write {
    Write::Insert { key: key.to_owned(), document }
}

fn everything(partition: &str) -> Query<'_> {
    Query { table: Table::Jobs, partition, from: "", to: None, limit: 1000, select: Select::Documents }
}

fn container(name: &str) -> ContainerName {
    ContainerName::parse(name).expect("a container's name")
}

/// Everything that a log could show of an error.
fn shown(error: &StoreError) -> String {
    let causes = std::iter::successors(Some(error as &dyn Error), |&cause| cause.source());
    causes.map(|cause| format!("{cause} | {cause:?}")).collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn of_parallel_replaces_of_one_version_exactly_one_succeeds() {
    let tables = fresh().tables;
    tables.commit(Table::Jobs, "p", vec![insert("row", json!({ "n": 0 }))]).await.expect("inserted");
    let etag = tables.get(Table::Jobs, "p", "row").await.expect("read").expect("a row").etag;
    let attempts = (1..=16).map(|n| {
        let replace = Write::Replace { key: "row".to_owned(), etag: etag.clone(), document: json!({ "n": n }) };
        // Every other one in a batch, which goes another way.
        let others = (n % 2 == 0).then(|| insert(&format!("other-{n}"), json!({})));
        tables.commit(Table::Jobs, "p", [replace].into_iter().chain(others).collect())
    });
    let outcomes = join_all(attempts).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    for error in outcomes.into_iter().filter_map(Result::err) {
        assert!(matches!(error, CommitError { index: 0, error: StoreError::Conflict(_) }), "{error:?}");
    }
}

#[tokio::test]
async fn a_failed_batch_says_which_write_failed_and_changes_nothing() {
    let tables = fresh().tables;
    let rows = [insert("taken", json!({ "n": 1 })), insert("stale", json!({ "n": 1 }))];
    tables.commit(Table::Jobs, "p", rows.to_vec()).await.expect("inserted");
    let etag = tables.get(Table::Jobs, "p", "stale").await.expect("read").expect("a row").etag;
    let replace = |key: &str| Write::Replace { key: key.to_owned(), etag: etag.clone(), document: json!({ "n": 2 }) };
    tables.commit(Table::Jobs, "p", vec![replace("stale")]).await.expect("replaced");

    let good = || (0..7).map(|n| insert(&format!("good-{n}"), json!({}))).collect::<Vec<_>>();
    let cases: [(Write, Check); 5] = [
        (insert("taken", json!({})), |error| matches!(error, StoreError::AlreadyExists(_))),
        (replace("stale"), |error| matches!(error, StoreError::Conflict(_))),
        (replace("missing"), |error| matches!(error, StoreError::Conflict(_))),
        (Write::Delete { key: "missing".to_owned() }, |error| matches!(error, StoreError::NotFound(_))),
        (insert("taken", json!({ "a": "x".repeat(300_000) })), |error| matches!(error, StoreError::Rejected { .. })),
    ];
    for (bad, check) in cases {
        for position in [0, 3, 7] {
            let mut writes = good();
            writes.insert(position, bad.clone());
            let error = tables.commit(Table::Jobs, "p", writes).await.expect_err("a failed commit");
            assert_eq!(error.index, position, "{bad:?}: {error:?}");
            assert!(check(&error.error), "{bad:?}: {error:?}");
        }
        let error = tables.commit(Table::Jobs, "p", vec![bad]).await.expect_err("a failed commit");
        assert!(error.index == 0 && check(&error.error), "{error:?}");
    }
    assert_eq!(tables.query_all(everything("p")).await.expect("read").len(), 2);
}

#[tokio::test]
async fn a_query_goes_on_past_a_thousand_rows() {
    let tables = fresh().tables;
    let key = |n: usize| format!("{n:05}");
    for start in (0..2100).step_by(100) {
        let writes = (start..start + 100).map(|n| insert(&key(n), json!({ "n": n }))).collect();
        tables.commit(Table::Outcomes, "p", writes).await.expect("inserted");
    }
    let query = Query { table: Table::Outcomes, select: Select::Keys, ..everything("p") };
    let first = tables.query(query.clone()).await.expect("a page");
    assert_eq!((first.rows.len(), first.next.is_some()), (1000, true));
    let all = tables.query_all(query.clone()).await.expect("all rows");
    assert!(all.iter().map(|row| row.key.clone()).eq((0..2100).map(key)));
    assert!(all.iter().all(|row| row.document.is_null() && !row.etag.0.is_empty()));

    let part = Query { from: "00995", to: Some("01005"), limit: 3, select: Select::Documents, ..query };
    let part = tables.query_all(part).await.expect("a range");
    assert!(part.iter().map(|row| row.document["n"].as_u64()).eq((995..1005).map(Some)));
}

#[tokio::test]
async fn a_version_from_a_query_or_a_read_is_the_same_and_is_accepted() {
    let tables = fresh().tables;
    tables.commit(Table::Jobs, "p", vec![insert("row", json!({}))]).await.expect("inserted");
    let read = tables.get(Table::Jobs, "p", "row").await.expect("read").expect("a row");
    for select in [Select::Keys, Select::Documents] {
        let page = tables.query(Query { select, ..everything("p") }).await.expect("a page");
        assert_eq!(page.rows[0].etag, read.etag);
    }
    let replace = Write::Replace { key: "row".to_owned(), etag: read.etag, document: json!({ "n": 1 }) };
    tables.commit(Table::Jobs, "p", vec![replace]).await.expect("replaced");
}

#[tokio::test]
async fn a_large_document_of_any_characters_reads_back() {
    let tables = fresh().tables;
    let documents: Vec<_> = ["x", "ü", "日本", "\u{1F680}", "\"\\\n\u{7f}", "a\u{1F680}", "</script>&amp;\r\n"]
        .map(|filler| json!({ "text": filler.repeat(120_000 / filler.len()), "float": 0.1, "big": u64::MAX, "none": null }))
        .into();
    for (n, document) in documents.iter().enumerate() {
        let alone = tables.commit(Table::Jobs, "alone", vec![insert(&format!("{n}"), document.clone())]).await;
        alone.expect("inserted");
    }
    let writes = documents.iter().enumerate().map(|(n, document)| insert(&format!("{n}"), document.clone())).collect();
    tables.commit(Table::Jobs, "batch", writes).await.expect("inserted");
    for partition in ["alone", "batch"] {
        let rows = tables.query_all(everything(partition)).await.expect("read");
        assert_eq!(rows.len(), documents.len());
        for (row, document) in rows.iter().zip(&documents) {
            let (got, put) = (row.document.to_string(), document.to_string());
            let at = got.chars().zip(put.chars()).position(|(got, put)| got != put);
            assert_eq!(at, None, "row {} of partition `{partition}`", row.key);
            assert_eq!(&row.document, document, "row {} of partition `{partition}`", row.key);
        }
    }
}

#[tokio::test]
async fn tables_queues_and_containers_are_made_when_first_written() {
    let store = fresh();
    assert_eq!(store.tables.get(Table::Index, "p", "row").await.expect("no table"), None);
    assert!(store.tables.query(everything("p")).await.expect("no table").rows.is_empty());
    let delete = vec![Write::Delete { key: "row".to_owned() }];
    let error = store.tables.commit(Table::Index, "p", delete).await.expect_err("no row");
    assert!(matches!(error.error, StoreError::NotFound(_)), "{error:?}");
    let both = vec![insert("a", json!({})), insert("b", json!({}))];
    store.tables.commit(Table::Jobs, "p", both).await.expect("a batch makes the table");
    assert_eq!(store.tables.query_all(everything("p")).await.expect("rows").len(), 2);

    assert_eq!(store.queues.length(Queue::Tasks).await.expect("no queue"), 0);
    assert!(store.queues.receive(Queue::Stages, 32, Duration::from_secs(9)).await.expect("made").is_empty());
    store.queues.send(Queue::Tasks, Bytes::from_static(b"x"), Duration::ZERO).await.expect("sent");
    assert_eq!(store.queues.length(Queue::Tasks).await.expect("a queue"), 1);

    let (bronze, name) = (container("bronze"), BlobName::parse("a").expect("a name"));
    assert!(matches!(store.data.list(&bronze, "", None).await, Err(StoreError::NotFound(_))));
    assert_eq!(store.data.properties(&bronze, &name).await.expect("no container"), None);
    assert!(!store.data.container_exists(&bronze).await.expect("answered"));
    store.data.write(&bronze, &name, Bytes::from_static(b"x"), "text/plain").await.expect("written");
    assert!(store.data.container_exists(&bronze).await.expect("answered"));
}

#[tokio::test]
async fn many_first_writes_at_once_all_succeed() {
    let store = fresh();
    let rows: Vec<_> = (0..16).map(|n| vec![insert(&format!("{n}"), json!({}))]).collect();
    let commits = rows.into_iter().map(|row| store.tables.commit(Table::Jobs, "p", row));
    assert!(join_all(commits).await.iter().all(Result::is_ok));
    let sends = (0..16).map(|_| store.queues.send(Queue::Tasks, Bytes::new(), Duration::ZERO));
    assert!(join_all(sends).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_message_of_any_bytes_comes_back_and_a_renewed_one_keeps_its_body() {
    let queues = fresh().queues;
    let bodies: Vec<Bytes> =
        [b"".to_vec(), b"\0\x01\xff<&>".to_vec(), "ü{}".into(), vec![0xAB; 48 * 1024]].map(Bytes::from).into();
    for body in &bodies {
        queues.send(Queue::Tasks, body.clone(), Duration::ZERO).await.expect("sent");
    }
    let mut received = queues.receive(Queue::Tasks, 32, HIDDEN).await.expect("received");
    received.sort_by_key(|message| message.body.len());
    assert!(received.iter().map(|message| &message.body).eq([&bodies[0], &bodies[2], &bodies[1], &bodies[3]]));

    let old = &received[1].receipt;
    let renewed = queues.hide(Queue::Tasks, old, HIDDEN).await.expect("renewed");
    assert!(matches!(queues.delete(Queue::Tasks, old).await, Err(StoreError::NotFound(_))), "the old receipt is void");
    queues.hide(Queue::Tasks, &renewed, Duration::ZERO).await.expect("released");
    let again = queues.receive(Queue::Tasks, 32, HIDDEN).await.expect("received");
    assert_eq!(
        again.iter().map(|message| (&message.body, message.dequeue_count)).collect::<Vec<_>>(),
        [(&bodies[2], 2)]
    );
    queues.delete(Queue::Tasks, &again[0].receipt).await.expect("deleted");
    for _ in 0..2 {
        assert!(matches!(queues.delete(Queue::Tasks, &again[0].receipt).await, Err(StoreError::NotFound(_))));
        assert!(matches!(queues.hide(Queue::Tasks, &renewed, Duration::ZERO).await, Err(StoreError::NotFound(_))));
    }
    let large = Bytes::from(vec![0; 48 * 1024 + 1]);
    assert!(matches!(queues.send(Queue::Tasks, large, Duration::ZERO).await, Err(StoreError::Rejected { .. })));
}

#[tokio::test]
async fn blobs_keep_odd_names() {
    let blobs = fresh().data;
    let silver = container("silver");
    let mut names = [
        "plain.tif",
        "a b/c d",
        "100%",
        "%41",
        "a%2Fb",
        "what?x=1&y=2",
        "#1",
        "a+b",
        "tür/日本/\u{1F680}",
        "a//b",
        "end/",
        "'quoted'(1)[2]{3}!*",
        "a;b,c=d:e@f$g",
        "<tag>&amp;",
        "a|b^c`d~e\"f",
        ".hidden/..x/...",
        "UPPER/lower",
    ];
    names.sort_unstable();
    for name in names {
        let body = Bytes::from(name.to_owned());
        let written = blobs.write(&silver, &BlobName::parse(name).expect(name), body, "text/plain").await;
        written.unwrap_or_else(|error| panic!("{name}: {}", shown(&error)));
    }
    let page = blobs.list(&silver, "", None).await.expect("a page");
    assert_eq!(page.blobs.iter().map(|blob| blob.name.as_str()).collect::<Vec<_>>(), names);
    for (listed, name) in page.blobs.iter().zip(names) {
        let blob = BlobName::parse(name).expect(name);
        let properties = blobs.properties(&silver, &blob).await.expect(name).expect(name);
        assert_eq!(&properties, listed, "a listing and a look say the same");
        assert_eq!(properties.content_type.as_deref(), Some("text/plain"));
        let body = blobs.read(&silver, &blob, 0..u64::MAX, Some(&properties.etag)).await.expect(name);
        assert_eq!(body, name);
        let prefixed = blobs.list(&silver, name, None).await.expect(name);
        assert_eq!(prefixed.blobs[0].name, name, "as a prefix");
        blobs.delete(&silver, &blob).await.expect(name);
        assert_eq!(blobs.properties(&silver, &blob).await.expect(name), None);
    }
}

#[tokio::test]
async fn a_range_is_cut_to_the_bytes_that_exist() {
    let blobs = fresh().data;
    let (gold, name) = (container("gold"), BlobName::parse("a").expect("a name"));
    let body = Bytes::from((0..40_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect::<Vec<_>>());
    blobs.write(&gold, &name, body.clone(), "application/octet-stream").await.expect("written");
    for range in [
        0..u64::MAX,
        0..40_000_000,
        39_999_999..40_000_007,
        40_000_000..40_000_001,
        50_000_000..60_000_000,
        7..7,
        17_000_000..35_000_000,
    ] {
        let read = blobs.read(&gold, &name, range.clone(), None).await.expect("read");
        let clamp = |at: u64| usize::try_from(at.min(40_000_000)).expect("small");
        assert!(read == body.slice(clamp(range.start)..clamp(range.end)), "{range:?}");
    }
    let stale = blobs.properties(&gold, &name).await.expect("answered").expect("a blob").etag;
    blobs.write(&gold, &name, Bytes::new(), "text/plain").await.expect("written");
    for range in [0..9, 5..9, 5..5] {
        assert!(blobs.read(&gold, &name, range.clone(), None).await.expect("read").is_empty());
        let error = blobs.read(&gold, &name, range.clone(), Some(&stale)).await.expect_err("another version");
        assert!(matches!(error, StoreError::Conflict(_)), "{range:?}: {error:?}");
        let missing = BlobName::parse("b").expect("a name");
        let error = blobs.read(&gold, &missing, range, None).await.expect_err("no blob");
        assert!(matches!(error, StoreError::NotFound(_)), "{error:?}");
    }
}

#[tokio::test]
async fn a_wrong_key_is_refused_by_the_name_of_its_setting() {
    let account = azurite::account();
    let start = account.find("AccountKey=").expect("a key") + "AccountKey=".len();
    let key = &account[start..start + account[start..].find(';').expect("its end")];
    let wrong = "d3Jvbmcgd3Jvbmcgd3Jvbmc=";
    let store = connect(&account.replace(key, wrong));
    let (name, bronze) = (BlobName::parse("a").expect("a name"), container("bronze"));
    let both = vec![insert("a", json!({})), insert("b", json!({}))];
    let errors = [
        store.tables.get(Table::Jobs, "p", "row").await.expect_err("refused"),
        store.tables.commit(Table::Jobs, "p", both).await.expect_err("refused").error,
        store.queues.send(Queue::Tasks, Bytes::new(), Duration::ZERO).await.expect_err("refused"),
        store.data.properties(&bronze, &name).await.expect_err("refused"),
        store.data.list(&bronze, "", None).await.expect_err("refused"),
    ];
    for error in errors {
        assert!(matches!(error, StoreError::Rejected { .. }), "{error:?}");
        let shown = shown(&error);
        assert!(shown.contains(SETTING) && !shown.contains(wrong) && !shown.contains(key), "{shown}");
    }
}

#[tokio::test]
async fn a_refused_connection_is_unavailable_soon() {
    let (address, _) = canned::serve(Vec::new()).await;
    let store = connect(&on(&address));
    let started = Instant::now();
    let bronze = container("bronze");
    let errors = [
        store.tables.get(Table::Jobs, "p", "row").await.expect_err("refused"),
        store.tables.commit(Table::Jobs, "p", vec![insert("a", json!({}))]).await.expect_err("refused").error,
        store.queues.receive(Queue::Tasks, 1, Duration::from_secs(9)).await.expect_err("refused"),
        store.data.list(&bronze, "", None).await.expect_err("refused"),
    ];
    assert!(errors.iter().all(|error| matches!(error, StoreError::Unavailable { .. })), "{errors:?}");
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}", started.elapsed());
}

/// A connection string of an account all of whose services are at one address.
fn on(address: &str) -> String {
    format!("AccountName=a;AccountKey=a2V5;BlobEndpoint={address};QueueEndpoint={address};TableEndpoint={address}")
}

fn busy() -> String {
    canned::answer("503 Service Unavailable", &["x-ms-error-code: ServerBusy"], "")
}

async fn try_commit(tables: &dyn Tables) -> StoreError {
    let writes = vec![insert("a", json!({})), insert("b", json!({}))];
    tables.commit(Table::Jobs, "p", writes).await.expect_err("not done").error
}

#[tokio::test]
async fn a_commit_is_sent_once_whatever_happens_to_it() {
    for answer in [busy(), String::new()] {
        let (address, requests) = canned::serve(vec![answer; 3]).await;
        let store = connect(&on(&address));
        let error = try_commit(store.tables.as_ref()).await;
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        let error = store.queues.send(Queue::Tasks, Bytes::new(), Duration::ZERO).await.expect_err("not done");
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
        assert_eq!(requests.all().len(), 2);
    }
}

#[tokio::test]
async fn a_read_is_tried_again_while_the_service_is_busy() {
    let found = canned::answer("200 OK", &["etag: v1"], r#"{"RowKey":"row","Document":"{\"n\":1}"}"#);
    let (address, requests) = canned::serve(vec![busy(), String::new(), found]).await;
    let row = connect(&on(&address)).tables.get(Table::Jobs, "p", "row").await.expect("read").expect("a row");
    assert_eq!((row.etag.0.as_str(), row.document, requests.all().len()), ("v1", json!({ "n": 1 }), 3));
}

#[tokio::test]
async fn a_page_without_rows_is_followed_to_one_with_rows() {
    let more = ["x-ms-continuation-NextPartitionKey: 1!4!cA--", "x-ms-continuation-NextRowKey: 1!8!YWJj/"];
    let row = r#"{"value":[{"RowKey":"row","odata.etag":"v1"}]}"#;
    let answers = vec![
        canned::answer("200 OK", &more, r#"{"value":[]}"#),
        canned::answer("200 OK", &more[..1], row),
        canned::answer("200 OK", &[], row),
    ];
    let (address, requests) = canned::serve(answers).await;
    let tables = connect(&on(&address)).tables;
    let query = Query { select: Select::Keys, ..everything("p") };
    let page = tables.query(query.clone()).await.expect("a page");
    assert_eq!((page.rows.len(), page.next.as_deref()), (1, Some("row-")));
    assert!(
        requests.all()[1].contains("&NextPartitionKey=1%214%21cA--&NextRowKey=1%218%21YWJj%2F HTTP"),
        "{requests:?}",
        requests = requests.all()
    );
    assert_eq!(tables.query(query).await.expect("a page").next, None);
}

#[tokio::test]
async fn a_container_or_table_on_its_way_out_is_unavailable() {
    let going = |code: &str| canned::answer("409 Conflict", &[&format!("x-ms-error-code: {code}")], "");
    for code in ["TableBeingDeleted", "QueueBeingDeleted"] {
        let (address, _) = canned::serve(vec![going(code); 2]).await;
        let store = connect(&on(&address));
        assert!(matches!(try_commit(store.tables.as_ref()).await, StoreError::Unavailable { .. }));
        let error = store.queues.send(Queue::Tasks, Bytes::new(), Duration::ZERO).await.expect_err("not done");
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_shared_access_signature_goes_with_every_request_and_into_no_error() {
    let refused = canned::answer("403 Forbidden", &["x-ms-error-code: AuthenticationFailed"], "");
    let (address, requests) =
        canned::serve(vec![refused.clone(), refused, String::new(), String::new(), String::new()]).await;
    let signature = "sv=2023-11-03&sp=rw&sig=c2VjcmV0%3D";
    let store = connect(&format!(
        "BlobEndpoint={address};QueueEndpoint={address};TableEndpoint={address};SharedAccessSignature={signature}"
    ));
    let errors = [
        store.tables.get(Table::Jobs, "p", "row").await.expect_err("refused"),
        store.data.list(&container("bronze"), "", None).await.expect_err("refused"),
        store.tables.get(Table::Jobs, "p", "row").await.expect_err("cut off"),
    ];
    for error in errors {
        assert!(!shown(&error).contains("c2VjcmV0"), "{}", shown(&error));
    }
    let requests = requests.all();
    assert_eq!(requests.len(), 5);
    assert!(
        requests.iter().all(|request| request.lines().next().is_some_and(|line| line.contains(signature))),
        "{requests:?}"
    );
}
