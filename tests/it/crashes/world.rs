//! A job, its processes and its queues, driven to the end through whatever goes wrong.

use super::faults::{Faults, Plan};
use crate::scripted::Scripted;
use coremachine::contract::JobId;
use coremachine::contract::registry::Registry;
use coremachine::machine::{ChangeError, CoreMachine, Delivery, JobReport, Submission};
use coremachine::model::JobStatus;
use coremachine::ports::{Environment as _, Queue, Received, Time};
use coremachine::store::{MemoryStore, VirtualEnvironment};
use futures_util::future::join_all;
use serde_json::json;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

/// How many sweeps a job may take; a job that stands still is looked at again after 20 minutes.
const MINUTES: u32 = 600;
/// How many rounds of deliveries a job may take; far more than any needs.
const ROUNDS: u32 = 10_000;

/// What brings a message back whose delivery failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    /// It is delivered again.
    Redelivery,
    /// Nothing: it is lost, and the sweep alone finds out.
    SweepAlone,
}

/// How a world runs.
#[derive(Clone)]
pub(super) struct Conduct {
    /// What goes wrong.
    pub(super) plan: Plan,
    /// Where the world's chance begins.
    pub(super) seed: u64,
    /// How many messages are delivered at the same time.
    pub(super) width: u32,
    /// Every so manieth delivery happens twice at the same time; 0 for none.
    pub(super) twins: u64,
    /// Whether operations of different deliveries interleave.
    pub(super) interleaved: bool,
    /// What brings back what failed.
    pub(super) recovery: Recovery,
    /// How often the job is retried if it does not end well.
    pub(super) retries: u32,
    /// After how many deliveries somebody cancels the job.
    pub(super) cancelled_after: Option<u64>,
}

impl Conduct {
    /// One delivery after the other.
    pub(super) fn in_order(plan: Plan) -> Self {
        Self {
            plan,
            seed: 1,
            width: 1,
            twins: 0,
            interleaved: false,
            recovery: Recovery::Redelivery,
            retries: 0,
            cancelled_after: None,
        }
    }
}

/// How a job ended.
pub(super) struct Ended {
    pub(super) report: JobReport,
    /// How many operations of the stores it took.
    pub(super) operations: u64,
}

struct World {
    environment: Arc<VirtualEnvironment>,
    memory: MemoryStore,
    faults: Faults,
    conduct: Conduct,
    deliveries: u64,
}

/// Submits a job and delivers its messages until the queues are empty.
///
/// Panics with words if the job does not end, or a poison queue holds a message.
pub(super) async fn run(job: &Scripted, conduct: Conduct) -> Ended {
    let environment = Arc::new(VirtualEnvironment::new(Time::from_unix_millis(1_795_489_740_000), conduct.seed));
    let chance = Arc::new(VirtualEnvironment::new(environment.now(), conduct.seed ^ 0x5EED));
    let interleaved = conduct.interleaved;
    let yields = Arc::new(move || if interleaved { chance.random() % 4 } else { 0 });
    let faults = Faults::new(Arc::clone(&conduct.plan), yields);
    let mut world =
        World { memory: MemoryStore::new(environment.clone()), environment, faults, conduct, deliveries: 0 };

    let mut process = world.process();
    let submitted = loop {
        let parameters = json!(job);
        let submission = Submission { job_type: "scripted".to_owned(), parameters, idempotency_key: None };
        match process.1.submit(submission).await {
            Ok(submitted) if !process.0.dead() => break submitted,
            Ok(_) | Err(_) => process = world.process(),
        }
    };
    let job_id = submitted.job.job_id;
    let observer = CoreMachine::new(registry(), world.memory.store(), world.environment.clone());
    let (mut minutes, mut retries) = (0, world.conduct.retries);
    loop {
        world.settle(&job_id, &mut process).await;
        let report = observer.status(&job_id).await.expect("a status").expect("a job");
        match report.job.status {
            JobStatus::Failed | JobStatus::Cancelled if retries > 0 => {
                retries -= 1;
                world.insist(&mut process, async |machine| machine.retry(&job_id).await).await;
                continue;
            }
            ended if ended.is_terminal() => return Ended { report, operations: world.faults.operations() },
            _ => {}
        }
        // Nobody repeats a retry that died between its commit and its message: that is the sweep's to find.
        let sweeps = world.conduct.recovery == Recovery::SweepAlone || world.conduct.retries > 0;
        assert!(sweeps && minutes < MINUTES, "the job is stuck: {:?}", report.job);
        world.environment.advance(Duration::from_mins(1));
        minutes += 1;
        // A sweep that fails or dies is made up for by the next one.
        let _ = process.1.sweep().await;
        if process.0.dead() {
            process = world.process();
        }
    }
}

