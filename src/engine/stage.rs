use crate::contract::StagePolicy;
use crate::model::{
    JobFailure, JobRow, JobStatus, Payload, StageMessage, StageRow, StageStatus, Tally, document, keys,
};
use crate::ports::{Etag, Time, Write};
use std::collections::BTreeMap;

/// The most stages of one run. Every stage reads the aggregates of all before it, so their number must stay small; a job
/// that always advances ends here, with an error that says so.
pub const MAX_STAGES: u32 = 100;

/// A job as one read of its partition found it.
#[derive(Clone, Debug)]
pub struct JobState {
    /// The job's row.
    pub job: JobRow,
    /// Its version.
    pub etag: Etag,
    /// The stages of the present run, and from earlier runs those before it began.
    pub stages: BTreeMap<u32, Stage>,
    /// The latest of the stages that earlier runs had and this one has to come to again.
    pub earlier: BTreeMap<u32, StageRow>,
}

/// A stage's row and its version.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The row.
    pub row: StageRow,
    /// Its version.
    pub etag: Etag,
}

/// Whether this delivery of a message is known to be its first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// It was never delivered before.
    First,
    /// It was delivered before, or nobody can tell: whoever held it may have died half-way.
    Repeated,
}

/// What a message of the stage queue asks for, given where the job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StageStep {
    /// All of it was done: the message is a twin, or late.
    Done,
    /// No message of ours asks for this; it is not believed.
    Refuse,
    /// Open the first stage.
    OpenFirst,
    /// Close this stage, then open the next or end the job.
    Close(u32),
    /// Send the batches of this open stage.
    Dispatch(u32),
    /// Somebody else opened the stage and is at work sending its batches. Instead of sending them all twice, leave a
    /// message behind that looks again later.
    HandOn(StageMessage),
}

/// Decides what a message asks for.
pub fn next_step(state: &JobState, message: &StageMessage, delivery: Delivery) -> StageStep {
    let job = &state.job;
    if job.run != message.run || job.status.is_terminal() || message.stage < job.stage {
        return StageStep::Done;
    }
    if message.stage == job.stage + 1 {
        return if job.stage == 0 { StageStep::OpenFirst } else { StageStep::Close(job.stage) };
    }
    match state.stages.get(&message.stage) {
        Some(stage) if message.stage == job.stage && stage.row.dispatched => StageStep::Done,
        Some(_) if message.stage == job.stage => match delivery {
            Delivery::First if !message.handed_on => {
                StageStep::HandOn(StageMessage { handed_on: true, ..message.clone() })
            }
            Delivery::First | Delivery::Repeated => StageStep::Dispatch(message.stage),
        },
        Some(_) | None => StageStep::Refuse,
    }
}

/// A stage that has been planned.
#[derive(Clone, Debug)]
pub struct Opening {
    /// From 1.
    pub stage: u32,
    /// How its tasks are run.
    pub policy: StagePolicy,
    /// How many tasks it has.
    pub tasks: u64,
    /// Where its plan lies.
    pub plan: Payload,
}

/// A stage whose results have been aggregated.
#[derive(Clone, Debug)]
pub struct Closing {
    /// The stage.
    pub stage: u32,
    /// How its tasks ended.
    pub tally: Tally,
    /// What its results came to.
    pub aggregate: Payload,
}

/// The commit on the job's partition that opens the first stage.
pub fn open_first(state: &JobState, opening: Opening, now: Time) -> Vec<Write> {
    let job = JobRow { started_at: Some(now), ..state.job.clone() };
    vec![insert_stage(state, opening, now), replace_job(state, processing(job, 1), now)]
}

/// The commit that stores a stage's aggregate and opens the next one.
pub fn close_into_next(state: &JobState, closing: &Closing, opening: Opening, now: Time) -> Vec<Write> {
    let job = processing(state.job.clone(), opening.stage);
    let mut writes = replace_stage(state, closing.stage, |row| close(row, StageStatus::Completed, closing, now));
    writes.extend([insert_stage(state, opening, now), replace_job(state, job, now)]);
    writes
}

/// The commit that stores the last stage's aggregate and the job's result.
pub fn close_into_end(state: &JobState, closing: &Closing, result: Payload, now: Time) -> Vec<Write> {
    let status = if state.stages.values().any(|stage| stage.row.failed > 0) || closing.tally.failed > 0 {
        JobStatus::CompletedWithErrors
    } else {
        JobStatus::Completed
    };
    let job = JobRow { status, result: Some(result), ended_at: Some(now), ..state.job.clone() };
    let mut writes = replace_stage(state, closing.stage, |row| close(row, StageStatus::Completed, closing, now));
    writes.push(replace_job(state, job, now));
    writes
}

