//! The functions that are not HTTP: what the host calls for a message. A message is done when the answer is a success;
//! any other brings it back.

use super::App;
use super::invocation::{Answer, QueueInvocation};
use crate::contract::with_causes;
use crate::engine::Delivery;
use crate::machine::MachineError;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use std::error::Error;
use tracing::{Instrument, error, info_span};

/// Names the function's folder, and its route.
pub const PROCESS_TASK: &str = "function_process_task";
/// Names the function's folder, and its route.
pub const ADVANCE_STAGE: &str = "function_advance_stage";

/// The largest call: a message in the host's longest form, with room for its metadata.
const CALL_LIMIT: usize = 1024 * 1024;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(&format!("/{PROCESS_TASK}"), post(process_task))
        .route(&format!("/{ADVANCE_STAGE}"), post(advance_stage))
}

async fn process_task(State(app): State<App>, headers: HeaderMap, body: Body) -> Answer {
    call(PROCESS_TASK, &headers, body, async |message, delivery| app.machine.process_task(message, delivery).await)
        .await
}

async fn advance_stage(State(app): State<App>, headers: HeaderMap, body: Body) -> Answer {
    call(ADVANCE_STAGE, &headers, body, async |message, delivery| app.machine.advance_stage(message, delivery).await)
        .await
}

async fn call(
    function: &'static str,
    headers: &HeaderMap,
    body: Body,
    verb: impl AsyncFnOnce(&[u8], Delivery) -> Result<(), MachineError>,
) -> Answer {
    let span = info_span!("call", function, invocation_id = invocation_id(headers));
    async {
        match deliver(body, verb).await {
            Ok(()) => Answer::Done,
            Err(error) => {
                error!(error = with_causes(error.as_ref()), "the message is to be delivered again");
                Answer::Failed
            }
        }
    }
    .instrument(span)
    .await
}

async fn deliver(
    body: Body,
    verb: impl AsyncFnOnce(&[u8], Delivery) -> Result<(), MachineError>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let body = axum::body::to_bytes(body, CALL_LIMIT).await?;
    let invocation = QueueInvocation::parse(&body)?;
    let delivery = if invocation.may_be_redelivery() { Delivery::Repeated } else { Delivery::First };
    Ok(verb(&invocation.message, delivery).await?)
}

/// The id by which the host's log knows a call.
pub(super) fn invocation_id(headers: &HeaderMap) -> &str {
    headers.get("x-azure-functions-invocationid").and_then(|value| value.to_str().ok()).unwrap_or_default()
}
