//! The status document: a job as every answer shows it.

use crate::host::links::Links;
use crate::machine::{JobReport, StageReport};
use crate::model::StageStatus;
use serde_json::{Value, json};

/// The status document of a job.
pub(super) fn job(report: &JobReport, links: &Links, token: &str) -> Value {
    let job = &report.job;
    json!({
        "job_id": job.job_id,
        "job_type": job.job_type,
        "status": job.status,
        "parameters": report.parameters,
        "stage": job.stage,
        "run": job.run,
        "stages": report.stages.iter().map(stage).collect::<Vec<_>>(),
        "progress": report.progress,
        "result": report.result,
        "error": job.error,
        "created_at": job.created_at,
        "updated_at": job.updated_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "links": links.all(&job.job_id, token),
    })
}

fn stage(report: &StageReport) -> Value {
    let StageReport { row, tally, result } = report;
    let mut stage = json!({
        "stage": row.stage,
        "status": row.status,
        "tasks": {
            "total": row.tasks,
            "completed": tally.completed,
            "failed": tally.failed,
            "pending": row.tasks.saturating_sub(tally.completed + tally.failed),
        },
        "started_at": row.started_at,
    });
    if let Some(ended_at) = row.ended_at {
        stage["ended_at"] = json!(ended_at);
    }
    match row.status {
        StageStatus::Completed => stage["result"] = result.clone(),
        StageStatus::Processing | StageStatus::Failed | StageStatus::Cancelled => {}
    }
    stage
}
