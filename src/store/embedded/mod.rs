//! The store on disk for one process: state and queues in one database file, blobs in folders.
//!
//! ```text
//! <folder>/state.redb                    tables and queues
//! <folder>/payloads/<container>/…        the machine's own blobs
//! <folder>/blobs/<container>/…           the jobs' containers: put files there as you like
//! ```

mod folders;
mod queues;
mod state;
mod tables;
mod writer;

use crate::ports::{ContainerName, Environment, Store, StoreError};
use folders::FolderBlobs;
use queues::EmbeddedQueues;
use state::State;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tables::EmbeddedTables;

/// A folder somewhere else that stands as a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The name by which jobs know it. A folder of that name under `blobs` is not seen.
    pub container: ContainerName,
    /// Where it is.
    pub folder: PathBuf,
    /// Whether jobs may change it.
    pub access: Access,
}

/// What may be done to a mounted folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Writing and deleting are refused.
    ReadOnly,
    /// As any other container.
    ReadWrite,
}

/// The durable store of one process.
///
/// A write is acknowledged when it is on disk. Whatever was acknowledged is there after the process was killed, and
/// nothing of a commit that was not.
///
/// Only one process can have a folder open, so when it is opened nobody holds any delivery of a message: messages that
/// were received and not settled, or hidden by their receiver, are due at once, with their count of deliveries. Messages
/// sent with a delay go on waiting.
///
/// A container is a folder, with these differences to Azure:
/// - A blob's type is declared by the extension of its name, whatever type it was written with; unknown extensions have
///   none.
/// - Names with an empty segment (`a//b`, `a/`), with a segment over 255 bytes or like those of the store's own temporary
///   files are refused, and there cannot be both a blob `a` and a blob `a/b`.
/// - Files whose names are not UTF-8 are not listed. Nor are files that vanish while they are listed.
/// - A link to a file inside the container is that file. Links that lead outside, and links to folders, are refused and
///   not listed.
/// - A file that another program writes in place may be read half-written; let it write elsewhere and rename.
#[derive(Debug)]
pub struct EmbeddedStore;

impl EmbeddedStore {
    /// Opens the store in `folder`, which is created if it is missing. Blocks while the disk works; after a kill that
    /// includes checking the database.
    ///
    /// The store closes when its last handle is dropped.
    ///
    /// [`StoreError::Rejected`] if the folder is open already, is not a store or cannot be written, and for a mount of a
    /// folder that is not there or of a name that is mounted twice.
    pub fn open(folder: &Path, environment: Arc<dyn Environment>, containers: Vec<Mount>) -> Result<Store, StoreError> {
        let state = Arc::new(State::open(folder, environment.now())?);
        let data = FolderBlobs::open(folder.join("blobs"), containers, Arc::clone(&environment))?;
        let payloads = FolderBlobs::open(folder.join("payloads"), Vec::new(), Arc::clone(&environment))?;
        Ok(Store {
            tables: Arc::new(EmbeddedTables::new(Arc::clone(&state))),
            queues: Arc::new(EmbeddedQueues::new(state, environment)),
            payloads: Arc::new(payloads),
            data: Arc::new(data),
        })
    }
}
