//! Tables of the database file.

use super::state::{ROWS, State, table_code};
use super::writer::Draft;
use crate::ports::{CommitError, Etag, Page, QUERY_LIMIT, Query, Row, Select, StoreError, Table, Tables, Write};
use crate::store::limits::check_commit;
use async_trait::async_trait;
use redb::ReadableTable;
use serde_json::Value;
use std::sync::Arc;

/// The most bytes of documents in one page, so that a page of large rows does not fill the memory; Azure's limit.
const PAGE_SIZE_LIMIT: usize = 4 * 1024 * 1024;

pub(super) struct EmbeddedTables {
    state: Arc<State>,
}

impl EmbeddedTables {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state }
    }
}

#[async_trait]
impl Tables for EmbeddedTables {
    async fn get(&self, table: Table, partition: &str, key: &str) -> Result<Option<Row>, StoreError> {
        let (partition, key) = (partition.to_owned(), key.to_owned());
        self.state
            .read("reading a row", move |snapshot| {
                let rows = snapshot.open_table(ROWS)?;
                let stored = rows.get((table_code(table), partition.as_str(), key.as_str()))?;
                Ok(stored.map(|stored| read_row(&key, stored.value(), Select::Documents)).transpose())
            })
            .await?
    }

    async fn query(&self, query: Query<'_>) -> Result<Page, StoreError> {
        let (table, limit, select) = (query.table, query.limit, query.select);
        let (partition, from) = (query.partition.to_owned(), query.from.to_owned());
        let to = query.to.map(str::to_owned);
        self.state
            .read("reading a page of rows", move |snapshot| {
                let rows = snapshot.open_table(ROWS)?;
                let place = (table_code(table), partition.as_str());
                let mut page = Page::default();
                let mut size = 0;
                for entry in rows.range((place.0, place.1, from.as_str())..)? {
                    let (key, stored) = entry?;
                    let (table, partition, key) = key.value();
                    if (table, partition) != place || to.as_deref().is_some_and(|to| key >= to) {
                        break;
                    }
                    if page.rows.len() >= limit.clamp(1, QUERY_LIMIT) as usize || size > PAGE_SIZE_LIMIT {
                        page.next = Some(key.to_owned());
                        break;
                    }
                    match read_row(key, stored.value(), select) {
                        Ok(row) => page.rows.push(row),
                        Err(error) => return Ok(Err(error)),
                    }
                    size += match select {
                        Select::Keys => 0,
                        Select::Documents => stored.value().1.len(),
                    };
                }
                Ok(Ok(page))
            })
            .await?
    }

    async fn commit(&self, table: Table, partition: &str, writes: Vec<Write>) -> Result<(), CommitError> {
        check_commit(partition, &writes)?;
        let writes = writes.into_iter().map(|write| (document_text(&write), write)).collect::<Vec<_>>();
        let partition = partition.to_owned();
        self.state
            .write("committing", move |draft| {
                for (index, (_, write)) in writes.iter().enumerate() {
                    if let Err(error) = check_row(draft, table, &partition, write)? {
                        return Ok(Err(CommitError { index, error }));
                    }
                }
                for (text, write) in &writes {
                    let version = draft.next_number();
                    let place = (table_code(table), partition.as_str(), write.key());
                    match write {
                        Write::Insert { .. } | Write::Replace { .. } => {
                            draft.rows.insert(place, (version, text.as_slice()))?;
                        }
                        Write::Delete { .. } => {
                            draft.rows.remove(place)?;
                        }
                    }
                }
                Ok(Ok(()))
            })
            .await
            .map_err(|error| CommitError { index: 0, error })?
    }
}

fn read_row(key: &str, (version, text): (u64, &[u8]), select: Select) -> Result<Row, StoreError> {
    let document = match select {
        Select::Keys => Value::Null,
        Select::Documents => {
            serde_json::from_slice(text).map_err(|error| StoreError::rejected(format!("reading row `{key}`"), error))?
        }
    };
    Ok(Row { key: key.to_owned(), etag: Etag(version.to_string()), document })
}

/// The document as stored; empty for a deletion. Made before the writer is asked, which has others waiting.
fn document_text(write: &Write) -> Vec<u8> {
    write.document().map(|document| document.to_string().into_bytes()).unwrap_or_default()
}

fn check_row(
    draft: &Draft<'_>,
    table: Table,
    partition: &str,
    write: &Write,
) -> Result<Result<(), StoreError>, redb::Error> {
    let stored = draft.rows.get((table_code(table), partition, write.key()))?.map(|stored| stored.value().0);
    Ok(match (write, stored) {
        (Write::Insert { key, .. }, Some(_)) => Err(StoreError::AlreadyExists(key.clone())),
        (Write::Delete { key }, None) => Err(StoreError::NotFound(key.clone())),
        (Write::Replace { key, etag, .. }, stored) => match stored {
            Some(version) if version.to_string() == etag.0 => Ok(()),
            Some(_) | None => Err(StoreError::Conflict(key.clone())),
        },
        (Write::Insert { .. }, None) | (Write::Delete { .. }, Some(_)) => Ok(()),
    })
}
