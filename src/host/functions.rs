//! The functions that are not HTTP: what the host calls for a message. A message is done when the answer is a success;
//! any other brings it back.

use super::App;
use super::invocation::{Answer, QueueInvocation, TimerInvocation};
use crate::contract::with_causes;
use crate::engine::Delivery;
use crate::machine::MachineError;
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;
use bytes::Bytes;
use std::error::Error;
use std::time::Duration;
use tracing::{Instrument, debug, error, info_span, warn};

// Each names its function's folder, and its route.
/// A message of the task queue.
pub const PROCESS_TASK: &str = "function_process_task";
/// A message of the stage queue.
pub const ADVANCE_STAGE: &str = "function_advance_stage";
/// A message of the task queue that the host has given up.
pub const GIVE_UP_TASK: &str = "function_give_up_task";
/// A message of the stage queue that the host has given up.
pub const GIVE_UP_STAGE: &str = "function_give_up_stage";
/// The timer.
pub const SWEEP: &str = "function_sweep";

/// The largest call: a message in the host's longest form, with room for its metadata.
const CALL_LIMIT: usize = 1024 * 1024;
/// The waits before a given-up message is tried to be recorded again. The host tries a poison queue's message only five
/// times, ten minutes apart, and then never again, so that a short outage should pass within one call.
const RECORD_AGAIN_AFTER: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(16),
];

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(&format!("/{PROCESS_TASK}"), post(process_task))
        .route(&format!("/{ADVANCE_STAGE}"), post(advance_stage))
        .route(&format!("/{GIVE_UP_TASK}"), post(give_up_task))
        .route(&format!("/{GIVE_UP_STAGE}"), post(give_up_stage))
        .route(&format!("/{SWEEP}"), post(sweep))
}

async fn process_task(State(app): State<App>, headers: HeaderMap, body: Body) -> Answer {
    let verb = async {
        let (message, delivery) = delivered(body).await?;
        Ok(app.machine.process_task(&message, delivery).await?)
    };
    call(PROCESS_TASK, &headers, verb).await
}

async fn advance_stage(State(app): State<App>, headers: HeaderMap, body: Body) -> Answer {
    let verb = async {
        let (message, delivery) = delivered(body).await?;
        Ok(app.machine.advance_stage(&message, delivery).await?)
    };
    call(ADVANCE_STAGE, &headers, verb).await
}

async fn give_up_task(State(app): State<App>, headers: HeaderMap, body: Body) -> Answer {
    let verb = async {
        let (message, _) = delivered(body).await?;
        Ok(patiently(|| app.machine.give_up_task(&message)).await?)
    };
    call(GIVE_UP_TASK, &headers, verb).await
}

async fn give_up_stage(State(app): State<App>, headers: HeaderMap, body: Body) -> Answer {
    let verb = async {
        let (message, _) = delivered(body).await?;
        Ok(patiently(|| app.machine.give_up_stage(&message)).await?)
    };
    call(GIVE_UP_STAGE, &headers, verb).await
}

async fn sweep(State(app): State<App>, headers: HeaderMap, body: Body) -> Answer {
    let tick = async {
        TimerInvocation::parse(&axum::body::to_bytes(body, CALL_LIMIT).await?)?;
        let swept = app.machine.sweep().await?;
        debug!(?swept, "swept");
        Ok(())
    };
    call(SWEEP, &headers, tick).await
}

type Called = Result<(), Box<dyn Error + Send + Sync>>;

async fn call(function: &'static str, headers: &HeaderMap, verb: impl Future<Output = Called>) -> Answer {
    let span = info_span!("call", function, invocation_id = invocation_id(headers));
    async {
        match verb.await {
            Ok(()) => Answer::Done,
            Err(error) => {
                error!(error = with_causes(error.as_ref()), "the call failed and is to be made again");
                Answer::Failed
            }
        }
    }
    .instrument(span)
    .await
}

/// The message that a call delivers.
async fn delivered(body: Body) -> Result<(Bytes, Delivery), Box<dyn Error + Send + Sync>> {
    let body = axum::body::to_bytes(body, CALL_LIMIT).await?;
    let invocation = QueueInvocation::parse(&body)?;
    let delivery = if invocation.may_be_redelivery() { Delivery::Repeated } else { Delivery::First };
    Ok((invocation.message, delivery))
}

/// Tries until it works, or for half a minute.
async fn patiently<F>(verb: impl Fn() -> F) -> Result<(), MachineError>
where
    F: Future<Output = Result<(), MachineError>>,
{
    for wait in RECORD_AGAIN_AFTER {
        match verb().await {
            Ok(()) => return Ok(()),
            Err(error) => warn!(error = with_causes(&error), "recording a given-up message failed; trying again"),
        }
        tokio::time::sleep(wait).await;
    }
    verb().await
}

/// The id by which the host's log knows a call.
pub(super) fn invocation_id(headers: &HeaderMap) -> &str {
    headers.get("x-azure-functions-invocationid").and_then(|value| value.to_str().ok()).unwrap_or_default()
}
