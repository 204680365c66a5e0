//! Every crash point of small jobs, alone and in pairs, and many schedules of larger ones: a job is never lost, never
//! stuck, never counted twice, with redelivery as the only recovery.

mod faults;
mod world;

use crate::scripted::{Deed, Scripted};
use coremachine::machine::JobReport;
use coremachine::model::JobStatus;
use coremachine::ports::{Environment as _, Time};
use coremachine::store::VirtualEnvironment;
use faults::{Fault, Plan};
use serde_json::{Value, json};
use std::sync::Arc;
use world::{Conduct, Recovery, run};

/// A job and the one way it may end.
struct Case {
    name: &'static str,
    job: Scripted,
    status: JobStatus,
    result: Value,
    failed: u64,
}

fn case(name: &'static str, stages: Vec<Vec<Deed>>, result: Value) -> Case {
    let job = Scripted { name: name.to_owned(), stages, batch_size: 2, ..Scripted::default() };
    Case { name, job, status: JobStatus::Completed, result, failed: 0 }
}

fn cases() -> Vec<Case> {
    let failing = case("a task fails", vec![vec![Deed::Give(1), Deed::GiveUp, Deed::Give(3)]], Value::Null);
    let tolerated = vec![vec![Deed::Give(1), Deed::GiveUp, Deed::Give(3)], vec![Deed::Give(4)]];
    let tolerated = case("a failure is tolerated", tolerated, json!([[1, 3], [4]]));
    vec![
        case("one stage", vec![vec![Deed::Give(1), Deed::Give(2), Deed::Give(3)]], json!([[1, 2, 3]])),
        case("two stages", vec![vec![Deed::Give(1)], vec![Deed::Give(2), Deed::Give(3)]], json!([[1], [2, 3]])),
        case("no tasks", vec![vec![], vec![Deed::Give(1)], vec![]], json!([[], [1], []])),
        case("a task is retried", vec![vec![Deed::SucceedAt(2), Deed::Give(5)]], json!([[2, 5]])),
        Case { status: JobStatus::Failed, failed: 1, ..failing },
        Case {
            job: Scripted { tolerated: 1, ..tolerated.job.clone() },
            status: JobStatus::CompletedWithErrors,
            failed: 1,
            ..tolerated
        },
        case("payloads in blobs", vec![vec![Deed::Bulk(70_000)]], json!([["x".repeat(70_000)]])),
    ]
}

impl Case {
    /// A roll call of two levels: more batches than a node has children.
    fn of_two_levels(batches: u64) -> Self {
        let deeds: Vec<_> = (0..batches).map(Deed::Give).collect();
        let case = case("two levels", vec![deeds], json!([(0..batches).collect::<Vec<_>>()]));
        Self { job: Scripted { batch_size: 1, ..case.job.clone() }, ..case }
    }

    fn judge(&self, report: &JobReport, circumstances: &str) {
        assert_eq!(report.job.status, self.status, "{}, {circumstances}: {:?}", self.name, report.job.error);
        assert_eq!(report.result, self.result, "{}, {circumstances}", self.name);
        let failed: u64 = report.stages.iter().map(|stage| stage.row.failed).sum();
        let counted: u64 = report.stages.iter().map(|stage| stage.row.completed + stage.row.failed).sum();
        let planned: u64 = report.stages.iter().map(|stage| stage.row.tasks).sum();
        assert_eq!(failed, self.failed, "{}, {circumstances}", self.name);
        // A job that fails does so at once, whatever of its tasks is still to come.
        assert!(counted == planned || self.status == JobStatus::Failed, "{}, {circumstances}: {counted}", self.name);
    }
}

fn nothing_goes_wrong() -> Plan {
    Arc::new(|_| None)
}

fn at(points: Vec<(u64, Fault)>) -> Plan {
    Arc::new(move |operation| points.iter().find(|(point, _)| *point == operation).map(|(_, fault)| *fault))
}

