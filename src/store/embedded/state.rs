//! The database file: its tables, opening it, and reading from it.

use super::writer::{Draft, Writer};
use crate::ports::{Queue, StoreError, Table, Time};
use redb::{
    Builder, Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition,
};
use std::path::Path;
use std::sync::Arc;

/// (table, partition, key) → (version, document as JSON text)
pub(super) const ROWS: TableDefinition<(u8, &str, &str), (u64, &[u8])> = TableDefinition::new("rows");
/// message → (queue, visible at, deliveries, number of the present delivery or 0)
pub(super) const MESSAGES: TableDefinition<u64, (u8, i64, u32, u64)> = TableDefinition::new("messages");
/// message → body; apart, so that a delivery does not write the body again.
pub(super) const BODIES: TableDefinition<u64, &[u8]> = TableDefinition::new("bodies");
/// (queue, visible at, message): due messages are the beginning of their queue's range.
pub(super) const DUE: TableDefinition<(u8, i64, u64), ()> = TableDefinition::new("due");
/// queue → how many messages it holds
pub(super) const LENGTHS: TableDefinition<u8, u64> = TableDefinition::new("lengths");
/// The layout's version and the last number given to a row's version, a message or a delivery.
pub(super) const NUMBERS: TableDefinition<&str, u64> = TableDefinition::new("numbers");
pub(super) const LAST_NUMBER: &str = "last";
const LAYOUT: &str = "layout";
const LAYOUT_VERSION: u64 = 1;

/// What the database may keep in memory; its own default is 1 GiB.
const CACHE_SIZE: usize = 64 * 1024 * 1024;

/// The open database.
pub(super) struct State {
    // First, so that the writer has ended before the database closes.
    writer: Writer,
    database: Arc<Database>,
}

impl State {
    /// Opens or creates the database in `folder` and makes every message due that was in flight.
    pub(super) fn open(folder: &Path, now: Time) -> Result<Self, StoreError> {
        let operation = || format!("opening the store in `{}`", folder.display());
        std::fs::create_dir_all(folder).map_err(|error| StoreError::rejected(operation(), error))?;
        let database = Builder::new()
            .set_cache_size(CACHE_SIZE)
            .create(folder.join("state.redb"))
            .map_err(|error| refuse_open(operation(), error))?;
        let layout = prepare(&database, now).map_err(|error| StoreError::rejected(operation(), error))?;
        if layout != LAYOUT_VERSION {
            let fault = format!("it was made by another version: layout {layout}, expected {LAYOUT_VERSION}");
            return Err(StoreError::rejected(operation(), fault));
        }
        let database = Arc::new(database);
        let writer = Writer::start(Arc::clone(&database)).map_err(|error| StoreError::rejected(operation(), error))?;
        Ok(Self { writer, database })
    }

    /// Looks into a snapshot that holds every acknowledged write.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        operation: &'static str,
        look: impl FnOnce(&ReadTransaction) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = Arc::clone(&self.database);
        tokio::task::spawn_blocking(move || look(&database.begin_read()?))
            .await
            .map_err(|error| StoreError::unavailable(operation, error))?
            .map_err(|error| StoreError::unavailable(operation, error))
    }

    /// Makes a change durable, and then gives its outcome. The change must check before it writes: if it refuses, it
    /// must have written nothing.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        operation: &'static str,
        change: impl FnOnce(&mut Draft<'_>) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer.write(change).await.map_err(|error| StoreError::unavailable(operation, error))
    }
}

fn refuse_open(operation: String, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            StoreError::rejected(operation, "another process has it open; only one can")
        }
        error => StoreError::rejected(operation, error),
    }
}

/// Creates what is missing, releases what was in flight and gives the layout's version.
fn prepare(database: &Database, now: Time) -> Result<u64, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    let layout = {
        let mut numbers = transaction.open_table(NUMBERS)?;
        let found = numbers.get(LAYOUT)?.map(|layout| layout.value());
        if found.is_none() {
            numbers.insert(LAYOUT, LAYOUT_VERSION)?;
        }
        found.unwrap_or(LAYOUT_VERSION)
    };
    if layout != LAYOUT_VERSION {
        transaction.abort()?;
        return Ok(layout);
    }
    {
        let mut draft = Draft::open(&transaction)?;
        for queue in Queue::ALL {
            draft.release_in_flight(queue, now)?;
        }
        draft.close()?;
    }
    transaction.commit()?;
    Ok(layout)
}

/// A table's place in the file; never to be changed.
pub(super) const fn table_code(table: Table) -> u8 {
    match table {
        Table::Jobs => 1,
        Table::Outcomes => 2,
        Table::Index => 3,
    }
}

/// A queue's place in the file; never to be changed.
pub(super) const fn queue_code(queue: Queue) -> u8 {
    match queue {
        Queue::Tasks => 1,
        Queue::Stages => 2,
        Queue::TasksPoison => 3,
        Queue::StagesPoison => 4,
    }
}
