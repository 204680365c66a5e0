//! The whole system, through its doors: the stores, the machine, the binary, its package, and the hosts that run it.

// Real processes run in real time; whatever runs in virtual time has no clock to read.
#![allow(clippy::disallowed_methods)]

mod app_folder;
mod app_on_azurite;
mod app_through_faults;
mod azure_store;
mod conformance;
mod crashes;
mod embedded;
mod fault_proxy;
mod functions_host;
mod handler;
mod http_api;
mod jobs_list_container;
mod linked;
mod local;
mod machine;
mod readme_job;
mod scripted;
mod support;
mod tidy;
mod tidy_source;