#[tokio::test(start_paused = true)]
async fn every_crash_point_alone() {
    let mut tried = 0;
    for case in cases() {
        for twins in [0, 1] {
            let undisturbed = run(&case.job, Conduct { twins, ..Conduct::in_order(nothing_goes_wrong()) }).await;
            case.judge(&undisturbed.report, "undisturbed");
            for point in 0..undisturbed.operations {
                for fault in Fault::ALL {
                    let conduct = Conduct { twins, ..Conduct::in_order(at(vec![(point, fault)])) };
                    let ended = run(&case.job, conduct).await;
                    case.judge(&ended.report, &format!("{fault:?} at operation {point}, twins {twins}"));
                    tried += 1;
                }
            }
        }
    }
    println!("{tried} crash points tried: 0 lost, 0 stuck, 0 counted twice");
}

#[tokio::test(start_paused = true)]
async fn every_crash_point_with_the_sweep_as_the_only_recovery() {
    let mut tried = 0;
    for case in cases().into_iter().chain([Case::of_two_levels(66)]) {
        let width = if case.job.batch_size == 1 { 8 } else { 1 };
        let undisturbed = run(&case.job, Conduct { width, ..Conduct::in_order(nothing_goes_wrong()) }).await;
        for point in 0..undisturbed.operations {
            for fault in [Fault::KillBefore, Fault::KillAfter] {
                let plan = at(vec![(point, fault)]);
                let conduct = Conduct { width, recovery: Recovery::SweepAlone, ..Conduct::in_order(plan) };
                let ended = run(&case.job, conduct).await;
                case.judge(&ended.report, &format!("{fault:?} at operation {point}"));
                tried += 1;
            }
        }
    }
    println!("{tried} crash points tried: 0 lost, 0 stuck, 0 counted twice");
}

#[tokio::test(start_paused = true)]
async fn every_crash_point_of_a_job_that_is_retried() {
    let deeds = vec![vec![Deed::Give(1)], vec![Deed::Give(2), Deed::Give(3), Deed::SucceedInRun(2)]];
    let case = case("retried", deeds, json!([[1], [2, 3, 2]]));
    let retried = |plan| Conduct { retries: 1, ..Conduct::in_order(plan) };
    let operations = run(&case.job, retried(nothing_goes_wrong())).await.operations;
    for point in 0..operations {
        for fault in Fault::ALL {
            let ended = run(&case.job, retried(at(vec![(point, fault)]))).await;
            case.judge(&ended.report, &format!("{fault:?} at operation {point}"));
            assert_eq!(ended.report.job.run, 2, "{fault:?} at operation {point}");
        }
    }
    println!("{} crash points tried: 0 lost, 0 stuck, 0 counted twice", operations * 4);
}

#[tokio::test(start_paused = true)]
async fn every_crash_point_of_a_job_that_is_cancelled() {
    let deeds = vec![vec![Deed::Give(1), Deed::Give(2), Deed::Give(3)], vec![Deed::Give(4)]];
    let cancelled = Case { status: JobStatus::Cancelled, ..case("cancelled", deeds, Value::Null) };
    let mut tried = 0;
    for after in 1..5 {
        let conduct = |plan| Conduct { cancelled_after: Some(after), ..Conduct::in_order(plan) };
        let operations = run(&cancelled.job, conduct(nothing_goes_wrong())).await.operations;
        for point in 0..operations {
            for fault in Fault::ALL {
                let report = run(&cancelled.job, conduct(at(vec![(point, fault)]))).await.report;
                assert_eq!(report.job.status, JobStatus::Cancelled, "{fault:?} at {point}, cancelled after {after}");
                assert_eq!(report.result, Value::Null);
                tried += 1;
            }
        }
        // What was cancelled can be taken up again, with the result that it would have had.
        let again = run(&cancelled.job, Conduct { retries: 1, ..conduct(nothing_goes_wrong()) }).await.report;
        assert_eq!((again.job.status, again.result), (JobStatus::Completed, json!([[1, 2, 3], [4]])));
    }
    println!("{tried} crash points tried: 0 lost, 0 stuck, 0 counted twice");
}

#[tokio::test(start_paused = true)]
async fn many_schedules_with_the_sweep_as_the_only_recovery() {
    let cases: Vec<_> = cases().into_iter().chain([Case::of_two_levels(70)]).collect();
    for seed in seeds().take(100) {
        let case = &cases[usize::try_from(seed).expect("a seed") % cases.len()];
        let ended = run(&case.job, Conduct { recovery: Recovery::SweepAlone, ..seeded(seed) }).await;
        case.judge(&ended.report, &format!("seed {seed}"));
    }
}

