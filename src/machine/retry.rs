use super::{ChangeError, CoreMachine, MachineError};
use crate::contract::JobId;
use crate::engine;
use crate::model::{ActiveRow, document, keys};
use crate::ports::{CommitError, StoreError, Table, TablesExt};
use std::time::Duration;
use tracing::info;

impl CoreMachine {
    /// Begins a new run of a job that failed, was cancelled or completed with errors: every completed task is kept, the
    /// others are run again.
    pub async fn retry(&self, job_id: &JobId) -> Result<(), ChangeError> {
        let state = self.load(job_id).await?.ok_or_else(|| ChangeError::NotFound(job_id.clone()))?;
        let now = self.environment.now();
        let (writes, message) = engine::retry(&state, now).ok_or(ChangeError::NotAllowed(state.job.status))?;
        // Watched first: should we die before the message is sent, the sweep finds the run standing still.
        let active = ActiveRow { job_id: job_id.clone(), footprint: None, seen_at: now };
        self.store.tables.insert_if_absent(Table::Index, keys::ACTIVE, job_id.as_str(), document(&active)).await?;
        match self.store.tables.commit(Table::Jobs, job_id.as_str(), writes).await {
            Ok(()) => {}
            Err(CommitError { error: StoreError::Conflict(_) | StoreError::AlreadyExists(_), .. }) => {
                return Err(MachineError::Contended(job_id.clone()).into());
            }
            Err(CommitError { error, .. }) => return Err(error.into()),
        }
        self.send_stage(&message, Duration::ZERO).await?;
        info!(job = %job_id, run = message.run, stage = message.stage, "job retried");
        Ok(())
    }
}
