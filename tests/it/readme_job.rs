//! `word_count`: counts the words of every text in a container.

use coremachine::prelude::*;

register_job!(WordCount, tasks: [ListTexts, CountWords]);

/// Counts the words of every text in a container.
#[derive(Serialize, Deserialize, JsonSchema)]
struct WordCount {
    /// Where the texts are.
    container_name: ContainerName,
}

impl Job for WordCount {
    const JOB_TYPE: &str = "word_count";

    fn create_stage_tasks(&self, stage: u32, context: &JobContext) -> Result<StageTasks<'_, Self>> {
        let container = self.container_name.clone();
        if stage == 1 {
            return Ok(StageTasks::one(ListTexts { container }));
        }
        let names: Vec<BlobName> = context.stage_result(1)?;
        Ok(StageTasks::each(names.into_iter().map(move |name| CountWords { container: container.clone(), name })))
    }

    fn aggregate_stage_results(&self, stage: u32, results: StageResults<'_, Self>) -> Result<Value> {
        match stage {
            1 => Ok(json!(results.output::<ListTexts>()?)),
            _ => Ok(json!(results.outputs::<CountWords>().sum::<Result<usize>>()?)),
        }
    }

    fn should_advance_stage(&self, stage: u32, _context: &JobContext) -> Result<bool> {
        Ok(stage < 2)
    }

    fn get_final_result(&self, context: &JobContext) -> Result<Value> {
        Ok(json!({ "texts": context.stage_results[1], "words": context.stage_results[2] }))
    }
}

/// Stage 1, one task: which texts there are.
#[derive(Serialize, Deserialize)]
struct ListTexts {
    container: ContainerName,
}

impl Task for ListTexts {
    const TASK_TYPE: &str = "list_texts";
    type Output = Vec<BlobName>;

    async fn execute(self, context: &TaskContext) -> TaskResult<Vec<BlobName>> {
        let (mut names, mut after) = (Vec::new(), None);
        loop {
            let page = context.data.list(&self.container, "", after.as_deref()).await?; // an error here is retried
            for blob in page.blobs {
                names.push(BlobName::parse(&blob.name).or_fail("odd_name")?); // and here the task gives up
            }
            after = page.next;
            if after.is_none() {
                return Ok(names);
            }
        }
    }
}

/// Stage 2, one task a text: how many words it has.
#[derive(Serialize, Deserialize)]
struct CountWords {
    container: ContainerName,
    name: BlobName,
}

impl Task for CountWords {
    const TASK_TYPE: &str = "count_words";
    type Output = usize;

    async fn execute(self, context: &TaskContext) -> TaskResult<usize> {
        let bytes = context.data.read(&self.container, &self.name, 0..u64::MAX, None).await?;
        Ok(std::str::from_utf8(&bytes).or_fail("not_text")?.split_whitespace().count())
    }
}

#[tokio::test]
async fn word_count_counts_every_text() {
    let bench = coremachine::testing::Bench::new();
    let container = ContainerName::parse("texts").expect("a name");
    for (name, text) in [("a.txt", "Call me Ishmael."), ("b/c.txt", "It was the best of times")] {
        let name = BlobName::parse(name).expect("a name");
        bench.store().data.write(&container, &name, text.into(), "text/plain").await.expect("written");
    }
    let report = bench.run("word_count", json!({ "container_name": "texts" })).await;
    assert_eq!(report.result, json!({ "texts": ["a.txt", "b/c.txt"], "words": 9 }));
}
