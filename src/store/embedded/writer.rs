//! The one writer: a thread that puts all changes that wait into one durable transaction.

use super::state::{BODIES, DUE, LAST_NUMBER, LENGTHS, MESSAGES, NUMBERS, ROWS};
use redb::{Database, Durability, ReadableTable, Table, WriteTransaction};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use tokio::sync::{mpsc, oneshot};

/// The most changes in one transaction, and the most that wait before callers have to.
const GROUP_LIMIT: usize = 128;

/// Hands changes to the thread. Dropping it waits until the thread has finished what it was given.
pub(super) struct Writer {
    changes: Option<mpsc::Sender<Box<dyn Change>>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts the thread.
    pub(super) fn start(database: Arc<Database>) -> io::Result<Self> {
        let (changes, waiting) = mpsc::channel(GROUP_LIMIT);
        let thread = std::thread::Builder::new()
            .name("embedded-store".to_owned())
            .spawn(move || write_groups(&database, waiting))?;
        Ok(Self { changes: Some(changes), thread: Some(thread) })
    }

    /// Makes a change durable, and then gives its outcome.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Draft<'_>) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, WriteError> {
        let (answer, answered) = oneshot::channel();
        let change = Waiting { change: Some(change), outcome: None, answer };
        let changes = self.changes.as_ref().ok_or(WriteError::Stopped)?;
        changes.send(Box::new(change)).await.map_err(|_| WriteError::Stopped)?;
        answered.await.map_err(|_| WriteError::Stopped)?.map_err(WriteError::Failed)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.changes = None;
        if let Some(thread) = self.thread.take() {
            // A writer that panicked has answered its callers by leaving them.
            let _ = thread.join();
        }
    }
}

/// Why a change is not known to be durable.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The thread has ended.
    #[error("the writer of the store has stopped")]
    Stopped,
    /// The transaction failed, for all who were in it.
    #[error(transparent)]
    Failed(Arc<redb::Error>),
}

fn write_groups(database: &Database, mut waiting: mpsc::Receiver<Box<dyn Change>>) {
    let mut group = Vec::with_capacity(GROUP_LIMIT);
    while waiting.blocking_recv_many(&mut group, GROUP_LIMIT) > 0 {
        let failure = write_group(database, &mut group).err().map(Arc::new);
        for change in group.drain(..) {
            change.answer(failure.as_ref());
        }
    }
}

fn write_group(database: &Database, group: &mut [Box<dyn Change>]) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    let mut draft = Draft::open(&transaction)?;
    for change in group {
        change.apply(&mut draft)?;
    }
    // A group that was refused as a whole costs no write to the disk.
    if draft.close()? {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(())
}

/// A change of any outcome, and the caller who waits for it.
trait Change: Send {
    fn apply(&mut self, draft: &mut Draft<'_>) -> Result<(), redb::Error>;

    fn answer(self: Box<Self>, failure: Option<&Arc<redb::Error>>);
}

struct Waiting<T, F> {
    change: Option<F>,
    outcome: Option<T>,
    answer: oneshot::Sender<Result<T, Arc<redb::Error>>>,
}

impl<T, F> Change for Waiting<T, F>
where
    T: Send,
    F: FnOnce(&mut Draft<'_>) -> Result<T, redb::Error> + Send,
{
    fn apply(&mut self, draft: &mut Draft<'_>) -> Result<(), redb::Error> {
        if let Some(change) = self.change.take() {
            self.outcome = Some(change(draft)?);
        }
        Ok(())
    }

    fn answer(self: Box<Self>, failure: Option<&Arc<redb::Error>>) {
        // A caller that has gone away is not told; its change stands, as with any answer that is lost.
        let _ = match (failure, self.outcome) {
            (Some(failure), _) => self.answer.send(Err(Arc::clone(failure))),
            (None, Some(outcome)) => self.answer.send(Ok(outcome)),
            (None, None) => Ok(()),
        };
    }
}

/// The tables of the transaction being written.
pub(super) struct Draft<'txn> {
    pub(super) rows: Table<'txn, (u8, &'static str, &'static str), (u64, &'static [u8])>,
    pub(super) messages: Table<'txn, u64, (u8, i64, u32, u64)>,
    pub(super) bodies: Table<'txn, u64, &'static [u8]>,
    pub(super) due: Table<'txn, (u8, i64, u64), ()>,
    pub(super) lengths: Table<'txn, u8, u64>,
    numbers: Table<'txn, &'static str, u64>,
    last_number: u64,
    stored_number: u64,
}

impl<'txn> Draft<'txn> {
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Result<Self, redb::Error> {
        let numbers = transaction.open_table(NUMBERS)?;
        let last_number = numbers.get(LAST_NUMBER)?.map_or(0, |number| number.value());
        Ok(Self {
            rows: transaction.open_table(ROWS)?,
            messages: transaction.open_table(MESSAGES)?,
            bodies: transaction.open_table(BODIES)?,
            due: transaction.open_table(DUE)?,
            lengths: transaction.open_table(LENGTHS)?,
            numbers,
            last_number,
            stored_number: last_number,
        })
    }

    /// A number never given before. Every change takes at least one, by which the writer knows that there was a change.
    pub(super) fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    /// Stores the numbers given; `false` if none were, so that nothing has changed.
    pub(super) fn close(mut self) -> Result<bool, redb::Error> {
        if self.last_number == self.stored_number {
            return Ok(false);
        }
        self.numbers.insert(LAST_NUMBER, self.last_number)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::backends::InMemoryBackend;
    use redb::{Builder, StorageBackend};
    use std::sync::atomic::{AtomicBool, Ordering};

    /// A disk that can be told to fail.
    #[derive(Debug)]
    struct Disk {
        memory: InMemoryBackend,
        is_full: Arc<AtomicBool>,
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.memory.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.memory.read(offset, out)
        }

        fn set_len(&self, length: u64) -> io::Result<()> {
            self.memory.set_len(length)
        }

        fn sync_data(&self) -> io::Result<()> {
            if self.is_full.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.memory.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.memory.write(offset, data)
        }
    }

    #[tokio::test]
    async fn a_failed_commit_is_told_to_everyone_in_it() {
        let is_full = Arc::new(AtomicBool::new(false));
        let disk = Disk { memory: InMemoryBackend::new(), is_full: Arc::clone(&is_full) };
        let database = Builder::new().create_with_backend(disk).expect("a database");
        let writer = Writer::start(Arc::new(database)).expect("a writer");
        let number = || writer.write(|draft| Ok(draft.next_number()));
        assert_eq!(number().await.expect("a number"), 1);
        is_full.store(true, Ordering::Relaxed);
        for outcome in futures_util::future::join_all((0..3).map(|_| number())).await {
            assert!(matches!(outcome, Err(WriteError::Failed(_))), "{outcome:?}");
        }
    }
}
