//! [`CoreMachine`]: loads what is stored, asks the engine, applies what it decides.
//!
//! One verb a file, the same verb as on the floors above and below: `submit`, `advance_stage`, `process_task`,
//! `give_up`, `sweep`, `cancel`, `retry`, `delete`, `status`. Between any two awaits the process may be killed; each verb can be repeated from its beginning.

mod advance_stage;
mod author;
mod cancel;
mod delete;
mod give_up;
mod payloads;
mod plans;
mod process_task;
mod retry;
mod secret;
mod status;
mod submit;
mod sweep;
mod tasks;

pub use crate::engine::{Delivery, Submission};
pub use status::{JobReport, StageReport};
pub use submit::{SubmitError, Submitted};
pub use sweep::Swept;
pub use tasks::{TaskPage, TaskPlace, TaskQuery, TaskReport, TaskStatus};

use crate::contract::JobId;
use crate::contract::registry::{RegisteredJob, Registry};
use crate::engine::{JobState, Node, Stage};
use crate::model::{JobStatus, StageMessage, Tally, TaskMessage, UnreadableMessage, keys};
use crate::ports::{Environment, Query, Queue, Row, Store, StoreError, Table, TablesExt};
use bytes::Bytes;
use plans::Plans;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The waits between the tries to send one message.
const SEND_AGAIN_AFTER: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(400), Duration::from_millis(1600)];

/// Runs jobs of every registered type, and knows none of them.
///
/// Any number of machines may work on one store at the same time.
pub struct CoreMachine {
    registry: Arc<Registry>,
    store: Store,
    environment: Arc<dyn Environment>,
    plans: Plans,
    secret: tokio::sync::OnceCell<[u8; 32]>,
}

/// Why a message was not dealt with. The message is to be delivered again.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The message is none of ours.
    #[error(transparent)]
    Unreadable(#[from] UnreadableMessage),
    /// The job's type is not linked into this binary; another version of the app may have it.
    #[error("job type `{0}` is not registered in this version of the app")]
    UnknownJobType(String),
    /// Others kept changing the job between our reads and our writes.
    #[error("job `{0}` kept changing; trying again later")]
    Contended(JobId),
}

/// Why a job was not cancelled, retried or deleted.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no such job.
    #[error("there is no job `{0}`")]
    NotFound(JobId),
    /// The job is not in a state that allows it.
    #[error("the job is {0}")]
    NotAllowed(JobStatus),
    /// The job could not be changed at present.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

impl From<StoreError> for ChangeError {
    fn from(error: StoreError) -> Self {
        Self::Machine(error.into())
    }
}

impl CoreMachine {
    /// A machine on a store.
    pub fn new(registry: Arc<Registry>, store: Store, environment: Arc<dyn Environment>) -> Self {
        Self { registry, store, environment, plans: Plans::default(), secret: tokio::sync::OnceCell::new() }
    }

    /// The job types it runs.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The store it works on.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The clock and the dice it uses.
    pub fn environment(&self) -> &dyn Environment {
        self.environment.as_ref()
    }

    fn job_type(&self, name: &str) -> Result<&RegisteredJob, MachineError> {
        self.registry.get(name).ok_or_else(|| MachineError::UnknownJobType(name.to_owned()))
    }

    /// Reads a job and the stages of its present run, as they are at one moment.
    async fn load(&self, job_id: &JobId) -> Result<Option<JobState>, StoreError> {
        let query = Query { from: keys::JOB, to: Some(keys::AFTER_STAGES), ..Query::of(Table::Jobs, job_id.as_str()) };
        let rows = self.store.tables.query_all(query).await?;
        let Some(job) = rows.iter().find(|row| row.key == keys::JOB) else { return Ok(None) };
        let mut state =
            JobState { job: job.read()?, etag: job.etag.clone(), stages: BTreeMap::new(), earlier: BTreeMap::new() };
        // In ascending order of runs: of a stage that several runs came to, the latest stands.
        for row in &rows {
            let Some((run, number)) = keys::parse_stage(&row.key) else { continue };
            let stage = Stage { row: row.read()?, etag: row.etag.clone() };
            if run == state.job.run || number < state.job.began_at {
                state.stages.insert(number, stage);
            } else {
                state.earlier.insert(number, stage.row);
            }
        }
        Ok(Some(state))
    }

    /// The children of a node that have ended, by number.
    async fn children(
        &self,
        job: &JobId,
        run: u32,
        stage: u32,
        node: Node,
    ) -> Result<BTreeMap<u64, Tally>, StoreError> {
        let partition = node.partition(job, run, stage);
        let query = Query { to: Some(keys::AFTER_CHILDREN), ..Query::of(Table::Outcomes, &partition) };
        let rows = self.store.tables.query_all(query).await?;
        rows.iter().map(|row| Ok((child_number(row)?, row.read()?))).collect()
    }

    async fn send_task(&self, message: &TaskMessage, delay: Duration) -> Result<(), StoreError> {
        self.send(Queue::Tasks, &message.to_bytes(), delay).await
    }

    async fn send_stage(&self, message: &StageMessage, delay: Duration) -> Result<(), StoreError> {
        self.send(Queue::Stages, &message.to_bytes(), delay).await
    }

    /// Sends a message, more than once if nobody can tell whether the first time worked: twins are harmless, while a
    /// stage whose thousand sends had all to succeed at first would never be dispatched in bad weather.
    async fn send(&self, queue: Queue, body: &Bytes, delay: Duration) -> Result<(), StoreError> {
        for wait in SEND_AGAIN_AFTER {
            match self.store.queues.send(queue, body.clone(), delay).await {
                Err(StoreError::Unavailable { .. }) => tokio::time::sleep(wait).await,
                sent => return sent,
            }
        }
        self.store.queues.send(queue, body.clone(), delay).await
    }
}

fn child_number(row: &Row) -> Result<u64, StoreError> {
    row.key.parse().map_err(|error| StoreError::rejected(format!("reading row `{}`", row.key), error))
}

impl fmt::Debug for CoreMachine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CoreMachine").field("job_types", &self.registry.names()).finish_non_exhaustive()
    }
}
