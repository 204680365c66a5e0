use crate::contract::JobId;
use crate::model::{ActiveRow, IndexRow, JobRow, JobStatus, Payload, StageMessage};
use crate::ports::Time;

/// What a caller asks for.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The job type's name.
    pub job_type: String,
    /// The job's parameters, as the caller gave them.
    pub parameters: serde_json::Value,
    /// Names the work by the caller's word instead of by its parameters.
    pub idempotency_key: Option<String>,
}

/// What a new job begins with; to be made durable in this order.
#[derive(Debug)]
pub struct NewJob {
    /// For the sweep.
    pub active: ActiveRow,
    /// For listing.
    pub index: IndexRow,
    /// The job.
    pub job: JobRow,
    /// Opens the first stage.
    pub message: StageMessage,
}

/// A job accepted at `now`; `submission` is a fresh word by which its author knows the row again.
pub fn new_job(
    job_id: JobId,
    job_type: &str,
    parameters: Payload,
    parameters_sha256: String,
    submission: String,
    now: Time,
) -> NewJob {
    NewJob {
        active: ActiveRow { job_id: job_id.clone(), footprint: None, seen_at: now },
        index: IndexRow { job_id: job_id.clone(), job_type: job_type.to_owned() },
        message: open_first_stage(&job_id, 1),
        job: JobRow {
            job_id,
            job_type: job_type.to_owned(),
            parameters,
            parameters_sha256,
            status: JobStatus::Queued,
            run: 1,
            stage: 0,
            began_at: 1,
            result: None,
            error: None,
            created_at: now,
            updated_at: now,
            started_at: None,
            ended_at: None,
            submission,
        },
    }
}

/// The message that a repeated submission sends again: a submission that died half-way is healed by the next one.
pub fn resubmitted(job: &JobRow) -> Option<StageMessage> {
    (job.status == JobStatus::Queued).then(|| open_first_stage(&job.job_id, job.run))
}

pub(super) fn open_first_stage(job_id: &JobId, run: u32) -> StageMessage {
    StageMessage { job_id: job_id.clone(), run, stage: 1, handed_on: false }
}
