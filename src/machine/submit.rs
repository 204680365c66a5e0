use super::CoreMachine;
use crate::contract::{JobId, ParameterFault, SubmitContext, canonical_json, sha256_hex};
use crate::engine::{self, NewJob, Submission};
use crate::model::{JobRow, document, keys};
use crate::ports::{StoreError, Table, TablesExt};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tracing::info;

/// An accepted submission.
#[derive(Clone, Debug)]
pub struct Submitted {
    /// The job as it is at present.
    pub job: JobRow,
    /// Its parameters, defaults included.
    pub parameters: Value,
    /// Whether the job was there before.
    pub deduplicated: bool,
}

/// Why a submission was not accepted; nothing was stored, unless a store failed: then it can be repeated safely.
#[derive(Debug, thiserror::Error)]
pub enum SubmitError {
    /// There is no such job type.
    #[error("unknown job type `{0}`")]
    UnknownJobType(String),
    /// The parameters are not those of the job type.
    #[error("the parameters have {} faults", .0.len())]
    InvalidParameters(Vec<ParameterFault>),
    /// The key was used before, with other parameters.
    #[error("the idempotency key was used before with other parameters")]
    IdempotencyKeyReused,
    /// A store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CoreMachine {
    /// Accepts a job: it is durable, and the message that opens its first stage is sent, when this returns.
    ///
    /// The same work submitted again, or half-submitted before, is the same job.
    pub async fn submit(&self, submission: Submission) -> Result<Submitted, SubmitError> {
        let Submission { job_type, parameters, idempotency_key } = submission;
        let registered = self.registry.get(&job_type).ok_or_else(|| SubmitError::UnknownJobType(job_type.clone()))?;
        let job = registered.read(&parameters).map_err(SubmitError::InvalidParameters)?;
        let parameters = job
            .parameters()
            .map_err(|error| SubmitError::InvalidParameters(vec![ParameterFault::new("", error.message)]))?;
        let parameters_sha256 = sha256_hex(canonical_json(&parameters).as_bytes());
        let job_id = match &idempotency_key {
            Some(key) => JobId::of_key(&job_type, key),
            None => JobId::of_work(&job_type, &parameters),
        };
        if let Some(row) = self.job_row(&job_id).await? {
            return self.resubmit(row, parameters, &parameters_sha256).await;
        }

        let faults = job.check(&SubmitContext { data: Arc::clone(&self.store.data) }).await?;
        if !faults.is_empty() {
            return Err(SubmitError::InvalidParameters(faults));
        }
        let token = format!("{:016x}{:016x}", self.environment.random(), self.environment.random());
        let kept = self.keep(&job_id, &parameters).await?;
        let now = self.environment.now();
        let NewJob { active, index, job, message } =
            engine::new_job(job_id.clone(), &job_type, kept, parameters_sha256.clone(), token.clone(), now);
        // The index first: a job that is listed and does not exist is found out, one that exists and is not listed is not.
        self.store.tables.insert_if_absent(Table::Index, keys::ACTIVE, job_id.as_str(), document(&active)).await?;
        let (day, place) = (keys::index_day(now), keys::index_job(now, &job_id));
        self.store.tables.insert_if_absent(Table::Index, &day, &place, document(&index)).await?;
        if !self.store.tables.insert_if_absent(Table::Jobs, job_id.as_str(), keys::JOB, document(&job)).await? {
            let row = self.job_row(&job_id).await?.ok_or_else(|| StoreError::NotFound(job_id.to_string()))?;
            // Our own insert, whose answer was lost on the way and which was tried again, is no duplicate.
            if row.submission != token {
                return self.resubmit(row, parameters, &parameters_sha256).await;
            }
        }
        self.send_stage(&message, Duration::ZERO).await?;
        info!(job = %job_id, job_type, "job accepted");
        Ok(Submitted { job, parameters, deduplicated: false })
    }

    async fn resubmit(
        &self,
        job: JobRow,
        parameters: Value,
        parameters_sha256: &str,
    ) -> Result<Submitted, SubmitError> {
        if job.parameters_sha256 != parameters_sha256 {
            return Err(SubmitError::IdempotencyKeyReused);
        }
        if let Some(message) = engine::resubmitted(&job) {
            self.send_stage(&message, Duration::ZERO).await?;
        }
        Ok(Submitted { job, parameters, deduplicated: true })
    }

    /// The job's own row; `None` if there is no such job.
    pub(super) async fn job_row(&self, job_id: &JobId) -> Result<Option<JobRow>, StoreError> {
        let row = self.store.tables.get(Table::Jobs, job_id.as_str(), keys::JOB).await?;
        row.map(|row| row.read()).transpose()
    }
}
