use super::local::{Engine, LocalStore};
use super::{Exit, Failure, Outcome, log_for_people, storage};
use std::net::Ipv4Addr;
use tokio::net::TcpListener;

/// The local server.
#[derive(Debug, clap::Args)]
pub(super) struct Dev {
    /// The port of 127.0.0.1 to serve on; 0 takes a free one
    #[arg(long, default_value_t = 7071)]
    port: u16,
    /// An Azure Storage connection string to work on instead of the embedded store
    #[arg(long, value_name = "CONNECTION", conflicts_with_all = ["data_dir", "containers"])]
    storage: Option<String>,
    #[command(flatten)]
    local: LocalStore,
}

impl Dev {
    pub(super) async fn execute(self) -> Outcome {
        log_for_people();
        // The port first: whoever cannot have it should not have taken up work.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await.map_err(|error| {
            Failure::unreachable(format!("port {} cannot be had ({error}); choose another with --port", self.port))
        })?;
        let store = match &self.storage {
            Some(connection) => storage::from_connection_string("--storage", connection)?,
            None => self.local.open()?,
        };
        let Engine { router, mut pump, .. } = Engine::start(store)?;
        println!("CoreMachine listens on http://{}/api", listener.local_addr().map_err(Failure::unreachable)?);
        tokio::select! {
            served = axum::serve(listener, router) => served.map_err(Failure::unreachable)?,
            () = pump.forever() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        Ok(Exit::Done)
    }
}
