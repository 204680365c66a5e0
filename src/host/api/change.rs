use super::{documents, job_id, job_not_found};
use crate::contract::JobId;
use crate::host::links::Links;
use crate::host::{App, Problem, token};
use crate::machine::ChangeError;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

/// `POST /api/jobs/{job_id}/cancel`: ends a job that has not ended.
pub(super) async fn cancel(State(app): State<App>, Path(id): Path<String>, links: Links) -> Result<Response, Problem> {
    let job_id = job_id(&id)?;
    let cancelled = app.machine.cancel(&job_id).await;
    cancelled.map_err(|error| refused(error, "already_terminal", "it has ended and can no longer be cancelled"))?;
    changed(&app, &job_id, &links).await
}

/// `POST /api/jobs/{job_id}/retry`: begins a new run of a job that did not end well.
pub(super) async fn retry(State(app): State<App>, Path(id): Path<String>, links: Links) -> Result<Response, Problem> {
    let job_id = job_id(&id)?;
    let retried = app.machine.retry(&job_id).await;
    let allowed = "only one that failed, was cancelled or completed with errors can be retried";
    retried.map_err(|error| refused(error, "not_retryable", allowed))?;
    changed(&app, &job_id, &links).await
}

/// `DELETE /api/jobs/{job_id}`: removes a job that has ended, and all it stored.
pub(super) async fn delete(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, Problem> {
    let deleted = app.machine.delete(&job_id(&id)?).await;
    deleted.map_err(|error| refused(error, "not_terminal", "cancel it first, or wait for its end"))?;
    Ok(StatusCode::NO_CONTENT)
}

/// The job as it stands now, and where its end can be learned.
async fn changed(app: &App, job_id: &JobId, links: &Links) -> Result<Response, Problem> {
    let report = app.machine.status(job_id).await?.ok_or_else(|| job_not_found(job_id))?;
    let token = token::issue(app, job_id).await?;
    let location = [(header::LOCATION, links.completion(job_id, &token))];
    Ok((StatusCode::ACCEPTED, location, Json(documents::job(&report, links, &token))).into_response())
}

fn refused(error: ChangeError, code: &'static str, why: &str) -> Problem {
    match error {
        ChangeError::NotFound(job_id) => job_not_found(&job_id),
        ChangeError::NotAllowed(status) => {
            Problem::new(StatusCode::CONFLICT, code, format!("the job is {status}: {why}"))
        }
        ChangeError::Machine(error) => error.into(),
    }
}
