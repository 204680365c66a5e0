use super::{JobError, Result};
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
    /// How many tasks may fail for good without failing the job, which then ends `completed_with_errors`. Beyond it the job
    /// fails at once.
    pub tolerated_failures: Tolerance,
}

/// How many failed tasks a stage bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tolerance {
    /// So many.
    Count(u64),
    /// So many of a hundred, 0–100; a part of a task counts for none.
    Percent(u8),
}

impl Tolerance {
    /// Whether a stage of so many tasks bears so many failures.
    pub(crate) fn bears(self, failed: u64, tasks: u64) -> bool {
        match self {
            Self::Count(count) => failed <= count,
            Self::Percent(percent) => u128::from(failed) * 100 <= u128::from(tasks) * u128::from(percent),
        }
    }
}

impl Default for StagePolicy {
    fn default() -> Self {
        Self {
            batch_size: 1,
            attempts: 3,
            backoff: Duration::from_secs(5),
            backoff_limit: Duration::from_mins(5),
            task_timeout: Duration::from_mins(5),
            tolerated_failures: Tolerance::Count(0),
        }
    }
}

/// A queue hides a message no longer.
const LONGEST_DELAY: Duration = Duration::from_hours(7 * 24);

impl StagePolicy {
    /// The policy, if every value is within its limits.
    pub(crate) fn checked(self) -> Result<Self> {
        let fault = if !(1..=1000).contains(&self.batch_size) {
            format!("`batch_size` is {}; use 1–1,000", self.batch_size)
        } else if !(1..=100).contains(&self.attempts) {
            format!("`attempts` is {}; use 1–100", self.attempts)
        } else if self.backoff.max(self.backoff_limit) > LONGEST_DELAY {
            "`backoff` or `backoff_limit` is longer than 7 days".to_owned()
        } else if let Tolerance::Percent(percent @ 101..) = self.tolerated_failures {
            format!("`tolerated_failures` is {percent} %; use 0–100")
        } else if self.task_timeout.is_zero() {
            "`task_timeout` is zero, so that no task could ever succeed".to_owned()
        } else {
            return Ok(self);
        };
        Err(JobError::new("invalid_policy", fault))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_beyond_its_limits_is_refused_by_name() {
        let fine = StagePolicy::default;
        assert_eq!(fine().checked(), Ok(fine()));
        for (wrong, word) in [
            (StagePolicy { batch_size: 0, ..fine() }, "`batch_size` is 0"),
            (StagePolicy { batch_size: 1001, ..fine() }, "`batch_size` is 1001"),
            (StagePolicy { attempts: 0, ..fine() }, "`attempts` is 0"),
            (StagePolicy { backoff_limit: Duration::from_hours(169), ..fine() }, "`backoff_limit`"),
            (StagePolicy { tolerated_failures: Tolerance::Percent(101), ..fine() }, "`tolerated_failures` is 101 %"),
            (StagePolicy { task_timeout: Duration::ZERO, ..fine() }, "`task_timeout` is zero"),
        ] {
            let error = wrong.checked().expect_err(word);
            assert!(error.code == "invalid_policy" && error.message.contains(word), "{error}");
        }
    }

    #[test]
    fn a_tolerance_bears_up_to_its_share() {
        for (tolerance, bears, tasks) in [
            (Tolerance::Count(0), 0, 10),
            (Tolerance::Count(3), 3, 10),
            (Tolerance::Percent(0), 0, 10),
            (Tolerance::Percent(10), 1, 10),
            (Tolerance::Percent(10), 1, 19),
            (Tolerance::Percent(100), 7, 7),
        ] {
            assert!(tolerance.bears(bears, tasks), "{tolerance:?} of {tasks}");
            assert!(!tolerance.bears(bears + 1, tasks), "{tolerance:?} of {tasks}");
        }
    }
}
