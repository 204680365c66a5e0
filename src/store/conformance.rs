//! What every store must do: one function per promise of the [ports](crate::ports), run against all of them.
//!
//! [`each_promise!`](crate::each_promise) hands the list of promises to a macro, so that a test crate can make one test
//! of each; [`ALL`] is the same list as values.
//!
//! A function returns if the promise is kept and panics with words if not. Each works on rows and containers of its
//! own, so all can run side by side on one account.
#![allow(clippy::missing_panics_doc, reason = "panicking is how a check speaks")]

use crate::ports::{
    BATCH_LIMIT, BATCH_SIZE_LIMIT, BlobName, BlobProperties, CommitError, ContainerName, Environment, Etag,
    MESSAGE_LIMIT, Page, Query, Queue, ROW_LIMIT, Receipt, Received, Row, Select, Store, StoreError, Table, TablesExt,
    Write,
};
use crate::store::SystemEnvironment;
use crate::store::limits::LIST_LIMIT;
use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// A store to be checked.
pub struct Subject {
    /// The store.
    pub store: Store,
    /// Lets time pass for the store: really, or by moving its clock.
    pub wait: Box<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
    /// Subjects on the same queues share this, so that their checks do not take each other's messages.
    pub queues: Arc<Mutex<()>>,
}

impl Subject {
    /// A store with queues of its own. `wait` lets time pass for it.
    pub fn new(store: Store, wait: impl Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Self { store, wait: Box::new(wait), queues: Arc::default() }
    }
}

/// A check of one promise.
pub type Promise = fn(&Subject) -> BoxFuture<'_, ()>;

/// Hands the names of all promises, separated by commas, to the macro named.
#[macro_export]
macro_rules! each_promise {
    ($then:ident) => {
        $then! {
            an_inserted_row_is_read_back,
            an_insert_finds_what_is_there,
            a_commit_is_all_or_nothing,
            a_commit_names_the_write_that_failed,
            a_replace_needs_the_version_it_read,
            a_replace_of_a_missing_row_conflicts,
            a_delete_needs_a_row_and_no_version,
            every_write_changes_the_etag,
            reads_see_every_acknowledged_write,
            a_query_is_ordered_and_paged,
            a_query_reads_from_a_key_to_before_another,
            a_query_of_keys_reads_no_documents,
            a_query_stays_in_its_partition,
            a_missing_partition_reads_as_empty,
            limits_are_refused_before_anything_is_written,
            a_commit_may_be_as_large_as_its_limits,
            documents_survive_exactly,
            concurrent_inserts_have_one_winner,
            concurrent_replaces_have_one_winner,
            a_message_comes_back_until_it_is_deleted,
            a_received_message_is_hidden,
            a_delayed_message_waits,
            a_stale_receipt_settles_nothing,
            a_late_receipt_is_good_until_the_next_delivery,
            a_released_message_is_delivered_again,
            a_renewed_message_stays_hidden,
            two_receivers_never_share_a_delivery,
            a_message_is_bytes,
            a_message_over_the_limit_is_refused,
            a_receive_takes_no_more_than_it_asks_for,
            queues_do_not_mix,
            length_counts_hidden_messages,
            a_missing_container_is_no_blob,
            a_container_can_be_created_twice,
            a_written_blob_is_read_back,
            a_read_gives_the_bytes_that_exist,
            a_read_of_another_version_conflicts,
            an_overwrite_replaces_the_whole_blob,
            a_reader_sees_no_mixture,
            a_delete_of_a_missing_blob_is_no_error,
            a_listing_goes_by_prefix_whatever_the_folders,
            a_listing_is_in_order,
            a_listing_is_paged,
            odd_names_are_names,
        }
    };
}

macro_rules! list {
    ($($promise:ident),* $(,)?) => {
        /// Every promise by name.
        pub const ALL: &[(&str, Promise)] = &[$((stringify!($promise), |subject| Box::pin($promise(subject)))),*];
    };
}
each_promise!(list);

// Tables

/// What is inserted is read back, with its key and a version.
pub async fn an_inserted_row_is_read_back(subject: &Subject) {
    let place = Partition::new(subject);
    assert_eq!(place.get("a").await, None, "a row was there before it was inserted");
    place.commit(vec![insert("a", json!({ "n": 1 }))]).await.expect("a first insert");
    let row = place.get("a").await.expect("the row that was inserted");
    assert_eq!((row.key.as_str(), &row.document), ("a", &json!({ "n": 1 })));
    assert!(!row.etag.0.is_empty(), "a row was read without a version");
}

/// An insert of a row that is there fails with [`StoreError::AlreadyExists`] and changes nothing.
pub async fn an_insert_finds_what_is_there(subject: &Subject) {
    let place = Partition::new(subject);
    place.commit(vec![insert("a", json!({ "n": 1 }))]).await.expect("a first insert");
    let before = place.get("a").await;
    let refusal = place.commit(vec![insert("a", json!({ "n": 2 }))]).await;
    assert!(matches!(refusal, Err(CommitError { index: 0, error: StoreError::AlreadyExists(_) })), "{refusal:?}");
    assert_eq!(place.get("a").await, before, "a refused insert changed the row");
    let inserted = subject.store.tables.insert_if_absent(Table::Jobs, &place.name, "a", json!({})).await;
    assert!(matches!(inserted, Ok(false)), "{inserted:?}");
}

/// If one write of a commit fails, none of the others has happened.
pub async fn a_commit_is_all_or_nothing(subject: &Subject) {
    let place = Partition::new(subject);
    place.commit(vec![insert("b", json!({ "n": 1 })), insert("c", json!({ "n": 1 }))]).await.expect("the first rows");
    let c = place.get("c").await.expect("row c");
    let refusal = place
        .commit(vec![
            insert("a", json!({})),
            Write::Replace { key: "c".into(), etag: c.etag, document: json!({ "n": 2 }) },
            insert("b", json!({})),
            insert("d", json!({})),
        ])
        .await;
    assert!(matches!(refusal, Err(CommitError { error: StoreError::AlreadyExists(_), .. })), "{refusal:?}");
    let rows: Vec<_> = place.all().await.into_iter().map(|row| (row.key, row.document)).collect();
    assert_eq!(rows, [("b".into(), json!({ "n": 1 })), ("c".into(), json!({ "n": 1 }))], "part of a commit happened");

    let b = place.get("b").await.expect("row b");
    place
        .commit(vec![
            insert("a", json!({ "n": 3 })),
            Write::Replace { key: "b".into(), etag: b.etag, document: json!({ "n": 3 }) },
            Write::Delete { key: "c".into() },
        ])
        .await
        .expect("a commit of all kinds of writes");
    let rows: Vec<_> = place.all().await.into_iter().map(|row| (row.key, row.document)).collect();
    assert_eq!(rows, [("a".into(), json!({ "n": 3 })), ("b".into(), json!({ "n": 3 }))]);
}

