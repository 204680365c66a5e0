use super::super::App;
use crate::contract::with_causes;
use crate::model::payload_container;
use crate::ports::{Queue, StoreError, Table};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::time::Duration;
use tracing::error;

/// How long a store may take to be called healthy.
const PATIENCE: Duration = Duration::from_secs(10);

/// `GET /api/health`: whether the app can do its work, by one real operation on each kind of store.
pub(super) async fn health(State(app): State<App>) -> (StatusCode, Json<Value>) {
    let store = app.machine.store();
    let container = payload_container();
    let (tables, queues, blobs) = tokio::join!(
        check("tables", async { store.tables.get(Table::Index, "app", "health").await.map(drop) }),
        check("queues", async { store.queues.length(Queue::Tasks).await.map(drop) }),
        check("blobs", async { store.payloads.container_exists(&container).await.map(drop) }),
    );
    let healthy = [tables, queues, blobs].iter().all(|outcome| *outcome == "ok");
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let document = json!({
        "status": if healthy { "ok" } else { "unavailable" },
        "version": env!("CARGO_PKG_VERSION"),
        "job_types": app.machine.registry().names().len(),
        "checks": { "tables": tables, "queues": queues, "blobs": blobs },
    });
    (status, Json(document))
}

async fn check(name: &str, operation: impl Future<Output = Result<(), StoreError>>) -> &'static str {
    match tokio::time::timeout(PATIENCE, operation).await {
        Ok(Ok(())) => "ok",
        Ok(Err(error)) => {
            error!(check = name, error = with_causes(&error), "health check failed");
            "failed"
        }
        Err(_) => "timed_out",
    }
}
