//! The whole system, through its doors: the binary, its package, and the hosts that run it.

mod functions_host;
mod machine;
mod scripted;
