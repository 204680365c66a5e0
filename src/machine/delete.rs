use super::{ChangeError, CoreMachine};
use crate::contract::JobId;
use crate::engine::{FAN_IN, Node, RollCall};
use crate::model::{JobRow, StageRow, keys, payload_container};
use crate::ports::{BlobName, CommitError, Query, Select, StoreError, Table, TablesExt, Write};
use tracing::info;

impl CoreMachine {
    /// Removes a job that has ended and all that it stored. The job's own row goes last: cut short, the removal is taken up
    /// by the next call.
    pub async fn delete(&self, job_id: &JobId) -> Result<(), ChangeError> {
        let job = self.job_row(job_id).await?.ok_or_else(|| ChangeError::NotFound(job_id.clone()))?;
        if !job.status.is_terminal() {
            return Err(ChangeError::NotAllowed(job.status));
        }
        self.delete_outcomes(job_id).await?;
        self.delete_payloads(job_id).await?;
        self.delete_rows(Table::Jobs, job_id.as_str(), Some(keys::JOB)).await?;
        self.delete_index(&job).await?;
        self.delete_row(Table::Jobs, job_id.as_str(), keys::JOB).await?;
        info!(job = %job_id, "job deleted");
        Ok(())
    }

    /// Removes what the tasks of every run came to.
    async fn delete_outcomes(&self, job_id: &JobId) -> Result<(), StoreError> {
        let query = Query { from: keys::JOB, to: Some(keys::AFTER_STAGES), ..Query::of(Table::Jobs, job_id.as_str()) };
        for row in self.store.tables.query_all(query).await? {
            let Some((run, number)) = keys::parse_stage(&row.key) else { continue };
            let stage: StageRow = row.read()?;
            let roll_call = RollCall::over(stage.batches);
            for level in 0..=roll_call.root().level {
                for index in 0..roll_call.width(level) {
                    let partition = Node { level, index }.partition(job_id, run, number);
                    self.delete_rows(Table::Outcomes, &partition, None).await?;
                }
            }
            for leaf in 0..stage.batches.div_ceil(FAN_IN) {
                self.delete_rows(Table::Outcomes, &keys::retries(job_id, run, number, leaf), None).await?;
            }
        }
        Ok(())
    }

    async fn delete_payloads(&self, job_id: &JobId) -> Result<(), StoreError> {
        let container = payload_container();
        let prefix = format!("{job_id}/");
        let mut after = None;
        loop {
            let page = match self.store.payloads.list(&container, &prefix, after.as_deref()).await {
                Ok(page) => page,
                Err(StoreError::NotFound(_)) => return Ok(()),
                Err(error) => return Err(error),
            };
            for blob in page.blobs {
                let name =
                    BlobName::parse(&blob.name).map_err(|error| StoreError::rejected("deleting a payload", error))?;
                self.store.payloads.delete(&container, &name).await?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn delete_index(&self, job: &JobRow) -> Result<(), StoreError> {
        self.delete_row(Table::Index, keys::ACTIVE, job.job_id.as_str()).await?;
        let place = keys::index_job(job.created_at, &job.job_id);
        self.delete_row(Table::Index, &keys::index_day(job.created_at), &place).await
    }

    /// Removes every row of a partition but one.
    async fn delete_rows(&self, table: Table, partition: &str, but: Option<&str>) -> Result<(), StoreError> {
        let query = Query { table, partition, from: "", to: None, limit: 1000, select: Select::Keys };
        for row in self.store.tables.query_all(query).await? {
            if but != Some(row.key.as_str()) {
                self.delete_row(table, partition, &row.key).await?;
            }
        }
        Ok(())
    }

    /// Removes a row, if it is there.
    async fn delete_row(&self, table: Table, partition: &str, key: &str) -> Result<(), StoreError> {
        match self.store.tables.commit(table, partition, vec![Write::Delete { key: key.to_owned() }]).await {
            Ok(()) | Err(CommitError { error: StoreError::NotFound(_), .. }) => Ok(()),
            Err(CommitError { error, .. }) => Err(error),
        }
    }
}
