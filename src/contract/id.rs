use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fmt::{self, Write};

/// Names one job: 64 lower-case hex digits, the SHA-256 of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(String);

/// A text that is not a job id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 lower-case hex digits, got `{0}`")]
pub struct InvalidJobId(String);

impl JobId {
    /// The id of a piece of work: the same type with the same parameters is the same job.
    pub fn of_work(job_type: &str, parameters: &Value) -> Self {
        Self(sha256_hex(
            canonical_json(&serde_json::json!({ "job_type": job_type, "parameters": parameters })).as_bytes(),
        ))
    }

    /// The id that a caller chose by an idempotency key.
    pub fn of_key(job_type: &str, key: &str) -> Self {
        Self(sha256_hex(canonical_json(&serde_json::json!({ "job_type": job_type, "key": key })).as_bytes()))
    }

    /// Reads an id.
    pub fn parse(text: &str) -> Result<Self, InvalidJobId> {
        let well_formed =
            text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if well_formed { Ok(Self(text.to_owned())) } else { Err(InvalidJobId(text.chars().take(80).collect())) }
    }

    /// The 64 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names one task of one job, the same on every delivery, attempt and run: what a task hands on as its own
/// idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId(String);

impl TaskId {
    /// The id of the task at `index` (from 0) of `stage` (from 1).
    pub fn new(job_id: &JobId, stage: u32, index: u64) -> Self {
        Self(format!("{job_id}-{stage}-{index}"))
    }
}

/// SHA-256 as 64 lower-case hex digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}"); // writing to a String cannot fail
        text
    })
}

/// JSON with the members of every object in ascending order and no white space.
pub(crate) fn canonical_json(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_unstable_by_key(|(name, _)| *name);
            let members: Vec<_> = sorted
                .into_iter()
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), canonical_json(value)))
                .collect();
            format!("{{{}}}", members.join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(canonical_json).collect::<Vec<_>>().join(",")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

impl TryFrom<String> for JobId {
    type Error = InvalidJobId;

    fn try_from(text: String) -> Result<Self, InvalidJobId> {
        Self::parse(&text)
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> Self {
        id.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_members_does_not_change_an_id() {
        let one: Value = serde_json::from_str(r#"{"b":{"y":1,"x":[2,{"d":1,"c":2}]},"a":"é"}"#).expect("json");
        let two: Value = serde_json::from_str(r#"{"a":"é","b":{"x":[2,{"c":2,"d":1}],"y":1}}"#).expect("json");
        assert_eq!(canonical_json(&one), r#"{"a":"é","b":{"x":[2,{"c":2,"d":1}],"y":1}}"#);
        assert_eq!(JobId::of_work("t", &one), JobId::of_work("t", &two));
        assert_ne!(JobId::of_work("t", &one), JobId::of_work("u", &one));
    }

    #[test]
    fn an_id_is_the_sha256_that_anyone_can_compute() {
        let id = JobId::of_work("hello_world", &json!({"message": "Hello", "count": 1}));
        // printf '{"job_type":"hello_world","parameters":{"count":1,"message":"Hello"}}' | sha256sum
        assert_eq!(id.as_str(), "21458b7c2f00c18f7a15b135d3dc5a44fdf69fa20fb1cf0554972db5611414a0");
    }

    #[test]
    fn only_64_lower_case_hex_digits_are_an_id() {
        assert!(JobId::parse(&"a".repeat(64)).is_ok());
        for wrong in ["", "a", &"A".repeat(64), &"g".repeat(64), &"a".repeat(65)] {
            assert!(JobId::parse(wrong).is_err(), "{wrong}");
        }
    }
}
