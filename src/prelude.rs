//! What a job author imports: `use coremachine::prelude::*;`, or `use crate::prelude::*;` inside this crate.

pub use crate::contract::{
    Job, JobContext, JobError, OrFail, ParameterFault, Result, StagePolicy, StageResults, StageTasks, SubmitContext,
    Task, TaskContext, TaskDefinition, TaskError, TaskResult, Tolerance,
};
pub use crate::ports::{BlobName, BlobProperties, Blobs, ContainerName, StoreError, Time};
pub use crate::register_job;
pub use schemars::{self, JsonSchema};
pub use serde::{self, Deserialize, Serialize};
pub use serde_json::{Value, json};
