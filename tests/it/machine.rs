//! The machine on the memory store: the protocol's steps, seen from outside.

use crate::scripted::{Deed, Scripted, executions};
use coremachine::contract::registry::Registry;
use coremachine::machine::{ChangeError, CoreMachine, Delivery, JobReport, SubmitError};
use coremachine::model::{JobStatus, StageMessage, Tally, TaskMessage};
use coremachine::ports::{BlobName, Queue, Table, TablesExt};
use coremachine::prelude::ContainerName;
use coremachine::store::VirtualEnvironment;
use coremachine::testing::Bench;
use serde_json::{Value, json};
use std::time::Duration;

async fn run(job: &Scripted) -> JobReport {
    Bench::new().run("scripted", json!(job)).await
}

fn stages(stages: Vec<Vec<Deed>>) -> Scripted {
    Scripted { stages, batch_size: 1, ..Scripted::default() }
}

#[tokio::test]
async fn hello_world_greets_and_counts() {
    for count in [1, 2, 64, 65, 5000] {
        let report = Bench::new().run("hello_world", json!({ "message": "Welcome", "count": count })).await;
        assert_eq!(report.job.status, JobStatus::Completed);
        assert_eq!(report.result, json!({ "greeting": "Welcome", "count": count }));
        assert_eq!((report.stages.len(), report.stages[0].tally.completed), (1, count));
    }
}

#[tokio::test]
async fn a_roll_call_of_three_levels_counts_every_task_once() {
    let deeds: Vec<_> = (0..4100).map(Deed::Give).collect();
    let report = run(&stages(vec![deeds])).await;
    assert_eq!(report.stages[0].row.batches, 4100);
    assert_eq!(report.result, json!([(0..4100).collect::<Vec<_>>()]));
}

#[tokio::test]
async fn stages_follow_each_other_and_results_keep_their_order() {
    for batch_size in [1, 2, 7] {
        let job = Scripted {
            batch_size,
            ..stages(vec![vec![Deed::Give(1), Deed::Give(2), Deed::Give(3)], vec![], vec![Deed::Give(4)]])
        };
        let report = run(&job).await;
        assert_eq!(report.job.status, JobStatus::Completed, "{:?}", report.job.error);
        assert_eq!(report.result, json!([[1, 2, 3], [], [4]]));
        assert_eq!(report.stages.len(), 3);
    }
}

#[tokio::test]
async fn an_error_is_retried_with_backoff_and_what_succeeded_is_kept() {
    let bench = Bench::new();
    let before = bench.now();
    let job =
        Scripted { batch_size: 3, ..stages(vec![vec![Deed::SucceedAt(1), Deed::SucceedAt(3), Deed::SucceedAt(2)]]) };
    let report = bench.run("scripted", json!(job)).await;
    assert_eq!(report.result, json!([[1, 3, 2]]));
    let waited = bench.now().since(before);
    assert!(waited > Duration::ZERO && waited <= Duration::from_secs(5 + 10), "waited {waited:?}");
}

#[tokio::test]
async fn a_task_that_never_succeeds_fails_the_job_by_name() {
    for (deed, code) in [
        (Deed::SucceedAt(9), "task_error"),
        (Deed::GiveUp, "given_up"),
        (Deed::Panic, "panicked"),
        (Deed::Hang, "timed_out"),
    ] {
        let report = run(&stages(vec![vec![Deed::Give(1), deed.clone()], vec![Deed::Give(2)]])).await;
        assert_eq!(report.job.status, JobStatus::Failed);
        let error = report.job.error.expect("a failed job says why");
        assert_eq!((error.code.as_str(), error.stage, error.tasks.len()), ("tasks_failed", 1, 1), "{deed:?}");
        assert_eq!(error.tasks[0].code, code);
        assert!(error.tasks[0].task_id.ends_with("-1-1"));
        assert_eq!((report.stages.len(), report.stages[0].tally.failed), (1, 1));
    }
}

#[tokio::test]
async fn a_fault_in_a_method_of_the_job_fails_the_job_and_nothing_else() {
    for method in ["plan", "aggregate", "advance", "result"] {
        for (fault, code) in [(method.to_owned(), "scripted"), (format!("{method}!"), "panicked")] {
            let report = run(&Scripted { fault: fault.clone(), ..stages(vec![vec![Deed::Give(1)]]) }).await;
            assert_eq!(report.job.status, JobStatus::Failed, "{fault}");
            assert_eq!(report.job.error.expect("a failed job says why").code, code, "{fault}");
        }
    }
}

