use super::Payload;
use crate::contract::{JobId, StagePolicy, TaskOutcome};
use crate::ports::Time;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Accepted; no stage is open yet.
    Queued,
    /// A stage is open.
    Processing,
    /// Ended with a result, every task having succeeded.
    Completed,
    /// Ended with a result, some tasks having failed within what the job tolerates.
    CompletedWithErrors,
    /// Ended without a result.
    Failed,
    /// Ended because somebody asked.
    Cancelled,
}

impl JobStatus {
    /// Whether nothing will change any more within this run.
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::Processing => false,
            Self::Completed | Self::CompletedWithErrors | Self::Failed | Self::Cancelled => true,
        }
    }

    /// The word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::CompletedWithErrors => "completed_with_errors",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A job: the row that decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobRow {
    /// Its id.
    pub job_id: JobId,
    /// Its type.
    pub job_type: String,
    /// As accepted, defaults included.
    pub parameters: Payload,
    /// SHA-256 of the canonical parameters; tells a reused idempotency key from a repeated submission.
    pub parameters_sha256: String,
    /// Where it is.
    pub status: JobStatus,
    /// 1, and one more for every retry of the ended job.
    pub run: u32,
    /// The open stage, or the last one that was; 0 before the first.
    pub stage: u32,
    /// The stage at which this run began; what is before it stands from earlier runs.
    pub began_at: u32,
    /// What the job came to.
    pub result: Option<Payload>,
    /// Why it failed.
    pub error: Option<JobFailure>,
    /// When it was accepted.
    pub created_at: Time,
    /// When this row last changed.
    pub updated_at: Time,
    /// When its first stage was opened.
    pub started_at: Option<Time>,
    /// When it ended.
    pub ended_at: Option<Time>,
    /// Drawn by whoever inserted the row: tells its own insert whose answer was lost from another's.
    pub submission: String,
}

/// Why a job failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobFailure {
    /// A stable word.
    pub code: String,
    /// For people.
    pub message: String,
    /// The stage in which it failed.
    pub stage: u32,
    /// The first failed tasks, up to [`JobFailure::TASKS`].
    pub tasks: Vec<FailedTask>,
}

impl JobFailure {
    /// How many failed tasks a job's error names.
    pub const TASKS: usize = 10;
}

/// A failed task, as a job's error names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedTask {
    /// The task.
    pub task_id: String,
    /// A stable word.
    pub code: String,
    /// For people.
    pub message: String,
}

/// Where a stage is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageStatus {
    /// Its tasks are under way.
    Processing,
    /// Its aggregate is stored.
    Completed,
    /// The job failed here.
    Failed,
    /// The job was cancelled here.
    Cancelled,
}

/// A stage of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageRow {
    /// The run of the job.
    pub run: u32,
    /// From 1.
    pub stage: u32,
    /// Where it is.
    pub status: StageStatus,
    /// How its tasks are run, as the job said when the stage was opened.
    pub policy: StagePolicy,
    /// How many tasks it has.
    pub tasks: u64,
    /// How many batches they travel in.
    pub batches: u64,
    /// Its plan: a list of [`PageRef`].
    pub plan: Payload,
    /// The first of the runs that had this plan one after the other: what succeeded since then is kept. Its own run, if the
    /// plan is new.
    pub carried_from: u32,
    /// Whether every batch was sent once.
    pub dispatched: bool,
    /// How many tasks succeeded, once the stage has ended.
    pub completed: u64,
    /// How many tasks failed for good, once the stage has ended.
    pub failed: u64,
    /// What its results came to.
    pub aggregate: Option<Payload>,
    /// When it was opened.
    pub started_at: Time,
    /// When it ended.
    pub ended_at: Option<Time>,
}

/// Where a page of a plan lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageRef {
    /// The page's row.
    pub key: String,
    /// The first task on it.
    pub first: u64,
}

/// A page of a plan: whole batches, in task order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlanPage {
    /// A list of [`PlannedTaskRow`].
    pub tasks: Payload,
}

/// A task as planned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannedTaskRow {
    /// Its type.
    #[serde(rename = "type")]
    pub task_type: String,
    /// Its parameters.
    pub parameters: Value,
}

/// A child that has ended: a batch, or above the leaves a node whose children have all ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How many tasks succeeded.
    pub completed: u64,
    /// How many failed for good.
    pub failed: u64,
}

/// The results of a batch, inserted together with its [`Tally`] and apart from it, so that a roll call stays small.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ResultsRow {
    /// A list of [`TaskOutcome`], in task order.
    pub tasks: Payload,
}

/// What is left of a batch after an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryRow {
    /// The outcomes of the tasks that have ended: a list of [`TaskOutcome`].
    pub ended: Payload,
    /// The indices of the tasks to be tried again.
    pub pending: Vec<u64>,
    /// When the next attempt is due.
    pub due_at: Time,
}

/// A job that has not ended, as the sweep last saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActiveRow {
    /// The job.
    pub job_id: JobId,
    /// Where it was; `None` if it was never looked at.
    pub footprint: Option<Footprint>,
    /// When it came there, or was last revived there.
    pub seen_at: Time,
}

/// What changes when a job moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// Its run.
    pub run: u32,
    /// Its stage.
    pub stage: u32,
    /// Whether the stage's batches were sent.
    pub dispatched: bool,
    /// How many of the stage's tasks have ended.
    pub ended: u64,
}

/// Where the sweep goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepRow {
    /// The first job to look at next; empty for the first of all.
    pub next: String,
}

/// A message that was given up, kept as evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoisonRow {
    /// The queue on which it failed.
    pub queue: String,
    /// Its body as text; what is not UTF-8 is replaced.
    pub body: String,
    /// Why nobody could read it; `None` if it is a message of ours.
    pub unreadable: Option<String>,
    /// When it was given up.
    pub given_up_at: Time,
}

/// A job in the index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexRow {
    /// The job.
    pub job_id: JobId,
    /// Its type.
    pub job_type: String,
}

impl Tally {
    /// How many of `outcomes` succeeded and how many failed.
    pub fn of(outcomes: &[TaskOutcome]) -> Self {
        let completed = outcomes.iter().filter(|outcome| outcome.completed()).count() as u64;
        Self { completed, failed: outcomes.len() as u64 - completed }
    }
}

impl std::iter::Sum for Tally {
    fn sum<I: Iterator<Item = Self>>(tallies: I) -> Self {
        tallies.fold(Self::default(), |sum, tally| Self {
            completed: sum.completed + tally.completed,
            failed: sum.failed + tally.failed,
        })
    }
}

/// A row as the document that is stored.
///
/// # Panics
/// Never: rows have members under string names and values that JSON can hold.
pub fn document<T: Serialize>(row: &T) -> Value {
    serde_json::to_value(row).expect("a row is a JSON object")
}
