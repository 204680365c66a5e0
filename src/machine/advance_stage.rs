use super::{CoreMachine, MachineError, author};
use crate::contract::registry::AnyJob;
use crate::contract::{ErasedResults, JobContext, JobError, StageAggregates, TaskEnd, TaskId, TaskOutcome, sha256_hex};
use crate::engine::{
    self, Closing, Delivery, JobState, MAX_STAGES, Node, Opening, PageFill, RollCall, StageStep, first_attempt,
};
use crate::model::{
    FailedTask, JobFailure, PAYLOAD_CONTAINER, PageRef, PlanPage, PlannedTaskRow, ResultsRow, StageMessage, Tally,
    TaskMessage, document, keys,
};
use crate::ports::{CommitError, Query, Row, StoreError, Table, TablesExt, Write};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tracing::{Instrument, info, info_span, warn};

/// How often a job is read anew because another changed it first.
pub(super) const TRIES: u32 = 10;
/// When somebody else is sending a stage's batches, how long until we look whether they are done.
const HAND_ON_DELAY: Duration = Duration::from_secs(10);
/// How many messages are sent, or partitions read, at a time.
const WIDTH: usize = 32;
/// The most tasks of one stage.
const MAX_TASKS: u64 = 10_000_000;

/// What a commit on the job's partition came to.
pub(super) enum Moved {
    /// The stage is open; its batches are to be sent.
    Opened(u32),
    /// Nothing is left to do.
    Ended,
    /// Another commit was first.
    Overtaken,
}

impl CoreMachine {
    /// Processes a message of the stage queue: closes what has ended, opens what is next, sends what is open.
    ///
    /// When this returns `Ok`, all that the message had to cause is durable and it may be deleted.
    pub async fn advance_stage(&self, body: &[u8], delivery: Delivery) -> Result<(), MachineError> {
        let message = StageMessage::from_bytes(body)?;
        let span = info_span!("advance", job = %message.job_id, run = message.run, stage = message.stage);
        self.advance(&message, delivery).instrument(span).await
    }

    async fn advance(&self, message: &StageMessage, delivery: Delivery) -> Result<(), MachineError> {
        for _ in 0..TRIES {
            let Some(state) = self.load(&message.job_id).await? else {
                warn!("refused: there is no such job");
                return Ok(());
            };
            let moved = match engine::next_step(&state, message, delivery) {
                StageStep::Done => return Ok(()),
                StageStep::Refuse => {
                    warn!(at = state.job.stage, "refused: the job does not stand before this stage");
                    return Ok(());
                }
                StageStep::HandOn(later) => return Ok(self.send_stage(&later, HAND_ON_DELAY).await?),
                StageStep::OpenFirst => self.open_first(&state).await?,
                StageStep::Close(stage) => self.close(&state, stage).await?,
                StageStep::Dispatch(stage) => Moved::Opened(stage),
            };
            match moved {
                Moved::Opened(stage) => return self.dispatch(&message.job_id, stage).await,
                Moved::Ended => return Ok(()),
                Moved::Overtaken => {}
            }
        }
        Err(MachineError::Contended(message.job_id.clone()))
    }

    async fn open_first(&self, state: &JobState) -> Result<Moved, MachineError> {
        let job = match self.restore(state).await? {
            Ok(job) => job,
            Err(error) => return self.fail(state, 1, error, Tally::default()).await,
        };
        let context = self.context(state).await?;
        match self.plan(job.as_ref(), &context, 1).await? {
            Ok(opening) => {
                let writes = engine::open_first(state, opening, self.environment.now());
                self.commit(state, writes, Moved::Opened(1)).await
            }
            Err(error) => self.fail(state, 1, error, Tally::default()).await,
        }
    }