#[tokio::test]
async fn a_job_that_always_advances_ends_with_words() {
    let report = run(&Scripted { fault: "endless".to_owned(), ..stages(vec![]) }).await;
    assert_eq!(report.job.error.expect("it ends").code, "too_many_stages");
}

#[tokio::test]
async fn what_outgrows_its_row_comes_back_from_a_blob() {
    let bench = Bench::new();
    let job = Scripted { name: "n".repeat(200_000), ..stages(vec![vec![Deed::Bulk(300_000), Deed::Give(1)]]) };
    let report = bench.run("scripted", json!(job)).await;
    assert_eq!(report.parameters["name"].as_str().map(str::len), Some(200_000));
    assert_eq!(report.result[0][0].as_str().map(str::len), Some(300_000));
    let payloads = ContainerName::parse("coremachine-payloads").expect("a name");
    let kept = bench.store().payloads.list(&payloads, report.job.job_id.as_str(), None).await.expect("listing");
    assert!(kept.blobs.len() >= 4, "parameters, results, aggregate and result: {kept:?}");
}

#[tokio::test]
async fn small_values_never_go_to_blobs_but_attachments_do() {
    let bench = Bench::new();
    let report = bench.run("scripted", json!(stages(vec![vec![Deed::Give(1)]]))).await;
    let payloads = ContainerName::parse("coremachine-payloads").expect("a name");
    let kept = bench.store().payloads.list(&payloads, "", None).await.expect("listing").blobs;
    let note = &report.stages[0].result["note"];
    assert_eq!(
        kept.iter().map(|blob| blob.name.as_str()).collect::<Vec<_>>(),
        [note["name"].as_str().expect("a name")]
    );
    let name = BlobName::parse(&kept[0].name).expect("a name");
    let body = bench.store().payloads.read(&payloads, &name, 0..100, None).await.expect("reading");
    assert_eq!((body.as_ref(), &note["size"]), (b"stage 1".as_slice(), &json!(7)));
}

#[tokio::test]
async fn a_plan_is_stored_once_though_the_author_changes_his_mind() {
    let bench = Bench::new();
    let job = Scripted { restless: true, ..stages(vec![(0..100).map(|_| Deed::Give(0)).collect()]) };
    let submitted = bench.submit("scripted", json!(job)).await.expect("accepted");
    let open = StageMessage { job_id: submitted.job.job_id.clone(), run: 1, stage: 1, handed_on: false }.to_bytes();
    let machine = bench.machine();
    let twins =
        tokio::join!(machine.advance_stage(&open, Delivery::First), machine.advance_stage(&open, Delivery::Repeated));
    assert!(twins.0.is_ok() && twins.1.is_ok());
    bench.settle().await;
    let report = bench.report(&submitted.job.job_id).await;
    let outputs = report.result[0].as_array().expect("outputs").clone();
    assert_eq!(outputs.len(), 100);
    assert!(outputs.iter().all(|output| *output == outputs[0]), "one plan, not a mixture: {outputs:?}");
}

#[tokio::test]
async fn late_and_forged_messages_change_nothing() {
    let bench = Bench::new();
    let report = bench.run("scripted", json!(stages(vec![vec![Deed::Give(1)], vec![Deed::Give(2)]]))).await;
    let job_id = report.job.job_id.clone();
    let running =
        bench.submit("scripted", json!(stages(vec![vec![Deed::Give(3)]]))).await.expect("accepted").job.job_id;
    // For a moment the machine trusts that a job it saw alive still is, and may repeat what is harmless to repeat.
    bench.pass(Duration::from_secs(2));
    let before = dump(&bench).await;
    for job_id in [&job_id, &running, &coremachine::contract::JobId::of_key("no", "job")] {
        for (run, stage, batch, attempt) in
            [(1, 1, 0, 1), (1, 2, 0, 1), (1, 9, 0, 1), (2, 1, 0, 1), (1, 1, u64::MAX, 1), (1, 1, 0, 2), (1, 1, 0, 0)]
        {
            let body = TaskMessage { job_id: job_id.clone(), run, stage, batch, attempt, resent: false }.to_bytes();
            for delivery in [Delivery::First, Delivery::Repeated] {
                bench.machine().process_task(&body, delivery).await.expect("dropped");
            }
        }
        for (run, stage) in [(1, 0), (1, 2), (1, 3), (1, u32::MAX), (2, 1)] {
            let body = StageMessage { job_id: job_id.clone(), run, stage, handed_on: true }.to_bytes();
            bench.machine().advance_stage(&body, Delivery::Repeated).await.expect("dropped");
        }
    }
    assert!(dump(&bench).await == before, "rows and messages are as they were");
    for body in ["", "{}", "null", "[1]", "\u{0}"] {
        assert!(bench.machine().process_task(body.as_bytes(), Delivery::First).await.is_err(), "{body}");
        assert!(bench.machine().advance_stage(body.as_bytes(), Delivery::First).await.is_err(), "{body}");
    }
}

