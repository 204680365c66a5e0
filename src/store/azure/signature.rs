//! Authorisation by a shared access signature.

use azure_core::credentials::Secret;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Request};
use std::sync::Arc;

/// Adds the signature to every request's query.
#[derive(Debug)]
pub(super) struct Signature(pub(super) Secret);

#[async_trait::async_trait]
impl Policy for Signature {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        let url = request.url_mut();
        let query = match url.query() {
            Some(query) if !query.is_empty() => format!("{query}&{}", self.0.secret()),
            _ => self.0.secret().to_owned(),
        };
        url.set_query(Some(&query));
        next[0].send(context, request, &next[1..]).await
    }
}
