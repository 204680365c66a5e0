//! What the Functions host posts for a queue message or a timer, and the answers it understands.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// One delivery of a queue message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueInvocation {
    /// The bytes that were sent to the queue.
    pub message: Bytes,
    /// How often the message was delivered, this time included; `None` if the host's number cannot be told from one
    /// that the message brought along.
    pub dequeue_count: Option<u32>,
    /// The message's id in its queue, for logs only: a message read as text may bring one of its own.
    pub message_id: Option<String>,
}

impl QueueInvocation {
    /// Reads the body of a call of a function whose only binding is a queue trigger, whatever the binding's name.
    ///
    /// Both of the host's forms are read: base64 (`"dataType": "binary"`) and text encoded twice. Members that are not
    /// known, their order, and missing `Metadata` do not matter.
    pub fn parse(body: &[u8]) -> Result<Self, InvocationError> {
        let call = Call::parse(body)?;
        let message = match call.trigger()? {
            Value::String(value) => message_bytes(value)?,
            _ => return Err(InvocationError::NotText),
        };
        Ok(Self { message, dequeue_count: call.dequeue_count(), message_id: call.message_id() })
    }

    /// Whether this message may have been delivered before. Only a sure first delivery says no.
    pub fn may_be_redelivery(&self) -> bool {
        self.dequeue_count != Some(1)
    }
}

/// One firing of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerInvocation {
    /// Whether the timer fires later than its schedule says, as after a time without any instance.
    pub is_past_due: bool,
}

impl TimerInvocation {
    /// Reads the body of a call of a function whose only binding is a timer trigger, whatever the binding's name.
    pub fn parse(body: &[u8]) -> Result<Self, InvocationError> {
        let call = Call::parse(body)?;
        let Value::Object(timer) = call.trigger()? else { return Err(InvocationError::NotTimer) };
        Ok(Self { is_past_due: timer.get("IsPastDue").and_then(Value::as_bool).unwrap_or(false) })
    }
}

/// Why a body is not a call of the host's. The answer to it is [`Answer::Failed`]: the message then ends in the poison
/// queue, where it can be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InvocationError {
    /// Not JSON, or without `Data`.
    #[error("the call's body is not `{{\"Data\": …, \"Metadata\": …}}`")]
    Malformed(#[source] serde_json::Error),
    /// Not the one binding of a trigger.
    #[error("expected the value of one binding, got {0}")]
    Bindings(usize),
    /// A queue trigger's value that is not a string.
    #[error("expected the message as a string")]
    NotText,
    /// A message that begins as text encoded twice and does not go on so.
    #[error("the message is not text encoded as JSON")]
    Text(#[source] serde_json::Error),
    /// A message that is not text encoded twice, and not base64 either.
    #[error("the message is not base64")]
    Base64(#[source] base64::DecodeError),
    /// A timer trigger's value that is not an object.
    #[error("expected the timer as an object")]
    NotTimer,
}

/// The answer to a call that is not HTTP.
///
/// The host waits for `functionTimeout` and then kills the process if a success has no JSON object as its body, so
/// nothing but these two is ever answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Delete the message. Also for one that is dropped on purpose: the host has no status for "do not retry".
    Done,
    /// Deliver the message again, and to the poison queue after the last time.
    Failed,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Done => Json(json!({})).into_response(),
            // The host throws this body away; it is there for whoever calls by hand.
            Self::Failed => (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "failed": true }))).into_response(),
        }
    }
}

#[derive(Deserialize)]
struct Call {
    #[serde(rename = "Data")]
    data: Map<String, Value>,
    #[serde(rename = "Metadata", default)]
    metadata: Value,
}

impl Call {
    fn parse(body: &[u8]) -> Result<Self, InvocationError> {
        serde_json::from_slice(body).map_err(InvocationError::Malformed)
    }

    fn trigger(&self) -> Result<&Value, InvocationError> {
        let mut values = self.data.values();
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            _ => Err(InvocationError::Bindings(self.data.len())),
        }
    }

    /// The host writes its own number once, `"2"`. Members of a message that is a JSON object replace entries of the
    /// same name and arrive encoded once more, `"\"99\""`: such a number is the message's and says nothing.
    fn dequeue_count(&self) -> Option<u32> {
        self.metadata.get("DequeueCount")?.as_str()?.parse().ok()
    }

    fn message_id(&self) -> Option<String> {
        let id = self.metadata.get("Id")?.as_str()?;
        serde_json::from_str(id).ok()
    }
}