#[tokio::test]
async fn tolerated_failures_leave_a_result_and_can_be_retried() {
    let bench = Bench::new();
    let first = vec![Deed::Give(1), Deed::SucceedInRun(2), Deed::Give(3)];
    let job = Scripted { name: "tolerated".to_owned(), tolerated: 1, ..stages(vec![first, vec![Deed::Give(4)]]) };
    let report = bench.run("scripted", json!(job)).await;
    assert_eq!((report.job.status, &report.result), (JobStatus::CompletedWithErrors, &json!([[1, 3], [4]])));
    assert_eq!((report.stages[0].tally.failed, &report.job.error), (1, &None));
    bench.machine().retry(&report.job.job_id).await.expect("retried");
    bench.settle().await;
    let report = bench.report(&report.job.job_id).await;
    assert_eq!((report.job.status, &report.result), (JobStatus::Completed, &json!([[1, 2, 3], [4]])));
    assert_eq!(executions(&report.job.job_id), [1, 2, 1, 1]);
}

#[tokio::test]
async fn a_job_fails_at_once_when_more_has_failed_than_it_bears() {
    let bench = Bench::new();
    let deeds: Vec<_> = (0..200).map(|n| if n % 10 == 3 { Deed::GiveUp } else { Deed::Give(n) }).collect();
    let job = Scripted { name: "at once".to_owned(), tolerated: 2, ..stages(vec![deeds]) };
    let job_id = bench.submit("scripted", json!(job)).await.expect("accepted").job.job_id;
    let open = StageMessage { job_id: job_id.clone(), run: 1, stage: 1, handed_on: false }.to_bytes();
    bench.machine().advance_stage(&open, Delivery::First).await.expect("opened");
    for batch in 0..24 {
        assert_eq!(bench.report(&job_id).await.job.status, JobStatus::Processing, "before batch {batch}");
        let message = TaskMessage { job_id: job_id.clone(), run: 1, stage: 1, batch, attempt: 1, resent: false };
        bench.machine().process_task(&message.to_bytes(), Delivery::First).await.expect("processed");
    }
    let report = bench.report(&job_id).await;
    let error = report.job.error.expect("a failed job says why");
    assert_eq!((report.job.status, error.tasks.len(), report.stages[0].tally.failed), (JobStatus::Failed, 3, 3));
    assert!(error.message.starts_with("3 of 200 tasks of stage 1 failed"), "{}", error.message);
}

#[tokio::test]
async fn a_cancelled_job_starts_no_further_task_and_stays_cancelled() {
    let bench = Bench::new();
    let job =
        Scripted { name: "cancel".to_owned(), ..stages(vec![(0..10).map(Deed::Give).collect(), vec![Deed::Give(1)]]) };
    let job_id = bench.submit("scripted", json!(job)).await.expect("accepted").job.job_id;
    let open = StageMessage { job_id: job_id.clone(), run: 1, stage: 1, handed_on: false }.to_bytes();
    bench.machine().advance_stage(&open, Delivery::First).await.expect("opened");
    for batch in 0..3 {
        let message = TaskMessage { job_id: job_id.clone(), run: 1, stage: 1, batch, attempt: 1, resent: false };
        bench.machine().process_task(&message.to_bytes(), Delivery::First).await.expect("processed");
    }
    bench.machine().cancel(&job_id).await.expect("cancelled");
    bench.pass(Duration::from_secs(2));
    bench.settle().await;
    let report = bench.report(&job_id).await;
    assert_eq!((report.job.status, report.stages.len()), (JobStatus::Cancelled, 1));
    assert_eq!((report.stages[0].tally.completed, executions(&job_id)), (3, vec![1, 1, 1]));
    let again = bench.machine().cancel(&job_id).await;
    assert!(matches!(again, Err(ChangeError::NotAllowed(JobStatus::Cancelled))), "{again:?}");
}

