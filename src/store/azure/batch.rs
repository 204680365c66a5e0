//! The `$batch` request: one changeset of writes that happen together, and its answer.

use super::fault::Fault;
use std::fmt::Write as _;

/// The request's content type. A boundary of our own choice cannot occur in the parts: they are JSON without line breaks.
pub(super) const CONTENT_TYPE: &str = "multipart/mixed; boundary=batch_coremachine";

/// One write as a request of its own.
pub(super) struct Operation {
    pub(super) method: azure_core::http::Method,
    pub(super) url: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Option<String>,
}

/// A write that failed and took the others with it.
#[derive(Debug)]
pub(super) struct Failure {
    /// Which, counted from 0; 0 if the service does not say.
    pub(super) index: usize,
    pub(super) fault: Fault,
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self { index: 0, fault }
    }
}

/// The request's body.
pub(super) fn write(operations: &[Operation]) -> String {
    let mut text =
        "--batch_coremachine\r\nContent-Type: multipart/mixed; boundary=changeset_coremachine\r\n\r\n".to_owned();
    for Operation { method, url, headers, body } in operations {
        text +=
            "--changeset_coremachine\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n";
        // A String takes everything.
        _ = write!(text, "{} {url} HTTP/1.1\r\n", method.as_ref());
        for (name, value) in headers {
            _ = write!(text, "{name}: {value}\r\n");
        }
        text += "\r\n";
        text += body.as_deref().unwrap_or_default();
        text += "\r\n";
    }
    text + "--changeset_coremachine--\r\n--batch_coremachine--\r\n"
}

/// Reads the answer to a changeset of `count` writes: one answer each if all were done, else one for the one that failed.
pub(super) fn read(answer: &str, count: usize) -> Result<(), Failure> {
    let mut done = 0;
    for part in answer.split("HTTP/1.1 ").skip(1) {
        let status: u16 = part.get(..3).and_then(|digits| digits.parse().ok()).unwrap_or_default();
        if !(200..300).contains(&status) {
            return Err(failure(status, part, done));
        }
        done += 1;
    }
    if done == count {
        return Ok(());
    }
    // Whether the changeset was applied is not known.
    Err(Fault::Network(format!("{done} of {count} writes of a batch were answered").into()).into())
}

fn failure(status: u16, part: &str, position: usize) -> Failure {
    let part = part.replace("\r\n", "\n");
    let (headers, rest) = part.split_once("\n\n").unwrap_or((&part, ""));
    let code = headers.lines().filter_map(|line| line.split_once(':'));
    let code =
        code.filter(|(name, _)| name.eq_ignore_ascii_case("x-ms-error-code")).map(|(_, code)| code.trim()).next();
    let body = rest.split("\n--").next().unwrap_or_default().trim();
    let fault = Fault::of_answer(status, code, body.as_bytes());
    let said = match &fault {
        Fault::Answer { message, .. } => message.split_once(':').and_then(|(index, _)| index.parse().ok()),
        Fault::Network(_) | Fault::Token(_) | Fault::Unreadable(_) => None,
    };
    Failure { index: said.unwrap_or(position), fault }
}

#[cfg(test)]
mod tests {
    use super::*;
    use azure_core::http::Method;

    const DONE: &str = "--changesetresponse_1\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n\
        HTTP/1.1 204 No Content\r\nETag: W/\"datetime'1'\"\r\n\r\n\r\n";

    fn answer(parts: &str) -> String {
        format!(
            "--batchresponse_1\r\nContent-Type: multipart/mixed; boundary=changesetresponse_1\r\n\r\n{parts}\
             --changesetresponse_1--\r\n--batchresponse_1--\r\n"
        )
    }

    fn failed(status: &str, code: &str, message: &str) -> String {
        format!(
            "--changesetresponse_1\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n\
             HTTP/1.1 {status}\r\nDataServiceVersion: 3.0;\r\nContent-Type: application/json\r\n\r\n\
             {{\"odata.error\":{{\"code\":\"{code}\",\"message\":{{\"lang\":\"en-US\",\"value\":\"{message}\\nRequestId:1\\nTime:2026\"}}}}}}\r\n"
        )
    }

    #[test]
    fn a_changeset_is_written_part_by_part() {
        let operations = [
            Operation {
                method: Method::Post,
                url: "https://h/t".to_owned(),
                headers: vec![("Prefer", "return-no-content".to_owned())],
                body: Some("{}".to_owned()),
            },
            Operation { method: Method::Delete, url: "https://h/t(1)".to_owned(), headers: vec![], body: None },
        ];
        assert_eq!(
            write(&operations),
            "--batch_coremachine\r\nContent-Type: multipart/mixed; boundary=changeset_coremachine\r\n\r\n\
             --changeset_coremachine\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n\
             POST https://h/t HTTP/1.1\r\nPrefer: return-no-content\r\n\r\n{}\r\n\
             --changeset_coremachine\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n\
             DELETE https://h/t(1) HTTP/1.1\r\n\r\n\r\n\
             --changeset_coremachine--\r\n--batch_coremachine--\r\n"
        );
    }

    #[test]
    fn a_changeset_with_an_answer_for_every_write_is_done() {
        assert!(read(&answer(&DONE.repeat(3)), 3).is_ok());
    }

    #[test]
    fn a_failed_changeset_says_which_write_and_why() {
        let text = answer(&failed("409 Conflict", "EntityAlreadyExists", "2:The specified entity already exists."));
        let failure = read(&text, 5).expect_err("failed");
        assert_eq!(failure.index, 2);
        assert!(failure.fault.is(&["EntityAlreadyExists"]) && failure.fault.status() == Some(409), "{failure:?}");
    }

    #[test]
    fn a_failure_without_a_number_is_counted() {
        let text =
            answer(&(DONE.to_owned() + &failed("412 Precondition Failed", "UpdateConditionNotSatisfied", "No.")));
        assert_eq!(read(&text, 2).expect_err("failed").index, 1);
        let text = answer(
            "--changesetresponse_1\r\n\r\nHTTP/1.1 503 Service Unavailable\r\nx-ms-error-code: ServerBusy\r\n\r\n\r\n",
        );
        let failure = read(&text, 2).expect_err("failed");
        assert!(failure.index == 0 && failure.fault.is(&["ServerBusy"]), "{failure:?}");
    }

    #[test]
    fn an_answer_that_misses_a_write_is_not_taken_for_done() {
        for text in ["", "nonsense", &answer(DONE)] {
            assert!(matches!(read(text, 2).expect_err("not done").fault, Fault::Network(_)));
        }
    }
}
