//! What the host makes of a handler's answer to a call that is not HTTP.

use serde::Deserialize as _;
use serde_json::Value;

/// How a call ended, for the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The message is deleted.
    Success,
    /// The message is delivered again.
    Failure,
    /// The host waits for `functionTimeout` and then kills the handler.
    Hang,
}

/// Judges an answer as the host does for an app without output bindings: it would do more with `Outputs`.
///
/// A redirect is a failure, since the host follows none while `enableForwardingHttpRequest` is on.
pub(crate) fn judge(status: u16, content_type: Option<&str>, body: &[u8]) -> Outcome {
    if !(200..300).contains(&status) {
        return Outcome::Failure;
    }
    if body.is_empty() {
        return Outcome::Hang;
    }
    if !is_json(content_type) {
        return Outcome::Failure;
    }
    // The host reads one value and ignores what stands after it.
    match Value::deserialize(&mut serde_json::Deserializer::from_slice(body)) {
        Ok(Value::Null) => Outcome::Hang,
        Ok(Value::Object(answer)) if answer.iter().all(|(name, value)| is_readable(name, value)) => Outcome::Success,
        Ok(_) | Err(_) => Outcome::Failure,
    }
}

fn is_json(content_type: Option<&str>) -> bool {
    let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    ["application/json", "text/json"].iter().any(|json| media_type.eq_ignore_ascii_case(json))
}

/// `Logs` is read as a list of strings, into which scalars are turned; other members are read as they are.
fn is_readable(name: &str, value: &Value) -> bool {
    match value {
        _ if !name.eq_ignore_ascii_case("Logs") => true,
        Value::Null => true,
        Value::Array(lines) => lines.iter().all(|line| !line.is_object() && !line.is_array()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => false,
    }
}

#[test]
fn every_case_of_the_answer_matrix_without_outputs_is_judged_as_the_host_does() {
    let matrix = include_str!("../../fixtures/host/responses.json");
    let matrix: Value = serde_json::from_str(matrix).unwrap();
    let cases = matrix["cases"].as_array().unwrap();
    let mut judged = 0;
    for case in cases {
        let body = case["body"].as_str().unwrap();
        // A null is no output; any other needs a binding, and this app has none.
        if body.contains(r#""Outputs":{"#) || body.contains("outputs") || body.contains("ReturnValue") {
            continue;
        }
        let status = u16::try_from(case["status"].as_u64().unwrap()).unwrap();
        let expected = match case["outcome"].as_str().unwrap() {
            "success" => Outcome::Success,
            "hang_until_functionTimeout" => Outcome::Hang,
            "failure" | "redirect followed" => Outcome::Failure,
            other => panic!("unknown outcome `{other}`"),
        };
        assert_eq!(judge(status, case["content_type"].as_str(), body.as_bytes()), expected, "{}", case["name"]);
        judged += 1;
    }
    assert_eq!((judged, cases.len()), (26, 53));
}
