//! The HTTP front: forwards requests to the function whose route and methods match first.

use super::{Host, VERSION};
use axum::body::Body;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

const BODY_LIMIT: usize = 100 * 1024 * 1024;

/// Serves the front on a free port.
pub(crate) async fn serve(host: Arc<Host>) -> Result<(SocketAddr, AbortHandle), String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let app = axum::Router::new().fallback(forward).with_state(host);
    let serving = axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>());
    Ok((address, tokio::spawn(async { serving.await }).abort_handle()))
}

async fn forward(
    State(host): State<Arc<Host>>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
    request: Request,
) -> Result<Response, StatusCode> {
    let (parts, body) = request.into_parts();
    let (function, trigger) =
        host.app.http_function(parts.method.as_str(), parts.uri.path()).ok_or(StatusCode::NOT_FOUND)?;
    if !trigger.anonymous && !holds_key(&host, &parts.headers, &parts.uri) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    if parts.headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(StatusCode::INTERNAL_SERVER_ERROR);
    }
    let body = axum::body::to_bytes(body, BODY_LIMIT).await.map_err(|_| StatusCode::PAYLOAD_TOO_LARGE)?;
    host.count(|counters| *counters.calls.entry(function.to_owned()).or_default() += 1);
    let instance = usize::try_from(host.random.next() % host.instances.len() as u64).unwrap_or(0);
    let life = host.ready(instance).await.map_err(|_| StatusCode::SERVICE_UNAVAILABLE)?;
    let request = host
        .client
        .request(parts.method, format!("{}{}", life.base, path_and_query(&parts.uri)))
        .headers(forwarded(parts.headers, client, &host.random.guid()))
        .body(body);
    let response = request.send().await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    buffered(response).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

fn holds_key(host: &Host, headers: &HeaderMap, uri: &Uri) -> bool {
    let Some(key) = &host.options.key else { return true };
    let in_header = headers.get("x-functions-key").is_some_and(|value| value.as_bytes() == key.as_bytes());
    in_header || pairs(uri).iter().any(|(name, value)| name == "code" && value == key)
}

/// The path as it came, and the query as the host writes it anew: values of one name joined by commas.
fn path_and_query(uri: &Uri) -> String {
    let mut joined: Vec<(String, String)> = Vec::new();
    for (name, value) in pairs(uri) {
        match joined.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => *values = format!("{values},{value}"),
            None => joined.push((name, value)),
        }
    }
    let Some(mut written) = any_url() else { return uri.path().to_owned() };
    written.query_pairs_mut().extend_pairs(joined);
    match written.query() {
        Some(query) if !query.is_empty() => format!("{}?{query}", uri.path()),
        _ => uri.path().to_owned(),
    }
}

fn pairs(uri: &Uri) -> Vec<(String, String)> {
    let Some(mut url) = any_url() else { return Vec::new() };
    url.set_query(uri.query());
    url.query_pairs().into_owned().collect()
}

fn any_url() -> Option<reqwest::Url> {
    reqwest::Url::parse("http://any/").ok()
}

/// Headers about the connection are not passed on, nor are these three of the body's, which the host loses.
const DROPPED: [HeaderName; 6] = [
    header::CONNECTION,
    header::CONTENT_DISPOSITION,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::TRANSFER_ENCODING,
];

fn forwarded(mut headers: HeaderMap, client: SocketAddr, invocation_id: &str) -> HeaderMap {
    for name in DROPPED {
        headers.remove(name);
    }
    let agent = headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let agent = format!("{agent} Azure-Functions-Host/{VERSION}");
    let traceparent = format!("00-{}-0a92d84d53ffd942-00", invocation_id.replace('-', ""));
    for (name, value) in [
        ("user-agent", agent.trim()),
        ("x-azure-functions-hostversion", VERSION),
        ("x-azure-functions-invocationid", invocation_id),
        ("x-forwarded-for", &client.to_string()),
        ("x-forwarded-proto", "http"),
        ("traceparent", &traceparent),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
}

/// The answer as a whole, with its own status and headers.
async fn buffered(response: reqwest::Response) -> reqwest::Result<Response> {
    let (status, mut headers) = (response.status(), response.headers().clone());
    for name in [header::CONNECTION, header::CONTENT_LENGTH, header::TRANSFER_ENCODING] {
        headers.remove(name);
    }
    Ok((status, headers, Body::from(response.bytes().await?)).into_response())
}
