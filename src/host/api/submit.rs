use super::completion::retry_after;
use super::{documents, job_types};
use crate::contract::JobId;
use crate::host::links::Links;
use crate::host::{App, Problem, token};
use crate::machine::{JobReport, Submission, SubmitError, Submitted};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::time::Duration;

/// The largest body of parameters, in bytes.
const BODY_LIMIT: usize = 1024 * 1024;
/// The longest `Prefer: wait`, in seconds.
const LONGEST_WAIT: u64 = 60;
/// How often a waiting answer looks at its job.
const WAIT_INTERVAL: Duration = Duration::from_millis(250);

/// `POST /api/jobs/{job_type}`: accepts a job.
pub(super) async fn submit(
    State(app): State<App>,
    Path(job_type): Path<String>,
    links: Links,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let idempotency_key = idempotency_key(&headers)?;
    if headers.contains_key("callback-url") {
        return Err(callback_not_allowed("the `Callback-Url` header"));
    }
    let parameters = parameters(&headers, body).await?;
    if parameters.get("callBackUri").is_some() {
        return Err(callback_not_allowed("the `callBackUri` member"));
    }
    let submission = Submission { job_type, parameters, idempotency_key };
    let submitted = app.machine.submit(submission).await.map_err(|error| refused(&app, error))?;
    let token = token::issue(&app, &submitted.job.job_id).await?;
    if let Some(seconds) = preferred_wait(&headers)
        && let Some(report) = ended_within(&app, &submitted.job.job_id, seconds).await?
    {
        let applied = [(HeaderName::from_static("preference-applied"), format!("wait={seconds}"))];
        return Ok((applied, Json(documents::job(&report, &links, &token))).into_response());
    }
    Ok(accepted(&app, &submitted, &links, &token))
}

fn accepted(app: &App, submitted: &Submitted, links: &Links, token: &str) -> Response {
    let Submitted { job, parameters, deduplicated } = submitted;
    let completion = links.completion(&job.job_id, token);
    let all = links.all(&job.job_id, token);
    let document = json!({
        "job_id": job.job_id,
        "job_type": job.job_type,
        "status": job.status,
        "deduplicated": deduplicated,
        "parameters": parameters,
        "links": all,
        // What pipelines written for Durable Functions read.
        "id": job.job_id,
        "statusQueryGetUri": completion,
        "terminatePostUri": all["cancel"],
    });
    let retry_after = retry_after(job.created_at, app.machine.environment().now());
    let headers = [(header::LOCATION, completion), (header::RETRY_AFTER, retry_after.to_string())];
    let mut response = (StatusCode::ACCEPTED, headers, Json(document)).into_response();
    if *deduplicated {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    response
}

fn refused(app: &App, error: SubmitError) -> Problem {
    match error {
        SubmitError::UnknownJobType(name) => job_types::unknown(app.machine.registry(), &name),
        SubmitError::InvalidParameters(faults) => Problem::invalid_parameters(&faults),
        SubmitError::IdempotencyKeyReused => {
            let detail = "this `Idempotency-Key` was used before with other parameters; use a new key for new work";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", detail)
        }
        SubmitError::Store(error) => error.into(),
    }
}

/// The body as a JSON object; none counts as `{}`.
async fn parameters(headers: &HeaderMap, body: Body) -> Result<Value, Problem> {
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    let body = axum::body::to_bytes(body, BODY_LIMIT).await.map_err(|_| {
        let detail =
            format!("the parameters have more than {BODY_LIMIT} bytes; put large input into a blob and name it");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail)
    })?;
    if body.is_empty() {
        return Ok(json!({}));
    }
    if let Some(content_type) = content_type.filter(|content_type| !is_json(content_type)) {
        let detail = format!("expected `application/json`, got `{content_type}`");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail));
    }
    let invalid = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "invalid_json", detail);
    match serde_json::from_slice(&body) {
        Ok(parameters @ Value::Object(_)) => Ok(parameters),
        Ok(_) => Err(invalid("the parameters are one JSON object, `{…}`".to_owned())),
        Err(error) => Err(invalid(format!("the body is not JSON: {error}"))),
    }
}

/// `application/json` or a type built on it, whatever its parameters.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence == "text/json" || essence.ends_with("+json")
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().unwrap_or_default();
    if (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Some(key.to_owned()));
    }
    let detail = "an `Idempotency-Key` has 1–255 visible ASCII characters";
    Err(Problem::new(StatusCode::BAD_REQUEST, "invalid_idempotency_key", detail))
}

fn callback_not_allowed(what: &str) -> Problem {
    let detail = format!("{what} names a host that is not on this app's list of allowed hosts, which is empty");
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "callback_not_allowed", detail)
}

/// The seconds of `Prefer: wait=N`, at most [`LONGEST_WAIT`]; a preference that cannot be read is none.
fn preferred_wait(headers: &HeaderMap) -> Option<u64> {
    let preferences = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut waits = preferences.flat_map(|value| value.split([',', ';'])).filter_map(|preference| {
        let (name, seconds) = preference.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| seconds.trim().trim_matches('"').parse().ok())?
    });
    waits.next().map(|seconds: u64| seconds.min(LONGEST_WAIT))
}

/// The job as it ended, if it ends in time.
async fn ended_within(app: &App, job_id: &JobId, seconds: u64) -> Result<Option<JobReport>, Problem> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds);
    loop {
        let report = app.machine.status(job_id).await?;
        if report.as_ref().is_none_or(|report| report.job.status.is_terminal()) {
            return Ok(report);
        }
        if tokio::time::Instant::now() + WAIT_INTERVAL > deadline {
            return Ok(None);
        }
        tokio::time::sleep(WAIT_INTERVAL).await;
    }
}
