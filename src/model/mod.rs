//! What is stored and sent: rows, messages, payloads, and the places they lie in.

pub mod keys;
mod message;
mod payload;
mod rows;

pub use message::{StageMessage, TaskMessage, UnreadableMessage};
pub use payload::{BlobRef, PAYLOAD_CONTAINER, Payload, VALUE_SHARE, payload_container};
pub use rows::{
    FailedTask, IndexRow, JobFailure, JobRow, JobStatus, PageRef, PlanPage, PlannedTaskRow, ResultsRow, RetryRow,
    StageRow, StageStatus, Tally, document,
};
