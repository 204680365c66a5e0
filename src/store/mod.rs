//! The adapters: one [`Store`](crate::ports::Store) each in memory, on disk and on Azure Storage.

pub mod azure;
pub mod conformance;
mod embedded;
mod environment;
pub mod limits;
mod memory;

pub use embedded::{Access, EmbeddedStore, Mount};
pub use environment::{SystemEnvironment, VirtualEnvironment};
pub use memory::MemoryStore;
