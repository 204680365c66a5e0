//! Requests as they were captured on the wire, sent again byte for byte.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer, read whole.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// The head, as it came.
    pub(crate) head: String,
    /// As long as `Content-Length` says.
    pub(crate) body: String,
}

/// Sends a captured request to a handler at `http://{address}`; `path` replaces the one that was captured.
pub(crate) async fn replay(handler: &str, fixture: &str, path: Option<&str>) -> Answer {
    let file = format!("{}/tests/fixtures/host/{fixture}.http", env!("CARGO_MANIFEST_DIR"));
    let mut request = String::from_utf8(std::fs::read(file).unwrap()).unwrap();
    if let Some(path) = path {
        let captured = request.split(' ').nth(1).unwrap().to_owned();
        request = request.replacen(&captured, path, 1);
    }
    let mut stream = TcpStream::connect(handler.trim_start_matches("http://")).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    answer(&mut stream).await
}

async fn answer(stream: &mut TcpStream) -> Answer {
    let mut received = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&received);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = header(head, "content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            if body.len() >= length {
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return Answer { status, head: head.to_owned(), body: body.to_owned() };
            }
        }
        assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0, "cut off");
    }
}

impl Answer {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut headers = head.lines().filter_map(|line| line.split_once(": "));
    headers.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}
