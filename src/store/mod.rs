//! The adapters: one [`Store`](crate::ports::Store) each in memory, on disk and on Azure Storage.

mod environment;
pub mod limits;
mod memory;

pub use environment::{SystemEnvironment, VirtualEnvironment};
pub use memory::MemoryStore;
