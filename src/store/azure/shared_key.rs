//! Authorisation by the account's key: every request is signed just before it is sent.

use azure_core::credentials::Secret;
use azure_core::hmac::hmac_sha256;
use azure_core::http::headers::Headers;
use azure_core::http::policies::{Policy, PolicyResult};
use azure_core::http::{Context, Request, Url};
use azure_core::time::{OffsetDateTime, to_rfc7231};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// Signs requests to one service.
#[derive(Debug)]
pub(super) struct SharedKey {
    pub(super) account: String,
    pub(super) key: Secret,
    pub(super) scheme: Scheme,
}

/// What is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// `SharedKey`: blobs and queues.
    Full,
    /// `SharedKeyLite`: tables, batches included.
    Lite,
}

#[async_trait::async_trait]
impl Policy for SharedKey {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        request.insert_header("x-ms-date", to_rfc7231(&OffsetDateTime::now_utc()));
        let authorization = self.authorization(request)?;
        request.insert_header("authorization", authorization);
        next[0].send(context, request, &next[1..]).await
    }
}

impl SharedKey {
    fn authorization(&self, request: &Request) -> azure_core::Result<String> {
        let (name, text) = match self.scheme {
            Scheme::Full => ("SharedKey", full_text(&self.account, request)),
            Scheme::Lite => ("SharedKeyLite", lite_text(&self.account, request)),
        };
        Ok(format!("{name} {}:{}", self.account, hmac_sha256(&text, &self.key)?))
    }
}

/// The text signed for blobs and queues: method, standard headers, `x-ms-` headers, resource with its query.
fn full_text(account: &str, request: &Request) -> String {
    let headers = request.headers();
    let length = request.body().len().filter(|length| *length > 0).map(|length| length.to_string()).unwrap_or_default();
    let mut text = format!("{}\n", request.method().as_ref());
    let standard = |name: &'static str| header(headers, name);
    for value in [
        standard("content-encoding"),
        standard("content-language"),
        &length,
        standard("content-md5"),
        standard("content-type"),
        "", // `date`: `x-ms-date` stands in for it
        standard("if-modified-since"),
        standard("if-match"),
        standard("if-none-match"),
        standard("if-unmodified-since"),
        standard("range"),
    ] {
        text.push_str(value);
        text.push('\n');
    }
    text.push_str(&canonical_headers(headers));
    text.push_str(&canonical_resource(account, request.url()));
    text
}

/// The text signed for tables: date and path; of the query only `comp` would count, which no operation here has.
fn lite_text(account: &str, request: &Request) -> String {
    format!("{}\n/{account}{}", header(request.headers(), "x-ms-date"), request.url().path())
}

fn header<'a>(headers: &'a Headers, name: &'static str) -> &'a str {
    headers.get_optional_str(&name.into()).unwrap_or_default()
}

fn canonical_headers(headers: &Headers) -> String {
    let named: BTreeMap<_, _> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str().trim()))
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .collect();
    named.iter().fold(String::new(), |mut text, (name, value)| {
        _ = writeln!(text, "{name}:{value}"); // a String takes everything
        text
    })
}

fn canonical_resource(account: &str, url: &Url) -> String {
    let mut parameters: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in url.query_pairs() {
        parameters.entry(name.to_lowercase()).or_default().push(value.into_owned());
    }
    let mut text = format!("/{account}{}", url.path());
    for (name, mut values) in parameters {
        values.sort();
        _ = write!(text, "\n{name}:{}", values.join(","));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use azure_core::http::Method;

    fn request(method: Method, url: &str, headers: &[(&'static str, &'static str)], body: &'static str) -> Request {
        let mut request = Request::new(url.parse().expect("an address"), method);
        for (name, value) in headers {
            request.insert_header(*name, *value);
        }
        request.set_body(body);
        request
    }

    #[test]
    fn the_documented_example_of_a_blob_request_is_built_letter_by_letter() {
        let url = "http://myaccount.blob.core.windows.net/mycontainer?restype=container&comp=metadata&timeout=20";
        let headers = [("x-ms-version", "2015-02-21"), ("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT")];
        assert_eq!(
            full_text("myaccount", &request(Method::Get, url, &headers, "")),
            "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
             /myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
        );
    }

    #[test]
    fn body_length_headers_and_repeated_parameters_are_signed() {
        let url = "http://h/acct/c/a%20b%2F%C3%BC?Include=x&include=a%2Cb&marker=%2F+z";
        let headers = [("content-type", "t"), ("if-match", "\"e\""), ("range", "bytes=0-1"), ("x-ms-meta-b", " v ")];
        assert_eq!(
            full_text("acct", &request(Method::Put, url, &headers, "body")),
            "PUT\n\n\n4\n\nt\n\n\n\"e\"\n\n\nbytes=0-1\nx-ms-meta-b:v\n\
             /acct/acct/c/a%20b%2F%C3%BC\ninclude:a,b,x\nmarker:/ z"
        );
    }

    #[test]
    fn a_table_request_signs_date_and_path_only() {
        let headers = [("x-ms-date", "D"), ("content-type", "application/json")];
        let url = "https://h/$batch?$filter=x";
        assert_eq!(lite_text("one", &request(Method::Post, url, &headers, "x")), "D\n/one/$batch");
        let url = "http://h/one/t(PartitionKey='p',RowKey='k')";
        assert_eq!(
            lite_text("one", &request(Method::Get, url, &headers, "")),
            "D\n/one/one/t(PartitionKey='p',RowKey='k')"
        );
    }

    #[test]
    fn the_key_is_used_and_not_shown() {
        let signer = SharedKey { account: "one".into(), key: Secret::new("a2V5"), scheme: Scheme::Lite };
        let authorization =
            signer.authorization(&request(Method::Get, "http://h/t", &[("x-ms-date", "D")], "")).expect("signed");
        assert_eq!(authorization, "SharedKeyLite one:w0dtMqgjhybESnY6fSX2ICfQjoJaH8oyIIc0FSJXufU=");
        assert!(!format!("{signer:?}").contains("a2V5"));
    }
}