    async fn close(&self, state: &JobState, stage: u32) -> Result<Moved, MachineError> {
        let Some(outcomes) = self.outcomes(state, stage).await? else {
            warn!("refused: the stage has not ended");
            return Ok(Moved::Ended);
        };
        let tally = Tally::of(&outcomes);
        if let Some(failure) = too_many_failures(state, stage, &outcomes, tally) {
            return self.end_in_failure(state, failure, tally).await;
        }
        match self.decide(state, stage, &outcomes, tally).await? {
            Ok((writes, moved)) => self.commit(state, writes, moved).await,
            Err(error) => self.fail(state, stage, error, tally).await,
        }
    }

    /// Asks the author what a stage's results come to and what follows, and says it as one commit.
    async fn decide(
        &self,
        state: &JobState,
        stage: u32,
        outcomes: &[TaskOutcome],
        tally: Tally,
    ) -> Result<Result<(Vec<Write>, Moved), JobError>, MachineError> {
        let job = match self.restore(state).await? {
            Ok(job) => job,
            Err(error) => return Ok(Err(error)),
        };
        let job_id = &state.job.job_id;
        let results = ErasedResults {
            outcomes,
            payloads: (PAYLOAD_CONTAINER, &format!("{job_id}/{}-{stage}", state.job.run)),
            attachments: Mutex::default(),
        };
        let aggregate = match author::call(|| job.aggregate_stage_results(stage, &results)) {
            Ok(aggregate) => aggregate,
            Err(error) => return Ok(Err(error)),
        };
        let attachments = results.attachments.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.write_attachments(attachments).await?;
        let closing = Closing { stage, tally, aggregate: self.keep(job_id, &aggregate).await? };
        let mut context = self.context(state).await?;
        context.stage_results.insert(stage, aggregate);

        let now = || self.environment.now();
        match author::call(|| job.should_advance_stage(stage, &context)) {
            Ok(true) => Ok(self
                .plan(job.as_ref(), &context, stage + 1)
                .await?
                .map(|opening| (engine::close_into_next(state, &closing, opening, now()), Moved::Opened(stage + 1)))),
            Ok(false) => match author::call(|| job.get_final_result(&context)) {
                Ok(result) => {
                    let result = self.keep(job_id, &result).await?;
                    Ok(Ok((engine::close_into_end(state, &closing, result, now()), Moved::Ended)))
                }
                Err(error) => Ok(Err(error)),
            },
            Err(error) => Ok(Err(error)),
        }
    }

    /// Asks the author for a stage's tasks and stores them, page by page. Pages are named by their content: a plan made
    /// again is the same rows, and another plan does not touch them; which plan counts, the stage's row decides.
    async fn plan(
        &self,
        job: &dyn AnyJob,
        context: &JobContext,
        stage: u32,
    ) -> Result<Result<Opening, JobError>, MachineError> {
        if stage > MAX_STAGES {
            let message = format!("a job has at most {MAX_STAGES} stages; `should_advance_stage` always said yes");
            return Ok(Err(JobError::new("too_many_stages", message)));
        }
        let (policy, mut planned) =
            match author::call(|| Ok((job.stage_policy(stage)?, job.create_stage_tasks(stage, context)?))) {
                Ok(planned) => planned,
                Err(error) => return Ok(Err(error)),
            };
        let mut pages = Vec::new();
        let mut fill = PageFill::default();
        let (mut tasks, mut stored) = (0, 0);
        while let Some(task) = author::call(|| planned.next().transpose()).transpose() {
            let task = match task {
                Ok(task) => task,
                Err(error) => return Ok(Err(error)),
            };
            tasks += 1;
            if tasks > MAX_TASKS {
                return Ok(Err(JobError::new("too_many_tasks", format!("a stage has at most {MAX_TASKS} tasks"))));
            }
            let task = PlannedTaskRow { task_type: task.task_type.to_owned(), parameters: task.parameters };
            if let Some(page) = fill.add(task, policy.batch_size) {
                pages.push(PageRef { key: self.store_page(context, &page).await?, first: stored });
                stored = tasks;
            }
        }
        if let Some(page) = fill.finish() {
            pages.push(PageRef { key: self.store_page(context, &page).await?, first: stored });
        }
        let plan = self.keep(&context.job_id, &pages).await?;
        Ok(Ok(Opening { stage, policy, tasks, plan }))
    }

