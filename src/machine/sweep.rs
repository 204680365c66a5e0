use super::{CoreMachine, MachineError};
use crate::contract::{JobId, with_causes};
use crate::engine::{FAN_IN, JobState, Node, RollCall, SweepStep, first_attempt, sweep_step};
use crate::model::{ActiveRow, StageMessage, StageRow, SweepRow, Tally, TaskMessage, document, keys};
use crate::ports::{CommitError, Query, Row, Select, StoreError, Table, TablesExt, Write};
use std::collections::VecDeque;
use std::time::Duration;
use tracing::{debug, error, info, warn};

/// How many jobs one tick looks at.
const JOBS: u32 = 100;
/// How many nodes of a roll call are looked at to find what is missing, and how many batches are sent again, in one tick.
const NODES: usize = 32;
const BATCHES: usize = 1000;

/// What a tick has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Jobs looked at.
    pub looked_at: u64,
    /// Jobs found standing still, whose missing messages were sent again.
    pub revived: u64,
}

impl CoreMachine {
    /// One tick of the sweep: looks at some of the jobs that have not ended, going on where the last tick stopped, and
    /// sends again what those that stand still are missing.
    ///
    /// Any number of instances may sweep at the same time: everything that is sent may be sent twice.
    pub async fn sweep(&self) -> Result<Swept, MachineError> {
        let place = self.store.tables.get(Table::Index, keys::APP, keys::SWEEP).await?;
        let SweepRow { next } = place.as_ref().map(Row::read).transpose()?.unwrap_or_default();
        let query = Query { from: &next, limit: JOBS, ..Query::of(Table::Index, keys::ACTIVE) };
        let page = self.store.tables.query(query).await?;
        let mut swept = Swept::default();
        for row in &page.rows {
            swept.looked_at += 1;
            // One job that cannot be looked at must not hide those behind it.
            match self.sweep_job(row).await {
                Ok(revived) => swept.revived += u64::from(revived),
                Err(error) => error!(job = row.key, error = with_causes(&error), "sweeping a job failed"),
            }
        }
        self.keep_place(place.as_ref(), &SweepRow { next: page.next.unwrap_or_default() }).await?;
        Ok(swept)
    }

    /// Takes a job that has ended from the sweep's list. If that fails, the sweep itself finds out.
    pub(super) async fn forget(&self, job_id: &JobId) {
        let delete = Write::Delete { key: job_id.to_string() };
        if let Err(error) = self.store.tables.commit(Table::Index, keys::ACTIVE, vec![delete]).await {
            debug!(job = %job_id, error = with_causes(&error), "the sweep is left to forget the job");
        }
    }

    /// Looks at one job; `true` if it stood still.
    async fn sweep_job(&self, row: &Row) -> Result<bool, MachineError> {
        let active: ActiveRow = row.read()?;
        let state = self.load(&active.job_id).await?;
        let tally = match &state {
            Some(state) => self.count_open_stage(state).await?,
            None => Tally::default(),
        };
        let replace = |active: &ActiveRow| Write::Replace {
            key: row.key.clone(),
            etag: row.etag.clone(),
            document: document(active),
        };
        let (write, revived) = match sweep_step(&active, state.as_ref(), tally, self.environment.now()) {
            SweepStep::Wait => return Ok(false),
            SweepStep::Forget => (Write::Delete { key: row.key.clone() }, false),
            SweepStep::Remember(seen) => (replace(&seen), false),
            SweepStep::Revive(seen) => {
                if let Some(state) = &state {
                    self.revive(state).await?;
                }
                (replace(&seen), true)
            }
        };
        match self.store.tables.commit(Table::Index, keys::ACTIVE, vec![write]).await {
            // Another instance swept the same job.
            Ok(()) | Err(CommitError { error: StoreError::Conflict(_) | StoreError::NotFound(_), .. }) => Ok(revived),
            Err(CommitError { error, .. }) => Err(error.into()),
        }
    }

