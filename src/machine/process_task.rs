use super::author::panic_message;
use super::plans::OpenStage;
use super::{CoreMachine, MachineError};
use crate::contract::registry::TaskType;
use crate::contract::{TaskContext, TaskEnd, TaskError, TaskId, TaskOutcome};
use crate::engine::{Attempted, BatchVerdict, Delivery, Execution, RollCall, judge_batch, next_attempt, pending_tasks};
use crate::model::{ResultsRow, RetryRow, StageMessage, StageRow, Tally, TaskMessage, document, keys};
use crate::ports::{CommitError, Query, StoreError, Table, TablesExt, Time, Write};
use futures_util::FutureExt;
use serde_json::Value;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tracing::{Instrument, debug, info_span, warn};

/// The largest output of one task, as JSON text in bytes: what one blob write and one handler's memory bear easily.
const OUTPUT_LIMIT: usize = 256 * 1024 * 1024;

impl CoreMachine {
    /// Processes a message of the task queue: one attempt at one batch.
    ///
    /// When this returns `Ok`, all that the message had to cause is durable and it may be deleted.
    pub async fn process_task(&self, body: &[u8], delivery: Delivery) -> Result<(), MachineError> {
        let message = TaskMessage::from_bytes(body)?;
        let span = info_span!("batch", job = %message.job_id, run = message.run, stage = message.stage, batch = message.batch, attempt = message.attempt);
        self.process_batch(&message, delivery).instrument(span).await
    }

    /// Brings a batch to an end whose message was given up: what had not ended has failed, as `why` says.
    pub(super) async fn fail_batch(&self, message: &TaskMessage, why: &str) -> Result<(), MachineError> {
        let Some(stage) = self.open_stage(&message.job_id, message.run, message.stage).await? else { return Ok(()) };
        let all = pending_tasks(&stage.row, message.batch);
        if all.is_empty() {
            return Ok(());
        }
        match self.progress(message).await? {
            Progress::Ended => return self.roll_call(message, &stage.row).await,
            Progress::Retried(_) => return Ok(self.send_task(&next_attempt(message), Duration::ZERO).await?),
            Progress::Underway => {}
        }
        let Some((mut outcomes, pending)) = self.remainder(message, &stage, all).await? else { return Ok(()) };
        let now = self.environment.now();
        for (index, task) in self.planned_tasks(&message.job_id, &stage.pages, &pending).await? {
            let result = TaskEnd::Error { code: "given_up".to_owned(), message: why.to_owned() };
            let (task_type, attempts) = (task.task_type, message.attempt);
            outcomes.push(TaskOutcome { index, task_type, attempts, started_at: now, ended_at: now, result });
        }
        outcomes.sort_by_key(|outcome| outcome.index);
        self.record(message, &outcomes).await?;
        self.roll_call(message, &stage.row).await
    }

    async fn process_batch(&self, message: &TaskMessage, delivery: Delivery) -> Result<(), MachineError> {
        let Some(stage) = self.open_stage(&message.job_id, message.run, message.stage).await? else {
            debug!("dropped: the stage is not open");
            return Ok(());
        };
        let first = pending_tasks(&stage.row, message.batch);
        if first.is_empty() || !(1..=stage.policy().attempts).contains(&message.attempt) {
            warn!("refused: the stage has no such batch or attempt");
            return Ok(());
        }
        if message.attempt > 1 || message.resent || delivery == Delivery::Repeated {
            match self.progress(message).await? {
                Progress::Ended => return self.roll_call(message, &stage.row).await,
                Progress::Retried(row) => {
                    let delay = row.due_at.since(self.environment.now());
                    return Ok(self.send_task(&next_attempt(message), delay).await?);
                }
                Progress::Underway => {}
            }
        }
        let Some((ended, pending)) = self.remainder(message, &stage, first).await? else {
            warn!("refused: nobody decided on such an attempt");
            return Ok(());
        };
        let executions = self.execute(message, &stage, &pending).await?;
        let attempted = Attempted { message, policy: stage.policy(), ended, executions };
        match judge_batch(attempted, self.environment.random()) {
            BatchVerdict::Ended(outcomes) => {
                self.record(message, &outcomes).await?;
                self.roll_call(message, &stage.row).await
            }
            BatchVerdict::Retry { ended, pending, message: next, delay } => {
                let row = RetryRow {
                    ended: self.keep(&message.job_id, &ended).await?,
                    pending,
                    due_at: self.environment.now() + delay,
                };
                // A twin may have decided before us; what it stored stands, and the next attempt reads that.
                let (partition, key) = retry_place(&next);
                self.store.tables.insert_if_absent(Table::Outcomes, &partition, &key, document(&row)).await?;
                Ok(self.send_task(&next, delay).await?)
            }
        }
    }

