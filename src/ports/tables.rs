use super::StoreError;
use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The largest document of one row, as JSON text in bytes. Azure holds 1 MiB a row, counted in UTF-16.
pub const ROW_LIMIT: usize = 256 * 1024;
/// The most writes in one atomic commit.
pub const BATCH_LIMIT: usize = 100;
/// The largest atomic commit in bytes, all documents together. Azure holds 4 MiB with its framing, and a document is JSON
/// within JSON there, which at worst doubles it.
pub const BATCH_SIZE_LIMIT: usize = 1900 * 1024;

/// The most rows of one page.
pub const QUERY_LIMIT: u32 = 1000;

/// The tables of the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// A partition per job: the job, its stages, its plans.
    Jobs,
    /// A partition per node of a stage's roll call.
    Outcomes,
    /// What listing and sweeping need, and the app's own settings; never trusted for correctness.
    Index,
}

impl Table {
    /// Every table, in order.
    pub const ALL: [Self; 3] = [Self::Jobs, Self::Outcomes, Self::Index];

    /// The table's name in the account.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Jobs => "coremachinejobs",
            Self::Outcomes => "coremachineoutcomes",
            Self::Index => "coremachineindex",
        }
    }
}

/// The version of a row; another one after every write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etag(pub String);

/// A row as read.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The row's key within its partition.
    pub key: String,
    /// The version that was read.
    pub etag: Etag,
    /// The JSON object stored; `Null` under [`Select::Keys`].
    pub document: Value,
}

/// One write of an atomic commit. Keys and partitions are made of ASCII letters, digits and `-` only.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Creates the row; [`StoreError::AlreadyExists`] if it is there.
    Insert {
        /// The row's key.
        key: String,
        /// A JSON object.
        document: Value,
    },
    /// Replaces the whole row if it still has this version; else [`StoreError::Conflict`], a missing row included.
    Replace {
        /// The row's key.
        key: String,
        /// The version that was read.
        etag: Etag,
        /// A JSON object.
        document: Value,
    },
    /// Removes the row, whatever its version; [`StoreError::NotFound`] if it is not there.
    Delete {
        /// The row's key.
        key: String,
    },
}

impl Write {
    /// The key of the row written.
    pub fn key(&self) -> &str {
        match self {
            Self::Insert { key, .. } | Self::Replace { key, .. } | Self::Delete { key } => key,
        }
    }

    /// The document written, if any.
    pub fn document(&self) -> Option<&Value> {
        match self {
            Self::Insert { document, .. } | Self::Replace { document, .. } => Some(document),
            Self::Delete { .. } => None,
        }
    }
}

/// Why an atomic commit did not happen; none of its writes did.
#[derive(Debug, thiserror::Error)]
#[error("write {index} of the commit failed")]
pub struct CommitError {
    /// Which write failed, counted from 0; 0 if the store does not say.
    pub index: usize,
    /// What was wrong with it.
    #[source]
    pub error: StoreError,
}

/// What a query reads of each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// Keys and versions only.
    Keys,
    /// Whole rows.
    Documents,
}

/// A range of one partition's rows, in ascending order of their keys.
#[derive(Clone, Debug)]
pub struct Query<'a> {
    /// The table.
    pub table: Table,
    /// The partition.
    pub partition: &'a str,
    /// The first key wanted; empty for the partition's first.
    pub from: &'a str,
    /// The first key not wanted; `None` for no end.
    pub to: Option<&'a str>,
    /// At most this many rows, 1–1,000. A store may return fewer with a `next`.
    pub limit: u32,
    /// What to read of each.
    pub select: Select,
}

impl<'a> Query<'a> {
    /// Every row of a partition, whole; narrow it by `Query { to: …, ..Query::of(…) }`.
    pub const fn of(table: Table, partition: &'a str) -> Self {
        Self { table, partition, from: "", to: None, limit: QUERY_LIMIT, select: Select::Documents }
    }
}

/// Part of a query's rows.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In ascending order of their keys.
    pub rows: Vec<Row>,
    /// The key to go on `from`, if there may be more. A page may be empty and still have one.
    pub next: Option<String>,
}

/// Tables of partitions of rows. Reads see every write acknowledged before them.
///
/// A table that does not exist is created by the first write; reads find it empty.
#[async_trait]
pub trait Tables: Send + Sync {
    /// Reads one row; `None` if it is not there.
    async fn get(&self, table: Table, partition: &str, key: &str) -> Result<Option<Row>, StoreError>;

    /// Reads a page of one partition's rows.
    async fn query(&self, query: Query<'_>) -> Result<Page, StoreError>;

    /// Applies 1–[`BATCH_LIMIT`] writes on different rows of one partition: all or none.
    ///
    /// [`StoreError::Rejected`] for a document over [`ROW_LIMIT`], documents over [`BATCH_SIZE_LIMIT`] together, two
    /// writes on one row, or a key of other characters. On [`StoreError::Unavailable`] all of it may have been applied;
    /// an adapter never repeats a commit by itself.
    async fn commit(&self, table: Table, partition: &str, writes: Vec<Write>) -> Result<(), CommitError>;
}

/// Conveniences over [`Tables`].
#[async_trait]
pub trait TablesExt: Tables {
    /// Reads every row of a range, page by page.
    async fn query_all(&self, query: Query<'_>) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        let mut from = query.from.to_owned();
        loop {
            let page = self.query(Query { from: &from, ..query.clone() }).await?;
            rows.extend(page.rows);
            match page.next {
                Some(next) => from = next,
                None => return Ok(rows),
            }
        }
    }

    /// Inserts one row. `false` if a row of that key was there already.
    async fn insert_if_absent(
        &self,
        table: Table,
        partition: &str,
        key: &str,
        document: Value,
    ) -> Result<bool, StoreError> {
        let write = Write::Insert { key: key.to_owned(), document };
        match self.commit(table, partition, vec![write]).await {
            Ok(()) => Ok(true),
            Err(CommitError { error: StoreError::AlreadyExists(_), .. }) => Ok(false),
            Err(CommitError { error, .. }) => Err(error),
        }
    }
}

impl<T: Tables + ?Sized> TablesExt for T {}

impl Row {
    /// Reads the document as a type of ours; [`StoreError::Rejected`] if it is not one.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, StoreError> {
        T::deserialize(&self.document)
            .map_err(|error| StoreError::rejected(format!("reading row `{}`", self.key), error))
    }
}
