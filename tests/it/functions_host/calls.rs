//! Calls that are not HTTP: their bodies, byte for byte what the host's own functions made of the same input.

use bytes::Bytes;
use serde_json::{Map, Value, json};

/// How the body of a call travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// As in Azure.
    Chunked,
    /// As under Core Tools.
    ContentLength,
}

impl Framing {
    /// The body in this framing; a chunk has the size of the writer's buffer in the host.
    pub(crate) fn body(self, text: String) -> reqwest::Body {
        match self {
            Self::ContentLength => text.into(),
            Self::Chunked => {
                let bytes = Bytes::from(text);
                let chunks = (0..bytes.len()).step_by(CHUNK);
                let chunks: Vec<_> = chunks.map(|at| bytes.slice(at..bytes.len().min(at + CHUNK))).collect();
                reqwest::Body::wrap_stream(futures_util::stream::iter(
                    chunks.into_iter().map(Ok::<_, std::convert::Infallible>),
                ))
            }
        }
    }
}

const CHUNK: usize = 1024;

/// What a call for a message is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery<'a> {
    /// The function called.
    pub(crate) function: &'a str,
    /// The name of its trigger's binding.
    pub(crate) binding: &'a str,
    /// What was sent to the queue.
    pub(crate) message: &'a [u8],
    /// Whether it arrives as base64, and not as text.
    pub(crate) binary: bool,
    /// The message's id in its queue.
    pub(crate) id: &'a str,
    /// The proof of this delivery.
    pub(crate) pop_receipt: &'a str,
    /// This delivery included.
    pub(crate) dequeue_count: u32,
}

impl Delivery<'_> {
    /// The body of the call.
    pub(crate) fn body(&self) -> String {
        let mut metadata = Map::from_iter([
            ("DequeueCount".to_owned(), Value::String(self.dequeue_count.to_string())),
            ("ExpirationTime".to_owned(), "2026-11-30T06:05:00+00:00".into()),
            ("Id".to_owned(), encoded(self.id)),
            ("InsertionTime".to_owned(), "2026-11-23T06:05:00+00:00".into()),
            ("NextVisibleTime".to_owned(), "2026-11-23T06:15:00+00:00".into()),
            ("PopReceipt".to_owned(), encoded(self.pop_receipt)),
            ("sys".to_owned(), sys(self.function)),
        ]);
        let value = if self.binary {
            use base64::Engine as _;
            Value::String(base64::engine::general_purpose::STANDARD.encode(self.message))
        } else {
            let text = String::from_utf8_lossy(self.message);
            if let Ok(Value::Object(members)) = serde_json::from_str(&text) {
                add_members(&mut metadata, members);
            }
            encoded(&text)
        };
        json!({ "Data": { (self.binding): value }, "Metadata": metadata }).to_string()
    }
}

/// The body of a timer's call.
pub(crate) fn timer_body(function: &str, binding: &str, is_past_due: bool) -> String {
    let timer = json!({ "Schedule": { "AdjustForDST": true }, "ScheduleStatus": null, "IsPastDue": is_past_due });
    json!({ "Data": { (binding): timer }, "Metadata": { "sys": sys(function) } }).to_string()
}

fn sys(function: &str) -> Value {
    json!({
        "MethodName": function,
        "UtcNow": "2026-11-23T06:05:00.1234567Z",
        "RandGuid": "24ad4c06-24ad-4e5b-8294-3da9714877e9",
    })
}

/// Members of a message that is a JSON object become metadata and replace the host's own of the same name.
fn add_members(metadata: &mut Map<String, Value>, members: Map<String, Value>) {
    for (name, value) in members {
        let value = match value {
            Value::Null | Value::Array(_) => continue,
            Value::Object(_) => value,
            Value::String(text) => encoded(&rewritten_if_date(text)),
            Value::Bool(truth) => encoded(if truth { "True" } else { "False" }),
            Value::Number(number) => encoded(&number.to_string()),
        };
        let own = metadata.keys().find(|own| own.eq_ignore_ascii_case(&name)).cloned();
        metadata.insert(own.unwrap_or(name), value);
    }
}

fn rewritten_if_date(text: String) -> String {
    match text.parse::<jiff::Timestamp>() {
        Ok(time) => time.strftime("%m/%d/%Y %H:%M:%S").to_string(),
        Err(_) => text,
    }
}

/// A string as JSON within a JSON string.
fn encoded(text: &str) -> Value {
    Value::String(Value::from(text).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(name: &str) -> Value {
        let path = format!("{}/tests/fixtures/host/{name}.json", env!("CARGO_MANIFEST_DIR"));
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn the_body_for_a_message_is_the_hosts() {
        let order = r#"{"jobId":"j-1","attempt":1,"dryRun":true,"ratio":1.50,"at":"2026-11-23T06:00:00Z","opts":{"a":1},"tags":["x","y"],"nothing":null}"#;
        let collision = r#"{"id":"order-42","DequeueCount":99,"popreceipt":"evil","sys":"x"}"#;
        let cases: [(&str, &str, &[u8], bool, u32); 9] = [
            ("queue_request_datatype_binary_json_bytes", "ProcessJob", br#"{"id":"order-42","v":1}"#, true, 2),
            ("queue_request_datatype_binary_non_utf8", "ProcessJob", &[0x00, 0xff, 0xfe, 0x80, 0x41], true, 1),
            ("queue_request_empty_text", "ProcessJob", b"", false, 1),
            ("queue_request_json_array_text", "ProcessJob", br#"[{"a":1},{"a":2}]"#, false, 1),
            ("queue_request_json_number_text", "ProcessJob", b"42", false, 1),
            ("queue_request_json_text", "ProcessJob", order.as_bytes(), false, 1),
            ("queue_request_json_text_metadata_collision", "ProcessJob", collision.as_bytes(), false, 1),
            (
                "queue_request_plain_text",
                "ProcessJob",
                "hello \"world\" é\n<tag> & \u{2028} emoji 😀".as_bytes(),
                false,
                1,
            ),
            ("queue_request_poison_queue", "ProcessPoison", order.as_bytes(), false, 1),
        ];
        for (name, function, message, binary, dequeue_count) in cases {
            let delivery = Delivery {
                function,
                binding: "job",
                message,
                binary,
                id: "800ae4b3-bdd2-4c08-badd-f08e5a34b865",
                pop_receipt: "AgAAAAMAAAAAAAAAAgtnj8x+1QE=",
                dequeue_count,
            };
            let body: Value = serde_json::from_str(&delivery.body()).unwrap();
            assert_eq!(decoded_text(body), decoded_text(fixture(name)), "{name}");
        }
    }

    /// The host escapes U+2028 within the inner string, which is another spelling of the same text.
    fn decoded_text(mut body: Value) -> Value {
        let value = &mut body["Data"]["job"];
        if let Ok(text) = serde_json::from_str::<String>(value.as_str().unwrap()) {
            *value = json!({ "text": text });
        }
        body
    }

    #[test]
    fn the_body_for_a_timer_is_the_hosts() {
        let body: Value = serde_json::from_str(&timer_body("Reap", "timer", false)).unwrap();
        assert_eq!(body, fixture("timer_request_no_monitor"));
    }
}