fn registry() -> Arc<Registry> {
    static REGISTRY: LazyLock<Arc<Registry>> =
        LazyLock::new(|| Arc::new(Registry::linked().expect("the linked job types")));
    Arc::clone(&REGISTRY)
}

impl World {
    /// A new process: nothing of what another remembered.
    fn process(&self) -> (Faults, CoreMachine) {
        let faults = self.faults.of_new_process();
        let store = faults.before(self.memory.store());
        let machine = CoreMachine::new(registry(), store, self.environment.clone());
        (faults, machine)
    }

    /// Asks for a change until it is made, or was made by an asking whose answer was lost.
    async fn insist(
        &self,
        process: &mut (Faults, CoreMachine),
        change: impl AsyncFn(&CoreMachine) -> Result<(), ChangeError>,
    ) {
        loop {
            match change(&process.1).await {
                Ok(()) | Err(ChangeError::NotAllowed(_)) if !process.0.dead() => return,
                Err(ChangeError::NotFound(job)) => panic!("job `{job}` is gone"),
                Ok(()) | Err(_) => {}
            }
            if process.0.dead() {
                *process = self.process();
            }
        }
    }

    async fn settle(&mut self, job_id: &JobId, process: &mut (Faults, CoreMachine)) {
        let store = self.memory.store();
        for _ in 0..ROUNDS {
            let mut idle = true;
            for queue in [Queue::Stages, Queue::Tasks] {
                let messages = store.queues.receive(queue, self.conduct.width, Duration::from_mins(10)).await;
                let messages = messages.expect("messages");
                idle &= messages.is_empty();
                let deliveries = messages.iter().flat_map(|message| {
                    self.deliveries += 1;
                    let twice = self.conduct.twins > 0 && self.deliveries.is_multiple_of(self.conduct.twins);
                    std::iter::repeat_n(message, if twice { 2 } else { 1 })
                });
                let machine = &process.1;
                let ends: Vec<_> =
                    deliveries.map(async |message| (message, deliver(machine, queue, message).await)).collect();
                let ends = join_all(ends).await;
                let dead = process.0.dead();
                for message in &messages {
                    // A killed process settles nothing; what it had in flight comes again.
                    let done = !dead && ends.iter().filter(|(of, _)| std::ptr::eq(*of, message)).any(|(_, done)| *done);
                    let receipt = &message.receipt;
                    if done || self.conduct.recovery == Recovery::SweepAlone {
                        store.queues.delete(queue, receipt).await.expect("deleted");
                    } else {
                        assert!(message.dequeue_count < 20, "a message fails for ever: {:?}", message.body);
                        store.queues.hide(queue, receipt, Duration::from_secs(5)).await.expect("released");
                    }
                }
                if dead {
                    *process = self.process();
                }
                if self.conduct.cancelled_after.is_some_and(|after| self.deliveries >= after) {
                    self.conduct.cancelled_after = None;
                    self.insist(process, async |machine| machine.cancel(job_id).await).await;
                }
            }
            match self.memory.next_due() {
                Some(due) if idle => self.environment.advance_to(due),
                None if idle => return,
                Some(_) | None => {}
            }
        }
        panic!("the queues did not empty in {ROUNDS} rounds");
    }
}

async fn deliver(machine: &CoreMachine, queue: Queue, message: &Received) -> bool {
    let delivery = if message.dequeue_count == 1 { Delivery::First } else { Delivery::Repeated };
    match queue {
        Queue::Tasks => machine.process_task(&message.body, delivery).await.is_ok(),
        Queue::Stages => machine.advance_stage(&message.body, delivery).await.is_ok(),
        Queue::TasksPoison | Queue::StagesPoison => unreachable!("nothing is delivered from {}", queue.name()),
    }
}
