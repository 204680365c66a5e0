//! `hello_world`: one stage of greetings.

use crate::prelude::*;

register_job!(HelloWorld, tasks: [Greet]);

/// Greets, once or many times.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default)]
struct HelloWorld {
    /// What the greeting says.
    #[schemars(length(min = 1, max = 1000))]
    message: String,
    /// How many tasks greet.
    #[schemars(range(min = 1, max = 1_000_000))]
    count: u64,
}

impl Default for HelloWorld {
    fn default() -> Self {
        Self { message: "Hello".to_owned(), count: 1 }
    }
}

impl Job for HelloWorld {
    const JOB_TYPE: &str = "hello_world";

    fn create_stage_tasks(&self, _: u32, _: &JobContext) -> Result<StageTasks<'_, Self>> {
        Ok(StageTasks::each((0..self.count).map(|index| Greet { greeting: self.message.clone(), index })))
    }

    fn aggregate_stage_results(&self, _: u32, results: StageResults<'_, Self>) -> Result<Value> {
        Ok(json!({ "greeting": self.message, "count": results.outputs::<Greet>().count() }))
    }

    fn should_advance_stage(&self, _: u32, _: &JobContext) -> Result<bool> {
        Ok(false)
    }

    fn get_final_result(&self, context: &JobContext) -> Result<Value> {
        Ok(context.stage_results[1].clone())
    }

    fn stage_policy(&self, _: u32) -> StagePolicy {
        StagePolicy { batch_size: 32, ..StagePolicy::default() }
    }
}

/// Says the greeting back.
#[derive(Serialize, Deserialize)]
struct Greet {
    greeting: String,
    index: u64,
}

impl Task for Greet {
    const TASK_TYPE: &str = "greet";
    type Output = Self;

    async fn execute(self, _: &TaskContext) -> TaskResult<Self> {
        Ok(self)
    }
}
