//! HTTP with a deadline on everything, and the repetition of what is safe to repeat.

use super::connection::{ConfigError, Connection};
use crate::ports::StoreError;
use async_trait::async_trait;
use azure_core::Uuid;
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, HeaderValue, Headers};
use azure_core::http::{AsyncRawResponse, Body, HttpClient, Request};
use bytes::BytesMut;
use std::sync::{Arc, Once};
use std::time::Duration;

/// For the TCP and TLS handshakes. Storage answers in milliseconds, or is not there.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// For the first and each further piece of an answer, above what the body takes to send. The service itself gives up
/// after 30 seconds.
const ANSWER_DEADLINE: Duration = Duration::from_secs(40);
/// The slowest line on which a large body may still get through, in bytes a second.
const SLOWEST_UPLOAD: u64 = 256 * 1024;
/// Connections idle for longer are not used again: Azure closes them after some minutes without a word.
const IDLE: Duration = Duration::from_secs(45);
/// As above for Azurite, which closes after 5 seconds.
const LOCAL_IDLE: Duration = Duration::from_secs(3);

/// How often an operation that is safe to repeat is tried, and the longest wait before the second try; each further
/// wait may be four times as long.
const TRIES: u32 = 3;
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// The HTTP client of one account, with its own pool of connections.
#[derive(Debug)]
pub(super) struct Transport(reqwest::Client);

impl Transport {
    pub(super) fn open(connection: &Connection) -> Result<Arc<dyn HttpClient>, ConfigError> {
        choose_cryptography();
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_DEADLINE)
            .pool_idle_timeout(if connection.is_local() { LOCAL_IDLE } else { IDLE })
            .redirect(reqwest::redirect::Policy::none());
        if connection.is_local() {
            // A proxy that is set for the way out does not lead back to this machine.
            builder = builder.no_proxy();
        }
        let client = builder.build().map_err(|error| {
            let fault = format!("no HTTPS client can be made for it: {}", chain(&error));
            ConfigError::new(connection.setting(), fault, "install the system's CA certificates")
        })?;
        Ok(Arc::new(Self(client)))
    }
}

/// Chooses `ring` once for the whole process; a choice made before stays.
fn choose_cryptography() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| _ = rustls::crypto::ring::default_provider().install_default());
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[async_trait]
impl HttpClient for Transport {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let Body::Bytes(body) = request.body().clone() else {
            return Err(azure_core::Error::with_message(ErrorKind::Other, "a streamed body has no length to sign"));
        };
        let method = reqwest::Method::from_bytes(request.method().as_ref().as_bytes())
            .map_err(|error| azure_core::Error::new(ErrorKind::Other, error))?;
        let deadline = ANSWER_DEADLINE + Duration::from_secs(body.len() as u64 / SLOWEST_UPLOAD);
        let mut builder = self.0.request(method, request.url().clone()).body(body);
        for (name, value) in request.headers().iter() {
            builder = builder.header(name.as_str(), value.as_str());
        }
        let mut response = within(deadline, builder.send()).await?;
        let headers = headers(response.headers());
        let status = response.status().as_u16().into();
        let mut bytes = BytesMut::new();
        while let Some(piece) = within(ANSWER_DEADLINE, response.chunk()).await? {
            bytes.extend_from_slice(&piece);
        }
        Ok(AsyncRawResponse::from_bytes(status, headers, bytes.freeze()))
    }
}

async fn within<T>(deadline: Duration, work: impl Future<Output = reqwest::Result<T>>) -> azure_core::Result<T> {
    match tokio::time::timeout(deadline, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            let kind = if error.is_connect() { ErrorKind::Connection } else { ErrorKind::Io };
            // The address may carry a signature, which must not reach a log.
            Err(azure_core::Error::new(kind, error.without_url()))
        }
        Err(_) => {
            let message = format!("nothing came for {} s", deadline.as_secs());
            Err(azure_core::Error::with_message(ErrorKind::Io, message))
        }
    }
}

fn headers(received: &reqwest::header::HeaderMap) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in received {
        if let Ok(value) = value.to_str() {
            headers.insert(HeaderName::from(name.as_str().to_owned()), HeaderValue::from(value.to_owned()));
        }
    }
    headers
}

/// Does what is safe to repeat, again while storage is unavailable. Never for a write that another's may have followed.
pub(super) async fn repeat<T, F>(mut operation: impl FnMut() -> F + Send) -> Result<T, StoreError>
where
    F: Future<Output = Result<T, StoreError>> + Send,
{
    let mut longest = FIRST_WAIT;
    for _ in 1..TRIES {
        match operation().await {
            Err(StoreError::Unavailable { .. }) => tokio::time::sleep(jitter(longest)).await,
            outcome => return outcome,
        }
        longest *= 4;
    }
    operation().await
}

/// Between half of a wait and all of it.
fn jitter(longest: Duration) -> Duration {
    let thousandths = u32::from(Uuid::new_v4().as_bytes()[0]) * 500 / 255;
    longest / 2 + longest * thousandths / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    async fn tries(outcome: impl Fn(u32) -> Result<(), StoreError> + Sync) -> u32 {
        let count = AtomicU32::new(0);
        _ = repeat(|| async { outcome(count.fetch_add(1, Ordering::Relaxed)) }).await;
        count.into_inner()
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_is_unavailable_is_tried_again_and_not_for_ever() {
        assert_eq!(tries(|_| Ok(())).await, 1);
        assert_eq!(tries(|_| Err(StoreError::NotFound("x".into()))).await, 1);
        assert_eq!(tries(|_| Err(StoreError::unavailable("x", "busy"))).await, TRIES);
        let once = |n| if n == 0 { Err(StoreError::unavailable("x", "busy")) } else { Ok(()) };
        assert_eq!(tries(once).await, 2);
    }

    #[test]
    fn a_wait_is_between_half_and_whole() {
        for _ in 0..100 {
            let wait = jitter(FIRST_WAIT);
            assert!(wait >= FIRST_WAIT / 2 && wait <= FIRST_WAIT);
        }
    }
}
