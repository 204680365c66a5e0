//! The store in memory: deterministic, for tests, simulation and trying a job out.

use super::limits::{LIST_LIMIT, check_commit, check_hide, check_message, check_receive};
use crate::ports::{
    BlobName, BlobPage, BlobProperties, Blobs, CommitError, ContainerName, Environment, Etag, Page, QUERY_LIMIT, Query,
    Queue, Queues, Receipt, Received, Row, Select, Store, StoreError, Table, Tables, Time, Write,
};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A store that lives as long as its handles. The same calls in the same environment give the same answers, versions
/// and receipts included.
#[derive(Clone)]
pub struct MemoryStore {
    environment: Arc<dyn Environment>,
    tables: Arc<Mutex<TableState>>,
    queues: Arc<Mutex<QueueState>>,
    payloads: Arc<Mutex<BlobState>>,
    data: Arc<Mutex<BlobState>>,
}

impl MemoryStore {
    /// An empty store, for those who need no more than the ports.
    pub fn open(environment: Arc<dyn Environment>) -> Store {
        Self::new(environment).store()
    }

    /// An empty store.
    pub fn new(environment: Arc<dyn Environment>) -> Self {
        Self {
            environment,
            tables: Arc::default(),
            queues: Arc::default(),
            payloads: Arc::default(),
            data: Arc::default(),
        }
    }

    /// The ports, all of which work on this store.
    pub fn store(&self) -> Store {
        let environment = || Arc::clone(&self.environment);
        Store {
            tables: Arc::new(MemoryTables { state: Arc::clone(&self.tables) }),
            queues: Arc::new(MemoryQueues { environment: environment(), state: Arc::clone(&self.queues) }),
            payloads: Arc::new(MemoryBlobs { environment: environment(), state: Arc::clone(&self.payloads) }),
            data: Arc::new(MemoryBlobs { environment: environment(), state: Arc::clone(&self.data) }),
        }
    }

    /// The partitions that hold rows.
    pub fn partitions(&self) -> Vec<(Table, String)> {
        let tables = lock(&self.tables);
        tables.partitions.iter().filter(|(_, rows)| !rows.is_empty()).map(|(place, _)| place.clone()).collect()
    }

    /// When the earliest hidden message of any queue becomes visible, so that a driver of virtual time knows how far
    /// it may leap; `None` if nothing is hidden.
    pub fn next_due(&self) -> Option<Time> {
        let now = self.environment.now();
        let queues = lock(&self.queues);
        queues.queues.values().filter_map(|queue| queue.first_hidden(now)).min()
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("MemoryStore")
    }
}

/// Every change is made after its checks, so what a panic leaves behind is whole.
fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct TableState {
    partitions: BTreeMap<(Table, String), BTreeMap<String, StoredRow>>,
    last_version: u64,
}

struct StoredRow {
    version: u64,
    document: Value,
}

impl StoredRow {
    fn read(&self, key: &str, select: Select) -> Row {
        let document = match select {
            Select::Keys => Value::Null,
            Select::Documents => self.document.clone(),
        };
        Row { key: key.to_owned(), etag: Etag(self.version.to_string()), document }
    }
}

struct MemoryTables {
    state: Arc<Mutex<TableState>>,
}

#[async_trait]
impl Tables for MemoryTables {
    async fn get(&self, table: Table, partition: &str, key: &str) -> Result<Option<Row>, StoreError> {
        let state = lock(&self.state);
        let rows = state.partitions.get(&(table, partition.to_owned()));
        Ok(rows.and_then(|rows| rows.get(key)).map(|row| row.read(key, Select::Documents)))
    }

    async fn query(&self, query: Query<'_>) -> Result<Page, StoreError> {
        let state = lock(&self.state);
        let Some(rows) = state.partitions.get(&(query.table, query.partition.to_owned())) else {
            return Ok(Page::default());
        };
        let mut range = rows
            .range(query.from.to_owned()..)
            .take_while(|(key, _)| query.to.is_none_or(|to| key.as_str() < to))
            .map(|(key, row)| (key.as_str(), row));
        let limit = query.limit.clamp(1, QUERY_LIMIT) as usize;
        let rows = range.by_ref().take(limit).map(|(key, row)| row.read(key, query.select)).collect();
        Ok(Page { rows, next: range.next().map(|(key, _)| key.to_owned()) })
    }

    async fn commit(&self, table: Table, partition: &str, writes: Vec<Write>) -> Result<(), CommitError> {
        check_commit(partition, &writes)?;
        let state = &mut *lock(&self.state);
        let place = (table, partition.to_owned());
        let rows = state.partitions.get(&place);
        for (index, write) in writes.iter().enumerate() {
            let stored = rows.and_then(|rows| rows.get(write.key()));
            check_row(write, stored).map_err(|error| CommitError { index, error })?;
        }
        let rows = state.partitions.entry(place).or_default();
        for write in writes {
            state.last_version += 1;
            match write {
                Write::Insert { key, document } | Write::Replace { key, document, .. } => {
                    rows.insert(key, StoredRow { version: state.last_version, document });
                }
                Write::Delete { key } => {
                    rows.remove(&key);
                }
            }
        }
        Ok(())
    }
}

