//! What is stored and sent: rows, messages, payloads, and the places they lie in.

pub mod keys;
mod message;
mod payload;
mod rows;

pub use message::{StageMessage, TaskMessage, UnreadableMessage};
pub use payload::{BlobRef, PAYLOAD_CONTAINER, Payload, VALUE_SHARE, payload_container};
pub use rows::{
    ActiveRow, FailedTask, Footprint, IndexRow, JobFailure, JobRow, JobStatus, PageRef, PlanPage, PlannedTaskRow,
    PoisonRow, ResultsRow, RetryRow, StageRow, StageStatus, SweepRow, Tally, document,
};
