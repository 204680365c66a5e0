use super::super::{App, Problem};
use crate::contract::registry::{RegisteredJob, Registry};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde_json::{Value, json};

/// `GET /api/job_types`: every registered job type.
pub(super) async fn all(State(app): State<App>) -> Json<Value> {
    Json(json!({ "job_types": app.machine.registry().iter().map(document).collect::<Vec<_>>() }))
}

/// `GET /api/job_types/{job_type}`: one of them.
pub(super) async fn one(State(app): State<App>, Path(name): Path<String>) -> Result<Json<Value>, Problem> {
    let registry = app.machine.registry();
    registry.get(&name).map(|job| Json(document(job))).ok_or_else(|| unknown(registry, &name))
}

/// There is no such job type; these there are.
pub(super) fn unknown(registry: &Registry, name: &str) -> Problem {
    let detail = format!("there is no job type `{name}`; the registered ones are {}", registry.names().join(", "));
    Problem::new(StatusCode::NOT_FOUND, "unknown_job_type", detail)
}

fn document(job: &RegisteredJob) -> Value {
    json!({
        "job_type": job.name(),
        "description": job.description(),
        "task_types": job.task_types().collect::<Vec<_>>(),
        "parameters": job.schema(),
    })
}
