use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How the tasks of one stage are run. Override what differs: `StagePolicy { attempts: 5, ..StagePolicy::default() }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagePolicy {
    /// How many tasks travel in one message, 1–1,000; more for tasks of milliseconds, 1 for tasks of minutes.
    pub batch_size: u32,
    /// How often a task is tried before it has failed, 1–100.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles with each further one. The real wait is drawn evenly between
    /// zero and this (full jitter).
    pub backoff: Duration,
    /// The longest wait between two attempts, at most 7 days.
    pub backoff_limit: Duration,
    /// How long one attempt of one task may take. A future is dropped there; code that does not await runs on.
    pub task_timeout: Duration,
}

impl Default for StagePolicy {
    fn default() -> Self {
        Self {
            batch_size: 1,
            attempts: 3,
            backoff: Duration::from_secs(5),
            backoff_limit: Duration::from_mins(5),
            task_timeout: Duration::from_mins(5),
        }
    }
}

impl StagePolicy {
    /// The policy with every value brought within its limits.
    pub(crate) fn within_limits(self) -> Self {
        let longest_delay = Duration::from_hours(7 * 24); // a queue hides a message no longer
        Self {
            batch_size: self.batch_size.clamp(1, 1000),
            attempts: self.attempts.clamp(1, 100),
            backoff: self.backoff.min(longest_delay),
            backoff_limit: self.backoff_limit.min(longest_delay),
            task_timeout: self.task_timeout,
        }
    }
}