#[tokio::test]
async fn a_retry_keeps_every_completed_task_and_runs_the_others_again() {
    // The job fails at once, with as many failures as the first failing batch has.
    for (batch_size, failures) in [(1, 1), (2, 1), (5, 2)] {
        let bench = Bench::new();
        let second = vec![Deed::Give(1), Deed::SucceedAtExecution(3), Deed::Give(3), Deed::SucceedAtExecution(2)];
        let job = stages(vec![vec![Deed::Give(0)], second, vec![Deed::Give(9)]]);
        let job = Scripted { name: format!("retry {batch_size}"), batch_size, ..job };
        let failed = bench.run("scripted", json!(job)).await;
        let job_id = failed.job.job_id.clone();
        assert_eq!((failed.job.status, failed.stages[1].tally.failed), (JobStatus::Failed, failures));

        bench.machine().retry(&job_id).await.expect("retried");
        bench.settle().await;
        let again = bench.report(&job_id).await;
        assert_eq!((again.job.status, again.job.run, again.stages[1].tally.failed), (JobStatus::Failed, 2, 1));

        bench.machine().retry(&job_id).await.expect("retried");
        bench.settle().await;
        let report = bench.report(&job_id).await;
        assert_eq!((report.job.status, report.job.run), (JobStatus::Completed, 3), "{:?}", report.job.error);
        assert_eq!(report.result, json!([[0], [1, 3, 3, 2], [9]]));
        assert_eq!(executions(&job_id), [1, 1, 3, 1, 2, 1]);
        let refused = bench.machine().retry(&job_id).await;
        assert!(matches!(refused, Err(ChangeError::NotAllowed(JobStatus::Completed))), "{refused:?}");
    }
}

#[tokio::test]
async fn a_retry_of_a_cancelled_job_goes_on_where_it_was() {
    let bench = Bench::new();
    let deeds = vec![Deed::SucceedAt(2), Deed::Give(1), Deed::Give(2)];
    let job = Scripted { name: "go on".to_owned(), batch_size: 2, ..stages(vec![deeds]) };
    let job_id = bench.submit("scripted", json!(job)).await.expect("accepted").job.job_id;
    bench.machine().cancel(&job_id).await.expect("cancelled before it began");
    bench.machine().retry(&job_id).await.expect("retried");
    let open = StageMessage { job_id: job_id.clone(), run: 2, stage: 1, handed_on: false }.to_bytes();
    bench.machine().advance_stage(&open, Delivery::First).await.expect("opened");
    // One task of the first batch has succeeded and the other waits for its second attempt.
    let first =
        TaskMessage { job_id: job_id.clone(), run: 2, stage: 1, batch: 0, attempt: 1, resent: false }.to_bytes();
    bench.machine().process_task(&first, Delivery::First).await.expect("processed");
    bench.machine().cancel(&job_id).await.expect("cancelled");
    bench.pass(Duration::from_secs(2));
    bench.settle().await;
    bench.machine().retry(&job_id).await.expect("retried");
    bench.settle().await;
    let report = bench.report(&job_id).await;
    assert_eq!((report.job.status, report.job.run, &report.result), (JobStatus::Completed, 3, &json!([[2, 1, 2]])));
    assert_eq!(executions(&job_id), [3, 1, 1]);
}

