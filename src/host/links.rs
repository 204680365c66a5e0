use super::App;
use crate::contract::JobId;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use serde_json::{Value, json};
use std::convert::Infallible;

/// What the app's links begin with, up to the route prefix: `https://app.example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

/// A URL that links cannot begin with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected an absolute http or https URL without query or fragment, got `{0}`")]
pub struct InvalidPublicUrl(String);

impl PublicUrl {
    /// Reads a URL; a trailing slash is cut.
    pub fn parse(url: &str) -> Result<Self, InvalidPublicUrl> {
        let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
        match host {
            Some(host) if !host.is_empty() && !host.contains(['?', '#', ' ']) => {
                Ok(Self(url.trim_end_matches('/').to_owned()))
            }
            Some(_) | None => Err(InvalidPublicUrl(url.to_owned())),
        }
    }
}

/// Makes absolute links as the caller reaches the app. A function key is never copied into one.
#[derive(Clone, Debug)]
pub(super) struct Links {
    base: String,
}

impl Links {
    fn new(public_url: Option<&PublicUrl>, headers: &HeaderMap) -> Self {
        if let Some(PublicUrl(url)) = public_url {
            return Self { base: format!("{url}/api") };
        }
        let header = |name: &str| {
            let value = headers.get(name)?.to_str().ok()?;
            value.split(',').next().map(str::trim).filter(|value| !value.is_empty())
        };
        let host = header("x-forwarded-host").or_else(|| header("host")).unwrap_or("localhost");
        // The front end of App Service says so in a header of its own.
        let https = headers.contains_key("x-arr-ssl");
        let proto = header("x-forwarded-proto").filter(|proto| ["http", "https"].contains(proto));
        let proto = proto.unwrap_or(if https { "https" } else { "http" });
        Self { base: format!("{proto}://{host}/api") }
    }

    pub(super) fn job(&self, job_id: &JobId) -> String {
        format!("{}/jobs/{job_id}", self.base)
    }

    pub(super) fn completion(&self, job_id: &JobId, token: &str) -> String {
        format!("{}/completion?token={token}", self.job(job_id))
    }

    pub(super) fn all(&self, job_id: &JobId, token: &str) -> Value {
        let job = self.job(job_id);
        json!({
            "self": job,
            "completion": self.completion(job_id, token),
            "tasks": format!("{job}/tasks"),
            "cancel": format!("{job}/cancel"),
        })
    }
}

impl FromRequestParts<App> for Links {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        Ok(Self::new(app.public_url.as_ref(), &parts.headers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(public_url: Option<&str>, headers: &[(&'static str, &str)]) -> String {
        let headers =
            headers.iter().map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("a value")));
        let public_url = public_url.map(|url| PublicUrl::parse(url).expect("a URL"));
        Links::new(public_url.as_ref(), &headers.collect()).base
    }

    #[test]
    fn the_setting_wins_over_what_is_forwarded_and_that_over_the_host() {
        let forwarded = [("x-forwarded-proto", "https"), ("x-forwarded-host", "front.example"), ("host", "back:80")];
        assert_eq!(base(Some("https://public.example/"), &forwarded), "https://public.example/api");
        assert_eq!(base(None, &forwarded), "https://front.example/api");
        assert_eq!(base(None, &forwarded[2..]), "http://back:80/api");
        assert_eq!(
            base(None, &[("host", "app.azurewebsites.net"), ("x-arr-ssl", "2048|…")]),
            "https://app.azurewebsites.net/api"
        );
        assert_eq!(base(None, &[("host", "h"), ("x-forwarded-proto", "javascript")]), "http://h/api");
    }

    #[test]
    fn only_an_absolute_url_is_a_public_url() {
        for wrong in ["", "app.example.com", "ftp://a", "https://", "https://a/?x=1"] {
            assert!(PublicUrl::parse(wrong).is_err(), "{wrong}");
        }
    }
}
