//! HTTP/1.1 messages as the bytes that they are: read whole, never written anew.

use std::io::{Error, ErrorKind, Result};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::net::TcpStream;

pub(super) type Stream = BufReader<TcpStream>;

/// A request or an answer.
#[derive(Default)]
pub(super) struct Message {
    pub(super) bytes: Vec<u8>,
    /// Where the head ends and the body begins.
    head: usize,
}

impl Message {
    /// Reads a request; `None` if the client has no more.
    pub(super) async fn request(stream: &mut Stream) -> Result<Option<Self>> {
        let Some(mut message) = Self::head(stream).await? else { return Ok(None) };
        message.body(stream).await?;
        Ok(Some(message))
    }

    /// Reads the answer to a request.
    pub(super) async fn answer(stream: &mut Stream, request: &Self) -> Result<Self> {
        let mut message = Self::head(stream).await?.ok_or(ErrorKind::UnexpectedEof)?;
        if !request.is_head() && !["204", "304"].contains(&message.status()) {
            message.body(stream).await?;
        }
        Ok(message)
    }

    pub(super) fn is_head(&self) -> bool {
        self.bytes.starts_with(b"HEAD ")
    }

    fn status(&self) -> &str {
        self.text().split(' ').nth(1).unwrap_or_default()
    }

    /// Nothing in a head that is looked at here is other than ASCII.
    fn text(&self) -> &str {
        str::from_utf8(&self.bytes[..self.head]).unwrap_or_default()
    }

    fn header(&self, wanted: &str) -> Option<&str> {
        let headers = self.text().lines().filter_map(|line| line.split_once(':'));
        headers.filter(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim()).next()
    }

    async fn head(stream: &mut Stream) -> Result<Option<Self>> {
        let mut message = Self::default();
        while message.line(stream).await? != b"\r\n" {}
        message.head = message.bytes.len();
        Ok(Some(message).filter(|message| message.head > 0))
    }

    async fn body(&mut self, stream: &mut Stream) -> Result<()> {
        if self.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            while self.chunk(stream).await? > 0 {}
            while self.line(stream).await? != b"\r\n" {}
            return Ok(());
        }
        let length = self.header("content-length").map_or(Ok(0), str::parse);
        self.exactly(stream, length.map_err(|_| invalid("a content-length that is no number"))?).await
    }

    async fn chunk(&mut self, stream: &mut Stream) -> Result<usize> {
        let line = String::from_utf8_lossy(self.line(stream).await?).into_owned();
        let size = usize::from_str_radix(line.trim_end().split(';').next().unwrap_or_default(), 16);
        let size = size.map_err(|_| invalid("a chunk without its size"))?;
        if size > 0 {
            self.exactly(stream, size + "\r\n".len()).await?;
        }
        Ok(size)
    }

    async fn exactly(&mut self, stream: &mut Stream, count: usize) -> Result<()> {
        let from = self.bytes.len();
        self.bytes.resize(from + count, 0);
        stream.read_exact(&mut self.bytes[from..]).await?;
        Ok(())
    }

    /// One line more with its end; at the end of the stream that is an error, unless nothing of the message was read.
    async fn line(&mut self, stream: &mut Stream) -> Result<&[u8]> {
        let from = self.bytes.len();
        stream.read_until(b'\n', &mut self.bytes).await?;
        match &self.bytes[from..] {
            [] if from == 0 => Ok(b"\r\n"),
            line if line.ends_with(b"\r\n") => Ok(line),
            _ => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn invalid(fault: &str) -> Error {
    Error::new(ErrorKind::InvalidData, fault)
}