#[tokio::test]
async fn a_deleted_job_leaves_nothing_and_can_be_submitted_anew() {
    let bench = Bench::new();
    let deeds = vec![Deed::Bulk(100_000), Deed::SucceedAtExecution(2), Deed::SucceedAt(2)];
    let job = json!(Scripted { name: "delete".to_owned(), ..stages(vec![deeds]) });
    let job_id = bench.submit("scripted", job.clone()).await.expect("accepted").job.job_id;
    let early = bench.machine().delete(&job_id).await;
    assert!(matches!(early, Err(ChangeError::NotAllowed(JobStatus::Queued))), "{early:?}");
    bench.settle().await;
    bench.machine().retry(&job_id).await.expect("retried");
    bench.settle().await;
    assert_eq!(bench.report(&job_id).await.job.status, JobStatus::Completed);
    bench.machine().delete(&job_id).await.expect("deleted");
    assert!(bench.machine().status(&job_id).await.expect("read").is_none());
    let payloads = ContainerName::parse("coremachine-payloads").expect("a name");
    assert!(bench.store().payloads.list(&payloads, "", None).await.expect("listing").blobs.is_empty());
    for (table, partition) in bench.partitions() {
        assert!(table == Table::Index && partition == "app", "{table:?} still has `{partition}`");
    }
    assert!(matches!(bench.machine().delete(&job_id).await, Err(ChangeError::NotFound(_))));
    let anew = bench.submit("scripted", job).await.expect("accepted");
    assert_eq!((anew.deduplicated, anew.job.run), (false, 1));
}

#[tokio::test]
async fn a_batch_that_is_given_up_has_failed_with_its_evidence_kept() {
    let bench = Bench::new();
    let job = stages(vec![vec![Deed::Give(1), Deed::Give(2)]]);
    let job_id = bench.submit("scripted", json!(job)).await.expect("accepted").job.job_id;
    let open = StageMessage { job_id: job_id.clone(), run: 1, stage: 1, handed_on: false }.to_bytes();
    bench.machine().advance_stage(&open, Delivery::First).await.expect("opened");
    let given_up = TaskMessage { job_id: job_id.clone(), run: 1, stage: 1, batch: 1, attempt: 1, resent: false };
    for _ in 0..2 {
        bench.machine().give_up_task(&given_up.to_bytes()).await.expect("given up");
    }
    bench.settle().await;
    let report = bench.report(&job_id).await;
    let error = report.job.error.expect("a failed job says why");
    assert_eq!((report.job.status, report.stages[0].tally), (JobStatus::Failed, Tally { completed: 0, failed: 1 }));
    assert_eq!((error.tasks.len(), error.tasks[0].code.as_str()), (1, "given_up"));
    let evidence = bench.store().tables.query_all(query(Table::Index, "poison")).await.expect("the evidence");
    assert_eq!(evidence.len(), 1);
    assert!(error.tasks[0].message.contains(&evidence[0].key), "{}", error.tasks[0].message);
    assert_eq!(evidence[0].document["body"], String::from_utf8_lossy(&given_up.to_bytes()).as_ref());
}

#[tokio::test]
async fn a_batch_that_is_given_up_after_its_end_changes_nothing() {
    let bench = Bench::new();
    let report = bench.run("scripted", json!(stages(vec![vec![Deed::Give(1)]]))).await;
    let late = TaskMessage { job_id: report.job.job_id.clone(), run: 1, stage: 1, batch: 0, attempt: 1, resent: false };
    bench.machine().give_up_task(&late.to_bytes()).await.expect("given up");
    bench.settle().await;
    assert_eq!(bench.report(&report.job.job_id).await.job, report.job);
}

#[tokio::test]
async fn a_stage_that_is_given_up_is_tried_once_more_and_then_fails_its_job() {
    let bench = Bench::new();
    let submit = async |name: &str| {
        let job = Scripted { name: name.to_owned(), ..stages(vec![vec![Deed::Give(1)]]) };
        let job_id = bench.submit("scripted", json!(job)).await.expect("accepted").job.job_id;
        (job_id.clone(), StageMessage { job_id, run: 1, stage: 1, handed_on: false }.to_bytes())
    };
    let (healed, message) = submit("healed").await;
    bench.machine().give_up_stage(&message).await.expect("given up");
    bench.settle().await;
    assert_eq!(bench.report(&healed).await.job.status, JobStatus::Completed);

    // A version of the app that lacks the job type can do nothing for the job.
    let (lost, message) = submit("lost").await;
    let registry = std::sync::Arc::new(Registry::of([]).expect("an empty registry"));
    let environment = std::sync::Arc::new(VirtualEnvironment::new(bench.now(), 0));
    let machine = CoreMachine::new(registry, bench.store(), environment);
    assert!(machine.advance_stage(&message, Delivery::First).await.is_err());
    machine.give_up_stage(&message).await.expect("given up");
    let error = bench.report(&lost).await.job.error.expect("a failed job says why");
    assert_eq!(error.code, "given_up");
    assert!(error.message.contains("job type `scripted` is not registered"), "{}", error.message);
}

