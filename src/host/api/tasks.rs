use super::{job_id, job_not_found};
use crate::contract::TaskEnd;
use crate::host::{App, Problem};
use crate::machine::{TaskPlace, TaskQuery, TaskReport, TaskStatus};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

/// How many tasks a page has, unless the query says otherwise, and at most.
const DEFAULT_LIMIT: usize = 100;
const LARGEST_LIMIT: usize = 1000;

/// The query as it came; every member is checked below, so that each fault is told by name.
#[derive(Deserialize)]
pub(super) struct Asked {
    stage: Option<String>,
    status: Option<String>,
    limit: Option<String>,
    cursor: Option<String>,
}

/// `GET /api/jobs/{job_id}/tasks`: a page of the job's tasks, in task order.
pub(super) async fn tasks(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Json<Value>, Problem> {
    let job_id = job_id(&id)?;
    let page = app.machine.tasks(&job_id, asked.query()?).await?.ok_or_else(|| job_not_found(&job_id))?;
    let next = page.next.map(|place| format!("{}-{}", place.stage, place.index));
    Ok(Json(json!({ "tasks": page.tasks.iter().map(document).collect::<Vec<_>>(), "next_cursor": next })))
}

fn document(task: &TaskReport) -> Value {
    let outcome = task.outcome.as_ref();
    let error = outcome.and_then(|outcome| match &outcome.result {
        TaskEnd::Output(_) => None,
        TaskEnd::Error { code, message } => Some(json!({ "code": code, "message": message })),
    });
    json!({
        "task_id": task.task_id,
        "task_type": task.planned.task_type,
        "stage": task.place.stage,
        "index": task.place.index,
        "status": task.status.as_str(),
        "attempts": outcome.map_or(0, |outcome| outcome.attempts),
        "parameters": task.planned.parameters,
        "result": task.result(),
        "error": error,
        "started_at": outcome.map(|outcome| outcome.started_at),
        "ended_at": outcome.map(|outcome| outcome.ended_at),
    })
}

impl Asked {
    fn query(&self) -> Result<TaskQuery, Problem> {
        let stage =
            self.stage.as_deref().map(|stage| stage.parse().map_err(|_| invalid("stage", "a number from 1", stage)));
        let limit = self.limit.as_deref().map(|limit| match limit.parse() {
            Ok(number) if (1..=LARGEST_LIMIT).contains(&number) => Ok(number),
            _ => Err(invalid("limit", "a number from 1 to 1000", limit)),
        });
        let status = self.status.as_deref().map(|status| {
            let known = TaskStatus::ALL.into_iter().find(|known| known.as_str() == status);
            known.ok_or_else(|| invalid("status", "`pending`, `completed`, `failed` or `cancelled`", status))
        });
        let from = self.cursor.as_deref().map(|cursor| {
            parse_cursor(cursor).ok_or_else(|| invalid("cursor", "the `next_cursor` of the page before", cursor))
        });
        Ok(TaskQuery {
            stage: stage.transpose()?,
            status: status.transpose()?,
            from: from.transpose()?.unwrap_or_default(),
            limit: limit.transpose()?.unwrap_or(DEFAULT_LIMIT),
        })
    }
}

fn parse_cursor(cursor: &str) -> Option<TaskPlace> {
    let (stage, index) = cursor.split_once('-')?;
    Some(TaskPlace { stage: stage.parse().ok()?, index: index.parse().ok()? })
}

fn invalid(name: &str, expected: &str, got: &str) -> Problem {
    let got: String = got.chars().take(80).collect();
    Problem::new(StatusCode::BAD_REQUEST, "invalid_query", format!("`{name}` is {expected}, got `{got}`"))
}
