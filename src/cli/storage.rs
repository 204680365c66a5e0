//! The storage accounts that the settings name.

use super::Failure;
use crate::ports::Store;
use crate::store::azure::{self, Connection, StorageSettings};

/// The app's own account, in every form that the Functions host takes.
const STATE: &str = "AzureWebJobsStorage";
/// The account whose containers jobs read and write, in the same forms; by default the app's own.
const DATA: &str = "COREMACHINE_DATA";

/// The accounts named by the process's settings. Nothing is sent yet.
pub(super) fn from_settings() -> Result<Store, Failure> {
    let has_data_account = std::env::vars()
        .any(|(name, value)| (name == DATA || name.starts_with(&format!("{DATA}__"))) && !value.is_empty());
    let data = if has_data_account { DATA } else { STATE };
    let lookup = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let settings = StorageSettings::resolve(STATE, data, lookup).map_err(Failure::usage)?;
    azure::connect(&settings).map_err(Failure::usage)
}

/// The one account of a connection string.
pub(super) fn from_connection_string(argument: &str, connection: &str) -> Result<Store, Failure> {
    let connection = Connection::parse(argument, connection).map_err(Failure::usage)?;
    azure::connect(&StorageSettings { state: connection.clone(), data: connection }).map_err(Failure::usage)
}
