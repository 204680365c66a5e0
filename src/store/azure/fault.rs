//! What went wrong between us and the service, and what a caller can do about it.

use crate::ports::StoreError;
use azure_core::error::ErrorKind;
use azure_core::http::RawResponse;
use azure_core::http::headers::HeaderName;
use serde_json::Value;
use std::error::Error;

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The service answered with an error.
    #[error("the service answered {status} {code}: {message}")]
    Answer { status: u16, code: String, message: String },
    /// No answer came, or not all of it. The request may have been carried out.
    #[error("no answer came")]
    Network(#[source] Box<dyn Error + Send + Sync>),
    /// The identity got no token, so nothing was sent.
    #[error("no token for the identity")]
    Token(#[source] Box<dyn Error + Send + Sync>),
    /// The answer is not what the service documents.
    #[error("the answer could not be understood")]
    Unreadable(#[source] Box<dyn Error + Send + Sync>),
}

/// The credential was not accepted: which setting it came from and what to do.
#[derive(Debug, thiserror::Error)]
#[error("the credential of setting `{setting}` was not accepted: {cure}")]
struct NotLetIn {
    setting: String,
    cure: &'static str,
    source: Fault,
}

impl Fault {
    /// From an error answer: the code stands in a header, in JSON (tables) or in XML (blobs, queues), or nowhere.
    pub(super) fn of_answer(status: u16, code: Option<&str>, body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        let (body_code, message) = of_json(&text).unwrap_or_else(|| (of_xml(&text, "Code"), of_xml(&text, "Message")));
        let code = code.map(str::to_owned).filter(|code| !code.is_empty()).unwrap_or(body_code);
        // The service appends request id and time on lines of their own.
        let message = message.lines().next().unwrap_or_default().trim().to_owned();
        Self::Answer { status, code, message }
    }

    pub(super) fn unreadable(what: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unreadable(what.into())
    }

    /// Whether the service answered with one of these codes.
    pub(super) fn is(&self, codes: &[&str]) -> bool {
        matches!(self, Self::Answer { code, .. } if codes.contains(&code.as_str()))
    }

    /// The status of the service's answer.
    pub(super) fn status(&self) -> Option<u16> {
        match self {
            Self::Answer { status, .. } => Some(*status),
            Self::Network(_) | Self::Token(_) | Self::Unreadable(_) => None,
        }
    }

    /// As the port's error: `operation` is what was being done, `subject` the thing it was done to, `setting` where the
    /// credential came from.
    pub(super) fn into_error(self, operation: &str, subject: &str, setting: &str) -> StoreError {
        let operation = format!("{operation} `{subject}`");
        match &self {
            Self::Network(_) | Self::Token(_) => StoreError::unavailable(operation, self),
            Self::Unreadable(_) => StoreError::rejected(operation, self),
            Self::Answer { status, code, .. } => match (*status, code.as_str()) {
                (_, code) if code.ends_with("BeingDeleted") || TRANSIENT_CODES.contains(&code) => {
                    StoreError::unavailable(operation, self)
                }
                (408 | 429 | 500 | 502 | 503 | 504, _) => StoreError::unavailable(operation, self),
                (409, code) if code.ends_with("AlreadyExists") => StoreError::AlreadyExists(subject.to_owned()),
                (404, _) => StoreError::NotFound(subject.to_owned()),
                (412, "" | "412" | "ConditionNotMet" | "UpdateConditionNotSatisfied") => {
                    StoreError::Conflict(subject.to_owned())
                }
                (401 | 403, code) => {
                    let cure = cure(code);
                    StoreError::rejected(operation, NotLetIn { setting: setting.to_owned(), cure, source: self })
                }
                _ => StoreError::rejected(operation, self),
            },
        }
    }
}

/// Codes that mean "later" whatever their status.
const TRANSIENT_CODES: [&str; 4] = ["ServerBusy", "InternalError", "OperationTimedOut", "TemporarilyUnavailable"];

fn cure(code: &str) -> &'static str {
    match code {
        "AuthorizationPermissionMismatch" | "InsufficientAccountPermissions" => {
            "give it the roles Storage Blob Data Owner, Storage Queue Data Contributor and Storage Table Data Contributor \
             on the account; a new role takes some minutes to work"
        }
        "AuthorizationFailure" | "PublicAccessNotPermitted" | "IpAuthorizationFailure" => {
            "let this network through the account's firewall"
        }
        "KeyBasedAuthenticationNotPermitted" => {
            "the account forbids keys: use an identity with `__accountName` instead"
        }
        _ => "check that it belongs to this account, is still valid, and that this machine's clock is right",
    }
}

impl From<azure_core::Error> for Fault {
    fn from(error: azure_core::Error) -> Self {
        match error.kind() {
            ErrorKind::HttpResponse { status, error_code, raw_response } => {
                let body = raw_response.as_deref().map(|response| response.body().as_ref()).unwrap_or_default();
                let named = raw_response.as_deref().and_then(code_header).or(error_code.as_deref());
                // The SDK puts the status in the code's place where it finds none.
                let named = named.filter(|code| code.starts_with(|first: char| first.is_ascii_uppercase()));
                Self::of_answer(u16::from(*status), named, body)
            }
            ErrorKind::Connection | ErrorKind::Io => Self::Network(cause(error)),
            ErrorKind::Credential => Self::Token(cause(error)),
            ErrorKind::DataConversion | ErrorKind::Other => Self::Unreadable(cause(error)),
        }
    }
}

/// What the SDK's error wraps, since it prints as that and would be said twice.
fn cause(error: azure_core::Error) -> Box<dyn Error + Send + Sync> {
    error.into_inner().unwrap_or_else(|error| Box::new(error))
}

/// The service's error code from an answer's headers.
pub(super) fn code_header(response: &RawResponse) -> Option<&str> {
    response.headers().get_optional_str(&HeaderName::from_static("x-ms-error-code"))
}

fn of_json(text: &str) -> Option<(String, String)> {
    let body: Value = serde_json::from_str(text).ok()?;
    let error = body.get("odata.error").or_else(|| body.get("error"))?;
    let message = error.pointer("/message/value").or_else(|| error.get("message"));
    let string = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    Some((string(error.get("code")), string(message)))
}

fn of_xml(text: &str, tag: &str) -> String {
    let content = text.split_once(&format!("<{tag}>")).and_then(|(_, rest)| rest.split_once(&format!("</{tag}>")));
    content.map(|(content, _)| content.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, code: &str) -> StoreError {
        Fault::of_answer(status, Some(code), b"").into_error("doing", "thing", "X")
    }

    #[test]
    fn each_answer_is_what_a_caller_can_do() {
        for (status, code) in
            [(429, ""), (500, "InternalError"), (503, "ServerBusy"), (409, "QueueBeingDeleted"), (504, "")]
        {
            assert!(matches!(error(status, code), StoreError::Unavailable { .. }), "{status} {code}");
        }
        for (status, code) in
            [(400, "InvalidInput"), (403, "AuthenticationFailed"), (412, "LeaseIdMissing"), (409, "X"), (413, "")]
        {
            assert!(matches!(error(status, code), StoreError::Rejected { .. }), "{status} {code}");
        }
        assert!(matches!(error(404, "ResourceNotFound"), StoreError::NotFound(_)));
        assert!(matches!(error(409, "EntityAlreadyExists"), StoreError::AlreadyExists(_)));
        assert!(matches!(error(412, "UpdateConditionNotSatisfied"), StoreError::Conflict(_)));
    }

    #[test]
    fn code_and_message_are_found_in_json_and_in_xml() {
        let json =
            br#"{"odata.error":{"code":"TableNotFound","message":{"lang":"en","value":"0:No table.\nRequestId:1"}}}"#;
        let xml = b"\xEF\xBB\xBF<?xml version=\"1.0\"?><Error><Code>TableNotFound</Code><Message>0:No table.\nRequestId:1</Message></Error>";
        for body in [json.as_slice(), xml.as_slice()] {
            let Fault::Answer { code, message, .. } = Fault::of_answer(404, None, body) else { panic!("an answer") };
            assert_eq!((code.as_str(), message.as_str()), ("TableNotFound", "0:No table."));
        }
    }

    #[test]
    fn a_credential_that_is_not_accepted_names_its_setting_and_a_cure() {
        let error = error(403, "AuthorizationPermissionMismatch");
        let source = error.source().expect("a source").to_string();
        assert!(source.contains("setting `X`") && source.contains("Storage Table Data Contributor"), "{source}");
    }
}
