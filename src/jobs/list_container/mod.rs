//! `list_container`: lists a container's blobs, analyses each of them in parallel, and sums up.

mod analysis;
mod detection;
mod extension;
#[cfg(test)]
mod fake;
mod listing;
mod summary;

use crate::prelude::*;
use analysis::AnalyzeBlob;
use extension::Extension;
use listing::{ListBlobs, Listing};
use std::collections::BTreeSet;
use std::time::Duration;
use summary::Summary;

register_job!(ListContainer, tasks: [ListBlobs, AnalyzeBlob]);

/// Lists a container's blobs and says of each what it holds, and of all what they come to.
///
/// All filters apply, and before `limit`. A group's `share` is its part of the total size. A blob that is deleted while
/// the job runs is a finding, `"gone": true`, counted in `gone` and in no total; so is one whose content storage does not
/// give, `"unreadable": "why"`, which counts with what the listing says of it.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListContainer {
    /// The container whose blobs are listed.
    container_name: ContainerName,

    /// Only blobs whose names start so; case matters.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    prefix: Option<String>,

    /// Only blobs whose names end with one of these, such as `.tif` or `.tar.gz`. Case makes no difference, and the
    /// leading dot may be left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Extension>>", length(min = 1, max = 100))]
    extensions: Option<BTreeSet<Extension>>,

    /// Only blobs of at least so many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    min_size: Option<u64>,

    /// Only blobs of at most so many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_size: Option<u64>,

    /// How many blobs there may be once the filters have applied. One more fails the job; none is ever left out.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = 1_000_000))]
    limit: u64,

    /// Read every blob to its end and give its SHA-256.
    #[serde(default)]
    checksum: bool,
}

fn default_limit() -> u64 {
    100_000
}

const LISTING: u32 = 1;
const ANALYSIS: u32 = 2;

impl Job for ListContainer {
    const JOB_TYPE: &str = "list_container";

    async fn check(&self, context: &SubmitContext) -> Result<Vec<ParameterFault>, StoreError> {
        let mut faults = Vec::new();
        if !context.data.container_exists(&self.container_name).await? {
            faults.push(ParameterFault::new("/container_name", no_such_container(&self.container_name)));
        }
        if let (Some(min), Some(max)) = (self.min_size, self.max_size)
            && min > max
        {
            faults.push(ParameterFault::new("/min_size", format!("must be at most `max_size` ({max}), got {min}")));
        }
        Ok(faults)
    }

    fn create_stage_tasks(&self, stage: u32, context: &JobContext) -> Result<StageTasks<'_, Self>> {
        match stage {
            LISTING => Ok(StageTasks::one(ListBlobs(self.clone()))),
            _ => Ok(StageTasks::each(self.analyses(context.stage_result(LISTING)?))),
        }
    }

    fn aggregate_stage_results(&self, stage: u32, results: StageResults<'_, Self>) -> Result<Value> {
        let aggregate = match stage {
            LISTING => serde_json::to_value(results.output::<ListBlobs>()?),
            _ => serde_json::to_value(Summary::of(results.outputs::<AnalyzeBlob>(), |all_lines| {
                results.attach("analyses.ndjson", "application/x-ndjson", all_lines)
            })?),
        };
        Ok(aggregate?)
    }

    fn should_advance_stage(&self, stage: u32, _context: &JobContext) -> Result<bool> {
        Ok(stage < ANALYSIS)
    }

    fn get_final_result(&self, context: &JobContext) -> Result<Value> {
        Ok(json!({
            "container": self.container_name,
            "blob_count": context.stage_results[LISTING]["blob_count"],
            "analysis": context.stage_results[ANALYSIS],
        }))
    }

    fn stage_policy(&self, stage: u32) -> StagePolicy {
        let patient = StagePolicy { task_timeout: Duration::from_mins(30), ..StagePolicy::default() };
        match stage {
            LISTING => patient,
            // The tasks of a batch run side by side, each with a range of its blob in memory.
            _ if self.checksum => StagePolicy { batch_size: 4, ..patient },
            // One small read each. The parameters and the results of fifty stay within a table row, long names or not.
            _ => StagePolicy { batch_size: 50, ..StagePolicy::default() },
        }
    }
}

impl ListContainer {
    fn analyses(&self, listing: Listing) -> impl Iterator<Item = AnalyzeBlob> {
        listing.blobs.into_iter().map(|blob| AnalyzeBlob {
            container_name: self.container_name.clone(),
            checksum: self.checksum,
            blob,
        })
    }
}

fn no_such_container(name: &ContainerName) -> String {
    format!("there is no container `{name}`; create it, or name one of the storage that `COREMACHINE_DATA` points to")
}

#[cfg(test)]
mod tests;
