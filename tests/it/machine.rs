//! The machine on the memory store: the protocol's steps, seen from outside.

use coremachine::model::JobStatus;
use coremachine::testing::Bench;
use serde_json::json;

#[tokio::test]
async fn hello_world_greets_and_counts() {
    for count in [1, 2, 64, 65, 2000] {
        let report = Bench::new().run("hello_world", json!({ "message": "Welcome", "count": count })).await;
        assert_eq!(report.job.status, JobStatus::Completed);
        assert_eq!(report.result, json!({ "greeting": "Welcome", "count": count }));
        assert_eq!((report.stages.len(), report.stages[0].tally.completed), (1, count));
    }
}
