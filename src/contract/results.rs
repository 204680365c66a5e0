use super::{JobError, Result, TaskError, TaskOf};
use crate::ports::Time;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

/// How one task ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskOutcome {
    /// The task's place in its stage, from 0.
    pub index: u64,
    /// The task type.
    pub task_type: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When the last attempt began.
    pub started_at: Time,
    /// When the last attempt ended.
    pub ended_at: Time,
    /// What it returned, or why it failed.
    #[serde(flatten)]
    pub result: TaskEnd,
}

/// What a task came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TaskEnd {
    /// It returned this.
    Output(Value),
    /// It failed for good.
    Error {
        /// A stable word.
        code: String,
        /// For people.
        message: String,
    },
}

impl TaskOutcome {
    /// Whether the task succeeded.
    pub fn completed(&self) -> bool {
        matches!(self.result, TaskEnd::Output(_))
    }
}

impl From<TaskError> for TaskEnd {
    fn from(error: TaskError) -> Self {
        Self::Error { code: error.code.into_owned(), message: error.message }
    }
}

/// A blob that a stage's aggregate refers to.
#[derive(Clone, Debug)]
pub(crate) struct Attachment {
    /// The blob's name in the payload container.
    pub name: String,
    /// The media type.
    pub content_type: &'static str,
    /// The content.
    pub body: Bytes,
}

/// The results of one stage, in task order.
#[derive(Debug)]
pub struct StageResults<'a, J> {
    erased: &'a ErasedResults<'a>,
    job: PhantomData<fn() -> J>,
}

/// [`StageResults`] before they know their job.
#[derive(Debug)]
pub(crate) struct ErasedResults<'a> {
    pub(crate) outcomes: &'a [TaskOutcome],
    /// Where attachments go: container, and the prefix of their names.
    pub(crate) payloads: (&'a str, &'a str),
    pub(crate) attachments: Mutex<Vec<Attachment>>,
}

impl<'a, J> StageResults<'a, J> {
    pub(crate) fn new(erased: &'a ErasedResults<'a>) -> Self {
        Self { erased, job: PhantomData }
    }

    /// How many tasks the stage had.
    pub fn total(&self) -> usize {
        self.erased.outcomes.len()
    }

    /// The outputs of the tasks of type `T` that succeeded, in task order. Fails on an output that is not of its type,
    /// as after a change of the job's code.
    pub fn outputs<T: TaskOf<J>>(&self) -> impl Iterator<Item = Result<T::Output>> + use<'a, T, J> {
        self.erased.outcomes.iter().filter(|outcome| outcome.task_type == T::TASK_TYPE).filter_map(|outcome| {
            match &outcome.result {
                TaskEnd::Output(output) => Some(<T::Output as Deserialize>::deserialize(output).map_err(|error| {
                    JobError::new(
                        "job_error",
                        format!("the output of task {} (`{}`): {error}", outcome.index, T::TASK_TYPE),
                    )
                })),
                TaskEnd::Error { .. } => None,
            }
        })
    }

    /// The output of the stage's only task of type `T`.
    pub fn output<T: TaskOf<J>>(&self) -> Result<T::Output> {
        self.outputs::<T>().next().unwrap_or_else(|| {
            Err(JobError::new("job_error", format!("the stage has no output of a task `{}`", T::TASK_TYPE)))
        })
    }

    /// The tasks that failed, in task order.
    pub fn failures(&self) -> impl Iterator<Item = &'a TaskOutcome> + use<'a, J> {
        self.erased.outcomes.iter().filter(|outcome| !outcome.completed())
    }

    /// Keeps `body` as a blob of this job, and returns `{"container", "name", "size"}` to put into the aggregate. The
    /// blob is written before the aggregate is stored and goes when the job is deleted.
    pub fn attach(&self, name: &str, content_type: &'static str, body: impl Into<Bytes>) -> Value {
        let body = body.into();
        let (container, prefix) = self.erased.payloads;
        let name = format!("{prefix}/{name}");
        let reference = json!({ "container": container, "name": name, "size": body.len() });
        let mut attachments = self.erased.attachments.lock().unwrap_or_else(PoisonError::into_inner);
        attachments.push(Attachment { name, content_type, body });
        reference
    }
}
