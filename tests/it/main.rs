//! The whole system, through its doors: the binary, its package, and the hosts that run it.

mod app_folder;
mod functions_host;
mod http_api;
mod jobs_list_container;
mod machine;
mod scripted;
mod support;
mod tidy;