    /// What became of a batch, as far as this attempt at it goes.
    async fn progress(&self, message: &TaskMessage) -> Result<Progress, StoreError> {
        let partition = leaf_partition(message);
        if self.store.tables.get(Table::Outcomes, &partition, &keys::child(message.batch)).await?.is_some() {
            return Ok(Progress::Ended);
        }
        Ok(self.retry_row(&next_attempt(message)).await?.map_or(Progress::Underway, Progress::Retried))
    }

    /// What of a batch has ended before this attempt, and what is to be tried; `None` if nobody decided on the attempt.
    async fn remainder(
        &self,
        message: &TaskMessage,
        stage: &OpenStage,
        all: Vec<u64>,
    ) -> Result<Option<(Vec<TaskOutcome>, Vec<u64>)>, StoreError> {
        if message.attempt == 1 {
            let kept = self.carried(message, stage.row.carried_from).await?;
            let pending = all.into_iter().filter(|index| kept.iter().all(|outcome| outcome.index != *index)).collect();
            return Ok(Some((kept, pending)));
        }
        match self.retry_row(message).await? {
            Some(row) => Ok(Some((self.recall(&row.ended).await?, row.pending))),
            None => Ok(None),
        }
    }

    /// The tasks of a batch that succeeded in an earlier run, from `first` on.
    async fn carried(&self, message: &TaskMessage, first: u32) -> Result<Vec<TaskOutcome>, StoreError> {
        for run in (first..message.run).rev() {
            let earlier = TaskMessage { run, ..message.clone() };
            let mut outcomes = self.outcomes_of(&earlier).await?;
            outcomes.retain(TaskOutcome::completed);
            if !outcomes.is_empty() {
                return Ok(outcomes);
            }
        }
        Ok(Vec::new())
    }

    /// What is known of a batch: the outcomes of all its tasks, or of those that had ended when it was last left to be tried
    /// again.
    pub(super) async fn outcomes_of(&self, message: &TaskMessage) -> Result<Vec<TaskOutcome>, StoreError> {
        let key = keys::results(message.batch);
        if let Some(row) = self.store.tables.get(Table::Outcomes, &leaf_partition(message), &key).await? {
            return self.recall(&row.read::<ResultsRow>()?.tasks).await;
        }
        let (partition, from) = retry_place(&TaskMessage { attempt: 0, ..message.clone() });
        let to = keys::retry(message.batch + 1, 0);
        let query = Query { from: &from, to: Some(&to), ..Query::of(Table::Outcomes, &partition) };
        match self.store.tables.query_all(query).await?.last() {
            Some(row) => self.recall(&row.read::<RetryRow>()?.ended).await,
            None => Ok(Vec::new()),
        }
    }

    /// What an earlier attempt left for this one.
    async fn retry_row(&self, message: &TaskMessage) -> Result<Option<RetryRow>, StoreError> {
        let (partition, key) = retry_place(message);
        let row = self.store.tables.get(Table::Outcomes, &partition, &key).await?;
        row.map(|row| row.read()).transpose()
    }

    /// Executes the tasks side by side, each under its timeout.
    async fn execute(
        &self,
        message: &TaskMessage,
        stage: &OpenStage,
        pending: &[u64],
    ) -> Result<Vec<Execution>, MachineError> {
        let job_type = self.job_type(&stage.job_type)?;
        let mut running = JoinSet::new();
        for (index, task) in self.planned_tasks(&message.job_id, &stage.pages, pending).await? {
            let context = TaskContext {
                job_id: message.job_id.clone(),
                task_id: TaskId::new(&message.job_id, message.stage, index),
                run: message.run,
                stage: message.stage,
                index,
                attempt: message.attempt,
                data: Arc::clone(&self.store.data),
            };
            let handler = job_type.task_type(&task.task_type);
            let timeout = stage.policy().task_timeout;
            let environment = Arc::clone(&self.environment);
            let attempt = async move {
                let started_at = environment.now();
                let result = attempt(handler, task.parameters, &context, timeout).await;
                execution(&context, task.task_type, (started_at, environment.now()), result)
            };
            running.spawn(attempt.in_current_span());
        }
        Ok(running.join_all().await)
    }

