//! Stage 2: what one blob holds.

use super::detection::detect_type;
use super::extension::extension_of;
use super::listing::ListedBlob;
use crate::prelude::*;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::ops::{Not, Range};

/// The first bytes, from which the type is told: enough for every signature that is looked for.
const HEAD: u64 = 8 * 1024;

/// How much of a blob is in memory at once while its checksum is computed.
const RANGE: u64 = 4 * 1024 * 1024;

/// Analyses one blob as it is now, listed or written since.
#[derive(Serialize, Deserialize)]
pub(super) struct AnalyzeBlob {
    pub(super) container_name: ContainerName,
    pub(super) checksum: bool,
    pub(super) blob: ListedBlob,
}

impl Task for AnalyzeBlob {
    const TASK_TYPE: &str = "analyze_blob";
    type Output = BlobAnalysis;

    async fn execute(self, context: &TaskContext) -> TaskResult<BlobAnalysis> {
        let listed = BlobProperties::from(self.blob);
        // A listing may hold names that cannot be asked for: that blob's finding, not the job's end.
        let name = match BlobName::parse(&listed.name) {
            Ok(name) => name,
            Err(refusal) => return Ok(BlobAnalysis::unreadable(listed, refusal.to_string())),
        };
        let source = Source { data: &*context.data, container: &self.container_name, name: &name };
        match source.analyze(&listed, self.checksum).await {
            Ok(analysis) => Ok(analysis),
            Err(StoreError::NotFound(_)) => Ok(BlobAnalysis { gone: true, ..listed.into() }),
            // An archived blob, say, or one under a key of its owner's.
            Err(refusal @ StoreError::Rejected { .. }) => {
                Ok(BlobAnalysis::unreadable(listed, TaskError::from(refusal).message))
            }
            // Among them the conflict with a write while the blob was being read: the next attempt sees the new blob.
            Err(other) => Err(other.into()),
        }
    }
}

/// What was found of one blob. Of one that is gone or unreadable, the properties are those of the listing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct BlobAnalysis {
    pub(super) name: String,
    pub(super) size: u64,
    /// As declared by whoever wrote the blob.
    pub(super) content_type: Option<String>,
    /// As its first bytes tell; none if they tell nothing.
    pub(super) detected_type: Option<String>,
    pub(super) extension: Option<String>,
    pub(super) last_modified: Time,
    pub(super) etag: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sha256: Option<String>,
    /// Deleted since it was listed.
    #[serde(default, skip_serializing_if = "Not::not")]
    pub(super) gone: bool,
    /// Why its content could not be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) unreadable: Option<String>,
}

impl From<BlobProperties> for BlobAnalysis {
    fn from(blob: BlobProperties) -> Self {
        Self {
            extension: extension_of(&blob.name),
            name: blob.name,
            size: blob.size,
            content_type: blob.content_type,
            detected_type: None,
            last_modified: blob.last_modified,
            etag: blob.etag,
            sha256: None,
            gone: false,
            unreadable: None,
        }
    }
}

impl BlobAnalysis {
    fn unreadable(blob: BlobProperties, why: String) -> Self {
        Self { unreadable: Some(why), ..blob.into() }
    }
}

/// Where one blob is read from.
struct Source<'a> {
    data: &'a dyn Blobs,
    container: &'a ContainerName,
    name: &'a BlobName,
}

impl Source<'_> {
    async fn analyze(&self, listed: &BlobProperties, checksum: bool) -> Result<BlobAnalysis, StoreError> {
        let (blob, head) = self.open(listed).await?;
        let sha256 = if checksum { Some(self.sha256(&blob, &head).await?) } else { None };
        Ok(BlobAnalysis { detected_type: detect_type(&head).map(str::to_owned), sha256, ..blob.into() })
    }

    /// The blob's present properties and its first bytes: of an unchanged blob by a single request.
    async fn open(&self, listed: &BlobProperties) -> Result<(BlobProperties, Bytes), StoreError> {
        match self.read(listed, 0..HEAD).await {
            Err(StoreError::Conflict(_)) => {
                let blob = self.data.properties(self.container, self.name).await?;
                let blob = blob.ok_or_else(|| StoreError::NotFound(listed.name.clone()))?;
                let head = self.read(&blob, 0..HEAD).await?;
                Ok((blob, head))
            }
            head => Ok((listed.clone(), head?)),
        }
    }

    /// Hashes the blob, whose beginning has been read, without ever holding more than one range of it.
    async fn sha256(&self, blob: &BlobProperties, head: &Bytes) -> Result<String, StoreError> {
        let mut hash = Sha256::new_with_prefix(head);
        let mut position = head.len() as u64;
        while position < blob.size {
            let range = self.read(blob, position..position + RANGE).await?;
            if range.is_empty() {
                let early = format!("it ended after {position} of {} bytes", blob.size);
                return Err(StoreError::unavailable(format!("reading `{}`", blob.name), early));
            }
            hash.update(&range);
            position += range.len() as u64;
        }
        Ok(format!("{:x}", hash.finalize()))
    }

    /// Reads a range of just this version of the blob.
    async fn read(&self, blob: &BlobProperties, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.data.read(self.container, self.name, range, Some(&blob.etag)).await
    }
}
