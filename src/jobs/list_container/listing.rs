//! Stage 1: which blobs there are.

use super::ListContainer;
use super::extension::Extension;
use crate::prelude::*;

/// Lists the blobs that the job asks for. Its parameters are the job's.
#[derive(Serialize, Deserialize)]
pub(super) struct ListBlobs(pub(super) ListContainer);

impl Task for ListBlobs {
    const TASK_TYPE: &str = "list_blobs";
    type Output = Listing;

    async fn execute(self, context: &TaskContext) -> TaskResult<Listing> {
        let Self(job) = self;
        let prefix = job.prefix.as_deref().unwrap_or_default();
        let mut blobs = Vec::new();
        let mut after = None;
        loop {
            let page = context
                .data
                .list(&job.container_name, prefix, after.as_deref())
                .await
                .map_err(|error| listing_failed(&job, error))?;
            for blob in page.blobs.into_iter().filter(|blob| job.selects(blob)) {
                if blobs.len() as u64 == job.limit {
                    return Err(too_many(&job));
                }
                blobs.push(ListedBlob::from(blob));
            }
            after = page.next;
            if after.is_none() {
                return Ok(Listing { blob_count: blobs.len(), blobs });
            }
        }
    }
}

/// The blobs found, in the store's order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Listing {
    pub(super) blob_count: usize,
    pub(super) blobs: Vec<ListedBlob>,
}

/// Name, size, content type, time of the last write in Unix milliseconds, and `ETag`: an array rather than an object,
/// for a listing is one payload and may hold a million of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ListedBlob(String, u64, Option<String>, i64, String);

impl From<BlobProperties> for ListedBlob {
    fn from(blob: BlobProperties) -> Self {
        Self(blob.name, blob.size, blob.content_type, blob.last_modified.unix_millis(), blob.etag)
    }
}

impl From<ListedBlob> for BlobProperties {
    fn from(ListedBlob(name, size, content_type, last_modified, etag): ListedBlob) -> Self {
        Self { name, size, content_type, last_modified: Time::from_unix_millis(last_modified), etag }
    }
}

impl ListContainer {
    /// Whether a blob passes the filters; the prefix is the store's part.
    fn selects(&self, blob: &BlobProperties) -> bool {
        self.min_size.is_none_or(|min| blob.size >= min)
            && self.max_size.is_none_or(|max| blob.size <= max)
            && self.extensions.as_ref().is_none_or(|extensions| Extension::any_ends(extensions, &blob.name))
    }
}

fn listing_failed(job: &ListContainer, error: StoreError) -> TaskError {
    match error {
        StoreError::NotFound(_) => TaskError::permanent(
            "container_not_found",
            format!("container `{}` was there when the job was submitted and is no longer", job.container_name),
        ),
        other => other.into(),
    }
}

fn too_many(job: &ListContainer) -> TaskError {
    TaskError::permanent(
        "too_many_blobs",
        format!(
            "more than {} blobs of `{}` match; raise `limit` (at most 1000000), or ask for fewer by `prefix`, `extensions`, `min_size` or `max_size`",
            job.limit, job.container_name
        ),
    )
}