/// The commit that ends the job without a result, in the stage that is open or was to be opened.
pub fn close_into_failure(state: &JobState, failure: JobFailure, tally: Tally, now: Time) -> Vec<Write> {
    let job = JobRow { status: JobStatus::Failed, error: Some(failure), ended_at: Some(now), ..state.job.clone() };
    let mut writes = end_stage(state, StageStatus::Failed, tally, now);
    writes.push(replace_job(state, job, now));
    writes
}

/// The commit that ends the job because somebody asked; `tally` counts the ended tasks of its open stage.
pub fn cancel(state: &JobState, tally: Tally, now: Time) -> Vec<Write> {
    let job = JobRow { status: JobStatus::Cancelled, ended_at: Some(now), ..state.job.clone() };
    let mut writes = end_stage(state, StageStatus::Cancelled, tally, now);
    writes.push(replace_job(state, job, now));
    writes
}

/// The commit that begins a new run of a job that did not end well, and the message that sets it going; `None` if the job
/// has not ended, or has ended well.
///
/// The run begins at the first stage that has not succeeded as a whole, with the same plan, so that what succeeded there is
/// kept. Stages after it are planned anew, since what they are planned from may change.
pub fn retry(state: &JobState, now: Time) -> Option<(Vec<Write>, StageMessage)> {
    let stage = match state.job.status {
        JobStatus::Queued | JobStatus::Processing | JobStatus::Completed => return None,
        JobStatus::Failed | JobStatus::Cancelled => state.job.stage,
        JobStatus::CompletedWithErrors => {
            state.stages.values().find(|stage| stage.row.failed > 0).map_or(state.job.stage, |stage| stage.row.stage)
        }
    };
    let run = state.job.run + 1;
    let job =
        JobRow { run, stage, began_at: stage.max(1), result: None, error: None, ended_at: None, ..state.job.clone() };
    let Some(open) = state.stages.get(&stage) else {
        let job = JobRow { status: JobStatus::Queued, ..job };
        return Some((vec![replace_job(state, job, now)], super::submit::open_first_stage(&state.job.job_id, run)));
    };
    let row = StageRow {
        run,
        status: StageStatus::Processing,
        dispatched: false,
        completed: 0,
        failed: 0,
        aggregate: None,
        started_at: now,
        ended_at: None,
        ..open.row.clone()
    };
    let writes = vec![
        Write::Insert { key: keys::stage(run, stage), document: document(&row) },
        replace_job(state, processing(job, stage), now),
    ];
    // Nobody else is at work on a stage that is open only now.
    Some((writes, StageMessage { job_id: state.job.job_id.clone(), run, stage, handed_on: true }))
}

/// The commit that says every batch of a stage was sent once.
pub fn dispatched(state: &JobState, stage: u32) -> Vec<Write> {
    replace_stage(state, stage, |row| row.dispatched = true)
}

fn end_stage(state: &JobState, status: StageStatus, tally: Tally, now: Time) -> Vec<Write> {
    replace_stage(state, state.job.stage, |row| {
        row.status = status;
        row.completed = tally.completed;
        row.failed = tally.failed;
        row.ended_at = Some(now);
    })
}

fn processing(job: JobRow, stage: u32) -> JobRow {
    JobRow { status: JobStatus::Processing, stage, ..job }
}

fn close(row: &mut StageRow, status: StageStatus, closing: &Closing, now: Time) {
    row.status = status;
    row.completed = closing.tally.completed;
    row.failed = closing.tally.failed;
    row.aggregate = Some(closing.aggregate.clone());
    row.ended_at = Some(now);
}

fn insert_stage(state: &JobState, opening: Opening, now: Time) -> Write {
    let run = state.job.run;
    let same_plan =
        |earlier: &&StageRow| (&earlier.plan, earlier.policy.batch_size) == (&opening.plan, opening.policy.batch_size);
    let carried_from = state.earlier.get(&opening.stage).filter(same_plan).map_or(run, |earlier| earlier.carried_from);
    let row = StageRow {
        run,
        carried_from,
        stage: opening.stage,
        status: StageStatus::Processing,
        batches: super::batch_count(opening.tasks, opening.policy.batch_size),
        policy: opening.policy,
        tasks: opening.tasks,
        plan: opening.plan,
        dispatched: false,
        completed: 0,
        failed: 0,
        aggregate: None,
        started_at: now,
        ended_at: None,
    };
    Write::Insert { key: keys::stage(state.job.run, opening.stage), document: document(&row) }
}

fn replace_stage(state: &JobState, stage: u32, change: impl FnOnce(&mut StageRow)) -> Vec<Write> {
    let Some(found) = state.stages.get(&stage) else { return Vec::new() };
    let mut row = found.row.clone();
    change(&mut row);
    vec![Write::Replace { key: keys::stage(state.job.run, stage), etag: found.etag.clone(), document: document(&row) }]
}

