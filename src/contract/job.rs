use super::{JobContext, ParameterFault, Result, StagePolicy, StageResults, SubmitContext, TaskDefinition, TaskOf};
use crate::ports::StoreError;
use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::fmt;

/// One kind of job: the struct's members are the job's parameters.
///
/// The JSON Schema derived from the struct is what a submission is checked against, and its doc comment is the job
/// type's description. The methods are called with what is stored, more than once if a delivery is repeated; what was
/// decided first stands.
pub trait Job: Serialize + DeserializeOwned + JsonSchema + Send + Sync + Sized + 'static {
    /// The name in URLs and stored rows, `snake_case`. Renaming it breaks jobs under way.
    const JOB_TYPE: &'static str;

    /// The tasks of a stage, which run in parallel; none ends the stage at once. Stages count from 1.
    fn create_stage_tasks(&self, stage: u32, context: &JobContext) -> Result<StageTasks<'_, Self>>;

    /// What a stage's results come to, stored as `context.stage_results[stage]`.
    fn aggregate_stage_results(&self, stage: u32, results: StageResults<'_, Self>) -> Result<Value>;

    /// Whether another stage follows `stage`, which has just ended.
    fn should_advance_stage(&self, stage: u32, context: &JobContext) -> Result<bool>;

    /// The job's result, once no stage follows.
    fn get_final_result(&self, context: &JobContext) -> Result<Value>;

    /// How the tasks of a stage are run.
    fn stage_policy(&self, _stage: u32) -> StagePolicy {
        StagePolicy::default()
    }

    /// Looks at the world before the job is accepted: every fault found refuses the submission. What a schema can say
    /// belongs into the schema.
    fn check(
        &self,
        _context: &SubmitContext,
    ) -> impl Future<Output = std::result::Result<Vec<ParameterFault>, StoreError>> + Send {
        async { Ok(Vec::new()) }
    }
}

/// The tasks of one stage, made one at a time, so that a million of them need no room.
pub struct StageTasks<'a, J>(pub(crate) Box<dyn Iterator<Item = TaskDefinition<J>> + Send + 'a>);

impl<'a, J: Job> StageTasks<'a, J> {
    /// No task: the stage ends at once.
    pub fn none() -> Self {
        Self(Box::new(std::iter::empty()))
    }

    /// One task.
    pub fn one<T: TaskOf<J>>(task: T) -> Self {
        Self::each(std::iter::once(task))
    }

    /// One task for each item, in order.
    pub fn each<T: TaskOf<J>, I>(tasks: I) -> Self
    where
        I: IntoIterator<Item = T>,
        I::IntoIter: Send + 'a,
    {
        Self(Box::new(tasks.into_iter().map(|task| TaskDefinition::new(&task))))
    }

    /// Tasks of several types, in order.
    pub fn mixed<I>(tasks: I) -> Self
    where
        I: IntoIterator<Item = TaskDefinition<J>>,
        I::IntoIter: Send + 'a,
    {
        Self(Box::new(tasks.into_iter()))
    }
}

impl<J> fmt::Debug for StageTasks<'_, J> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("StageTasks")
    }
}
