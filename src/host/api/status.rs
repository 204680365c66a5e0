use super::{documents, job_id, job_not_found};
use crate::contract::sha256_hex;
use crate::host::links::Links;
use crate::host::{App, Problem, token};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// `GET /api/jobs/{job_id}`: how a job stands, whatever that is.
pub(super) async fn status(
    State(app): State<App>,
    Path(id): Path<String>,
    links: Links,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let job_id = job_id(&id)?;
    let report = app.machine.status(&job_id).await?.ok_or_else(|| job_not_found(&job_id))?;
    let document = documents::job(&report, &links, &token::issue(&app, &job_id).await?);
    let etag = format!("W/\"{}\"", &sha256_hex(document.to_string().as_bytes())[..32]);
    if headers.get_all(header::IF_NONE_MATCH).iter().any(|value| matches(value.to_str().unwrap_or_default(), &etag)) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response());
    }
    Ok(([(header::ETAG, etag)], Json(document)).into_response())
}

/// Weak comparison, as RFC 9110 asks of `If-None-Match`.
fn matches(condition: &str, etag: &str) -> bool {
    let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    condition.split(',').any(|tag| tag.trim() == "*" || strong(tag) == strong(etag))
}
