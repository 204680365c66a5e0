use super::local::{Engine, LocalStore};
use super::parameters::Parameters;
use super::{Exit, Failure, Outcome, job_types, log_for_people};
use crate::contract::{JobId, ParameterFault};
use crate::machine::{CoreMachine, JobReport, Submission, SubmitError, Submitted};
use crate::model::JobStatus;
use crate::ports::StoreError;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// How often the job is looked at while it runs.
const LOOK: Duration = Duration::from_millis(50);

/// One job, run to its end in this process.
#[derive(Debug, clap::Args)]
pub(super) struct Run {
    /// The job type
    job_type: String,
    #[command(flatten)]
    parameters: Parameters,
    /// Prints one JSON line per change of the job instead of progress bars, and the ended job last
    #[arg(long)]
    json: bool,
    /// Gives up waiting after so many seconds; the job stays where it is
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    #[command(flatten)]
    local: LocalStore,
}

impl Run {
    pub(super) async fn execute(self) -> Outcome {
        log_for_people();
        let parameters = self.parameters.read().map_err(Failure::usage)?;
        let Engine { machine, mut pump, .. } = Engine::start(self.local.open()?)?;
        let job_id = submit(&machine, &self.job_type, &parameters).await?;
        let deadline = self.timeout.map_or(Duration::MAX, Duration::from_secs);
        let mut progress = Progress::new(self.json);
        let ended = tokio::select! {
            report = watch(&machine, &job_id, &mut progress) => report.map_err(Failure::unreachable)?,
            () = pump.forever() => return Err(Failure::unreachable("the engine stopped")),
            () = tokio::time::sleep(deadline) => return Ok(left(&job_id, Exit::TimedOut)),
            _ = tokio::signal::ctrl_c() => return Ok(left(&job_id, Exit::Failed)),
        };
        progress.finish(&ended);
        pump.drain().await;
        Ok(conclude(&ended, self.json))
    }
}

/// Submits the job, or goes on with the same one that was left before its end. Work that has ended is done afresh.
async fn submit(machine: &CoreMachine, job_type: &str, parameters: &Value) -> Result<JobId, Failure> {
    for repetition in 1.. {
        let submission = Submission {
            job_type: job_type.to_owned(),
            parameters: parameters.clone(),
            idempotency_key: (repetition > 1).then(|| format!("run-{repetition}-{parameters}")),
        };
        let Submitted { job, deduplicated, .. } =
            machine.submit(submission).await.map_err(|error| refused(machine, error))?;
        if !(deduplicated && job.status.is_terminal()) {
            return Ok(job.job_id);
        }
    }
    unreachable!("a job that was never submitted before is found sooner or later")
}

fn refused(machine: &CoreMachine, error: SubmitError) -> Failure {
    match error {
        SubmitError::UnknownJobType(name) => job_types::unknown(machine.registry(), &name),
        SubmitError::InvalidParameters(faults) => {
            let lines: Vec<_> =
                faults.iter().map(|ParameterFault { pointer, detail }| format!("  {pointer}: {detail}")).collect();
            Failure::usage(format!("the parameters are refused\n{}", lines.join("\n")))
        }
        SubmitError::IdempotencyKeyReused => Failure::usage(error),
        SubmitError::Store(error) => Failure::unreachable(error),
    }
}

/// Shows how the job goes, until it has ended.
async fn watch(machine: &CoreMachine, job_id: &JobId, progress: &mut Progress) -> Result<JobReport, StoreError> {
    loop {
        let report = machine.status(job_id).await?.ok_or_else(|| StoreError::NotFound(job_id.to_string()))?;
        progress.show(&report);
        if report.job.status.is_terminal() {
            return Ok(report);
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn conclude(report: &JobReport, json: bool) -> Exit {
    let job = &report.job;
    if json {
        println!(
            "{}",
            json!({ "job_id": job.job_id, "status": job.status, "result": report.result, "error": job.error })
        );
    } else if let Some(error) = &job.error {
        eprintln!("job {} in stage {}: {} ({})", job.status, error.stage, error.message, error.code);
        for task in &error.tasks {
            eprintln!("  {}: {} ({})", task.task_id, task.message, task.code);
        }
    } else {
        println!("{:#}", report.result);
    }
    match job.status {
        JobStatus::Completed => Exit::Done,
        JobStatus::CompletedWithErrors => {
            eprintln!("the job completed with errors");
            Exit::Done
        }
        JobStatus::Queued | JobStatus::Processing | JobStatus::Failed | JobStatus::Cancelled => Exit::Failed,
    }
}

fn left(job_id: &JobId, exit: Exit) -> Exit {
    eprintln!("job {job_id} is left where it is; run the same command again to go on with it");
    exit
}

/// The job on a terminal: a bar per stage, or a JSON line per change.
enum Progress {
    Bars { all: MultiProgress, stages: BTreeMap<u32, ProgressBar> },
    Lines { last: Value },
}

impl Progress {
    fn new(json: bool) -> Self {
        if json {
            return Self::Lines { last: Value::Null };
        }
        Self::Bars { all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()), stages: BTreeMap::new() }
    }

    fn show(&mut self, report: &JobReport) {
        match self {
            Self::Bars { all, stages } => {
                for stage in &report.stages {
                    let bar = stages.entry(stage.row.stage).or_insert_with(|| all.add(bar(stage.row.stage)));
                    bar.set_length(stage.row.tasks);
                    bar.set_position(stage.tally.completed + stage.tally.failed);
                    if stage.row.ended_at.is_some() && !bar.is_finished() {
                        bar.finish();
                    }
                }
            }
            Self::Lines { last } => {
                let line =
                    json!({ "status": report.job.status, "stage": report.job.stage, "progress": report.progress });
                if line != *last {
                    println!("{line}");
                    *last = line;
                }
            }
        }
    }

    fn finish(&self, ended: &JobReport) {
        if let Self::Bars { stages, .. } = self {
            stages.values().filter(|bar| !bar.is_finished()).for_each(ProgressBar::abandon);
            let took = ended.job.ended_at.map(|end| end.since(ended.job.created_at));
            tracing::info!(?took, "job ended");
        }
    }
}

fn bar(stage: u32) -> ProgressBar {
    let style = ProgressStyle::with_template("stage {prefix}  {bar:40.cyan/blue} {pos}/{len} tasks  {elapsed}");
    ProgressBar::new(0)
        .with_prefix(stage.to_string())
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
