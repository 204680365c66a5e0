//! What several tests need.

pub(crate) mod app;
pub(crate) mod azurite;
pub(crate) mod canned;

/// An HTTP client. The process has one provider of cryptography; whoever needs it first installs it.
pub(crate) fn http_client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}
