//! What a job is: the contract between job authors and the engine.
//!
//! An author implements [`Job`] and [`Task`] and says [`register_job!`](crate::register_job). Everything else here is
//! what those two are handed and what they give back. The typed side ends in [`registry`], where one seam erases it.

mod context;
mod error;
mod id;
mod job;
mod parameters;
mod policy;
pub mod registry;
mod results;
mod task;

pub use context::{JobContext, StageAggregates, SubmitContext, TaskContext};
pub(crate) use error::with_causes;
pub use error::{JobError, OrFail, Result, TaskError, TaskResult};
pub use id::{InvalidJobId, JobId, TaskId};
pub(crate) use id::{canonical_json, sha256_hex};
pub use job::{Job, StageTasks};
pub use parameters::ParameterFault;
pub use policy::{StagePolicy, Tolerance};
pub(crate) use results::{Attachment, ErasedResults};
pub use results::{StageResults, TaskEnd, TaskOutcome};
pub use task::{Task, TaskDefinition, TaskOf};
