//! Errors as callers see them: `application/problem+json`, RFC 9457.

use super::functions::invocation_id;
use crate::contract::{ParameterFault, with_causes};
use crate::machine::MachineError;
use crate::ports::StoreError;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::error::Error;

/// An error answer. The caller's message is `detail`; what only the operator should see is in the log.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// A stable `snake_case` word.
    pub code: &'static str,
    /// What is wrong, and what would be right.
    pub detail: String,
    /// Further members.
    pub members: Vec<(&'static str, Value)>,
    /// When to try again, in seconds.
    pub retry_after: Option<u64>,
}

impl Problem {
    /// A problem of that status and code.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), members: Vec::new(), retry_after: None }
    }

    /// Adds a member.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Value) -> Self {
        self.members.push((name, value));
        self
    }

    /// Every fault of the parameters.
    pub fn invalid_parameters(faults: &[ParameterFault]) -> Self {
        let places: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        let detail = format!("the parameters are refused at {}", places.join(", "));
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_parameters", detail).with("errors", json!(faults))
    }

    fn storage(error: &dyn Error, retryable: bool) -> Self {
        tracing::error!(error = with_causes(error), "storage failed");
        if retryable {
            let detail = "the storage account cannot be reached at present; the request can be repeated safely";
            let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, "storage_unavailable", detail);
            Self { retry_after: Some(5), ..problem }
        } else {
            Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "the request failed inside; see the log")
        }
    }

    fn into_json(self, instance: &str, invocation_id: &str) -> Value {
        let mut problem = json!({
            "type": format!("urn:coremachine:problem:{}", self.code),
            "title": title(self.code),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "instance": instance,
        });
        for (name, value) in self.members {
            problem[name] = value;
        }
        if self.status.is_server_error() && !invocation_id.is_empty() {
            problem["invocation_id"] = invocation_id.into();
        }
        problem
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let retryable = match &error {
            StoreError::Unavailable { .. } | StoreError::Conflict(_) => true,
            StoreError::NotFound(_) | StoreError::AlreadyExists(_) | StoreError::Rejected { .. } => false,
        };
        Self::storage(&error, retryable)
    }
}

impl From<MachineError> for Problem {
    fn from(error: MachineError) -> Self {
        match error {
            MachineError::Store(error) => error.into(),
            MachineError::Contended(_) => Self::storage(&error, true),
            MachineError::Unreadable(_) | MachineError::UnknownJobType(_) => Self::storage(&error, false),
        }
    }
}

/// A problem leaves its handler as an extension of an empty answer; `render` knows the request and writes the body.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Writes the body of a problem.
pub(super) async fn render(request: Request, next: Next) -> Response {
    let instance = request.uri().path().to_owned();
    let invocation_id = invocation_id(request.headers()).to_owned();
    let mut response = next.run(request).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let body = problem.into_json(&instance, &invocation_id).to_string();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.remove(header::CONTENT_LENGTH);
        *response.body_mut() = Body::from(body);
    }
    response
}

pub(super) async fn no_such_route(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "not_found", format!("nothing is served at `{}`", uri.path()))
}

pub(super) async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("`{}` does not take {method}; `Allow` names what it takes", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// The code's words, beginning with a capital: `Job not found`.
fn title(code: &str) -> String {
    let words = code.replace('_', " ");
    words.chars().next().map_or_else(String::new, |first| format!("{}{}", first.to_ascii_uppercase(), &words[1..]))
}
