//! The limits that every store refuses to go beyond, checked before anything is written.

use crate::ports::{BATCH_LIMIT, BATCH_SIZE_LIMIT, CommitError, MESSAGE_LIMIT, ROW_LIMIT, StoreError, Write};
use bytes::Bytes;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

/// The longest partition or row key in characters: Azure holds 1 KiB, counted in UTF-16.
pub const KEY_LIMIT: usize = 512;
/// The longest time a message can be hidden; Azure's limit.
pub const HIDE_LIMIT: Duration = Duration::from_hours(7 * 24);
/// The most messages one receive takes; Azure's limit.
pub const RECEIVE_LIMIT: u32 = 32;
/// The most blobs one page of a listing holds; Azure's limit.
pub const LIST_LIMIT: usize = 5_000;

/// Checks a commit's size, keys and documents. The error names the first write at fault; 0 if it is the whole commit.
pub fn check_commit(partition: &str, writes: &[Write]) -> Result<(), CommitError> {
    check_key("partition", partition).map_err(|error| CommitError { index: 0, error })?;
    if writes.is_empty() {
        return Err(refused(0, "a commit of no writes".to_owned()));
    }
    if writes.len() > BATCH_LIMIT {
        return Err(refused(0, format!("{} writes in one commit, expected at most {BATCH_LIMIT}", writes.len())));
    }
    let mut keys = BTreeSet::new();
    let mut total = 0;
    for (index, write) in writes.iter().enumerate() {
        let key = write.key();
        check_key("row", key).map_err(|error| CommitError { index, error })?;
        if !keys.insert(key) {
            return Err(refused(index, format!("row `{key}` is written twice in one commit")));
        }
        if let Some(document) = write.document() {
            total += check_document(key, document).map_err(|error| CommitError { index, error })?;
        }
        if total > BATCH_SIZE_LIMIT {
            let fault =
                format!("the documents up to row `{key}` are {total} bytes, expected at most {BATCH_SIZE_LIMIT}");
            return Err(refused(index, fault));
        }
    }
    Ok(())
}

/// Checks a message's size.
pub fn check_message(body: &Bytes) -> Result<(), StoreError> {
    if body.len() > MESSAGE_LIMIT {
        let fault = format!("the message is {} bytes, expected at most {MESSAGE_LIMIT}", body.len());
        return Err(StoreError::rejected("sending a message", fault));
    }
    Ok(())
}

/// Checks how long a message is to be hidden.
pub fn check_hide(duration: Duration) -> Result<(), StoreError> {
    if duration > HIDE_LIMIT {
        let fault = format!("{} s, expected at most {}", duration.as_secs(), HIDE_LIMIT.as_secs());
        return Err(StoreError::rejected("hiding a message", fault));
    }
    Ok(())
}

/// Checks how many messages are to be taken, and for how long. A delivery hides its message for some time at least:
/// with none, two callers could hold it at once.
pub fn check_receive(max: u32, visibility: Duration) -> Result<(), StoreError> {
    if !(1..=RECEIVE_LIMIT).contains(&max) {
        let fault = format!("{max} messages at once, expected 1–{RECEIVE_LIMIT}");
        return Err(StoreError::rejected("receiving messages", fault));
    }
    if visibility.is_zero() {
        return Err(StoreError::rejected("receiving messages", "a visibility of zero, expected more"));
    }
    check_hide(visibility)
}

fn check_key(what: &str, key: &str) -> Result<(), StoreError> {
    let fault = if key.is_empty() {
        "it is empty".to_owned()
    } else if key.len() > KEY_LIMIT {
        format!("{} characters, expected at most {KEY_LIMIT}", key.len())
    } else if !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        "expected ASCII letters, digits and `-` only".to_owned()
    } else {
        return Ok(());
    };
    Err(StoreError::rejected(format!("{what} key `{key}`"), fault))
}

/// The document's size in bytes.
fn check_document(key: &str, document: &Value) -> Result<usize, StoreError> {
    if !document.is_object() {
        return Err(StoreError::rejected(format!("writing row `{key}`"), "the document is not a JSON object"));
    }
    let mut size = Size(0);
    serde_json::to_writer(&mut size, document)
        .map_err(|error| StoreError::rejected(format!("writing row `{key}`"), error))?;
    if size.0 > ROW_LIMIT {
        let fault = format!("the document is {} bytes, expected at most {ROW_LIMIT}", size.0);
        return Err(StoreError::rejected(format!("writing row `{key}`"), fault));
    }
    Ok(size.0)
}

fn refused(index: usize, fault: String) -> CommitError {
    CommitError { index, error: StoreError::rejected("committing", fault) }
}

/// Counts what is written, so that measuring a document does not copy it.
struct Size(usize);

impl io::Write for Size {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn document_of(bytes: usize) -> Value {
        json!({ "text": "x".repeat(bytes - r#"{"text":""}"#.len()) })
    }

    fn insert(key: impl Into<String>, document: Value) -> Write {
        Write::Insert { key: key.into(), document }
    }

    #[test]
    fn a_row_may_be_as_large_as_the_limit_and_no_larger() {
        assert!(check_commit("p", &[insert("a", document_of(ROW_LIMIT))]).is_ok());
        let refusal = check_commit("p", &[insert("a", json!({})), insert("b", document_of(ROW_LIMIT + 1))]);
        assert!(matches!(refusal, Err(CommitError { index: 1, error: StoreError::Rejected { .. } })), "{refusal:?}");
    }

    #[test]
    fn a_commit_may_be_as_large_as_the_limit_and_no_larger() {
        let full =
            |rows: usize| (0..rows).map(|row| insert(format!("r{row}"), document_of(ROW_LIMIT))).collect::<Vec<_>>();
        assert!(check_commit("p", &full(BATCH_SIZE_LIMIT / ROW_LIMIT)).is_ok());
        assert!(check_commit("p", &full(BATCH_SIZE_LIMIT / ROW_LIMIT + 1)).is_err());
        let many = |rows: usize| (0..rows).map(|row| insert(format!("r{row}"), json!({}))).collect::<Vec<_>>();
        assert!(check_commit("p", &many(BATCH_LIMIT)).is_ok());
        assert!(check_commit("p", &many(BATCH_LIMIT + 1)).is_err());
        assert!(check_commit("p", &[]).is_err());
    }

    #[test]
    fn a_key_is_letters_digits_and_hyphens() {
        for key in ["", "a b", "a/b", "ä", "a_b", "a.b", &"k".repeat(KEY_LIMIT + 1)] {
            assert!(check_commit("p", &[insert(key, json!({}))]).is_err(), "`{key}` was accepted as a row key");
            assert!(check_commit(key, &[insert("a", json!({}))]).is_err(), "`{key}` was accepted as a partition");
        }
        assert!(check_commit("Job-1", &[insert("Z-09", json!({}))]).is_ok());
        let twice = check_commit("p", &[insert("a", json!({})), Write::Delete { key: "a".to_owned() }]);
        assert!(matches!(twice, Err(CommitError { index: 1, .. })), "{twice:?}");
    }

    #[test]
    fn a_document_is_an_object() {
        for document in [json!(null), json!([]), json!("text"), json!(1)] {
            assert!(check_commit("p", &[insert("a", document.clone())]).is_err(), "{document} was accepted");
        }
    }
}
