use crate::ports::StoreError;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;

/// What a job's four methods return.
pub type Result<T, E = JobError> = std::result::Result<T, E>;

/// What a task returns.
pub type TaskResult<T> = std::result::Result<T, TaskError>;

/// Why a job cannot go on: it ends `failed` with this code and message.
///
/// Any [`Error`] becomes one through `?`, with the code `job_error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError {
    /// A stable `snake_case` word.
    pub code: Cow<'static, str>,
    /// For people.
    pub message: String,
}

impl JobError {
    /// An error with a code of the author's.
    pub fn new(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

/// Why a task did not succeed, and whether to try again.
///
/// Any [`Error`] becomes one through `?`, with the code `task_error`, and is retried as the stage's policy says, except
/// [`StoreError::Rejected`], which says itself that trying again will not help. Giving up is otherwise said aloud:
/// [`TaskError::permanent`] or [`OrFail::or_fail`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskError {
    /// A stable `snake_case` word.
    pub code: Cow<'static, str>,
    /// For people.
    pub message: String,
    /// Whether another attempt may succeed.
    pub retryable: bool,
}

impl TaskError {
    /// A failure that no further attempt can mend.
    pub fn permanent(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retryable: false }
    }

    /// A failure that another attempt may mend.
    pub fn transient(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), retryable: true }
    }
}

/// Turns an error into the task's final failure.
pub trait OrFail<T> {
    /// Gives up at once, under `code`, instead of being retried.
    fn or_fail(self, code: &'static str) -> TaskResult<T>;
}

impl<T, E: Error> OrFail<T> for std::result::Result<T, E> {
    fn or_fail(self, code: &'static str) -> TaskResult<T> {
        self.map_err(|error| TaskError::permanent(code, with_causes(&error)))
    }
}

impl<E: Error> From<E> for JobError {
    fn from(error: E) -> Self {
        Self::new("job_error", with_causes(&error))
    }
}

impl<E: Error + 'static> From<E> for TaskError {
    fn from(error: E) -> Self {
        let error: &(dyn Error + 'static) = &error;
        let refused = matches!(error.downcast_ref(), Some(StoreError::Rejected { .. }));
        Self { code: "task_error".into(), message: with_causes(error), retryable: !refused }
    }
}

/// An error's text, and that of each of its causes, once.
pub(crate) fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}

// `From<E: Error>` above rules out `Error` for these two, as it does for anyhow's; they are ends, not causes.
impl fmt::Display for JobError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.message, self.code)
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.message, self.code)
    }
}
