//! What tables must do.

use super::{Subject, at_once, done, unique};
use crate::ports::{
    BATCH_LIMIT, BATCH_SIZE_LIMIT, CommitError, Etag, Page, Query, ROW_LIMIT, Row, Select, Store, StoreError, Table,
    TablesExt, Write,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;

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

fn insert(key: impl Into<String>, document: Value) -> Write {
    Write::Insert { key: key.into(), document }
}

fn replace(key: impl Into<String>, etag: Etag, document: Value) -> Write {
    Write::Replace { key: key.into(), etag, document }
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