#[tokio::test(start_paused = true)]
async fn every_crash_point_of_a_roll_call_of_two_levels() {
    let case = Case::of_two_levels(66);
    let operations = run(&case.job, Conduct::in_order(nothing_goes_wrong())).await.operations;
    // Kills take the process's memory with them; the other two faults are tried on the smaller jobs.
    for point in 0..operations {
        for fault in [Fault::KillBefore, Fault::KillAfter] {
            let ended = run(&case.job, Conduct { width: 8, ..Conduct::in_order(at(vec![(point, fault)])) }).await;
            case.judge(&ended.report, &format!("{fault:?} at operation {point}"));
        }
    }
    println!("{} crash points tried: 0 lost, 0 stuck, 0 counted twice", operations * 2);
}

#[tokio::test(start_paused = true)]
async fn every_pair_of_crash_points_of_the_smallest_job() {
    let case = case("pairs", vec![vec![Deed::Give(1)]], json!([[1]]));
    let operations = run(&case.job, Conduct::in_order(nothing_goes_wrong())).await.operations;
    let mut tried = 0;
    for first in 0..operations {
        // The second crash may fall into what the first one made necessary.
        for second in first + 1..operations + 10 {
            for one in Fault::ALL {
                for other in Fault::ALL {
                    let conduct = Conduct::in_order(at(vec![(first, one), (second, other)]));
                    let ended = run(&case.job, conduct).await;
                    case.judge(&ended.report, &format!("{one:?} at {first}, {other:?} at {second}"));
                    tried += 1;
                }
            }
        }
    }
    println!("{tried} pairs of crash points tried: 0 lost, 0 stuck, 0 counted twice");
}

/// How many schedules are tried; `COREMACHINE_SEEDS` asks for more, `COREMACHINE_SEED` for one.
fn seeds() -> std::ops::Range<u64> {
    let setting = |name| std::env::var(name).ok().map(|value: String| value.parse().expect("a number"));
    match setting("COREMACHINE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..setting("COREMACHINE_SEEDS").unwrap_or(300),
    }
}

/// Storage errors at up to 10 %, and kills at up to 0.5 % of the operations: with 16 deliveries in flight every kill takes
/// all of them, and a message that is killed too often would end in the poison queue, as it should.
fn seeded(seed: u64) -> Conduct {
    let chance = VirtualEnvironment::new(Time::from_unix_millis(0), seed);
    let (errors, kills) = (chance.random() % 101, chance.random() % 6);
    let width = u32::try_from(chance.random() % 16).expect("small") + 1;
    let plan: Plan = Arc::new(move |_| {
        let (drawn, which) = (chance.random() % 1000, chance.random() % 2);
        match (drawn < kills, drawn < kills + errors, which) {
            (true, _, 0) => Some(Fault::KillBefore),
            (true, _, _) => Some(Fault::KillAfter),
            (false, true, 0) => Some(Fault::LoseAnswer),
            (false, true, _) => Some(Fault::Refuse),
            (false, false, _) => None,
        }
    });
    Conduct { seed, width, twins: seed % 5, interleaved: true, ..Conduct::in_order(plan) }
}

#[tokio::test(start_paused = true)]
async fn many_schedules_with_twins_faults_and_interleaving() {
    let cases: Vec<_> = cases().into_iter().chain([Case::of_two_levels(70)]).collect();
    let mut operations = 0;
    for seed in seeds() {
        let case = &cases[usize::try_from(seed).expect("a seed") % cases.len()];
        let ended = run(&case.job, seeded(seed)).await;
        case.judge(&ended.report, &format!("seed {seed}"));
        operations += ended.operations;
    }
    println!("{} schedules, {operations} operations: 0 lost, 0 stuck, 0 counted twice", seeds().count());
}

#[tokio::test(start_paused = true)]
async fn a_seed_replays_exactly() {
    let case = Case::of_two_levels(70);
    let mut ends = Vec::new();
    for _ in 0..2 {
        let ended = run(&case.job, seeded(6)).await;
        ends.push((ended.operations, format!("{:?}", ended.report)));
    }
    assert_eq!(ends[0], ends[1]);
}
