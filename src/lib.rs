//! CoreMachine runs jobs as ordered stages of parallel tasks, as one Azure Functions custom handler.

pub mod cli;
pub mod contract;
pub mod engine;
pub mod host;
pub mod jobs;
pub mod machine;
pub mod model;
pub mod ports;
pub mod prelude;
pub mod store;
pub mod testing;

#[doc(hidden)]
pub use linkme; // for `register_job!`
