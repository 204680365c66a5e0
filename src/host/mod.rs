//! The app as the Functions host sees it: HTTP routes and calls, turned into the machine's verbs.
//!
//! [`router`] is the same in every way of running the app; the local server wakes the machine through it as the
//! Functions host would.

pub mod api;
pub mod functions;
pub mod invocation;
mod links;
mod problem;
pub mod pump;
mod token;

pub use links::PublicUrl;
pub use problem::Problem;

use crate::machine::CoreMachine;
use axum::Router;
use axum::routing::get;
use std::sync::Arc;

/// What every request is served from.
#[derive(Clone, Debug)]
pub struct App {
    /// The one machine.
    pub machine: Arc<CoreMachine>,
    /// What the app's links begin with, if it is set.
    pub public_url: Option<PublicUrl>,
}

/// All that the app answers.
pub fn router(app: App) -> Router {
    Router::new()
        // The host's readiness ping: answered at once, without a store.
        .route("/", get(async || "CoreMachine"))
        .merge(functions::routes())
        .nest("/api", api::routes())
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(axum::middleware::from_fn(problem::render))
        .with_state(app)
}
