//! Reading plans: what a batch consists of. Stored plans never change, so they are read once and remembered.

use super::{CoreMachine, MachineError};
use crate::contract::{JobId, StagePolicy};
use crate::model::{JobRow, PageRef, PlanPage, PlannedTaskRow, StageRow, keys};
use crate::ports::{StoreError, Table, Time};
use lru::LruCache;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a job is taken to be alive without looking again: what a late task may cost after its job has ended.
const TRUST: Duration = Duration::from_secs(1);
/// How many open stages are remembered.
const STAGES: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
/// How many pages of plans are remembered; a page is seldom over 64 KiB.
const PAGES: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// An open stage, as its tasks need it.
#[derive(Clone, Debug)]
pub(super) struct OpenStage {
    pub(super) job_type: String,
    pub(super) row: Arc<StageRow>,
    pub(super) pages: Arc<[PageRef]>,
    /// Of the job's row: a job that was deleted and submitted anew may have another plan under the same names.
    submission: String,
    seen_alive: Time,
}

type StageKey = (JobId, u32, u32);
type PageKey = (JobId, String);

/// What was read of plans before.
pub(super) struct Plans {
    stages: Mutex<LruCache<StageKey, OpenStage>>,
    pages: Mutex<LruCache<PageKey, Arc<[PlannedTaskRow]>>>,
}

impl Default for Plans {
    fn default() -> Self {
        Self { stages: Mutex::new(LruCache::new(STAGES)), pages: Mutex::new(LruCache::new(PAGES)) }
    }
}

impl OpenStage {
    /// How the stage's tasks are run.
    pub(super) fn policy(&self) -> &StagePolicy {
        &self.row.policy
    }
}

impl CoreMachine {
    /// The stage, if it is open: its job is there, not ended, in this run and at this stage.
    pub(super) async fn open_stage(
        &self,
        job_id: &JobId,
        run: u32,
        stage: u32,
    ) -> Result<Option<OpenStage>, MachineError> {
        let key = (job_id.clone(), run, stage);
        let now = self.environment.now();
        let known = lock(&self.plans.stages).get(&key).cloned();
        if let Some(known) = known.as_ref().filter(|known| now.since(known.seen_alive) < TRUST) {
            return Ok(Some(known.clone()));
        }
        let Some(row) = self.store.tables.get(Table::Jobs, job_id.as_str(), keys::JOB).await? else { return Ok(None) };
        let job: JobRow = row.read()?;
        if job.status.is_terminal() || (job.run, job.stage) != (run, stage) {
            return Ok(None);
        }
        let open = match known.filter(|known| known.submission == job.submission) {
            Some(known) => OpenStage { seen_alive: now, ..known },
            None => {
                let row = self.store.tables.get(Table::Jobs, job_id.as_str(), &keys::stage(run, stage)).await?;
                let Some(row) = row else { return Ok(None) };
                let row: StageRow = row.read()?;
                let pages: Vec<PageRef> = self.recall(&row.plan).await?;
                let JobRow { job_type, submission, .. } = job;
                OpenStage { job_type, row: Arc::new(row), pages: pages.into(), submission, seen_alive: now }
            }
        };
        lock(&self.plans.stages).put(key, open.clone());
        Ok(Some(open))
    }

    /// The planned tasks of these indices, all of one batch.
    pub(super) async fn planned_tasks(
        &self,
        job_id: &JobId,
        pages: &[PageRef],
        indices: &[u64],
    ) -> Result<Vec<(u64, PlannedTaskRow)>, StoreError> {
        let Some(first) = indices.first() else { return Ok(Vec::new()) };
        let after = pages.partition_point(|page| page.first <= *first);
        let page = after.checked_sub(1).and_then(|page| pages.get(page));
        let page = page.ok_or_else(|| StoreError::NotFound(format!("the plan of task {first}")))?;
        let tasks = self.plan_page(job_id, &page.key).await?;
        indices
            .iter()
            .map(|&index| {
                let place = usize::try_from(index - page.first).ok();
                let task = place.and_then(|place| tasks.get(place));
                task.map(|task| (index, task.clone()))
                    .ok_or_else(|| StoreError::NotFound(format!("the plan of task {index}")))
            })
            .collect()
    }

    async fn plan_page(&self, job_id: &JobId, page: &str) -> Result<Arc<[PlannedTaskRow]>, StoreError> {
        let key = (job_id.clone(), page.to_owned());
        if let Some(tasks) = lock(&self.plans.pages).get(&key) {
            return Ok(Arc::clone(tasks));
        }
        let row = self.store.tables.get(Table::Jobs, job_id.as_str(), page).await?;
        let row: PlanPage = row.ok_or_else(|| StoreError::NotFound(format!("{job_id}/{page}")))?.read()?;
        let tasks: Arc<[PlannedTaskRow]> = self.recall::<Vec<_>>(&row.tasks).await?.into();
        lock(&self.plans.pages).put(key, Arc::clone(&tasks));
        Ok(tasks)
    }
}

/// A cache is as good after a panic as before: it holds whole values only.
fn lock<T>(cache: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    cache.lock().unwrap_or_else(PoisonError::into_inner)
}