fn check_row(write: &Write, stored: Option<&StoredRow>) -> Result<(), StoreError> {
    match (write, stored) {
        (Write::Insert { key, .. }, Some(_)) => Err(StoreError::AlreadyExists(key.clone())),
        (Write::Delete { key }, None) => Err(StoreError::NotFound(key.clone())),
        (Write::Replace { key, etag, .. }, stored) => match stored {
            Some(row) if row.version.to_string() == etag.0 => Ok(()),
            Some(_) | None => Err(StoreError::Conflict(key.clone())),
        },
        (Write::Insert { .. }, None) | (Write::Delete { .. }, Some(_)) => Ok(()),
    }
}

#[derive(Default)]
struct QueueState {
    queues: BTreeMap<Queue, MessageQueue>,
    last_number: u64,
}

impl QueueState {
    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }
}

#[derive(Default)]
struct MessageQueue {
    messages: BTreeMap<u64, Message>,
    /// The same messages by when they are due, then by when they were sent.
    due: BTreeSet<(Time, u64)>,
}

struct Message {
    body: Bytes,
    visible_at: Time,
    dequeue_count: u32,
    /// Of the present delivery; `None` before the first.
    pop: Option<u64>,
}

impl MessageQueue {
    fn insert(&mut self, id: u64, message: Message) {
        self.due.insert((message.visible_at, id));
        self.messages.insert(id, message);
    }

    fn remove(&mut self, id: u64) -> Option<Message> {
        let message = self.messages.remove(&id)?;
        self.due.remove(&(message.visible_at, id));
        Some(message)
    }

    /// Takes the delivered message that the receipt stands for out of the queue.
    fn take(&mut self, receipt: &Receipt) -> Result<(u64, Message), StoreError> {
        let stale = || StoreError::NotFound(format!("delivery of message {}", receipt.id));
        let id = receipt.id.parse().map_err(|_| stale())?;
        let delivered = self.messages.get(&id).and_then(|message| message.pop).ok_or_else(stale)?;
        if delivered.to_string() != receipt.pop {
            return Err(stale());
        }
        self.remove(id).map(|message| (id, message)).ok_or_else(stale)
    }

    fn first_hidden(&self, now: Time) -> Option<Time> {
        self.due.range((now, u64::MAX)..).next().map(|(due, _)| *due)
    }
}

struct MemoryQueues {
    environment: Arc<dyn Environment>,
    state: Arc<Mutex<QueueState>>,
}

#[async_trait]
impl Queues for MemoryQueues {
    async fn send(&self, queue: Queue, body: Bytes, delay: Duration) -> Result<(), StoreError> {
        check_message(&body)?;
        check_hide(delay)?;
        let visible_at = self.environment.now() + delay;
        let mut state = lock(&self.state);
        let id = state.next_number();
        let message = Message { body, visible_at, dequeue_count: 0, pop: None };
        state.queues.entry(queue).or_default().insert(id, message);
        Ok(())
    }

    async fn receive(&self, queue: Queue, max: u32, visibility: Duration) -> Result<Vec<Received>, StoreError> {
        check_receive(max, visibility)?;
        let now = self.environment.now();
        let state = &mut *lock(&self.state);
        let Some(messages) = state.queues.get_mut(&queue) else { return Ok(Vec::new()) };
        let due: Vec<u64> = messages.due.range(..=(now, u64::MAX)).take(max as usize).map(|(_, id)| *id).collect();
        let mut received = Vec::with_capacity(due.len());
        for id in due {
            let Some(mut message) = messages.remove(id) else { continue };
            state.last_number += 1;
            let pop = state.last_number;
            message.pop = Some(pop);
            message.visible_at = now + visibility;
            message.dequeue_count = message.dequeue_count.saturating_add(1);
            received.push(Received {
                receipt: Receipt { id: id.to_string(), pop: pop.to_string() },
                body: message.body.clone(),
                dequeue_count: message.dequeue_count,
            });
            messages.insert(id, message);
        }
        Ok(received)
    }

    async fn delete(&self, queue: Queue, receipt: &Receipt) -> Result<(), StoreError> {
        let mut state = lock(&self.state);
        state.queues.entry(queue).or_default().take(receipt).map(|_| ())
    }

    async fn hide(&self, queue: Queue, receipt: &Receipt, visibility: Duration) -> Result<Receipt, StoreError> {
        check_hide(visibility)?;
        let now = self.environment.now();
        let mut state = lock(&self.state);
        let pop = state.next_number();
        let messages = state.queues.entry(queue).or_default();
        let (id, message) = messages.take(receipt)?;
        messages.insert(id, Message { visible_at: now + visibility, pop: Some(pop), ..message });
        Ok(Receipt { id: id.to_string(), pop: pop.to_string() })
    }

    async fn length(&self, queue: Queue) -> Result<u64, StoreError> {
        Ok(lock(&self.state).queues.get(&queue).map_or(0, |messages| messages.messages.len() as u64))
    }
}