/// Text arrives as a JSON string within the JSON string, so it begins with a quote, which base64 never does.
fn message_bytes(value: &str) -> Result<Bytes, InvocationError> {
    if value.starts_with('"') {
        let text: String = serde_json::from_str(value).map_err(InvocationError::Text)?;
        return Ok(text.into());
    }
    STANDARD.decode(value).map(Bytes::from).map_err(InvocationError::Base64)
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! fixture {
        ($name:literal) => {
            include_bytes!(concat!("../../tests/fixtures/host/", $name, ".json")).as_slice()
        };
    }

    const MESSAGE_ID: &str = "800ae4b3-bdd2-4c08-badd-f08e5a34b865";
    const ORDER: &str = r#"{"jobId":"j-1","attempt":1,"dryRun":true,"ratio":1.50,"at":"2026-11-23T06:00:00Z","opts":{"a":1},"tags":["x","y"],"nothing":null}"#;

    #[test]
    fn every_queue_fixture_yields_the_bytes_that_were_sent() {
        let cases: [(&[u8], &[u8], u32); 8] = [
            (fixture!("queue_request_datatype_binary_json_bytes"), br#"{"id":"order-42","v":1}"#, 2),
            (fixture!("queue_request_datatype_binary_non_utf8"), &[0x00, 0xff, 0xfe, 0x80, 0x41], 1),
            (fixture!("queue_request_empty_text"), b"", 1),
            (fixture!("queue_request_json_array_text"), br#"[{"a":1},{"a":2}]"#, 1),
            (fixture!("queue_request_json_number_text"), b"42", 1),
            (fixture!("queue_request_json_text"), ORDER.as_bytes(), 1),
            (fixture!("queue_request_plain_text"), "hello \"world\" é\n<tag> & \u{2028} emoji 😀".as_bytes(), 1),
            (fixture!("queue_request_poison_queue"), ORDER.as_bytes(), 1),
        ];
        for (body, message, dequeue_count) in cases {
            let invocation = QueueInvocation::parse(body).expect("a body of the host's");
            assert_eq!(invocation.message, message);
            assert_eq!(invocation.dequeue_count, Some(dequeue_count));
            assert_eq!(invocation.may_be_redelivery(), dequeue_count > 1);
            assert_eq!(invocation.message_id.as_deref(), Some(MESSAGE_ID));
        }
    }

    #[test]
    fn a_number_that_the_message_brought_along_is_not_taken_for_the_hosts() {
        let body = fixture!("queue_request_json_text_metadata_collision");
        let invocation = QueueInvocation::parse(body).expect("a body of the host's");
        assert_eq!(
            invocation.message,
            br#"{"id":"order-42","DequeueCount":99,"popreceipt":"evil","sys":"x"}"#.as_slice()
        );
        assert_eq!(invocation.dequeue_count, None);
        assert!(invocation.may_be_redelivery());
    }

    #[test]
    fn what_is_missing_unknown_or_in_another_order_does_not_matter() {
        let bare = QueueInvocation::parse(br#"{"Data":{"any name":"aGk="}}"#).expect("no metadata");
        assert_eq!(bare, QueueInvocation { message: "hi".into(), dequeue_count: None, message_id: None });
        let odd = br#"{"New":1,"Metadata":{"New":[],"Id":7,"DequeueCount":"1"},"Data":{"m":""}}"#;
        let odd = QueueInvocation::parse(odd).expect("unknown members");
        assert_eq!(odd, QueueInvocation { message: Bytes::new(), dequeue_count: Some(1), message_id: None });
        QueueInvocation::parse(br#"{"Data":{"m":"aGk="},"Metadata":null}"#).expect("null metadata");
    }

    #[test]
    fn what_the_host_never_sends_is_refused_with_words() {
        let refused = |body: &str| QueueInvocation::parse(body.as_bytes()).expect_err(body).to_string();
        assert_eq!(refused("hello"), r#"the call's body is not `{"Data": …, "Metadata": …}`"#);
        assert_eq!(refused(r#"{"Metadata":{}}"#), r#"the call's body is not `{"Data": …, "Metadata": …}`"#);
        assert_eq!(refused(r#"{"Data":{}}"#), "expected the value of one binding, got 0");
        assert_eq!(refused(r#"{"Data":{"a":"","b":""}}"#), "expected the value of one binding, got 2");
        assert_eq!(refused(r#"{"Data":{"a":{"b":1}}}"#), "expected the message as a string");
        assert_eq!(refused(r#"{"Data":{"a":"\"cut"}}"#), "the message is not text encoded as JSON");
        assert_eq!(refused(r#"{"Data":{"a":"not base64"}}"#), "the message is not base64");
        let timer = TimerInvocation::parse(br#"{"Data":{"t":"soon"}}"#).expect_err("not a timer");
        assert_eq!(timer.to_string(), "expected the timer as an object");
    }

    #[test]
    fn every_timer_fixture_says_whether_it_is_late() {
        for (body, is_past_due) in [
            (fixture!("timer_request_first_run_past_due"), true),
            (fixture!("timer_request_monitored"), false),
            (fixture!("timer_request_no_monitor"), false),
            (fixture!("timer_request_with_retry_context"), false),
        ] {
            assert_eq!(TimerInvocation::parse(body).expect("a body of the host's"), TimerInvocation { is_past_due });
        }
    }

    #[test]
    fn an_answer_is_json_with_a_body_whatever_it_says() {
        for (answer, status) in [(Answer::Done, 200), (Answer::Failed, 500)] {
            let response = answer.into_response();
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()["content-type"], "application/json");
            assert!(axum::body::HttpBody::size_hint(response.body()).lower() >= 2);
        }
    }
}
