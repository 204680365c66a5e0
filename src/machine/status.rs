use super::CoreMachine;
use crate::contract::JobId;
use crate::engine::{JobState, Node, RollCall};
use crate::model::{JobRow, JobStatus, Payload, StageRow, StageStatus, Tally};
use crate::ports::StoreError;
use serde_json::{Value, json};
use std::collections::VecDeque;

/// The largest result, as JSON text in bytes, that is answered in place.
const ANSWER_LIMIT: u64 = 4 * 1024 * 1024;
/// How many nodes of a roll call are looked at to count what has ended; beyond that the count lags behind.
const NODES_COUNTED: usize = 32;

/// A job as it stands.
#[derive(Clone, Debug)]
pub struct JobReport {
    /// The job's row.
    pub job: JobRow,
    /// Its parameters, defaults included.
    pub parameters: Value,
    /// What it came to.
    pub result: Value,
    /// The stages of the present run, in order.
    pub stages: Vec<StageReport>,
    /// The share of the known tasks that have ended, 0 to 1.
    pub progress: f64,
}

/// A stage as it stands.
#[derive(Clone, Debug)]
pub struct StageReport {
    /// The stage's row.
    pub row: StageRow,
    /// How many of its tasks have ended.
    pub tally: Tally,
    /// What its results came to.
    pub result: Value,
}

impl CoreMachine {
    /// Tells how a job stands; `None` if there is no such job.
    pub async fn status(&self, job_id: &JobId) -> Result<Option<JobReport>, StoreError> {
        let Some(state) = self.load(job_id).await? else { return Ok(None) };
        let mut stages = Vec::new();
        for stage in state.stages.values() {
            let tally = match stage.row.status {
                StageStatus::Processing => self.count(&state, &stage.row).await?,
                StageStatus::Completed | StageStatus::Failed | StageStatus::Cancelled => {
                    Tally { completed: stage.row.completed, failed: stage.row.failed }
                }
            };
            let result = self.answer(stage.row.aggregate.as_ref()).await?;
            stages.push(StageReport { row: stage.row.clone(), tally, result });
        }
        Ok(Some(JobReport {
            parameters: self.recall(&state.job.parameters).await?,
            result: self.answer(state.job.result.as_ref()).await?,
            progress: progress(state.job.status, &stages),
            job: state.job,
            stages,
        }))
    }

    /// How the tasks of a job's open stage have ended so far.
    pub(super) async fn count_open_stage(&self, state: &JobState) -> Result<Tally, StoreError> {
        match state.stages.get(&state.job.stage) {
            Some(stage) if stage.row.status == StageStatus::Processing => self.count(state, &stage.row).await,
            Some(_) | None => Ok(Tally::default()),
        }
    }

    /// How the tasks of an open stage have ended so far, from the top of the roll call down.
    async fn count(&self, state: &JobState, row: &StageRow) -> Result<Tally, StoreError> {
        let roll_call = RollCall::over(row.batches);
        let mut unfinished = VecDeque::from([roll_call.root()]);
        let mut ended = Vec::new();
        for _ in 0..NODES_COUNTED {
            let Some(node) = unfinished.pop_front() else { break };
            let children = self.children(&state.job.job_id, state.job.run, row.stage, node).await?;
            if node.level > 0 {
                let first = node.index * crate::engine::FAN_IN;
                let below = (first..first + roll_call.children(node)).filter(|child| !children.contains_key(child));
                unfinished.extend(below.map(|index| Node { level: node.level - 1, index }));
            }
            ended.extend(children.into_values());
        }
        Ok(ended.into_iter().sum())
    }

    /// A value as it is answered: in place, or where it lies if it is too large.
    async fn answer(&self, payload: Option<&Payload>) -> Result<Value, StoreError> {
        match payload {
            None => Ok(Value::Null),
            Some(Payload::Blob(blob)) if blob.size > ANSWER_LIMIT => Ok(json!({ "blob": blob })),
            Some(payload) => self.recall(payload).await,
        }
    }
}

fn progress(status: JobStatus, stages: &[StageReport]) -> f64 {
    if matches!(status, JobStatus::Completed | JobStatus::CompletedWithErrors) {
        return 1.0;
    }
    let known: u64 = stages.iter().map(|stage| stage.row.tasks).sum();
    let ended: u64 = stages.iter().map(|stage| stage.tally.completed + stage.tally.failed).sum();
    if known == 0 { 0.0 } else { percent(ended, known) }
}

/// `part` of `whole`, cut to hundredths: nothing shows as done before it is.
#[allow(clippy::cast_precision_loss)] // at most 100
fn percent(part: u64, whole: u64) -> f64 {
    (part * 100 / whole) as f64 / 100.0
}