#[derive(Default)]
struct BlobState {
    containers: BTreeMap<ContainerName, BTreeMap<String, StoredBlob>>,
    last_version: u64,
}

impl BlobState {
    fn get(&self, container: &ContainerName, name: &BlobName) -> Option<&StoredBlob> {
        self.containers.get(container)?.get(name.as_str())
    }
}

struct StoredBlob {
    body: Bytes,
    content_type: String,
    last_modified: Time,
    version: u64,
}

impl StoredBlob {
    fn properties(&self, name: &str) -> BlobProperties {
        BlobProperties {
            name: name.to_owned(),
            size: self.body.len() as u64,
            content_type: Some(self.content_type.clone()),
            last_modified: self.last_modified,
            etag: self.version.to_string(),
        }
    }
}

struct MemoryBlobs {
    environment: Arc<dyn Environment>,
    state: Arc<Mutex<BlobState>>,
}

#[async_trait]
impl Blobs for MemoryBlobs {
    async fn container_exists(&self, container: &ContainerName) -> Result<bool, StoreError> {
        Ok(lock(&self.state).containers.contains_key(container))
    }

    async fn create_container(&self, container: &ContainerName) -> Result<(), StoreError> {
        lock(&self.state).containers.entry(container.clone()).or_default();
        Ok(())
    }

    async fn list(&self, container: &ContainerName, prefix: &str, after: Option<&str>) -> Result<BlobPage, StoreError> {
        let state = lock(&self.state);
        let Some(blobs) = state.containers.get(container) else {
            return Err(StoreError::NotFound(format!("container {container}")));
        };
        let first = match after {
            Some(after) if after >= prefix => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix),
        };
        let mut matching =
            blobs.range::<str, _>((first, Bound::Unbounded)).take_while(|(name, _)| name.starts_with(prefix));
        let blobs: Vec<_> = matching.by_ref().take(LIST_LIMIT).map(|(name, blob)| blob.properties(name)).collect();
        let more = matching.next().is_some();
        let next = blobs.last().filter(|_| more).map(|blob| blob.name.clone());
        Ok(BlobPage { blobs, next })
    }

    async fn properties(
        &self,
        container: &ContainerName,
        name: &BlobName,
    ) -> Result<Option<BlobProperties>, StoreError> {
        Ok(lock(&self.state).get(container, name).map(|blob| blob.properties(name.as_str())))
    }

    async fn read(
        &self,
        container: &ContainerName,
        name: &BlobName,
        range: Range<u64>,
        etag: Option<&str>,
    ) -> Result<Bytes, StoreError> {
        let state = lock(&self.state);
        let place = || format!("{container}/{name}");
        let blob = state.get(container, name).ok_or_else(|| StoreError::NotFound(place()))?;
        if etag.is_some_and(|etag| etag != blob.version.to_string()) {
            return Err(StoreError::Conflict(place()));
        }
        let within = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(blob.body.len());
        let end = within(range.end);
        Ok(blob.body.slice(within(range.start).min(end)..end))
    }

    async fn write(
        &self,
        container: &ContainerName,
        name: &BlobName,
        body: Bytes,
        content_type: &str,
    ) -> Result<(), StoreError> {
        let last_modified = self.environment.now();
        let state = &mut *lock(&self.state);
        state.last_version += 1;
        let blob =
            StoredBlob { body, content_type: content_type.to_owned(), last_modified, version: state.last_version };
        state.containers.entry(container.clone()).or_default().insert(name.as_str().to_owned(), blob);
        Ok(())
    }

    async fn delete(&self, container: &ContainerName, name: &BlobName) -> Result<(), StoreError> {
        if let Some(blobs) = lock(&self.state).containers.get_mut(container) {
            blobs.remove(name.as_str());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::VirtualEnvironment;

    #[tokio::test]
    async fn the_next_due_is_the_earliest_hidden_message_of_all_queues() {
        let start = Time::from_unix_millis(0);
        let environment = Arc::new(VirtualEnvironment::new(start, 0));
        let memory = MemoryStore::new(environment.clone());
        let queues = memory.store().queues;
        let seconds = Duration::from_secs;
        queues.send(Queue::Tasks, Bytes::new(), seconds(0)).await.expect("sending");
        assert_eq!(memory.next_due(), None, "a message that is due counts as hidden");
        queues.send(Queue::Tasks, Bytes::new(), seconds(9)).await.expect("sending");
        queues.send(Queue::Stages, Bytes::new(), seconds(5)).await.expect("sending");
        assert_eq!(memory.next_due(), Some(start + seconds(5)));
        queues.receive(Queue::Tasks, 1, seconds(3)).await.expect("receiving");
        assert_eq!(memory.next_due(), Some(start + seconds(3)));
        environment.advance(seconds(5));
        assert_eq!(memory.next_due(), Some(start + seconds(9)));
        environment.advance(seconds(4));
        assert_eq!(memory.next_due(), None);
    }
}
