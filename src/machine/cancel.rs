use super::advance_stage::TRIES;
use super::{ChangeError, CoreMachine, MachineError};
use crate::contract::JobId;
use crate::engine;
use crate::ports::{CommitError, StoreError, Table};
use tracing::info;

impl CoreMachine {
    /// Ends a job that has not ended: tasks that have not begun do not begin, and what is under way counts for nothing.
    ///
    /// A task that another process began to fetch within the last second may still begin.
    pub async fn cancel(&self, job_id: &JobId) -> Result<(), ChangeError> {
        for _ in 0..TRIES {
            let state = self.load(job_id).await?.ok_or_else(|| ChangeError::NotFound(job_id.clone()))?;
            if state.job.status.is_terminal() {
                return Err(ChangeError::NotAllowed(state.job.status));
            }
            let tally = self.count_open_stage(&state).await?;
            let writes = engine::cancel(&state, tally, self.environment.now());
            match self.store.tables.commit(Table::Jobs, job_id.as_str(), writes).await {
                Ok(()) => {
                    info!(job = %job_id, "job cancelled");
                    self.forget(job_id).await;
                    return Ok(());
                }
                Err(CommitError { error: StoreError::Conflict(_), .. }) => {}
                Err(CommitError { error, .. }) => return Err(error.into()),
            }
        }
        Err(MachineError::Contended(job_id.clone()).into())
    }
}