/// A failed commit says which write was at fault.
pub async fn a_commit_names_the_write_that_failed(subject: &Subject) {
    let place = Partition::new(subject);
    place.commit(vec![insert("there", json!({}))]).await.expect("a first insert");
    for index in [0, 1, 5] {
        let mut writes: Vec<_> = (0..6).map(|number| insert(format!("new-{number}"), json!({}))).collect();
        writes[index] = insert("there", json!({}));
        let refusal = place.commit(writes).await.expect_err("a commit with an insert of what is there");
        assert_eq!(refusal.index, index, "{refusal:?}");
    }
}

/// A replace fails with [`StoreError::Conflict`] once the row has changed.
pub async fn a_replace_needs_the_version_it_read(subject: &Subject) {
    let place = Partition::new(subject);
    place.commit(vec![insert("a", json!({ "n": 1, "old": true }))]).await.expect("a first insert");
    let first = place.get("a").await.expect("the row");
    let replace = |n: u32| Write::Replace { key: "a".into(), etag: first.etag.clone(), document: json!({ "n": n }) };
    place.commit(vec![replace(2)]).await.expect("a replace of the version read");
    let second = place.get("a").await.expect("the row");
    assert_eq!(second.document, json!({ "n": 2 }), "a replace did not replace the whole row");
    let refusal = place.commit(vec![replace(3)]).await;
    assert!(matches!(refusal, Err(CommitError { index: 0, error: StoreError::Conflict(_) })), "{refusal:?}");
    assert_eq!(place.get("a").await, Some(second), "a refused replace changed the row");
}

/// A replace of a row that is gone fails with [`StoreError::Conflict`], as of a row that has changed.
pub async fn a_replace_of_a_missing_row_conflicts(subject: &Subject) {
    let place = Partition::new(subject);
    place.commit(vec![insert("a", json!({}))]).await.expect("a first insert");
    let etag = place.get("a").await.expect("the row").etag;
    place.commit(vec![Write::Delete { key: "a".into() }]).await.expect("a delete");
    let refusal = place.commit(vec![Write::Replace { key: "a".into(), etag, document: json!({}) }]).await;
    assert!(matches!(refusal, Err(CommitError { index: 0, error: StoreError::Conflict(_) })), "{refusal:?}");
    assert_eq!(place.get("a").await, None, "a refused replace made a row");
}

/// A delete removes a row whatever its version and fails with [`StoreError::NotFound`] if there is none.
pub async fn a_delete_needs_a_row_and_no_version(subject: &Subject) {
    let place = Partition::new(subject);
    let refusal = place.commit(vec![Write::Delete { key: "a".into() }]).await;
    assert!(matches!(refusal, Err(CommitError { index: 0, error: StoreError::NotFound(_) })), "{refusal:?}");
    place.commit(vec![insert("a", json!({}))]).await.expect("a first insert");
    place.commit(vec![Write::Delete { key: "a".into() }]).await.expect("a delete");
    assert_eq!(place.get("a").await, None, "a deleted row was read");
}

/// No two writes of a row give it the same version, not even the same document deleted and inserted again.
pub async fn every_write_changes_the_etag(subject: &Subject) {
    let place = Partition::new(subject);
    let mut seen = BTreeSet::new();
    place.commit(vec![insert("a", json!({}))]).await.expect("a first insert");
    for _ in 0..3 {
        let row = place.get("a").await.expect("the row");
        assert!(seen.insert(row.etag.0.clone()), "version `{}` came twice", row.etag.0);
        let replace = Write::Replace { key: "a".into(), etag: row.etag, document: json!({}) };
        place.commit(vec![replace]).await.expect("a replace by the same document");
        let row = place.get("a").await.expect("the row");
        assert!(seen.insert(row.etag.0.clone()), "version `{}` came twice", row.etag.0);
        place.commit(vec![Write::Delete { key: "a".into() }]).await.expect("a delete");
        place.commit(vec![insert("a", json!({}))]).await.expect("an insert anew");
    }
}

/// Gets and queries that begin after a write was acknowledged see it.
pub async fn reads_see_every_acknowledged_write(subject: &Subject) {
    let place = Partition::new(subject);
    for number in 0..20 {
        let key = format!("r{number:02}");
        place.commit(vec![insert(&key, json!({ "n": number }))]).await.expect("an insert");
        let row = place.get(&key).await.expect("the row acknowledged just before");
        assert_eq!(row.document, json!({ "n": number }));
        assert_eq!(place.all().await.len(), number + 1, "a query missed a row acknowledged just before");
    }
}

/// A query gives keys in ascending order, never more than asked for, and pages that together hold every row once.
pub async fn a_query_is_ordered_and_paged(subject: &Subject) {
    const ROWS: usize = 1_050;
    let place = Partition::new(subject);
    let keys: Vec<String> = (0..ROWS).map(|number| format!("row-{number:05}")).collect();
    // Written from the end, so that the order is the query's.
    for batch in keys.rchunks(BATCH_LIMIT) {
        let writes = batch.iter().rev().map(|key| insert(key, json!({ "key": key }))).collect();
        place.commit(writes).await.expect("a batch of inserts");
    }
    for limit in [1_000, 400] {
        let mut found = Vec::new();
        let mut from = String::new();
        loop {
            let page = place.query(&from, None, limit, Select::Documents).await;
            assert!(page.rows.len() <= limit as usize, "{} rows in a page of {limit}", page.rows.len());
            found.extend(page.rows);
            match page.next {
                Some(next) => from = next,
                None => break,
            }
            assert!(found.len() <= ROWS, "the pages do not end");
        }
        assert_eq!(found.iter().map(|row| row.key.clone()).collect::<Vec<_>>(), keys, "in pages of {limit}");
        assert!(found.iter().all(|row| row.document == json!({ "key": row.key })), "a row has another's document");
    }
    place.commit(["a", "B", "Z", "0", "a-1", "a0"].map(|key| insert(key, json!({}))).to_vec()).await.expect("odd keys");
    let first: Vec<_> = place.query("", Some("b"), 1_000, Select::Keys).await.rows;
    let order: Vec<_> = first.iter().map(|row| row.key.as_str()).collect();
    assert_eq!(order, ["0", "B", "Z", "a", "a-1", "a0"], "keys are ordered by their characters");
}

