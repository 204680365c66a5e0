//! A service that gives answers written in advance, for what an emulator never does.

use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The requests received so far, whole.
#[derive(Clone, Default)]
pub(crate) struct Requests(Arc<Mutex<Vec<String>>>);

impl Requests {
    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().expect("no panic").clone()
    }
}

/// Answers one request after another, each on a connection of its own; an empty answer closes the connection instead.
/// After the last answer nobody listens. Returns the address.
pub(crate) async fn serve(answers: Vec<String>) -> (String, Requests) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = format!("http://{}", listener.local_addr().expect("its address"));
    let requests = Requests::default();
    let received = requests.clone();
    tokio::spawn(async move {
        for answer in answers {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let request = read(&mut stream).await;
            received.0.lock().expect("no panic").push(request);
            stream.write_all(answer.as_bytes()).await.expect("a reader");
            stream.shutdown().await.expect("an open stream");
        }
    });
    (address, requests)
}

/// An answer with a body.
pub(crate) fn answer(status: &str, headers: &[&str], body: &str) -> String {
    let headers = headers.join("\r\n") + if headers.is_empty() { "" } else { "\r\n" };
    format!("HTTP/1.1 {status}\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

async fn read(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).to_ascii_lowercase();
        if let Some(end) = text.find("\r\n\r\n") {
            let length = text[..end].lines().find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().expect("a number"));
            if bytes.len() >= end + 4 + length {
                return String::from_utf8_lossy(&bytes).into_owned();
            }
        }
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).await.expect("a request");
        assert!(count > 0, "a whole request");
        bytes.extend_from_slice(&piece[..count]);
    }
}
