//! The decisions: plain functions of what is stored.
//!
//! The engine owns what happens next; [`machine`](crate::machine) owns making it happen. Nothing here reads a clock,
//! draws a number, awaits or touches a store: time and chance are arguments, rows and messages come out.

mod batch;
mod plan;
mod roll_call;
mod stage;
mod submit;
mod sweep;

pub use batch::{Attempted, BatchVerdict, Execution, first_attempt, judge_batch, next_attempt, pending_tasks};
pub use plan::{PAGE_TASKS, PageFill, batch_count, tasks_of_batch};
pub use roll_call::{FAN_IN, Node, RollCall};
pub use stage::{
    Closing, Delivery, JobState, MAX_STAGES, Opening, Stage, StageStep, cancel, close_into_end, close_into_failure,
    close_into_next, dispatched, next_step, open_first, retry,
};
pub use submit::{NewJob, Submission, new_job, resubmitted};
pub use sweep::{PATIENCE, SweepStep, sweep_step};
