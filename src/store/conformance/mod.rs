//! What every store must do: one function per promise of the [ports](crate::ports), run against all of them.
//!
//! [`each_promise!`](crate::each_promise) hands the list of promises to a macro, so that a test crate can make one test
//! of each; [`ALL`] is the same list as values.
//!
//! A function returns if the promise is kept and panics with words if not. Each works on rows and containers of its
//! own, so all can run side by side on one account.
#![allow(clippy::missing_panics_doc, reason = "panicking is how a check speaks")]

mod blobs;
mod queues;
mod tables;

pub use blobs::*;
pub use queues::*;
pub use tables::*;

use crate::ports::{Environment, Store};
use crate::store::SystemEnvironment;
use futures_util::future::{BoxFuture, join_all};
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// A store to be checked.
pub struct Subject {
    /// The store.
    pub store: Store,
    /// Lets time pass for the store: really, or by moving its clock.
    pub wait: Box<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
    /// Subjects on the same queues share this, so that their checks do not take each other's messages.
    pub queues: Arc<Mutex<()>>,
}

impl Subject {
    /// A store with queues of its own. `wait` lets time pass for it.
    pub fn new(store: Store, wait: impl Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync + 'static) -> Self {
        Self { store, wait: Box::new(wait), queues: Arc::default() }
    }
}

/// A check of one promise.
pub type Promise = fn(&Subject) -> BoxFuture<'_, ()>;

/// Hands the names of all promises, separated by commas, to the macro named.
#[macro_export]
macro_rules! each_promise {
    ($then:ident) => {
        $then! {
            an_inserted_row_is_read_back,
            an_insert_finds_what_is_there,
            a_commit_is_all_or_nothing,
            a_commit_names_the_write_that_failed,
            a_replace_needs_the_version_it_read,
            a_replace_of_a_missing_row_conflicts,
            a_delete_needs_a_row_and_no_version,
            every_write_changes_the_etag,
            reads_see_every_acknowledged_write,
            a_query_is_ordered_and_paged,
            a_query_reads_from_a_key_to_before_another,
            a_query_of_keys_reads_no_documents,
            a_query_stays_in_its_partition,
            a_missing_partition_reads_as_empty,
            limits_are_refused_before_anything_is_written,
            a_commit_may_be_as_large_as_its_limits,
            documents_survive_exactly,
            concurrent_inserts_have_one_winner,
            concurrent_replaces_have_one_winner,
            a_message_comes_back_until_it_is_deleted,
            a_received_message_is_hidden,
            a_delayed_message_waits,
            a_stale_receipt_settles_nothing,
            a_late_receipt_is_good_until_the_next_delivery,
            a_released_message_is_delivered_again,
            a_renewed_message_stays_hidden,
            two_receivers_never_share_a_delivery,
            a_message_is_bytes,
            a_message_over_the_limit_is_refused,
            a_receive_takes_no_more_than_it_asks_for,
            queues_do_not_mix,
            length_counts_hidden_messages,
            a_missing_container_is_no_blob,
            a_container_can_be_created_twice,
            a_written_blob_is_read_back,
            a_read_gives_the_bytes_that_exist,
            a_read_of_another_version_conflicts,
            an_overwrite_replaces_the_whole_blob,
            a_reader_sees_no_mixture,
            a_delete_of_a_missing_blob_is_no_error,
            a_listing_goes_by_prefix_whatever_the_folders,
            a_listing_is_in_order,
            a_listing_is_paged,
            odd_names_are_names,
        }
    };
}

macro_rules! list {
    ($($promise:ident),* $(,)?) => {
        /// Every promise by name.
        pub const ALL: &[(&str, Promise)] = &[$((stringify!($promise), |subject| Box::pin($promise(subject)))),*];
    };
}
each_promise!(list);

/// Letters and digits that no other check has.
fn unique() -> String {
    format!("{:016x}", SystemEnvironment.random())
}

/// Runs as many at the same time.
async fn at_once<T, F>(many: usize, work: impl Fn(usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let running: Vec<_> = (0..many).map(|number| tokio::spawn(work(number))).collect();
    join_all(running).await.into_iter().map(|ended| ended.expect("one of many at once")).collect()
}

/// Unwraps what the check is not about.
fn done<T>(what: &str, result: Result<T, impl Debug>) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error:?}"))
}
