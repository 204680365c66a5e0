//! The test kit for job authors: runs whole jobs through the real machine, in memory and in virtual time.
//!
//! ```
//! use coremachine::testing::Bench;
//! use serde_json::json;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let report = Bench::new().run("hello_world", json!({ "message": "Welcome" })).await;
//! assert_eq!(report.result["greeting"], "Welcome");
//! # });
//! ```

#![expect(clippy::missing_panics_doc)] // every method of `Bench` may; its doc says when

use crate::contract::JobId;
use crate::contract::registry::Registry;
use crate::engine::{Delivery, Submission};
use crate::host::pump::{MAX_DEQUEUE_COUNT, VISIBILITY_TIMEOUT};
use crate::machine::{CoreMachine, JobReport, MachineError, SubmitError, Submitted};
use crate::ports::{Environment, Queue, Received, Store, Table, Time};
use crate::store::{MemoryStore, VirtualEnvironment};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// A machine with every linked job type, on a store in memory whose time passes only when nothing is left to do.
///
/// Its methods panic with words when the machine does not do what it promises.
#[derive(Debug)]
pub struct Bench {
    environment: Arc<VirtualEnvironment>,
    memory: MemoryStore,
    machine: Arc<CoreMachine>,
}

impl Bench {
    /// A fresh, empty bench.
    pub fn new() -> Self {
        let environment = Arc::new(VirtualEnvironment::new(Time::from_unix_millis(1_795_489_740_000), 0));
        let memory = MemoryStore::new(environment.clone());
        let registry = Registry::linked().unwrap_or_else(|error| panic!("the linked job types: {error}"));
        let machine = Arc::new(CoreMachine::new(Arc::new(registry), memory.store(), environment.clone()));
        Self { environment, memory, machine }
    }

    /// The store, to put blobs into `data` before a run and to look at what is left after it.
    pub fn store(&self) -> Store {
        self.memory.store()
    }

    /// Which partitions of which tables hold rows.
    pub fn partitions(&self) -> Vec<(Table, String)> {
        self.memory.partitions()
    }

    /// The machine.
    pub fn machine(&self) -> &Arc<CoreMachine> {
        &self.machine
    }

    /// Submits a job and runs it to its end, whatever that is.
    pub async fn run(&self, job_type: &str, parameters: Value) -> JobReport {
        let submitted = self.submit(job_type, parameters).await;
        let submitted = submitted.unwrap_or_else(|error| panic!("`{job_type}` was not accepted: {error:?}"));
        self.settle().await;
        self.report(&submitted.job.job_id).await
    }

    /// Submits a job without running it.
    pub async fn submit(&self, job_type: &str, parameters: Value) -> Result<Submitted, SubmitError> {
        let job_type = job_type.to_owned();
        self.machine.submit(Submission { job_type, parameters, idempotency_key: None }).await
    }

    /// Delivers messages until every queue is empty; failed ones again, as the Functions host would.
    pub async fn settle(&self) {
        loop {
            let mut idle = true;
            for queue in [Queue::Stages, Queue::Tasks, Queue::StagesPoison, Queue::TasksPoison] {
                let messages = self.store().queues.receive(queue, 32, Duration::from_mins(10)).await;
                for message in messages.unwrap_or_else(|error| panic!("receiving: {error}")) {
                    idle = false;
                    self.deliver(queue, &message).await;
                }
            }
            match self.memory.next_due() {
                Some(due) if idle => self.environment.advance_to(due),
                None if idle => return,
                Some(_) | None => {}
            }
        }
    }

    /// How a job stands.
    pub async fn report(&self, job_id: &JobId) -> JobReport {
        let report = self.machine.status(job_id).await;
        report.ok().flatten().unwrap_or_else(|| panic!("job `{job_id}` is gone"))
    }

    /// Lets virtual time pass.
    pub fn pass(&self, duration: Duration) {
        self.environment.advance(duration);
    }

    /// The present virtual time.
    pub fn now(&self) -> Time {
        self.environment.now()
    }

    async fn deliver(&self, queue: Queue, message: &Received) {
        let delivery = if message.dequeue_count == 1 { Delivery::First } else { Delivery::Repeated };
        let done: Result<(), MachineError> = match queue {
            Queue::Tasks => self.machine.process_task(&message.body, delivery).await,
            Queue::Stages => self.machine.advance_stage(&message.body, delivery).await,
            Queue::TasksPoison => self.machine.give_up_task(&message.body).await,
            Queue::StagesPoison => self.machine.give_up_stage(&message.body).await,
        };
        let queues = self.store().queues;
        let settled = match (done, queue.poison()) {
            (Ok(()), _) => queues.delete(queue, &message.receipt).await,
            (Err(_), Some(poison)) if message.dequeue_count >= MAX_DEQUEUE_COUNT => {
                queues
                    .send(poison, message.body.clone(), Duration::ZERO)
                    .await
                    .unwrap_or_else(|error| panic!("{error}"));
                queues.delete(queue, &message.receipt).await
            }
            (Err(error), None) if message.dequeue_count >= MAX_DEQUEUE_COUNT => panic!("giving up failed: {error}"),
            (Err(_), _) => queues.hide(queue, &message.receipt, VISIBILITY_TIMEOUT).await.map(drop),
        };
        settled.unwrap_or_else(|error| panic!("settling: {error}"));
    }
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}