/// A query includes its `from` and excludes its `to`; neither has to be a row.
pub async fn a_query_reads_from_a_key_to_before_another(subject: &Subject) {
    let place = Partition::new(subject);
    place.commit(["b", "d", "f", "h"].map(|key| insert(key, json!({}))).to_vec()).await.expect("the rows");
    for (from, to, expected) in [
        ("", None, &["b", "d", "f", "h"][..]),
        ("b", Some("h"), &["b", "d", "f"]),
        ("c", Some("g"), &["d", "f"]),
        ("d", Some("d"), &[]),
        ("h", None, &["h"]),
        ("i", None, &[]),
    ] {
        let page = place.query(from, to, 1_000, Select::Keys).await;
        let keys: Vec<_> = page.rows.iter().map(|row| row.key.as_str()).collect();
        assert_eq!(keys, expected, "from `{from}` to {to:?}");
        assert_eq!(page.next, None, "from `{from}` to {to:?}");
    }
    let page = place.query("c", Some("i"), 1, Select::Keys).await;
    assert_eq!(page.rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), ["d"], "a page of one");
    let next = page.next.expect("a way on from a page of one");
    let page = place.query(&next, Some("i"), 1_000, Select::Keys).await;
    assert_eq!(page.rows.iter().map(|row| row.key.as_str()).collect::<Vec<_>>(), ["f", "h"], "the pages after");
}

/// Under [`Select::Keys`] rows come with key and version, and `Null` as their document.
pub async fn a_query_of_keys_reads_no_documents(subject: &Subject) {
    let place = Partition::new(subject);
    place.commit(vec![insert("a", json!({ "n": 1 }))]).await.expect("an insert");
    let stored = place.get("a").await.expect("the row");
    let page = place.query("", None, 1_000, Select::Keys).await;
    assert_eq!(page.rows, [Row { document: Value::Null, ..stored }]);
}

/// A query gives nothing of other partitions and other tables, whatever their names.
pub async fn a_query_stays_in_its_partition(subject: &Subject) {
    let place = Partition::new(subject);
    let beside = Partition { name: format!("{}-1", place.name), ..place.clone() };
    let below = Partition { table: Table::Outcomes, ..place.clone() };
    for (place, key) in [(&place, "a"), (&beside, "b"), (&below, "c")] {
        place.commit(vec![insert(key, json!({}))]).await.expect("an insert");
    }
    for (place, key) in [(&place, "a"), (&beside, "b"), (&below, "c")] {
        let keys: Vec<_> = place.all().await.into_iter().map(|row| row.key).collect();
        assert_eq!(keys, [key], "in partition `{}` of {:?}", place.name, place.table);
    }
}

/// What was never written reads as empty, in every table.
pub async fn a_missing_partition_reads_as_empty(subject: &Subject) {
    for table in Table::ALL {
        let place = Partition { table, ..Partition::new(subject) };
        assert_eq!(place.get("a").await, None);
        let page = place.query("", None, 1_000, Select::Documents).await;
        assert!(page.rows.is_empty() && page.next.is_none(), "{page:?}");
    }
}

