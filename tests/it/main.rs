//! The whole system, through its doors: the binary, its package, and the hosts that run it.

mod functions_host;
mod jobs_list_container;
mod machine;
mod scripted;
