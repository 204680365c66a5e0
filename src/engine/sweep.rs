use super::JobState;
use crate::model::{ActiveRow, Footprint, Tally};
use crate::ports::Time;
use std::time::Duration;

/// How long a job may stand still beyond what one attempt of its tasks may take. A message whose handler was killed with
/// its host comes back within 10 minutes, and a task waits up to 5 minutes for its next attempt.
pub const PATIENCE: Duration = Duration::from_mins(15);

/// What the sweep does about a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SweepStep {
    /// It has ended, or never came to be: it needs no watching.
    Forget,
    /// It has moved since it was last looked at; remember where to.
    Remember(ActiveRow),
    /// It has not moved, but not for long.
    Wait,
    /// It stands still: send what is missing, and remember when.
    Revive(ActiveRow),
}

/// Decides from where a job is and where it was seen last; `tally` counts the ended tasks of its open stage.
pub fn sweep_step(active: &ActiveRow, state: Option<&JobState>, tally: Tally, now: Time) -> SweepStep {
    let Some(state) = state else {
        // Between its index rows and its job row, a submission may be under way.
        return if now.since(active.seen_at) < PATIENCE { SweepStep::Wait } else { SweepStep::Forget };
    };
    if state.job.status.is_terminal() {
        return SweepStep::Forget;
    }
    let stage = state.stages.get(&state.job.stage).map(|stage| &stage.row);
    let footprint = Footprint {
        run: state.job.run,
        stage: state.job.stage,
        dispatched: stage.is_some_and(|stage| stage.dispatched),
        ended: tally.completed + tally.failed,
    };
    let seen = ActiveRow { job_id: active.job_id.clone(), footprint: Some(footprint.clone()), seen_at: now };
    if active.footprint.as_ref() != Some(&footprint) {
        return SweepStep::Remember(seen);
    }
    let patience = PATIENCE + stage.map_or(Duration::ZERO, |stage| stage.policy.task_timeout);
    if now.since(active.seen_at) < patience { SweepStep::Wait } else { SweepStep::Revive(seen) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::JobId;
    use crate::engine::new_job;
    use crate::model::{JobStatus, Payload};
    use crate::ports::Etag;
    use serde_json::Value;
    use std::collections::BTreeMap;

    const BEGIN: Time = Time::from_unix_millis(0);

    fn state() -> JobState {
        let new =
            new_job(JobId::of_key("t", "k"), "t", Payload::Inline(Value::Null), String::new(), String::new(), BEGIN);
        JobState { job: new.job, etag: Etag("1".to_owned()), stages: BTreeMap::new(), earlier: BTreeMap::new() }
    }

    fn step(active: &ActiveRow, state: Option<&JobState>, minutes: u64) -> SweepStep {
        sweep_step(active, state, Tally::default(), BEGIN + Duration::from_mins(minutes))
    }

    #[test]
    fn a_job_is_revived_only_after_it_has_stood_still() {
        let state = state();
        let unseen = ActiveRow { job_id: state.job.job_id.clone(), footprint: None, seen_at: BEGIN };
        let SweepStep::Remember(seen) = step(&unseen, Some(&state), 1) else { panic!("it was never looked at") };
        assert_eq!(step(&seen, Some(&state), 15), SweepStep::Wait);
        let SweepStep::Revive(revived) = step(&seen, Some(&state), 16) else { panic!("it stood still for 15 minutes") };
        assert_eq!(step(&revived, Some(&state), 30), SweepStep::Wait);

        let mut moved = state.clone();
        moved.job.stage = 1;
        assert!(matches!(step(&seen, Some(&moved), 60), SweepStep::Remember(_)));
        moved.job.status = JobStatus::Failed;
        assert_eq!(step(&seen, Some(&moved), 60), SweepStep::Forget);
    }

    #[test]
    fn a_submission_that_never_came_to_be_is_forgotten() {
        let unseen = ActiveRow { job_id: state().job.job_id, footprint: None, seen_at: BEGIN };
        assert_eq!(step(&unseen, None, 14), SweepStep::Wait);
        assert_eq!(step(&unseen, None, 15), SweepStep::Forget);
    }
}