/// A commit beyond a limit is [`StoreError::Rejected`] and nothing of it is written.
pub async fn limits_are_refused_before_anything_is_written(subject: &Subject) {
    let place = Partition::new(subject);
    let large = |bytes: usize| json!({ "text": "x".repeat(bytes - r#"{"text":""}"#.len()) });
    let faults: Vec<(&str, Vec<Write>)> = vec![
        ("no writes", vec![]),
        ("too many writes", (0..=BATCH_LIMIT).map(|number| insert(format!("r{number}"), json!({}))).collect()),
        ("a document too large", vec![insert("a", json!({})), insert("b", large(ROW_LIMIT + 1))]),
        ("too much together", (0..9).map(|number| insert(format!("r{number}"), large(ROW_LIMIT))).collect()),
        ("the same row twice", vec![insert("a", json!({})), insert("a", json!({}))]),
        ("a row written and deleted", vec![insert("a", json!({})), Write::Delete { key: "a".into() }]),
        ("an empty key", vec![insert("a", json!({})), insert("", json!({}))]),
        ("a slash in a key", vec![insert("a", json!({})), insert("b/c", json!({}))]),
        ("a space in a key", vec![insert("a", json!({})), insert("b c", json!({}))]),
        ("an umlaut in a key", vec![insert("a", json!({})), insert("ä", json!({}))]),
        ("no object", vec![insert("a", json!({})), insert("b", json!([1]))]),
    ];
    for (fault, writes) in faults {
        let refusal = place.commit(writes).await;
        assert!(matches!(refusal, Err(CommitError { error: StoreError::Rejected { .. }, .. })), "{fault}: {refusal:?}");
    }
    assert_eq!(place.all().await, [], "a refused commit wrote something");
    let odd = Partition { name: "a/b".into(), ..place };
    let refusal = odd.commit(vec![insert("a", json!({}))]).await;
    assert!(matches!(refusal, Err(CommitError { error: StoreError::Rejected { .. }, .. })), "{refusal:?}");
}

/// Limits include themselves: [`BATCH_LIMIT`] writes, and documents of [`ROW_LIMIT`] bytes up to [`BATCH_SIZE_LIMIT`]
/// together, though every byte of them has to be escaped once more on its way.
pub async fn a_commit_may_be_as_large_as_its_limits(subject: &Subject) {
    let place = Partition::new(subject);
    let many = (0..BATCH_LIMIT).map(|number| insert(format!("many-{number:03}"), json!({ "n": number }))).collect();
    place.commit(many).await.expect("a commit of as many writes as may be");
    // A quote takes two bytes of JSON.
    let document = |bytes: usize| json!({ "text": "\"".repeat((bytes - r#"{"text":""}"#.len()) / 2) });
    let whole = BATCH_SIZE_LIMIT / ROW_LIMIT;
    let mut large: Vec<_> = (0..whole).map(|number| insert(format!("large-{number}"), document(ROW_LIMIT))).collect();
    large.push(insert("rest", document(BATCH_SIZE_LIMIT % ROW_LIMIT)));
    place.commit(large).await.expect("a commit of as many bytes as may be");
    let rows = place.all().await;
    assert_eq!(rows.len(), BATCH_LIMIT + whole + 1);
    let large: Vec<_> = rows.iter().filter(|row| row.key.starts_with("large")).collect();
    assert!(large.len() == whole && large.iter().all(|row| row.document == document(ROW_LIMIT)));
}

/// Every JSON object is read back as it was written.
pub async fn documents_survive_exactly(subject: &Subject) {
    let place = Partition::new(subject);
    // A store may cut a document into pieces, by bytes or by UTF-16 units: characters of every width around every cut.
    let across_cuts = |unit: &str, shift: usize| {
        let text = format!("{}{}", "x".repeat(shift), unit.repeat((ROW_LIMIT - 64) / unit.len()));
        json!({ "text": text })
    };
    let mut documents = vec![
        json!({}),
        json!({ "": "" }),
        json!({ "empty": "", "null": null, "list": [], "object": {}, "yes": true, "no": false }),
        json!({ "text": "Grüße, 世界, 🦀, e\u{301}, \u{200f}, \u{feff}, \u{fffd}" }),
        json!({ "controls": "\u{0}\u{1}\u{1f}\u{7f}\u{85}\u{2028}\r\n\t" }),
        json!({ "quotes": "\"'\\/<>&;%20+ ]]>", "ключ 🗝": 1 }),
        json!({ "numbers": [0, -1, u64::MAX, i64::MIN, i64::MAX, 9_007_199_254_740_993_u64] }),
        json!({ "floats": [0.1, -0.0, 1e-7, 1.0, f64::MAX, f64::MIN_POSITIVE, 5e-324, 0.1 + 0.2, 1.0e23] }),
        json!({ "date": "2026-11-24T03:09:00.000Z", "guid": "c9da6455-213d-42c9-9a79-3e9149a57833", "number": "007" }),
        json!({ "spaces": "  a  ", "lines": "\n\n", "only": " " }),
        json!({ "odata.etag": "x", "PartitionKey": "p", "RowKey": "r", "Timestamp": "t", "a@odata.type": "Edm.Int64" }),
        json!({ "deep": (0..100).fold(json!("end"), |inner, _| json!([inner])) }),
    ];
    for shift in 0..4 {
        documents.push(across_cuts("🦀", shift));
    }
    documents.push(across_cuts("é", 1));
    documents.push(across_cuts("世", 1));
    // A quote takes two bytes as JSON.
    documents.push(json!({ "text": "\"".repeat((ROW_LIMIT - 64) / 2) }));
    for (number, document) in documents.iter().enumerate() {
        let key = format!("r{number:02}");
        place.commit(vec![insert(&key, document.clone())]).await.unwrap_or_else(|error| {
            panic!("document {number} was refused: {error:?}");
        });
        let row = place.get(&key).await.expect("the row");
        // By text too: -0.0 equals 0.0.
        assert!(row.document == *document && text(&row.document) == text(document), "document {number} changed");
    }
    let rows = place.all().await;
    assert_eq!(rows.len(), documents.len());
    assert!(rows.iter().zip(&documents).all(|(row, document)| row.document == *document), "a query changed a document");
}

/// Of many inserts of one row at the same time, one happens.
pub async fn concurrent_inserts_have_one_winner(subject: &Subject) {
    let place = Partition::new(subject);
    for round in 0..5 {
        let key = format!("r{round}");
        let outcomes = at_once(16, |number| {
            let (place, key) = (place.clone(), key.clone());
            async move { (number, place.commit(vec![insert(key, json!({ "by": number }))]).await) }
        })
        .await;
        let winner = one_winner(outcomes, |error| matches!(error, StoreError::AlreadyExists(_)));
        assert_eq!(place.get(&key).await.expect("the row").document, json!({ "by": winner }), "a loser's row stands");
    }
}

/// Of many replaces of one version at the same time, one happens.
pub async fn concurrent_replaces_have_one_winner(subject: &Subject) {
    let place = Partition::new(subject);
    place.commit(vec![insert("a", json!({}))]).await.expect("an insert");
    for _ in 0..5 {
        let etag = place.get("a").await.expect("the row").etag;
        let outcomes = at_once(16, |number| {
            let (place, etag) = (place.clone(), etag.clone());
            async move { (number, place.commit(vec![replace("a", etag, json!({ "by": number }))]).await) }
        })
        .await;
        let winner = one_winner(outcomes, |error| matches!(error, StoreError::Conflict(_)));
        assert_eq!(place.get("a").await.expect("the row").document, json!({ "by": winner }), "a loser's row stands");
    }
}

// Queues

/// A message that is not deleted is delivered again and again, and counts its deliveries.
pub async fn a_message_comes_back_until_it_is_deleted(subject: &Subject) {
    let queue = Line::open(subject, Queue::Tasks).await;
    queue.send("again").await;
    for count in 1..=3 {
        let message = queue.receive_one(SHORT).await;
        assert_eq!((message.dequeue_count, message.body.as_ref()), (count, &b"again"[..]));
        queue.wait(LONGER).await;
    }
    let message = queue.receive_one(LONG).await;
    queue.delete(&message.receipt).await.expect("deleting a delivered message");
    assert_eq!(queue.length().await, 0, "a deleted message is still counted");
    let again = queue.delete(&message.receipt).await;
    assert!(matches!(again, Err(StoreError::NotFound(_))), "deleting twice: {again:?}");
}

/// While it is hidden, a message is not delivered to anybody.
pub async fn a_received_message_is_hidden(subject: &Subject) {
    let queue = Line::open(subject, Queue::Stages).await;
    queue.send("hidden").await;
    let message = queue.receive_one(LONG).await;
    queue.nothing_is_due().await;
    queue.wait(SHORT).await;
    queue.nothing_is_due().await;
    queue.delete(&message.receipt).await.expect("deleting a delivered message");
}

/// A message sent with a delay is not delivered before.
pub async fn a_delayed_message_waits(subject: &Subject) {
    let queue = Line::open(subject, Queue::Tasks).await;
    queue.send_later("later", Duration::from_secs(3)).await;
    assert_eq!(queue.length().await, 1, "a delayed message is not counted");
    queue.nothing_is_due().await;
    queue.wait(Duration::from_secs(4)).await;
    let message = queue.receive_one(LONG).await;
    assert_eq!(message.dequeue_count, 1);
    queue.delete(&message.receipt).await.expect("deleting a delivered message");
}

/// Once a message was delivered anew or hidden anew, older receipts neither delete nor hide it.
pub async fn a_stale_receipt_settles_nothing(subject: &Subject) {
    let queue = Line::open(subject, Queue::Tasks).await;
    queue.send("contested").await;
    let first = queue.receive_one(SHORT).await;
    queue.wait(LONGER).await;
    let second = queue.receive_one(LONG).await;
    let deleted = queue.delete(&first.receipt).await;
    assert!(matches!(deleted, Err(StoreError::NotFound(_))), "an old receipt deleted: {deleted:?}");
    let hidden = queue.hide(&first.receipt, Duration::ZERO).await;
    assert!(matches!(hidden, Err(StoreError::NotFound(_))), "an old receipt released: {hidden:?}");
    queue.nothing_is_due().await;

    let renewed = queue.hide(&second.receipt, LONG).await.expect("renewing the present delivery");
    let deleted = queue.delete(&second.receipt).await;
    assert!(matches!(deleted, Err(StoreError::NotFound(_))), "a void receipt deleted: {deleted:?}");
    queue.delete(&renewed).await.expect("deleting by the receipt of the renewal");
    let hidden = queue.hide(&renewed, LONG).await;
    assert!(matches!(hidden, Err(StoreError::NotFound(_))), "a deleted message was hidden: {hidden:?}");
}

/// A receipt outlives its message's hiding, until somebody else takes the message.
pub async fn a_late_receipt_is_good_until_the_next_delivery(subject: &Subject) {
    let queue = Line::open(subject, Queue::Tasks).await;
    queue.send("late").await;
    let message = queue.receive_one(SHORT).await;
    queue.wait(LONGER).await;
    queue.delete(&message.receipt).await.expect("deleting a delivered message that nobody else took");
    queue.nothing_is_due().await;
}

/// A message hidden for no time is due at once, with one delivery more.
pub async fn a_released_message_is_delivered_again(subject: &Subject) {
    let queue = Line::open(subject, Queue::Stages).await;
    queue.send("released").await;
    let first = queue.receive_one(LONG).await;
    queue.hide(&first.receipt, Duration::ZERO).await.expect("releasing a delivered message");
    let second = queue.receive_one(LONG).await;
    assert_eq!((second.dequeue_count, second.body), (2, first.body));
    queue.delete(&second.receipt).await.expect("deleting a delivered message");
}

/// A renewed message stays hidden beyond its first visibility, and comes back after the renewed one.
pub async fn a_renewed_message_stays_hidden(subject: &Subject) {
    let queue = Line::open(subject, Queue::Tasks).await;
    queue.send("renewed").await;
    let message = queue.receive_one(SHORT).await;
    let receipt = queue.hide(&message.receipt, Duration::from_secs(4)).await.expect("renewing a delivery");
    queue.wait(Duration::from_secs(2)).await;
    queue.nothing_is_due().await;
    queue.wait(Duration::from_secs(3)).await;
    let message = queue.receive_one(LONG).await;
    assert_eq!(message.dequeue_count, 2, "a renewal is no delivery");
    assert_ne!(message.receipt, receipt);
    queue.delete(&message.receipt).await.expect("deleting a delivered message");
}

/// Receivers at the same time get different messages, and together all of them.
pub async fn two_receivers_never_share_a_delivery(subject: &Subject) {
    const MESSAGES: usize = 40;
    let queue = Line::open(subject, Queue::Tasks).await;
    let sent: BTreeSet<String> = (0..MESSAGES).map(|number| format!("message {number}")).collect();
    join_all(sent.iter().map(|body| queue.send(body))).await;
    let queues = Arc::clone(&subject.store.queues);
    let received = at_once(8, |_| {
        let queues = Arc::clone(&queues);
        async move {
            let mut received = Vec::new();
            loop {
                let messages = queues.receive(Queue::Tasks, 3, LONG).await.expect("receiving");
                if messages.is_empty() {
                    return received;
                }
                received.extend(messages);
            }
        }
    })
    .await
    .concat();
    assert!(received.iter().all(|message| message.dequeue_count == 1), "a message was delivered twice");
    let bodies: Vec<_> = received.iter().map(|message| String::from_utf8_lossy(&message.body).into_owned()).collect();
    assert_eq!(bodies.len(), MESSAGES, "some messages were shared or lost");
    assert_eq!(bodies.into_iter().collect::<BTreeSet<_>>(), sent);
    queue.clear(received).await;
}

/// A body comes back byte for byte, whatever its bytes, up to the limit.
pub async fn a_message_is_bytes(subject: &Subject) {
    let queue = Line::open(subject, Queue::TasksPoison).await;
    let every_byte: Vec<u8> = (0..=255).cycle().take(MESSAGE_LIMIT).collect();
    for body in [
        &b"\xff\xfe\x00\x80"[..],
        b"\0",
        b"{\"a\": \"<&>\"}",
        "Grüße 🦀".as_bytes(),
        b"aGVsbG8=",
        every_byte.as_slice(),
    ] {
        queue.send(body.to_vec()).await;
        let message = queue.receive_one(LONG).await;
        assert!(message.body == body, "{} bytes came back as {} others", body.len(), message.body.len());
        queue.delete(&message.receipt).await.expect("deleting a delivered message");
    }
}

/// A body over [`MESSAGE_LIMIT`] is [`StoreError::Rejected`] and not sent.
pub async fn a_message_over_the_limit_is_refused(subject: &Subject) {
    let queue = Line::open(subject, Queue::Stages).await;
    let refusal = subject.store.queues.send(queue.queue, vec![0; MESSAGE_LIMIT + 1].into(), Duration::ZERO).await;
    assert!(matches!(refusal, Err(StoreError::Rejected { .. })), "{refusal:?}");
    assert_eq!(queue.length().await, 0, "a refused message was sent");
}

/// A receive gives at most as many messages as asked for, and the rest to the next.
pub async fn a_receive_takes_no_more_than_it_asks_for(subject: &Subject) {
    let queue = Line::open(subject, Queue::StagesPoison).await;
    join_all((0..35).map(|number| queue.send(format!("{number}")))).await;
    let mut received = queue.receive(1, LONG).await;
    assert_eq!(received.len(), 1);
    received.extend(queue.receive(32, LONG).await);
    assert_eq!(received.len(), 33);
    received.extend(queue.receive(32, LONG).await);
    assert_eq!(received.len(), 35);
    queue.clear(received).await;
}

/// A message is delivered from the queue it was sent to and from no other.
pub async fn queues_do_not_mix(subject: &Subject) {
    let held = subject.queues.lock().await;
    let mut lines = Vec::new();
    for queue in Queue::ALL {
        lines.push(Line { subject, queue, _held: None });
    }
    for line in &lines {
        line.empty().await;
        line.send(line.queue.name()).await;
    }
    for line in &lines {
        let message = line.receive_one(LONG).await;
        assert_eq!(message.body, line.queue.name(), "a message came from another queue");
        line.nothing_is_due().await;
        line.delete(&message.receipt).await.expect("deleting a delivered message");
    }
    drop(held);
}

/// Messages that wait for their time or for their receiver are counted.
pub async fn length_counts_hidden_messages(subject: &Subject) {
    let queue = Line::open(subject, Queue::Stages).await;
    assert_eq!(queue.length().await, 0);
    queue.send("one").await;
    queue.send("two").await;
    queue.send_later("three", Duration::from_secs(1)).await;
    assert_eq!(queue.length().await, 3);
    let mut received = queue.receive(2, LONG).await;
    assert_eq!(queue.length().await, 3, "hidden messages are not counted");
    queue.wait(Duration::from_secs(3)).await;
    received.extend(queue.receive(32, LONG).await);
    queue.clear(received).await;
    assert_eq!(queue.length().await, 0, "deleted messages are counted");
}

// Blobs

/// Without its container a blob is not there: no properties, [`StoreError::NotFound`] to read, nothing to delete; and
/// there is nothing to list.
pub async fn a_missing_container_is_no_blob(subject: &Subject) {
    let place = Container::new(subject);
    assert!(!place.exists().await, "a container was there before it was made");
    for missing in ["its container", "the blob"] {
        assert_eq!(place.properties("a.txt").await, None, "without {missing}");
        let read = place.read("a.txt", 0..1, None).await;
        assert!(matches!(read, Err(StoreError::NotFound(_))), "without {missing}: {read:?}");
        if missing == "its container" {
            let listed = place.store.data.list(&place.container, "", None).await;
            assert!(matches!(listed, Err(StoreError::NotFound(_))), "{listed:?}");
            place.delete("a.txt").await;
            assert!(!place.exists().await, "reading made a container");
            place.create().await;
        }
    }
    assert_eq!(place.names("").await, Vec::<String>::new());
}

/// Creating a container again is no error and keeps its blobs; writing a blob creates its container.
pub async fn a_container_can_be_created_twice(subject: &Subject) {
    let place = Container::new(subject);
    place.create().await;
    place.create().await;
    assert!(place.exists().await, "a container that was created is not there");
    place.write("a.txt", "a").await;
    place.create().await;
    assert_eq!(place.names("").await, ["a.txt"]);

    let unmade = Container::new(subject);
    unmade.write("a.txt", "a").await;
    assert!(unmade.exists().await, "a blob was written without making its container");
}

/// A blob is read back, and its properties tell its name, size, type, time and version.
pub async fn a_written_blob_is_read_back(subject: &Subject) {
    for blobs in [&subject.store.data, &subject.store.payloads] {
        let name = BlobName::parse("folder/a.json").expect("a name");
        let container = Container::new(subject).container;
        blobs.write(&container, &name, Bytes::from_static(b"{}"), "application/json").await.expect("writing a blob");
        let properties = blobs.properties(&container, &name).await.expect("reading properties").expect("the blob");
        assert_eq!((properties.name.as_str(), properties.size), ("folder/a.json", 2));
        assert_eq!(properties.content_type.as_deref(), Some("application/json"));
        assert!(properties.last_modified.day().as_str() > "2020-01-01", "modified at {}", properties.last_modified);
        assert!(!properties.etag.is_empty(), "a blob has no version");
        let body = blobs.read(&container, &name, 0..u64::MAX, Some(&properties.etag)).await.expect("reading a blob");
        assert_eq!(body.as_ref(), b"{}");
        let page = blobs.list(&container, "", None).await.expect("listing");
        assert_eq!(page.blobs, [properties], "a listing tells another story");
    }
    let place = Container::new(subject);
    place.write("empty.bin", "").await;
    assert_eq!(place.properties("empty.bin").await.map(|properties| properties.size), Some(0));
    assert_eq!(place.read("empty.bin", 0..10, None).await.expect("reading an empty blob"), "");
    let large: Bytes = (0..9_000_000_u32).map(|number| number.to_le_bytes()[(number % 3) as usize]).collect();
    place.write("large.bin", large.clone()).await;
    assert!(place.read("large.bin", 0..u64::MAX, None).await.expect("reading 9 MB") == large, "9 MB changed");
}

/// A range gives the bytes of it that exist; none past the end.
pub async fn a_read_gives_the_bytes_that_exist(subject: &Subject) {
    let place = Container::new(subject);
    place.write("digits.txt", "0123456789").await;
    for (range, expected) in [
        (0..10, "0123456789"),
        (0..1, "0"),
        (3..7, "3456"),
        (9..10, "9"),
        (5..100, "56789"),
        (0..u64::MAX, "0123456789"),
        (10..20, ""),
        (100..200, ""),
        (4..4, ""),
        (0..0, ""),
    ] {
        let body = place.read("digits.txt", range.clone(), None).await;
        assert_eq!(body.as_ref().ok().map(Bytes::as_ref), Some(expected.as_bytes()), "{range:?}: {body:?}");
    }
}

/// A read that names a version fails with [`StoreError::Conflict`] once the blob was written again.
pub async fn a_read_of_another_version_conflicts(subject: &Subject) {
    let place = Container::new(subject);
    let mut seen = BTreeSet::new();
    // The same bytes each time: a version is of the write, not of what was written.
    for _ in 0..4 {
        place.write("a.txt", "same").await;
        let etag = place.properties("a.txt").await.expect("the blob").etag;
        assert!(seen.insert(etag.clone()), "version `{etag}` came twice");
        assert_eq!(place.read("a.txt", 0..4, Some(&etag)).await.expect("reading the present version"), "same");
    }
    let newest = place.properties("a.txt").await.expect("the blob").etag;
    seen.remove(&newest);
    for old in &seen {
        let read = place.read("a.txt", 0..4, Some(old)).await;
        assert!(matches!(read, Err(StoreError::Conflict(_))), "an old version was read: {read:?}");
    }
    place.delete("a.txt").await;
    let read = place.read("a.txt", 0..4, Some(&newest)).await;
    assert!(matches!(read, Err(StoreError::NotFound(_))), "a deleted blob: {read:?}");
}

/// A write leaves nothing of the blob that was there.
pub async fn an_overwrite_replaces_the_whole_blob(subject: &Subject) {
    let place = Container::new(subject);
    place.write("a.txt", "a long text").await;
    place.write("a.txt", "short").await;
    assert_eq!(place.read("a.txt", 0..u64::MAX, None).await.expect("reading"), "short");
    assert_eq!(place.properties("a.txt").await.map(|properties| properties.size), Some(5));
    assert_eq!(place.names("").await, ["a.txt"]);
}

/// Whoever reads while others write gets one of the bodies written, whole.
pub async fn a_reader_sees_no_mixture(subject: &Subject) {
    const SIZE: usize = 200_000;
    let place = Container::new(subject);
    place.write("a.bin", vec![0; SIZE]).await;
    at_once(4, |number| {
        let place = place.clone();
        async move {
            for round in 0..6_u8 {
                if number % 2 == 0 {
                    let filler = 6 * u8::from(number == 0) + round;
                    place.write("a.bin", vec![filler; SIZE]).await;
                } else {
                    let body = place.read("a.bin", 0..u64::MAX, None).await.expect("reading what is being written");
                    assert_eq!(body.len(), SIZE, "a blob was read in part");
                    assert!(body.iter().all(|byte| *byte == body[0]), "two writes were mixed");
                }
            }
        }
    })
    .await;
}

/// A blob can be deleted that is not there; one that was deleted is gone from everywhere.
pub async fn a_delete_of_a_missing_blob_is_no_error(subject: &Subject) {
    let place = Container::new(subject);
    place.create().await;
    place.delete("a.txt").await;
    place.delete("no/such/folder/a.txt").await;
    place.write("folder/a.txt", "a").await;
    place.delete("folder/a.txt").await;
    place.delete("folder/a.txt").await;
    assert_eq!(place.properties("folder/a.txt").await, None, "a deleted blob has properties");
    assert_eq!(place.names("").await, Vec::<String>::new(), "a deleted blob is listed");
    // What looked like a folder is none any more.
    place.write("folder", "a").await;
    assert_eq!(place.names("").await, ["folder"]);
}

/// A listing gives all blobs whose names begin with the prefix, through all that look like folders, and no folders.
pub async fn a_listing_goes_by_prefix_whatever_the_folders(subject: &Subject) {
    let place = Container::new(subject);
    for name in ["a/b/c.txt", "a/b.txt", "a.txt", "ab/c.txt", "b/a.txt", "a/b/d/e.txt"] {
        place.write(name, "x").await;
    }
    for (prefix, expected) in [
        ("", &["a.txt", "a/b.txt", "a/b/c.txt", "a/b/d/e.txt", "ab/c.txt", "b/a.txt"][..]),
        ("a", &["a.txt", "a/b.txt", "a/b/c.txt", "a/b/d/e.txt", "ab/c.txt"]),
        ("a/", &["a/b.txt", "a/b/c.txt", "a/b/d/e.txt"]),
        ("a/b", &["a/b.txt", "a/b/c.txt", "a/b/d/e.txt"]),
        ("a/b/", &["a/b/c.txt", "a/b/d/e.txt"]),
        ("a/b/c.txt", &["a/b/c.txt"]),
        ("a/b/c.txt/", &[]),
        ("b/a.t", &["b/a.txt"]),
        ("A", &[]),
        ("c", &[]),
        ("/", &[]),
        ("a//", &[]),
        ("../", &[]),
        ("a/../", &[]),
    ] {
        assert_eq!(place.names(prefix).await, expected, "of prefix `{prefix}`");
    }
}

/// A listing is in ascending order of full names.
pub async fn a_listing_is_in_order(subject: &Subject) {
    let place = Container::new(subject);
    let mut names = vec!["a", "b-1", "b.txt", "b/1", "b/2/x", "b/2/y", "b/2-", "b0", "ba/1", "c"];
    join_all(names.iter().rev().map(|name| place.write(name, "x"))).await;
    names.sort_unstable();
    assert_eq!(place.names("").await, names);
}

/// A listing of more blobs than a page holds gives each of them once.
pub async fn a_listing_is_paged(subject: &Subject) {
    let place = Container::new(subject);
    let mut names: Vec<_> = (0..LIST_LIMIT + 10).map(|number| format!("{}/{number:04}/x", number % 7)).collect();
    for some in names.chunks(64) {
        join_all(some.iter().map(|name| place.write(name, ""))).await;
    }
    names.sort_unstable();
    assert!(place.names("").await == names, "a listing by pages lost, repeated or reordered blobs");
}

/// Names with blanks, signs that mean something in a URL, and letters of any script name blobs of their own.
pub async fn odd_names_are_names(subject: &Subject) {
    let place = Container::new(subject);
    let mut names = vec![
        "a b.txt",
        "a%20b.txt",
        "a%2fb.txt",
        "a+b.txt",
        "a?b=c&d.txt",
        "a#b.txt",
        "~!@$^&*()_-=[]{};',.txt",
        "\"quoted\" <tag>|.txt",
        "Grüße/世界/🦀.txt",
        ".hidden/.file",
        ".a",
        "a:b.txt",
        " leading",
    ];
    for name in &names {
        place.write(name, name.as_bytes().to_vec()).await;
    }
    for name in &names {
        let body = place.read(name, 0..u64::MAX, None).await.unwrap_or_else(|error| panic!("`{name}`: {error:?}"));
        assert_eq!(body, name.as_bytes(), "`{name}` names another blob");
        assert_eq!(place.properties(name).await.map(|properties| properties.name).as_deref(), Some(*name));
    }
    names.sort_unstable();
    assert_eq!(place.names("").await, names);
    for name in &names {
        assert_eq!(place.names(name).await.first().map(String::as_str), Some(*name), "as a prefix");
        place.delete(name).await;
        assert_eq!(place.properties(name).await, None, "`{name}` was not deleted");
    }
    assert_eq!(place.names("").await, Vec::<String>::new());
}

// How the checks speak

const SHORT: Duration = Duration::from_secs(1);
/// Surely longer than [`SHORT`], for a store that counts in whole seconds.
const LONGER: Duration = Duration::from_millis(2_100);
/// Longer than any check takes.
const LONG: Duration = Duration::from_mins(5);

fn insert(key: impl Into<String>, document: Value) -> Write {
    Write::Insert { key: key.into(), document }
}

fn replace(key: impl Into<String>, etag: Etag, document: Value) -> Write {
    Write::Replace { key: key.into(), etag, document }
}

/// Letters and digits that no other check has.
fn unique() -> String {
    format!("{:016x}", SystemEnvironment.random())
}

/// Runs as many at the same time.
async fn at_once<T, F>(many: usize, work: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let running: Vec<_> = (0..many).map(|number| tokio::spawn(work(number))).collect();
    join_all(running).await.into_iter().map(|ended| ended.expect("one of many at once")).collect()
}

fn one_winner(outcomes: Vec<(usize, Result<(), CommitError>)>, is_loss: impl Fn(&StoreError) -> bool) -> usize {
    let mut winners = Vec::new();
    for (number, outcome) in outcomes {
        match outcome {
            Ok(()) => winners.push(number),
            Err(refusal) => assert!(is_loss(&refusal.error), "a loser was told {refusal:?}"),
        }
    }
    assert_eq!(winners.len(), 1, "there were {} winners", winners.len());
    winners[0]
}

fn text(document: &Value) -> String {
    document.to_string()
}

/// Unwraps what the check is not about.
fn done<T>(what: &str, result: Result<T, impl Debug>) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error:?}"))
}

/// A partition of a check's own.
#[derive(Clone)]
struct Partition {
    store: Store,
    table: Table,
    name: String,
}

impl Partition {
    fn new(subject: &Subject) -> Self {
        Self { store: subject.store.clone(), table: Table::Jobs, name: unique() }
    }

    async fn get(&self, key: &str) -> Option<Row> {
        done("reading a row", self.store.tables.get(self.table, &self.name, key).await)
    }

    async fn commit(&self, writes: Vec<Write>) -> Result<(), CommitError> {
        self.store.tables.commit(self.table, &self.name, writes).await
    }

    async fn query(&self, from: &str, to: Option<&str>, limit: u32, select: Select) -> Page {
        let query = Query { table: self.table, partition: &self.name, from, to, limit, select };
        done("querying", self.store.tables.query(query).await)
    }

    async fn all(&self) -> Vec<Row> {
        let query = Query {
            table: self.table,
            partition: &self.name,
            from: "",
            to: None,
            limit: 1_000,
            select: Select::Documents,
        };
        done("querying", self.store.tables.query_all(query).await)
    }
}

/// A queue that nobody else uses meanwhile.
struct Line<'a> {
    subject: &'a Subject,
    queue: Queue,
    _held: Option<tokio::sync::MutexGuard<'a, ()>>,
}

impl<'a> Line<'a> {
    async fn open(subject: &'a Subject, queue: Queue) -> Self {
        let line = Self { subject, queue, _held: Some(subject.queues.lock().await) };
        line.empty().await;
        line
    }

    /// Removes what a check that failed has left.
    async fn empty(&self) {
        loop {
            let left = self.receive(32, LONG).await;
            if left.is_empty() {
                return;
            }
            self.clear(left).await;
        }
    }

    async fn send(&self, body: impl AsRef<[u8]>) {
        self.send_later(body, Duration::ZERO).await;
    }

    async fn send_later(&self, body: impl AsRef<[u8]>, delay: Duration) {
        let body = Bytes::copy_from_slice(body.as_ref());
        done("sending", self.subject.store.queues.send(self.queue, body, delay).await);
    }

    async fn receive(&self, max: u32, visibility: Duration) -> Vec<Received> {
        done("receiving", self.subject.store.queues.receive(self.queue, max, visibility).await)
    }

    async fn receive_one(&self, visibility: Duration) -> Received {
        let mut received = self.receive(32, visibility).await;
        assert_eq!(received.len(), 1, "expected one message to be due");
        received.remove(0)
    }

    async fn nothing_is_due(&self) {
        let received = self.receive(32, SHORT).await;
        assert!(received.is_empty(), "a hidden or deleted message was delivered: {received:?}");
    }

    async fn delete(&self, receipt: &Receipt) -> Result<(), StoreError> {
        self.subject.store.queues.delete(self.queue, receipt).await
    }

    async fn hide(&self, receipt: &Receipt, visibility: Duration) -> Result<Receipt, StoreError> {
        self.subject.store.queues.hide(self.queue, receipt, visibility).await
    }

    async fn length(&self) -> u64 {
        done("counting", self.subject.store.queues.length(self.queue).await)
    }

    async fn wait(&self, duration: Duration) {
        (self.subject.wait)(duration).await;
    }

    async fn clear(&self, received: Vec<Received>) {
        for message in received {
            done("deleting", self.delete(&message.receipt).await);
        }
    }
}

/// A container of a check's own.
#[derive(Clone)]
struct Container {
    store: Store,
    container: ContainerName,
}

impl Container {
    fn new(subject: &Subject) -> Self {
        let container = done("naming", ContainerName::parse(&format!("check-{}", unique())));
        Self { store: subject.store.clone(), container }
    }

    async fn exists(&self) -> bool {
        done("looking for a container", self.store.data.container_exists(&self.container).await)
    }

    async fn create(&self) {
        done("creating a container", self.store.data.create_container(&self.container).await);
    }

    async fn properties(&self, name: &str) -> Option<BlobProperties> {
        done("reading properties", self.store.data.properties(&self.container, &blob(name)).await)
    }

    async fn read(&self, name: &str, range: Range<u64>, etag: Option<&str>) -> Result<Bytes, StoreError> {
        self.store.data.read(&self.container, &blob(name), range, etag).await
    }

    async fn write(&self, name: &str, body: impl Into<Bytes>) {
        let written = self.store.data.write(&self.container, &blob(name), body.into(), "text/plain").await;
        done("writing a blob", written);
    }

    async fn delete(&self, name: &str) {
        done("deleting a blob", self.store.data.delete(&self.container, &blob(name)).await);
    }

    /// Every name of a prefix, page by page.
    async fn names(&self, prefix: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut after = None;
        loop {
            let page = done("listing", self.store.data.list(&self.container, prefix, after.as_deref()).await);
            assert!(page.blobs.len() <= LIST_LIMIT, "{} blobs in a page", page.blobs.len());
            names.extend(page.blobs.into_iter().map(|blob| blob.name));
            after = page.next;
            if after.is_none() {
                return names;
            }
        }
    }
}

fn blob(name: &str) -> BlobName {
    done("naming", BlobName::parse(name))
}
