//! The custom handler: serves the Functions host until it is killed.

use super::{Exit, Failure, HANDLER_PORT, Outcome, log_for_the_host, storage};
use crate::contract::registry::Registry;
use crate::host::{self, App, PublicUrl};
use crate::machine::CoreMachine;
use crate::store::SystemEnvironment;
use std::net::Ipv4Addr;
use std::sync::Arc;
use tokio::net::TcpListener;

pub(super) async fn serve(port: &str) -> Outcome {
    log_for_the_host();
    let port: u16 = port.parse().map_err(|_| Failure::usage(format!("{HANDLER_PORT} is not a port: `{port}`")))?;
    // What is wrong with the app itself is said before the port opens; the store is first touched by a request.
    let registry = Registry::linked().map_err(Failure::usage)?;
    let store = storage::from_settings()?;
    let public_url = public_url()?;
    let machine = Arc::new(CoreMachine::new(Arc::new(registry), store, Arc::new(SystemEnvironment)));

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(Failure::unreachable)?;
    tracing::info!(port, version = env!("CARGO_PKG_VERSION"), "listening");
    axum::serve(listener, host::router(App { machine, public_url })).await.map_err(Failure::unreachable)?;
    // The host takes exit code 0 for a wish to stop for good.
    Ok(Exit::Unreachable)
}

/// The setting `COREMACHINE_PUBLIC_URL`.
pub(super) fn public_url() -> Result<Option<PublicUrl>, Failure> {
    let Ok(url) = std::env::var("COREMACHINE_PUBLIC_URL") else { return Ok(None) };
    PublicUrl::parse(&url)
        .map(Some)
        .map_err(|error| Failure::usage(format!("the setting COREMACHINE_PUBLIC_URL: {error}")))
}
