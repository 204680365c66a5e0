//! The embedded engine: the machine, its router and the pump, in this process.

use super::{Failure, containers::parse_mount, handler::public_url};
use crate::contract::registry::Registry;
use crate::host::pump::{Pump, WakingQueues};
use crate::host::{self, App};
use crate::machine::CoreMachine;
use crate::ports::Store;
use crate::store::SystemEnvironment;
use crate::store::{EmbeddedStore, Mount};
use axum::Router;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the embedded engine keeps what it knows, and what it may read.
#[derive(Debug, clap::Args)]
pub(super) struct LocalStore {
    /// Where jobs, queues and local containers are kept
    #[arg(long, value_name = "FOLDER", default_value = ".coremachine")]
    data_dir: PathBuf,
    /// Serves a local folder as a container, read-only unless `:rw` follows; repeatable
    #[arg(long = "container", value_name = "NAME=FOLDER[:rw]", value_parser = parse_mount)]
    containers: Vec<Mount>,
}

impl LocalStore {
    /// Opens it; at most one process may have it open.
    pub(super) fn open(self) -> Result<Store, Failure> {
        EmbeddedStore::open(&self.data_dir, Arc::new(SystemEnvironment), self.containers).map_err(Failure::unreachable)
    }
}

/// A running engine. Dropping it stops the work where it is.
pub(super) struct Engine {
    pub(super) machine: Arc<CoreMachine>,
    pub(super) router: Router,
    pub(super) pump: Pump,
}

impl Engine {
    /// Starts working on a store.
    pub(super) fn start(store: Store) -> Result<Self, Failure> {
        let registry = Registry::linked().map_err(Failure::usage)?;
        let (store, queues) = WakingQueues::within(store);
        let machine = Arc::new(CoreMachine::new(Arc::new(registry), store, Arc::new(SystemEnvironment)));
        let router = host::router(App { machine: Arc::clone(&machine), public_url: public_url()? });
        let pump = Pump::start(&router, &queues);
        Ok(Self { machine, router, pump })
    }
}