    /// Sends again exactly what a job is missing.
    async fn revive(&self, state: &JobState) -> Result<(), MachineError> {
        let (job_id, run) = (&state.job.job_id, state.job.run);
        let ask = |stage| StageMessage { job_id: job_id.clone(), run, stage, handed_on: true };
        let open = state.stages.get(&state.job.stage).map(|stage| &stage.row);
        warn!(job = %job_id, stage = state.job.stage, "the job stands still; sending again what is missing");
        match open {
            None => Ok(self.send_stage(&ask(1), Duration::ZERO).await?),
            Some(open) if !open.dispatched => Ok(self.send_stage(&ask(open.stage), Duration::ZERO).await?),
            Some(open) => {
                let missing = self.missing(state, open).await?;
                info!(job = %job_id, batches = missing.len(), "batches sent again");
                for message in &missing {
                    self.send_task(message, Duration::ZERO).await?;
                }
                if missing.is_empty() {
                    // Every batch has ended, and whoever came last could not say so.
                    self.send_stage(&ask(open.stage + 1), Duration::ZERO).await?;
                }
                Ok(())
            }
        }
    }

    /// The messages that an open stage waits for, from the root of its roll call down: the latest attempt of each batch
    /// without an outcome, and one batch of each node that is complete and was never called.
    async fn missing(&self, state: &JobState, open: &StageRow) -> Result<Vec<TaskMessage>, StoreError> {
        let (job_id, run) = (&state.job.job_id, state.job.run);
        let roll_call = RollCall::over(open.batches);
        let mut unfinished = VecDeque::from([roll_call.root()]);
        let mut missing = Vec::new();
        for _ in 0..NODES {
            let Some(node) = unfinished.pop_front() else { break };
            let children = self.children(job_id, run, open.stage, node).await?;
            let first = node.index * FAN_IN;
            let absent = (first..first + roll_call.children(node)).filter(|child| !children.contains_key(child));
            if node.level > 0 {
                unfinished.extend(absent.map(|index| Node { level: node.level - 1, index }));
                continue;
            }
            let attempts = self.latest_attempts(job_id, run, open.stage, node.index).await?;
            let before = missing.len();
            missing.extend(absent.map(|batch| {
                let attempt = attempts.iter().rev().find(|(of, _)| *of == batch).map_or(1, |(_, attempt)| *attempt);
                TaskMessage { attempt, resent: true, ..first_attempt(job_id, run, open.stage, batch) }
            }));
            if missing.len() == before && node != roll_call.root() {
                missing.push(TaskMessage { resent: true, ..first_attempt(job_id, run, open.stage, first) });
            }
            if missing.len() >= BATCHES {
                break;
            }
        }
        Ok(missing)
    }

    /// Which attempts the batches of a leaf were left for, in ascending order.
    async fn latest_attempts(
        &self,
        job_id: &JobId,
        run: u32,
        stage: u32,
        leaf: u64,
    ) -> Result<Vec<(u64, u32)>, StoreError> {
        let partition = keys::retries(job_id, run, stage, leaf);
        let query = Query { select: Select::Keys, ..Query::of(Table::Outcomes, &partition) };
        let rows = self.store.tables.query_all(query).await?;
        Ok(rows.iter().filter_map(|row| keys::parse_retry(&row.key)).collect())
    }

    /// Remembers where the next tick goes on. Where two instances sweep, one of the two places is as good as the other.
    async fn keep_place(&self, found: Option<&Row>, place: &SweepRow) -> Result<(), StoreError> {
        let (key, document) = (keys::SWEEP.to_owned(), document(place));
        let write = match found {
            Some(row) if row.document == document => return Ok(()),
            Some(row) => Write::Replace { key, etag: row.etag.clone(), document },
            None => Write::Insert { key, document },
        };
        match self.store.tables.commit(Table::Index, keys::APP, vec![write]).await {
            Ok(()) | Err(CommitError { error: StoreError::Conflict(_) | StoreError::AlreadyExists(_), .. }) => Ok(()),
            Err(CommitError { error, .. }) => Err(error),
        }
    }
}
