use super::{documents, job_id, job_not_found};
use crate::host::links::Links;
use crate::host::{App, Problem, token};
use crate::machine::JobReport;
use crate::model::JobStatus;
use crate::ports::Time;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

/// What a poller may say.
#[derive(Deserialize)]
pub(super) struct Completion {
    token: Option<String>,
    failure: Option<String>,
}

/// `GET /api/jobs/{job_id}/completion`: 202 until the job ends, then its end as a status that pollers understand.
pub(super) async fn completion(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(query): Query<Completion>,
    links: Links,
) -> Result<Response, Problem> {
    let job_id = job_id(&id)?;
    let token = query.token.unwrap_or_default();
    if !token::verify(&app, &job_id, &token).await? {
        let detail = "the completion link's `token` is missing or is not this job's; use the link as it was given";
        return Err(Problem::new(StatusCode::UNAUTHORIZED, "invalid_token", detail));
    }
    let failure = failure_status(query.failure.as_deref())?;
    let report = app.machine.status(&job_id).await?.ok_or_else(|| job_not_found(&job_id))?;
    let document = documents::job(&report, &links, &token);
    match report.job.status {
        JobStatus::Queued | JobStatus::Processing => {
            let retry_after = retry_after(report.job.created_at, app.machine.environment().now());
            let headers =
                [(header::LOCATION, links.completion(&job_id, &token)), (header::RETRY_AFTER, retry_after.to_string())];
            let progress = json!({ "job_id": job_id, "status": report.job.status, "stage": report.job.stage, "progress": report.progress });
            Ok((StatusCode::ACCEPTED, headers, Json(progress)).into_response())
        }
        JobStatus::Completed | JobStatus::CompletedWithErrors => Ok(Json(document).into_response()),
        JobStatus::Failed | JobStatus::Cancelled if failure == Some(StatusCode::OK) => {
            Ok(Json(document).into_response())
        }
        JobStatus::Failed => Err(ended(failure.unwrap_or(StatusCode::UNPROCESSABLE_ENTITY), "job_failed", &report)),
        JobStatus::Cancelled => Err(ended(failure.unwrap_or(StatusCode::CONFLICT), "job_cancelled", &report)),
    }
}

/// How many seconds a poller should wait: a fifth of the job's age, from 2 to 30.
pub(super) fn retry_after(created_at: Time, now: Time) -> u64 {
    (now.since(created_at).as_secs() / 5).clamp(2, 30)
}

fn failure_status(asked: Option<&str>) -> Result<Option<StatusCode>, Problem> {
    match asked {
        None => Ok(None),
        Some("200") => Ok(Some(StatusCode::OK)),
        Some("422") => Ok(Some(StatusCode::UNPROCESSABLE_ENTITY)),
        Some("500") => Ok(Some(StatusCode::INTERNAL_SERVER_ERROR)),
        Some(other) => {
            let detail = format!("`failure` is 200, 422 or 500, got `{other}`");
            Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_query", detail))
        }
    }
}

fn ended(status: StatusCode, code: &'static str, report: &JobReport) -> Problem {
    let detail = match &report.job.error {
        Some(error) => error.message.clone(),
        None => format!("the job ended {}", report.job.status),
    };
    let error = report.job.error.as_ref().map_or(Value::Null, |error| json!(error));
    Problem::new(status, code, detail).with("error", error).with("job_id", json!(report.job.job_id))
}