    /// Makes a batch's outcome durable, once: a twin that was here before is agreed with.
    async fn record(&self, message: &TaskMessage, outcomes: &[TaskOutcome]) -> Result<(), StoreError> {
        let results = ResultsRow { tasks: self.keep(&message.job_id, &outcomes).await? };
        let writes = vec![
            Write::Insert { key: keys::child(message.batch), document: document(&Tally::of(outcomes)) },
            Write::Insert { key: keys::results(message.batch), document: document(&results) },
        ];
        match self.store.tables.commit(Table::Outcomes, &leaf_partition(message), writes).await {
            Ok(()) | Err(CommitError { error: StoreError::AlreadyExists(_), .. }) => Ok(()),
            Err(CommitError { error, .. }) => Err(error),
        }
    }

    /// Finds out whether this batch was the last of its node, and climbs as far as it was. Who comes last at the root
    /// asks for the next stage. Only then is the message done: a climb cut short is resumed by its redelivery.
    async fn roll_call(&self, message: &TaskMessage, row: &StageRow) -> Result<(), MachineError> {
        let TaskMessage { job_id, run, stage, .. } = message;
        let roll_call = RollCall::over(row.batches);
        let mut node = RollCall::node_of_batch(message.batch);
        loop {
            let children = self.children(job_id, *run, *stage, node).await?;
            let complete = children.len() as u64 == roll_call.children(node);
            let tally: Tally = children.into_values().sum();
            if !row.policy.tolerated_failures.bears(tally.failed, row.tasks) {
                return self.fail_at_once(message).await;
            }
            if !complete {
                return Ok(());
            }
            let Some(parent) = roll_call.parent(node) else {
                let next = StageMessage { job_id: job_id.clone(), run: *run, stage: stage + 1, handed_on: false };
                return Ok(self.send_stage(&next, Duration::ZERO).await?);
            };
            let partition = parent.partition(job_id, *run, *stage);
            self.store
                .tables
                .insert_if_absent(Table::Outcomes, &partition, &keys::child(node.index), document(&tally))
                .await?;
            node = parent;
        }
    }
}

/// What became of a batch.
enum Progress {
    /// Nobody has brought this attempt to an end.
    Underway,
    /// The attempt was made and another one decided on.
    Retried(RetryRow),
    /// Its outcome is stored.
    Ended,
}

/// Tries one task once.
async fn attempt(
    handler: Option<&TaskType>,
    parameters: Value,
    context: &TaskContext,
    timeout: Duration,
) -> Result<Value, TaskError> {
    let Some(handler) = handler else {
        return Err(TaskError::permanent("unknown_task_type", "this version of the app has no such task type"));
    };
    // What a panicking task leaves half-changed is its own and is dropped with it.
    let execution = AssertUnwindSafe(async { handler.execute(parameters, context).await }).catch_unwind();
    let output = match tokio::time::timeout(timeout, execution).await {
        Ok(Ok(result)) => result?,
        Ok(Err(panic)) => {
            let message = format!("the task panicked: {}", panic_message(&*panic));
            return Err(TaskError::transient("panicked", message));
        }
        Err(_) => return Err(TaskError::transient("timed_out", format!("the task took longer than {timeout:?}"))),
    };
    let size = output.to_string().len();
    if size > OUTPUT_LIMIT {
        let message = format!("the output has {size} bytes; return at most {OUTPUT_LIMIT} and keep the rest in a blob");
        return Err(TaskError::permanent("output_too_large", message));
    }
    Ok(output)
}

fn execution(
    context: &TaskContext,
    task_type: String,
    (started_at, ended_at): (Time, Time),
    result: Result<Value, TaskError>,
) -> Execution {
    let retryable = result.as_ref().is_err_and(|error| error.retryable);
    if let Err(error) = &result {
        warn!(task = %context.task_id, code = %error.code, retryable, error = %error.message, "task attempt failed");
    }
    let result = result.map_or_else(TaskEnd::from, TaskEnd::Output);
    let (index, attempts) = (context.index, context.attempt);
    Execution { outcome: TaskOutcome { index, task_type, attempts, started_at, ended_at, result }, retryable }
}

fn leaf_partition(message: &TaskMessage) -> String {
    RollCall::node_of_batch(message.batch).partition(&message.job_id, message.run, message.stage)
}

/// The partition and key of what is left of a batch for the attempt that `message` asks for.
fn retry_place(message: &TaskMessage) -> (String, String) {
    let node = RollCall::node_of_batch(message.batch).index;
    let partition = keys::retries(&message.job_id, message.run, message.stage, node);
    (partition, keys::retry(message.batch, message.attempt))
}
