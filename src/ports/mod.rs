//! What the machine asks of the world: tables, queues, blobs, a clock and chance.
//!
//! The three storage ports are the three primitives of Azure Storage with their real semantics. Every adapter in
//! [`store`](crate::store) keeps each promise written here, and [`store::conformance`](crate::store::conformance) has
//! one function per promise that runs against all of them.

mod blobs;
mod environment;
mod error;
mod queues;
mod tables;
mod time;

pub use blobs::{BlobName, BlobPage, BlobProperties, Blobs, ContainerName, InvalidName};
pub use environment::Environment;
pub use error::StoreError;
pub use queues::{MESSAGE_LIMIT, Queue, Queues, Receipt, Received};
pub use tables::{
    BATCH_LIMIT, BATCH_SIZE_LIMIT, CommitError, Etag, Page, QUERY_LIMIT, Query, ROW_LIMIT, Row, Select, Table, Tables,
    TablesExt, Write,
};
pub use time::Time;

use std::sync::Arc;

/// Everything durable that one CoreMachine works on.
#[derive(Clone)]
pub struct Store {
    /// State: jobs, outcomes, index.
    pub tables: Arc<dyn Tables>,
    /// Work in flight.
    pub queues: Arc<dyn Queues>,
    /// Payloads too large for a row or a message.
    pub payloads: Arc<dyn Blobs>,
    /// The containers that jobs read and write; often another account than the machine's own.
    pub data: Arc<dyn Blobs>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Store")
    }
}
