//! The HTTP API, under the route prefix `/api`.

mod change;
mod completion;
mod documents;
mod health;
mod job_types;
mod status;
mod submit;
mod tasks;

use super::{App, Problem};
use crate::contract::JobId;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/jobs/{job}", post(submit::submit).get(status::status).delete(change::delete))
        .route("/jobs/{job}/tasks", get(tasks::tasks))
        .route("/jobs/{job}/cancel", post(change::cancel))
        .route("/jobs/{job}/retry", post(change::retry))
        .route("/jobs/{job}/completion", get(completion::completion))
        .route("/job_types", get(job_types::all))
        .route("/job_types/{job_type}", get(job_types::one))
        .route("/health", get(health::health))
}

fn job_id(text: &str) -> Result<JobId, Problem> {
    JobId::parse(text).map_err(|error| Problem::new(StatusCode::BAD_REQUEST, "invalid_job_id", error.to_string()))
}

fn job_not_found(job_id: &JobId) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "job_not_found", format!("there is no job `{job_id}`"))
}
