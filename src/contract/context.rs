use super::{JobError, JobId, Result, TaskId};
use crate::ports::Blobs;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Index;
use std::sync::Arc;

/// What a job's methods may know of the job they belong to. The job's parameters are `self`.
#[derive(Clone, Debug)]
pub struct JobContext {
    /// The job.
    pub job_id: JobId,
    /// 1, and one more for every retry of an ended job.
    pub run: u32,
    /// The parameters as they were accepted, defaults included.
    pub params: Value,
    /// What `aggregate_stage_results` returned for each stage that has ended.
    pub stage_results: StageAggregates,
}

impl JobContext {
    /// The aggregate of an ended stage, as a type.
    pub fn stage_result<T: DeserializeOwned>(&self, stage: u32) -> Result<T> {
        let aggregate = self
            .stage_results
            .get(stage)
            .ok_or_else(|| JobError::new("job_error", format!("stage {stage} has no aggregate yet")))?;
        T::deserialize(aggregate)
            .map_err(|error| JobError::new("job_error", format!("the aggregate of stage {stage}: {error}")))
    }
}

/// The stored aggregates by stage, from 1: `context.stage_results[1]`.
#[derive(Clone, Debug, Default)]
pub struct StageAggregates(BTreeMap<u32, Value>);

impl StageAggregates {
    /// The aggregate of `stage`, if that stage has ended.
    pub fn get(&self, stage: u32) -> Option<&Value> {
        self.0.get(&stage)
    }

    pub(crate) fn insert(&mut self, stage: u32, aggregate: Value) {
        self.0.insert(stage, aggregate);
    }
}

impl Index<u32> for StageAggregates {
    type Output = Value;

    /// # Panics
    /// If the stage has not ended; the job then fails with these words.
    fn index(&self, stage: u32) -> &Value {
        self.get(stage).unwrap_or_else(|| panic!("stage {stage} has no aggregate yet"))
    }
}

/// What a job may look at before it is accepted.
#[derive(Clone)]
pub struct SubmitContext {
    /// The containers that jobs work on.
    pub data: Arc<dyn Blobs>,
}

/// What one execution of a task may know and touch.
#[derive(Clone)]
pub struct TaskContext {
    /// The job.
    pub job_id: JobId,
    /// The same for every delivery, attempt and run: the task's own idempotency key.
    pub task_id: TaskId,
    /// The run of the job: 1, and one more for every retry.
    pub run: u32,
    /// From 1.
    pub stage: u32,
    /// The task's place in its stage, from 0.
    pub index: u64,
    /// 1 at first; a redelivered attempt has the same number.
    pub attempt: u32,
    /// The containers that jobs work on.
    pub data: Arc<dyn Blobs>,
}

impl fmt::Debug for SubmitContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SubmitContext")
    }
}

impl fmt::Debug for TaskContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("TaskContext")
            .field("task_id", &self.task_id)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
