//! Where rows lie. Keys sort as the numbers in them do, and hold nothing but letters, digits and `-`.

use crate::contract::JobId;
use crate::ports::Time;

/// The job's own row, in the job's partition of the jobs table.
pub const JOB: &str = "job";
/// The first key after the job's row and its stages' rows.
pub const AFTER_STAGES: &str = "job.";

/// The row of one stage in one run, beside the job's row.
pub fn stage(run: u32, stage: u32) -> String {
    format!("{JOB}-{run:05}-{stage:05}")
}

/// The run and stage of a [`stage`] key.
pub fn parse_stage(key: &str) -> Option<(u32, u32)> {
    let (run, stage) = key.strip_prefix(JOB)?.strip_prefix('-')?.split_once('-')?;
    Some((run.parse().ok()?, stage.parse().ok()?))
}

/// A page of a plan, beside the job's row, named by its content.
pub fn plan_page(sha256: &str) -> String {
    format!("plan-{}", &sha256[..32])
}

/// The partition of the outcomes table in which a node of the roll call finds its children.
pub fn node(job: &JobId, run: u32, stage: u32, level: u32, node: u64) -> String {
    format!("{job}-{run:05}-{stage:05}-{level}-{node:08}")
}

/// A child's row in its node's partition.
pub fn child(child: u64) -> String {
    format!("{child:010}")
}
/// The first key after the children in a node's partition.
pub const AFTER_CHILDREN: &str = ":";

/// The results of a batch, in its node's partition.
pub fn results(batch: u64) -> String {
    format!("r{batch:010}")
}
/// The first key of the results in a node's partition.
pub const RESULTS: &str = "r";

/// The partition of the outcomes table that holds what is left of batches to be tried again.
pub fn retries(job: &JobId, run: u32, stage: u32, node: u64) -> String {
    format!("{job}-{run:05}-{stage:05}-retry-{node:08}")
}

/// What is left of a batch for its `attempt`.
pub fn retry(batch: u64, attempt: u32) -> String {
    format!("{batch:010}-{attempt:05}")
}

/// The batch and attempt of a [`retry`] key.
pub fn parse_retry(key: &str) -> Option<(u64, u32)> {
    let (batch, attempt) = key.split_once('-')?;
    Some((batch.parse().ok()?, attempt.parse().ok()?))
}

/// The partition of the index table for the jobs of one day.
pub fn index_day(created_at: Time) -> String {
    format!("day-{}", created_at.day())
}

/// A job in its day's partition; the newest first.
pub fn index_job(created_at: Time, job: &JobId) -> String {
    format!("{:016}-{job}", i64::MAX / 1000 - created_at.unix_millis())
}

/// The partition of the index table for the jobs that have not ended, each under its id.
pub const ACTIVE: &str = "active";

/// The partition of the index table for what the app itself keeps, and where in it the sweep keeps its place.
pub const APP: &str = "app";
/// See [`APP`].
pub const SWEEP: &str = "sweep";

/// The partition of the index table for messages that were given up.
pub const POISON: &str = "poison";
