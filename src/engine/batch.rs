use super::plan::tasks_of_batch;
use crate::contract::{JobId, StagePolicy, TaskOutcome};
use crate::model::{StageRow, TaskMessage};
use std::time::Duration;

/// A task that has been tried once more.
#[derive(Clone, Debug, PartialEq)]
pub struct Execution {
    /// How it ended, if it ended here.
    pub outcome: TaskOutcome,
    /// Whether a further attempt may change that.
    pub retryable: bool,
}

/// A batch after an attempt at its pending tasks.
#[derive(Debug)]
pub struct Attempted<'a> {
    /// The message that asked for it.
    pub message: &'a TaskMessage,
    /// How its tasks are run.
    pub policy: &'a StagePolicy,
    /// The tasks that had ended before.
    pub ended: Vec<TaskOutcome>,
    /// The tasks tried.
    pub executions: Vec<Execution>,
}

/// What becomes of a batch after an attempt.
#[derive(Debug, PartialEq)]
pub enum BatchVerdict {
    /// Every task has ended: these are the outcomes, in task order.
    Ended(Vec<TaskOutcome>),
    /// Some are to be tried again.
    Retry {
        /// What has ended so far, in task order.
        ended: Vec<TaskOutcome>,
        /// The indices of the rest.
        pending: Vec<u64>,
        /// Asks for the next attempt.
        message: TaskMessage,
        /// How long the next attempt waits.
        delay: Duration,
    },
}

/// Keeps what has ended, and decides what is tried again and when. `chance` is a fresh random number.
pub fn judge_batch(attempted: Attempted<'_>, chance: u64) -> BatchVerdict {
    let Attempted { message, policy, mut ended, executions } = attempted;
    let last = message.attempt >= policy.attempts;
    let mut pending = Vec::new();
    for execution in executions {
        if execution.retryable && !last {
            pending.push(execution.outcome.index);
        } else {
            ended.push(execution.outcome);
        }
    }
    ended.sort_by_key(|outcome| outcome.index);
    if pending.is_empty() {
        return BatchVerdict::Ended(ended);
    }
    pending.sort_unstable();
    BatchVerdict::Retry {
        ended,
        pending,
        message: next_attempt(message),
        delay: backoff(policy, message.attempt, chance),
    }
}

/// The tasks of a batch at its first attempt; none if the stage has no such batch.
pub fn pending_tasks(stage: &StageRow, batch: u64) -> Vec<u64> {
    tasks_of_batch(batch, stage.tasks, stage.policy.batch_size).collect()
}

/// The wait after the `attempt`-th attempt: doubling, limited, with full jitter.
fn backoff(policy: &StagePolicy, attempt: u32, chance: u64) -> Duration {
    let doubled = policy.backoff.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
    let longest = u64::try_from(doubled.min(policy.backoff_limit).as_millis()).unwrap_or(u64::MAX - 1);
    Duration::from_millis(chance % (longest + 1))
}

/// The message that asks for the attempt after this one's.
pub fn next_attempt(message: &TaskMessage) -> TaskMessage {
    TaskMessage { attempt: message.attempt + 1, resent: false, ..message.clone() }
}

/// The message that asks for a batch's first attempt.
pub fn first_attempt(job_id: &JobId, run: u32, stage: u32, batch: u64) -> TaskMessage {
    TaskMessage { job_id: job_id.clone(), run, stage, batch, attempt: 1, resent: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::TaskEnd;
    use crate::ports::Time;
    use serde_json::Value;

    fn message(attempt: u32) -> TaskMessage {
        TaskMessage { attempt, ..first_attempt(&JobId::of_key("t", "k"), 1, 1, 0) }
    }

    fn execution(index: u64, succeeded: bool, retryable: bool) -> Execution {
        let result = if succeeded {
            TaskEnd::Output(Value::Null)
        } else {
            TaskEnd::Error { code: "c".to_owned(), message: "m".to_owned() }
        };
        let at = Time::from_unix_millis(0);
        let outcome =
            TaskOutcome { index, task_type: "t".to_owned(), attempts: 1, started_at: at, ended_at: at, result };
        Execution { outcome, retryable }
    }

    fn judge(attempt: u32, ended: Vec<TaskOutcome>, executions: Vec<Execution>) -> BatchVerdict {
        let policy = StagePolicy::default();
        judge_batch(Attempted { message: &message(attempt), policy: &policy, ended, executions }, 7_000)
    }

    #[test]
    fn a_batch_ends_when_every_task_has_ended() {
        let verdict = judge(1, vec![], vec![execution(1, false, false), execution(0, true, false)]);
        let BatchVerdict::Ended(outcomes) = verdict else { panic!("{verdict:?}") };
        assert_eq!(outcomes.iter().map(|outcome| outcome.index).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn what_succeeded_is_kept_and_the_rest_is_tried_again() {
        let verdict = judge(1, vec![], vec![execution(0, false, true), execution(1, true, false)]);
        let BatchVerdict::Retry { ended, pending, message, delay } = verdict else { panic!("{verdict:?}") };
        assert_eq!((ended.len(), pending, message.attempt), (1, vec![0], 2));
        assert_eq!(delay, Duration::from_millis(7_000 % 5_001));
    }

    #[test]
    fn the_last_attempt_decides() {
        let kept = execution(1, true, false).outcome;
        assert!(
            matches!(judge(3, vec![kept], vec![execution(0, false, true)]), BatchVerdict::Ended(all) if all.len() == 2)
        );
    }

    #[test]
    fn the_wait_doubles_up_to_its_limit() {
        let policy = StagePolicy::default();
        for (attempt, seconds) in [(1, 5), (2, 10), (3, 20), (7, 300), (100, 300)] {
            assert_eq!(backoff(&policy, attempt, seconds * 1000), Duration::from_secs(seconds), "attempt {attempt}");
            assert_eq!(backoff(&policy, attempt, seconds * 1000 + 1), Duration::ZERO, "attempt {attempt}");
        }
    }
}
