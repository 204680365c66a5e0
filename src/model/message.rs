use crate::contract::JobId;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A message of the task queue: names a batch to be processed, and is believed in nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMessage {
    /// The job.
    pub job_id: JobId,
    /// The run of the job.
    pub run: u32,
    /// The stage, from 1.
    pub stage: u32,
    /// The batch within the stage, from 0.
    pub batch: u64,
    /// The attempt at the batch's unfinished tasks, from 1.
    pub attempt: u32,
    /// Sent again by the sweep: another message may have done all of it.
    #[serde(default)]
    pub resent: bool,
}

/// A message of the stage queue: asks that `stage` be open, which closes the one before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageMessage {
    /// The job.
    pub job_id: JobId,
    /// The run of the job.
    pub run: u32,
    /// The stage to be opened, from 1.
    pub stage: u32,
    /// Handed on by a delivery that found another at work: whoever gets this one finishes what it finds undone.
    #[serde(default)]
    pub handed_on: bool,
}

/// A body that is no message of ours.
#[derive(Debug, thiserror::Error)]
#[error("the message cannot be read")]
pub struct UnreadableMessage(#[from] serde_json::Error);

macro_rules! message {
    ($name:ident) => {
        impl $name {
            /// Reads a message's body.
            pub fn from_bytes(body: &[u8]) -> Result<Self, UnreadableMessage> {
                read(body)
            }

            /// The message's body.
            pub fn to_bytes(&self) -> Bytes {
                write(self)
            }
        }
    };
}
message!(TaskMessage);
message!(StageMessage);

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, UnreadableMessage> {
    Ok(serde_json::from_slice(body)?)
}

fn write<T: Serialize>(message: &T) -> Bytes {
    // Plain members under string names: serialization has nothing to refuse.
    serde_json::to_vec(message).map(Bytes::from).unwrap_or_default()
}