    async fn store_page(&self, context: &JobContext, tasks: &[PlannedTaskRow]) -> Result<String, StoreError> {
        let job_id = &context.job_id;
        let page = document(&PlanPage { tasks: self.keep(job_id, &tasks).await? });
        let key = keys::plan_page(&sha256_hex(page.to_string().as_bytes()));
        self.store.tables.insert_if_absent(Table::Jobs, job_id.as_str(), &key, page).await?;
        Ok(key)
    }

    /// Sends every batch of an open stage, then marks it dispatched. A stage without batches ends at once.
    async fn dispatch(&self, job_id: &crate::contract::JobId, stage: u32) -> Result<(), MachineError> {
        let Some(state) = self.load(job_id).await? else { return Ok(()) };
        let Some(open) = state.stages.get(&stage).filter(|_| state.job.stage == stage) else { return Ok(()) };
        let run = state.job.run;
        if open.row.batches == 0 {
            let next = StageMessage { job_id: job_id.clone(), run, stage: stage + 1, handed_on: false };
            self.send_stage(&next, Duration::ZERO).await?;
        }
        stream::iter((0..open.row.batches).map(Ok::<_, StoreError>))
            .try_for_each_concurrent(WIDTH, async |batch| {
                self.send_task(&first_attempt(job_id, run, stage, batch), Duration::ZERO).await
            })
            .await?;
        info!(tasks = open.row.tasks, batches = open.row.batches, "stage dispatched");
        match self.store.tables.commit(Table::Jobs, job_id.as_str(), engine::dispatched(&state, stage)).await {
            // Changed by whoever closed the stage meanwhile, or marked it first: then the mark is not needed.
            Ok(()) | Err(CommitError { error: StoreError::Conflict(_), .. }) => Ok(()),
            Err(CommitError { error, .. }) => Err(error.into()),
        }
    }

    /// The outcome of every task of a stage, in task order; `None` if some have not ended.
    async fn outcomes(&self, state: &JobState, stage: u32) -> Result<Option<Vec<TaskOutcome>>, MachineError> {
        let Some(row) = state.stages.get(&stage).map(|stage| &stage.row) else { return Ok(None) };
        let (job_id, run) = (&state.job.job_id, state.job.run);
        let roll_call = RollCall::over(row.batches);
        let root = roll_call.root();
        let ended = self.children(job_id, run, stage, root).await?;
        if (ended.len() as u64) < roll_call.children(root) {
            return Ok(None);
        }
        let leaves = (0..roll_call.width(0)).map(|index| Node { level: 0, index }.partition(job_id, run, stage));
        let outcomes: Vec<Vec<TaskOutcome>> = stream::iter(leaves)
            .map(async |partition| self.results(&partition).await)
            .buffered(WIDTH)
            .try_collect()
            .await?;
        let outcomes: Vec<_> = outcomes.into_iter().flatten().collect();
        let complete = outcomes.len() as u64 == row.tasks;
        Ok(complete.then_some(outcomes))
    }

    /// The outcomes of one leaf's tasks, in task order.
    async fn results(&self, partition: &str) -> Result<Vec<TaskOutcome>, StoreError> {
        let query = Query { from: keys::RESULTS, ..Query::of(Table::Outcomes, partition) };
        let rows = self.store.tables.query_all(query).await?;
        let outcomes: Vec<Vec<TaskOutcome>> = stream::iter(rows)
            .then(async |row: Row| self.recall(&row.read::<ResultsRow>()?.tasks).await)
            .try_collect()
            .await?;
        Ok(outcomes.into_iter().flatten().collect())
    }

