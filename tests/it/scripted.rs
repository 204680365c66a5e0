//! A job for tests: its parameters say what each task of each stage does.

use coremachine::contract::JobId;
use coremachine::prelude::*;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

register_job!(Scripted, tasks: [Act]);

/// Does what its parameters say.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Scripted {
    /// The tasks of each stage.
    pub(crate) stages: Vec<Vec<Deed>>,
    /// Tells one job from another.
    pub(crate) name: String,
    pub(crate) batch_size: u32,
    /// How many failed tasks each stage bears.
    pub(crate) tolerated: u64,
    /// The method that goes wrong, and how: `plan`, `aggregate`, `advance`, `result`, each with `!` for a panic.
    pub(crate) fault: String,
    /// Whether every call of `create_stage_tasks` gives other tasks.
    pub(crate) restless: bool,
}

/// What a task does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Deed {
    /// Returns its argument.
    Give(u64),
    /// Returns so many bytes of text.
    Bulk(usize),
    /// Fails until this attempt.
    SucceedAt(u32),
    /// Gives up at once.
    GiveUp,
    /// Gives up in every run before this one.
    SucceedInRun(u32),
    /// Gives up until it was executed so often.
    SucceedAtExecution(u64),
    /// Panics.
    Panic,
    /// Never ends.
    Hang,
}

static CALLS: AtomicU64 = AtomicU64::new(0);

static EXECUTIONS: Mutex<BTreeMap<String, u64>> = Mutex::new(BTreeMap::new());

/// How often each task of a job was executed in this process, in the order of stages and tasks.
pub(crate) fn executions(job_id: &JobId) -> Vec<u64> {
    let all = EXECUTIONS.lock().expect("no test panics while it counts");
    let mut of_job: Vec<_> = all.iter().filter(|(task, _)| task.starts_with(job_id.as_str())).collect();
    of_job.sort_by_key(|(task, _)| task.split('-').skip(1).map(|part| part.parse().ok()).collect::<Vec<Option<u64>>>());
    of_job.into_iter().map(|(_, count)| *count).collect()
}

impl Scripted {
    fn fault(&self, method: &str) -> Result<()> {
        if self.fault == method {
            return Err(JobError::new("scripted", format!("{method} went wrong")));
        }
        assert_ne!(self.fault, format!("{method}!"), "scripted panic");
        Ok(())
    }
}

impl Job for Scripted {
    const JOB_TYPE: &str = "scripted";

    fn create_stage_tasks(&self, stage: u32, _context: &JobContext) -> Result<StageTasks<'_, Self>> {
        self.fault("plan")?;
        let extra = if self.restless { CALLS.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let deeds = self.stages.get(stage as usize - 1).cloned().unwrap_or_default();
        Ok(StageTasks::each(deeds.into_iter().map(move |deed| match deed {
            Deed::Give(value) => Act { deed: Deed::Give(value + extra) },
            deed => Act { deed },
        })))
    }

    fn aggregate_stage_results(&self, stage: u32, results: StageResults<'_, Self>) -> Result<Value> {
        self.fault("aggregate")?;
        let outputs: Vec<Value> = results.outputs::<Act>().collect::<Result<_>>()?;
        let note = results.attach("note.txt", "text/plain", format!("stage {stage}"));
        Ok(json!({ "outputs": outputs, "note": note }))
    }

    fn should_advance_stage(&self, stage: u32, _context: &JobContext) -> Result<bool> {
        self.fault("advance")?;
        Ok((stage as usize) < self.stages.len() || self.fault == "endless")
    }

    fn get_final_result(&self, context: &JobContext) -> Result<Value> {
        self.fault("result")?;
        let stages: Vec<&Value> = (1..).map_while(|stage| context.stage_results.get(stage)).collect();
        Ok(stages.iter().map(|stage| stage["outputs"].clone()).collect())
    }

    fn stage_policy(&self, _stage: u32) -> StagePolicy {
        StagePolicy {
            batch_size: self.batch_size,
            task_timeout: Duration::from_millis(200),
            tolerated_failures: Tolerance::Count(self.tolerated),
            ..StagePolicy::default()
        }
    }
}

/// One task.
#[derive(Serialize, Deserialize)]
pub(crate) struct Act {
    deed: Deed,
}

impl Task for Act {
    const TASK_TYPE: &str = "act";
    type Output = Value;

    async fn execute(self, context: &TaskContext) -> TaskResult<Value> {
        let executed = {
            let mut all = EXECUTIONS.lock().expect("no test panics while it counts");
            let count = all.entry(context.task_id.to_string()).or_default();
            *count += 1;
            *count
        };
        match self.deed {
            Deed::SucceedAtExecution(count) if executed >= count => Ok(json!(executed)),
            Deed::SucceedAtExecution(_) => Err(TaskError::permanent("given_up", "not this often yet")),
            Deed::SucceedInRun(run) if context.run >= run => Ok(json!(context.run)),
            Deed::SucceedInRun(_) => Err(TaskError::permanent("given_up", "not in this run")),
            Deed::Give(value) => Ok(json!(value)),
            Deed::Bulk(bytes) => Ok(json!("x".repeat(bytes))),
            Deed::SucceedAt(attempt) if context.attempt >= attempt => Ok(json!(context.attempt)),
            Deed::SucceedAt(_) => Err(std::io::Error::other("not yet").into()),
            Deed::GiveUp => Err(TaskError::permanent("given_up", "no further attempt helps")),
            Deed::Panic => panic!("scripted panic"),
            Deed::Hang => std::future::pending().await,
        }
    }
}
