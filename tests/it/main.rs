//! The whole system, through its doors: the stores, the machine, the binary, its package, and the hosts that run it.

mod app_folder;
mod app_on_azurite;
mod azure_store;
mod conformance;
mod embedded;
mod functions_host;
mod http_api;
mod jobs_list_container;
mod local;
mod machine;
mod scripted;
mod support;
mod tidy;
