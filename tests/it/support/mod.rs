//! What several tests need.

pub(crate) mod app;
pub(crate) mod azurite;
pub(crate) mod canned;
