use super::CoreMachine;
use crate::contract::{JobId, TaskEnd, TaskId, TaskOutcome};
use crate::engine::{JobState, Stage, first_attempt, pending_tasks};
use crate::model::{PageRef, PlannedTaskRow};
use crate::ports::StoreError;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::Value;

/// The most batches that one page of tasks looks at: a rare status may give an empty page that goes on.
const BATCHES: u64 = 1000;
/// How many batches are read at a time.
const WIDTH: usize = 16;

/// Which tasks are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskQuery {
    /// Only those of this stage.
    pub stage: Option<u32>,
    /// Only those that stand so.
    pub status: Option<TaskStatus>,
    /// The first one wanted.
    pub from: TaskPlace,
    /// At most so many, from 1.
    pub limit: usize,
}

/// A task's place in its job; ascending in task order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TaskPlace {
    /// From 1.
    pub stage: u32,
    /// From 0.
    pub index: u64,
}

/// How a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskStatus {
    /// It has not ended.
    Pending,
    /// It succeeded.
    Completed,
    /// It failed for good.
    Failed,
    /// Its job ended before it did.
    Cancelled,
}

/// A task as it stands.
#[derive(Clone, Debug)]
pub struct TaskReport {
    /// The task.
    pub task_id: TaskId,
    /// Where it is.
    pub place: TaskPlace,
    /// How it stands.
    pub status: TaskStatus,
    /// What was planned.
    pub planned: PlannedTaskRow,
    /// How it ended, if it has.
    pub outcome: Option<TaskOutcome>,
}

/// Part of a job's tasks, in task order.
#[derive(Clone, Debug, Default)]
pub struct TaskPage {
    /// The tasks.
    pub tasks: Vec<TaskReport>,
    /// Where the next page begins, if there may be more. A page may be empty and still have one.
    pub next: Option<TaskPlace>,
}

impl TaskStatus {
    /// Every status.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Completed, Self::Failed, Self::Cancelled];

    /// The word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl TaskReport {
    /// What the task returned.
    pub fn result(&self) -> Option<&Value> {
        match self.outcome.as_ref().map(|outcome| &outcome.result) {
            Some(TaskEnd::Output(output)) => Some(output),
            Some(TaskEnd::Error { .. }) | None => None,
        }
    }
}

impl CoreMachine {
    /// Tells how a job's tasks stand, a page at a time; `None` if there is no such job.
    pub async fn tasks(&self, job_id: &JobId, query: TaskQuery) -> Result<Option<TaskPage>, StoreError> {
        let Some(state) = self.load(job_id).await? else { return Ok(None) };
        let mut page = TaskPage::default();
        let mut batches_left = BATCHES;
        for (number, stage) in &state.stages {
            if query.stage.is_some_and(|wanted| wanted != *number) || *number < query.from.stage {
                continue;
            }
            let first = if *number == query.from.stage { query.from.index } else { 0 };
            let pages: Vec<PageRef> = self.recall(&stage.row.plan).await?;
            let batch_size = u64::from(stage.row.policy.batch_size);
            let batches = (first / batch_size).min(stage.row.batches)..stage.row.batches;
            let looked_at = (batches.end - batches.start).min(batches_left);
            batches_left -= looked_at;
            let mut reports = stream::iter(batches.start..batches.start + looked_at)
                .map(|batch| self.batch_reports(&state, stage, &pages, batch))
                .buffered(WIDTH);
            while let Some(batch) = reports.try_next().await? {
                for task in batch {
                    let wanted = task.place.index >= first && query.status.is_none_or(|wanted| wanted == task.status);
                    if wanted && page.tasks.len() == query.limit {
                        page.next = Some(task.place);
                        return Ok(Some(page));
                    }
                    if wanted {
                        page.tasks.push(task);
                    }
                }
            }
            let next = batches.start + looked_at;
            if next < stage.row.batches {
                page.next = Some(TaskPlace { stage: *number, index: next * batch_size });
                return Ok(Some(page));
            }
        }
        Ok(Some(page))
    }

    /// How the tasks of one batch stand.
    async fn batch_reports(
        &self,
        state: &JobState,
        stage: &Stage,
        pages: &[PageRef],
        batch: u64,
    ) -> Result<Vec<TaskReport>, StoreError> {
        let (job_id, row) = (&state.job.job_id, &stage.row);
        let planned = self.planned_tasks(job_id, pages, &pending_tasks(row, batch)).await?;
        let outcomes = self.outcomes_of(&first_attempt(job_id, row.run, row.stage, batch)).await?;
        let unended = if state.job.status.is_terminal() { TaskStatus::Cancelled } else { TaskStatus::Pending };
        let reports = planned.into_iter().map(|(index, planned)| {
            let outcome = outcomes.iter().find(|outcome| outcome.index == index).cloned();
            let status = match &outcome {
                Some(outcome) if outcome.completed() => TaskStatus::Completed,
                Some(_) => TaskStatus::Failed,
                None => unended,
            };
            let place = TaskPlace { stage: row.stage, index };
            TaskReport { task_id: TaskId::new(job_id, row.stage, index), place, status, planned, outcome }
        });
        Ok(reports.collect())
    }
}
