//! A store that fails where it is told to, in front of one that does not.

use async_trait::async_trait;
use bytes::Bytes;
use coremachine::ports::{
    BlobName, BlobPage, BlobProperties, Blobs, CommitError, ContainerName, Page, Query, Queue, Queues, Receipt,
    Received, Row, Store, StoreError, Table, Tables, Write,
};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What goes wrong at one operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process is killed before the operation is applied.
    KillBefore,
    /// The process is killed after the operation was applied.
    KillAfter,
    /// The operation is applied, and its answer is lost.
    LoseAnswer,
    /// The operation is not applied, and says so.
    Refuse,
}

impl Fault {
    pub(super) const ALL: [Self; 4] = [Self::KillBefore, Self::KillAfter, Self::LoseAnswer, Self::Refuse];
}

/// Which operation goes wrong how. Operations are counted over all processes.
pub(super) type Plan = Arc<dyn Fn(u64) -> Option<Fault> + Send + Sync>;

/// The world's count of operations, and what goes wrong at which.
#[derive(Clone)]
pub(super) struct Faults {
    plan: Plan,
    /// How often an operation lets others go first, so that processes interleave.
    yields: Arc<dyn Fn() -> u64 + Send + Sync>,
    operations: Arc<AtomicU64>,
    dead: Arc<AtomicBool>,
}

impl Faults {
    pub(super) fn new(plan: Plan, yields: Arc<dyn Fn() -> u64 + Send + Sync>) -> Self {
        Self { plan, yields, operations: Arc::default(), dead: Arc::default() }
    }

    /// The same world, for a process that is born now.
    pub(super) fn of_new_process(&self) -> Self {
        Self { dead: Arc::default(), ..self.clone() }
    }

    pub(super) fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    pub(super) fn dead(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    /// Puts the faults in front of a store.
    pub(super) fn before(&self, store: Store) -> Store {
        let blobs = |inner| Arc::new(Faulty { inner, faults: self.clone() });
        Store {
            tables: Arc::new(Faulty { inner: store.tables, faults: self.clone() }),
            queues: Arc::new(Faulty { inner: store.queues, faults: self.clone() }),
            payloads: blobs(store.payloads),
            data: blobs(store.data),
        }
    }

    async fn around<T, E: From<Broken>>(&self, operation: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        for _ in 0..(self.yields)() {
            tokio::task::yield_now().await;
        }
        if self.dead() {
            return Err(Broken.into());
        }
        match (self.plan)(self.operations.fetch_add(1, Ordering::Relaxed)) {
            None => operation.await,
            Some(Fault::Refuse) => Err(Broken.into()),
            Some(Fault::LoseAnswer) => {
                let _ = operation.await;
                Err(Broken.into())
            }
            Some(Fault::KillBefore) => {
                self.dead.store(true, Ordering::Relaxed);
                Err(Broken.into())
            }
            Some(Fault::KillAfter) => {
                let _ = operation.await;
                self.dead.store(true, Ordering::Relaxed);
                Err(Broken.into())
            }
        }
    }
}

/// What a caller sees of every fault.
struct Broken;

impl From<Broken> for StoreError {
    fn from(_: Broken) -> Self {
        Self::unavailable("a faulty operation", "a fault was injected")
    }
}

/// [`CommitError`] is not ours to convert into.
struct Commit(CommitError);

impl From<Broken> for Commit {
    fn from(broken: Broken) -> Self {
        Self(CommitError { index: 0, error: broken.into() })
    }
}

struct Faulty<P: ?Sized> {
    inner: Arc<P>,
    faults: Faults,
}

#[async_trait]
impl Tables for Faulty<dyn Tables> {
    async fn get(&self, table: Table, partition: &str, key: &str) -> Result<Option<Row>, StoreError> {
        self.faults.around(self.inner.get(table, partition, key)).await
    }

    async fn query(&self, query: Query<'_>) -> Result<Page, StoreError> {
        self.faults.around(self.inner.query(query)).await
    }

    async fn commit(&self, table: Table, partition: &str, writes: Vec<Write>) -> Result<(), CommitError> {
        let commit = async { self.inner.commit(table, partition, writes).await.map_err(Commit) };
        self.faults.around(commit).await.map_err(|Commit(error)| error)
    }
}

#[async_trait]
impl Queues for Faulty<dyn Queues> {
    async fn send(&self, queue: Queue, body: Bytes, delay: Duration) -> Result<(), StoreError> {
        self.faults.around(self.inner.send(queue, body, delay)).await
    }

    async fn receive(&self, queue: Queue, max: u32, visibility: Duration) -> Result<Vec<Received>, StoreError> {
        self.faults.around(self.inner.receive(queue, max, visibility)).await
    }

    async fn delete(&self, queue: Queue, receipt: &Receipt) -> Result<(), StoreError> {
        self.faults.around(self.inner.delete(queue, receipt)).await
    }

    async fn hide(&self, queue: Queue, receipt: &Receipt, visibility: Duration) -> Result<Receipt, StoreError> {
        self.faults.around(self.inner.hide(queue, receipt, visibility)).await
    }

    async fn length(&self, queue: Queue) -> Result<u64, StoreError> {
        self.faults.around(self.inner.length(queue)).await
    }
}

#[async_trait]
impl Blobs for Faulty<dyn Blobs> {
    async fn container_exists(&self, container: &ContainerName) -> Result<bool, StoreError> {
        self.faults.around(self.inner.container_exists(container)).await
    }

    async fn create_container(&self, container: &ContainerName) -> Result<(), StoreError> {
        self.faults.around(self.inner.create_container(container)).await
    }

    async fn list(&self, container: &ContainerName, prefix: &str, after: Option<&str>) -> Result<BlobPage, StoreError> {
        self.faults.around(self.inner.list(container, prefix, after)).await
    }

    async fn properties(
        &self,
        container: &ContainerName,
        name: &BlobName,
    ) -> Result<Option<BlobProperties>, StoreError> {
        self.faults.around(self.inner.properties(container, name)).await
    }

    async fn read(
        &self,
        container: &ContainerName,
        name: &BlobName,
        range: Range<u64>,
        etag: Option<&str>,
    ) -> Result<Bytes, StoreError> {
        self.faults.around(self.inner.read(container, name, range, etag)).await
    }

    async fn write(
        &self,
        container: &ContainerName,
        name: &BlobName,
        body: Bytes,
        content_type: &str,
    ) -> Result<(), StoreError> {
        self.faults.around(self.inner.write(container, name, body, content_type)).await
    }

    async fn delete(&self, container: &ContainerName, name: &BlobName) -> Result<(), StoreError> {
        self.faults.around(self.inner.delete(container, name)).await
    }
}