#[tokio::test]
async fn a_message_that_nobody_can_read_is_kept_and_listed() {
    let bench = Bench::new();
    for queue in [Queue::TasksPoison, Queue::StagesPoison] {
        bench.store().queues.send(queue, "not a message".into(), Duration::ZERO).await.expect("sent");
    }
    bench.settle().await;
    let evidence = bench.store().tables.query_all(query(Table::Index, "poison")).await.expect("the evidence");
    let kept: Vec<_> = evidence.iter().map(|row| (&row.document["queue"], &row.document["body"])).collect();
    assert_eq!(
        kept,
        [
            (&json!("coremachine-stages"), &json!("not a message")),
            (&json!("coremachine-tasks"), &json!("not a message"))
        ]
    );
    assert!(evidence.iter().all(|row| row.document["unreadable"].is_string()));
}

#[tokio::test]
async fn the_sweep_forgets_what_has_ended_and_leaves_what_moves() {
    let bench = Bench::new();
    let active = async || bench.store().tables.query_all(query(Table::Index, "active")).await.expect("the list").len();
    bench.run("scripted", json!(stages(vec![vec![Deed::Give(1)]]))).await;
    assert_eq!(active().await, 0);
    let queued = bench.submit("scripted", json!(stages(vec![vec![Deed::Give(2)]]))).await.expect("accepted");
    for minute in 0..15 {
        let swept = bench.machine().sweep().await.expect("swept");
        assert_eq!((swept.looked_at, swept.revived), (1, 0), "minute {minute}");
        bench.pass(Duration::from_mins(1));
    }
    assert_eq!(bench.machine().sweep().await.expect("swept").revived, 1);
    assert_eq!(bench.store().queues.length(Queue::Stages).await.expect("a length"), 2);
    bench.settle().await;
    assert_eq!((bench.report(&queued.job.job_id).await.job.status, active().await), (JobStatus::Completed, 0));
}

/// Every row of the jobs table and how many messages there are.
async fn dump(bench: &Bench) -> (Vec<Value>, u64, u64) {
    let store = bench.store();
    let mut rows = Vec::new();
    let day = store.tables.query_all(query(Table::Index, "day-2026-11-24")).await.expect("the index");
    for job in day {
        let job_id = job.document["job_id"].as_str().expect("a job id").to_owned();
        let partition = store.tables.query_all(query(Table::Jobs, &job_id)).await.expect("a job");
        rows.extend(partition.into_iter().map(|row| row.document));
    }
    let length = async |queue| store.queues.length(queue).await.expect("a length");
    (rows, length(Queue::Tasks).await, length(Queue::Stages).await)
}

fn query(table: Table, partition: &str) -> coremachine::ports::Query<'_> {
    coremachine::ports::Query::of(table, partition)
}

#[tokio::test]
async fn the_same_work_submitted_twice_is_one_job() {
    let bench = Bench::new();
    let first = bench.submit("hello_world", json!({})).await.expect("accepted");
    let second = bench.submit("hello_world", json!({ "count": 1, "message": "Hello" })).await.expect("accepted");
    assert_eq!((first.deduplicated, second.deduplicated), (false, true));
    assert_eq!(first.job.job_id, second.job.job_id);
    bench.settle().await;
    let third = bench.submit("hello_world", json!({})).await.expect("accepted");
    assert_eq!((third.job.status, third.deduplicated), (JobStatus::Completed, true));
}

#[tokio::test]
async fn every_fault_of_the_parameters_is_told_at_once() {
    let bench = Bench::new();
    let refused = bench.submit("hello_world", json!({ "message": "", "count": "many", "extra": 1 })).await;
    let Err(SubmitError::InvalidParameters(faults)) = refused else { panic!("{refused:?}") };
    let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    assert_eq!(pointers, ["/count", "/extra", "/message"]);
    assert!(
        matches!(bench.submit("nothing", json!({})).await, Err(SubmitError::UnknownJobType(name)) if name == "nothing")
    );
}
