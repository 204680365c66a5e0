use super::{TaskContext, TaskResult};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::marker::PhantomData;

/// One kind of task: the struct's members are the task's parameters.
///
/// A task may be executed more than once, even at the same time, and must leave the same effects each time;
/// [`TaskContext::task_id`] is stable for its own idempotency. Its result is counted once.
pub trait Task: Serialize + DeserializeOwned + Send + 'static {
    /// The name in stored plans, `snake_case`. Renaming it breaks jobs under way.
    const TASK_TYPE: &'static str;

    /// What a successful execution returns; at most 256 MiB as JSON.
    type Output: Serialize + DeserializeOwned + Send;

    /// Does the work. An error through `?` is retried; see [`TaskError`](super::TaskError) for giving up.
    fn execute(self, context: &TaskContext) -> impl Future<Output = TaskResult<Self::Output>> + Send;
}

/// A [`Task`] that is registered for the job type `J`; implemented by [`register_job!`](crate::register_job).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a registered task of `{J}`",
    label = "not among the tasks of `{J}`",
    note = "name it where the job is registered: `register_job!({J}, tasks: [{Self}]);`"
)]
pub trait TaskOf<J>: Task {}

/// A task to be run: its type's name and its parameters.
#[derive(Debug)]
pub struct TaskDefinition<J> {
    pub(crate) task_type: &'static str,
    pub(crate) parameters: Result<Value, serde_json::Error>,
    job: PhantomData<fn() -> J>,
}

impl<J> TaskDefinition<J> {
    /// Defines a task of a type registered for this job.
    pub fn new<T: TaskOf<J>>(task: &T) -> Self {
        Self { task_type: T::TASK_TYPE, parameters: serde_json::to_value(task), job: PhantomData }
    }
}
