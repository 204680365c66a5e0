//! Calling the author's code: a panic there is the job's failure, never the process's.

use crate::contract::{JobError, Result};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls a method of a job.
pub(super) fn call<T>(method: impl FnOnce() -> Result<T>) -> Result<T> {
    // What the author's code leaves half-changed is its own and is dropped with it.
    catch_unwind(AssertUnwindSafe(method))
        .unwrap_or_else(|panic| Err(JobError::new("panicked", format!("the job panicked: {}", panic_message(&*panic)))))
}

/// The words of a panic.
pub(super) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
