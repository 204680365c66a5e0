//! The adapter for Azure Storage and its emulator Azurite.
//!
//! Only this folder names the crates of the SDK, and none of their types leaves it.
//!
//! - [`connection`]: where an account is and how to be let in, from settings
//! - `account`: an account ready for requests: endpoints, authorisation, HTTP
//! - `transport`: HTTP with deadlines, and the repetition of what is safe to repeat
//! - `shared_key`, `signature`: authorisation by account key and by shared access signature
//! - `fault`: what the service or the network answered, as a [`StoreError`](crate::ports::StoreError)
//! - `tables` with `batch` and `entity`, `queues`, `blobs`: the ports

mod account;
mod batch;
mod blobs;
pub mod connection;
mod encode;
mod entity;
mod fault;
mod queues;
mod shared_key;
mod signature;
mod tables;
mod transport;

use crate::ports::Store;
use account::Account;
use blobs::AzureBlobs;
pub use connection::{ConfigError, Connection};
use queues::AzureQueues;
use std::sync::Arc;
use tables::AzureTables;

/// The accounts of one machine.
#[derive(Clone, Debug)]
pub struct StorageSettings {
    /// The machine's own: tables, queues and payloads.
    pub state: Connection,
    /// The containers that jobs read and write.
    pub data: Connection,
}

impl StorageSettings {
    /// Reads both connections from settings, as [`Connection::resolve`] does.
    pub fn resolve(state: &str, data: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Ok(Self { state: Connection::resolve(state, &lookup)?, data: Connection::resolve(data, &lookup)? })
    }
}

/// Makes a store of two accounts. Nothing is sent before the store is first used.
pub fn connect(settings: &StorageSettings) -> Result<Store, ConfigError> {
    let state = Arc::new(Account::open(settings.state.clone())?);
    let payloads = Arc::new(AzureBlobs::open(Arc::clone(&state))?);
    let data = if settings.data.setting() == settings.state.setting() {
        Arc::clone(&payloads)
    } else {
        Arc::new(AzureBlobs::open(Arc::new(Account::open(settings.data.clone())?))?)
    };
    Ok(Store {
        tables: Arc::new(AzureTables::open(Arc::clone(&state))?),
        queues: Arc::new(AzureQueues::open(state)?),
        payloads,
        data,
    })
}
