//! Values that outgrow their rows.

use super::CoreMachine;
use crate::contract::{Attachment, JobId, sha256_hex};
use crate::model::{BlobRef, Payload, VALUE_SHARE, payload_container};
use crate::ports::{BlobName, StoreError};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

impl CoreMachine {
    /// Keeps a value: in the row if it fits its share, else in a blob named by its content, so that keeping it twice
    /// leaves one.
    pub(super) async fn keep<T: Serialize>(&self, job_id: &JobId, value: &T) -> Result<Payload, StoreError> {
        let value = serde_json::to_value(value).map_err(|error| StoreError::rejected("keeping a value", error))?;
        let text = value.to_string();
        if text.len() <= VALUE_SHARE {
            return Ok(Payload::Inline(value));
        }
        let name = format!("{job_id}/{}.json", sha256_hex(text.as_bytes()));
        let blob = BlobRef { container: payload_container(), name, size: text.len() as u64 };
        self.store
            .payloads
            .write(&blob.container, &blob_name(&blob.name)?, Bytes::from(text), "application/json")
            .await?;
        Ok(Payload::Blob(blob))
    }

    /// Reads a kept value back.
    pub(super) async fn recall<T: DeserializeOwned>(&self, payload: &Payload) -> Result<T, StoreError> {
        match payload {
            Payload::Inline(value) => {
                T::deserialize(value).map_err(|error| StoreError::rejected("reading a value", error))
            }
            Payload::Blob(blob) => {
                let bytes =
                    self.store.payloads.read(&blob.container, &blob_name(&blob.name)?, 0..blob.size, None).await?;
                serde_json::from_slice(&bytes)
                    .map_err(|error| StoreError::rejected(format!("reading blob `{}`", blob.name), error))
            }
        }
    }

    /// Writes the blobs to which an aggregate refers.
    pub(super) async fn write_attachments(&self, attachments: Vec<Attachment>) -> Result<(), StoreError> {
        for Attachment { name, content_type, body } in attachments {
            self.store.payloads.write(&payload_container(), &blob_name(&name)?, body, content_type).await?;
        }
        Ok(())
    }
}

fn blob_name(name: &str) -> Result<BlobName, StoreError> {
    BlobName::parse(name).map_err(|error| StoreError::rejected("naming a payload", error))
}