    /// Ends a job as soon as more of a stage's tasks have failed than the stage bears. What else is under way finds the job
    /// ended.
    pub(super) async fn fail_at_once(&self, message: &TaskMessage) -> Result<(), MachineError> {
        let TaskMessage { job_id, run, stage, batch, .. } = message;
        let outcomes = self.results(&RollCall::node_of_batch(*batch).partition(job_id, *run, *stage)).await?;
        for _ in 0..TRIES {
            let Some(state) = self.load(job_id).await? else { return Ok(()) };
            if state.job.status.is_terminal() || (state.job.run, state.job.stage) != (*run, *stage) {
                return Ok(());
            }
            let tally = self.count_open_stage(&state).await?;
            let Some(failure) = too_many_failures(&state, *stage, &outcomes, tally) else { return Ok(()) };
            if let Moved::Ended = self.end_in_failure(&state, failure, tally).await? {
                return Ok(());
            }
        }
        Err(MachineError::Contended(job_id.clone()))
    }

    pub(super) async fn fail(
        &self,
        state: &JobState,
        stage: u32,
        error: JobError,
        tally: Tally,
    ) -> Result<Moved, MachineError> {
        let JobError { code, message } = error;
        let failure = JobFailure { code: code.into_owned(), message, stage, tasks: Vec::new() };
        self.end_in_failure(state, failure, tally).await
    }

    async fn end_in_failure(&self, state: &JobState, failure: JobFailure, tally: Tally) -> Result<Moved, MachineError> {
        warn!(code = failure.code, stage = failure.stage, "job failed");
        let writes = engine::close_into_failure(state, failure, tally, self.environment.now());
        self.commit(state, writes, Moved::Ended).await
    }

    /// One compare-and-swap decides; everyone else finds it decided.
    async fn commit(&self, state: &JobState, writes: Vec<Write>, moved: Moved) -> Result<Moved, MachineError> {
        match self.store.tables.commit(Table::Jobs, state.job.job_id.as_str(), writes).await {
            Ok(()) => {
                if let Moved::Ended = moved {
                    self.forget(&state.job.job_id).await;
                }
                Ok(moved)
            }
            Err(CommitError { error: StoreError::Conflict(_) | StoreError::AlreadyExists(_), .. }) => {
                Ok(Moved::Overtaken)
            }
            Err(CommitError { error, .. }) => Err(error.into()),
        }
    }

    async fn restore(&self, state: &JobState) -> Result<Result<Box<dyn AnyJob>, JobError>, MachineError> {
        let job_type = self.job_type(&state.job.job_type)?;
        let parameters: Value = self.recall(&state.job.parameters).await?;
        Ok(job_type.restore(&parameters))
    }

    /// What the author's methods may know: the parameters and every stored aggregate.
    async fn context(&self, state: &JobState) -> Result<JobContext, StoreError> {
        let mut stage_results = StageAggregates::default();
        for (number, stage) in &state.stages {
            if let Some(aggregate) = &stage.row.aggregate {
                stage_results.insert(*number, self.recall(aggregate).await?);
            }
        }
        let params = self.recall(&state.job.parameters).await?;
        Ok(JobContext { job_id: state.job.job_id.clone(), run: state.job.run, params, stage_results })
    }
}

/// The job's failure, if more of a stage's tasks have failed than the stage bears; it names the first among `outcomes`.
fn too_many_failures(state: &JobState, stage: u32, outcomes: &[TaskOutcome], tally: Tally) -> Option<JobFailure> {
    let row = &state.stages.get(&stage)?.row;
    if row.policy.tolerated_failures.bears(tally.failed, row.tasks) {
        return None;
    }
    let failed = outcomes.iter().filter_map(|outcome| match &outcome.result {
        TaskEnd::Output(_) => None,
        TaskEnd::Error { code, message } => Some(FailedTask {
            task_id: TaskId::new(&state.job.job_id, stage, outcome.index).to_string(),
            code: code.clone(),
            message: message.clone(),
        }),
    });
    let tasks: Vec<_> = failed.take(JobFailure::TASKS).collect();
    let one = tasks.first().map_or("", |task| &task.message);
    let message = format!("{} of {} tasks of stage {stage} failed, among them: {one}", tally.failed, row.tasks);
    Some(JobFailure { code: "tasks_failed".to_owned(), message, stage, tasks })
}