fn replace_job(state: &JobState, job: JobRow, now: Time) -> Write {
    let job = JobRow { updated_at: now, ..job };
    Write::Replace { key: keys::JOB.to_owned(), etag: state.etag.clone(), document: document(&job) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::JobId;
    use serde_json::Value;

    const NOW: Time = Time::from_unix_millis(1_000);

    fn queued() -> JobState {
        let job_id = JobId::of_key("t", "k");
        let new = crate::engine::new_job(job_id, "t", Payload::Inline(Value::Null), String::new(), String::new(), NOW);
        JobState { job: new.job, etag: Etag("1".to_owned()), stages: BTreeMap::new(), earlier: BTreeMap::new() }
    }

    fn opening(stage: u32) -> Opening {
        Opening { stage, policy: StagePolicy::default(), tasks: 3, plan: Payload::Inline(Value::Null) }
    }

    fn after(state: &JobState, writes: &[Write]) -> JobState {
        let mut next = state.clone();
        for write in writes {
            let document = write.document().expect("no deletes here");
            if write.key() == keys::JOB {
                next.job = serde_json::from_value(document.clone()).expect("a job row");
            } else {
                let row: StageRow = serde_json::from_value(document.clone()).expect("a stage row");
                next.stages.insert(row.stage, Stage { row, etag: Etag("2".to_owned()) });
            }
        }
        next
    }

    fn step(state: &JobState, stage: u32, delivery: Delivery) -> StageStep {
        let message = StageMessage { job_id: state.job.job_id.clone(), run: 1, stage, handed_on: false };
        next_step(state, &message, delivery)
    }

    #[test]
    fn a_job_goes_from_stage_to_stage() {
        let queued = queued();
        assert_eq!(step(&queued, 1, Delivery::First), StageStep::OpenFirst);
        assert_eq!(step(&queued, 2, Delivery::First), StageStep::Refuse);

        let opened = after(&queued, &open_first(&queued, opening(1), NOW));
        assert_eq!((opened.job.status, opened.job.stage), (JobStatus::Processing, 1));
        assert_eq!(step(&opened, 1, Delivery::Repeated), StageStep::Dispatch(1));
        assert!(matches!(step(&opened, 1, Delivery::First), StageStep::HandOn(message) if message.handed_on));

        let sent = after(&opened, &dispatched(&opened, 1));
        assert_eq!(step(&sent, 1, Delivery::Repeated), StageStep::Done);
        assert_eq!(step(&sent, 2, Delivery::First), StageStep::Close(1));
        assert_eq!(step(&sent, 3, Delivery::First), StageStep::Refuse);

        let closing =
            Closing { stage: 1, tally: Tally { completed: 3, failed: 0 }, aggregate: Payload::Inline(Value::Null) };
        let next = after(&sent, &close_into_next(&sent, &closing, opening(2), NOW));
        assert_eq!((next.job.stage, next.stages[&1].row.status), (2, StageStatus::Completed));
        assert_eq!(step(&next, 1, Delivery::Repeated), StageStep::Done);

        let ended =
            after(&next, &close_into_end(&next, &Closing { stage: 2, ..closing }, Payload::Inline(Value::Null), NOW));
        assert_eq!((ended.job.status, ended.job.ended_at), (JobStatus::Completed, Some(NOW)));
        for stage in 0..4 {
            assert_eq!(step(&ended, stage, Delivery::Repeated), StageStep::Done);
        }
    }

    #[test]
    fn a_message_of_another_run_asks_for_nothing() {
        let queued = queued();
        let message = StageMessage { job_id: queued.job.job_id.clone(), run: 2, stage: 1, handed_on: false };
        assert_eq!(next_step(&queued, &message, Delivery::First), StageStep::Done);
    }

    #[test]
    fn a_failure_ends_the_job_where_it_stands() {
        let queued = queued();
        let failure = JobFailure { code: "c".to_owned(), message: "m".to_owned(), stage: 1, tasks: vec![] };
        let unopened = after(&queued, &close_into_failure(&queued, failure.clone(), Tally::default(), NOW));
        assert_eq!((unopened.job.status, unopened.stages.len()), (JobStatus::Failed, 0));

        let opened = after(&queued, &open_first(&queued, opening(1), NOW));
        let failed =
            after(&opened, &close_into_failure(&opened, failure.clone(), Tally { completed: 2, failed: 1 }, NOW));
        assert_eq!((failed.stages[&1].row.status, failed.stages[&1].row.failed), (StageStatus::Failed, 1));
        assert_eq!(failed.job.error, Some(failure));
    }
}
