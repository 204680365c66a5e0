//! CoreMachine runs jobs as ordered stages of parallel tasks, as one Azure Functions custom handler.

pub mod ports;
pub mod store;
