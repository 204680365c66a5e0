use super::StoreError;
use async_trait::async_trait;
use bytes::Bytes;
use std::time::Duration;

/// The largest message body in bytes: 64 KiB of text on the wire, less what base64 adds.
pub const MESSAGE_LIMIT: usize = 48 * 1024;

/// The queues of the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Queue {
    /// One message per batch of tasks.
    Tasks,
    /// One message per stage to be opened or closed.
    Stages,
    /// Task messages that were given up.
    TasksPoison,
    /// Stage messages that were given up.
    StagesPoison,
}

impl Queue {
    /// Every queue, in order.
    pub const ALL: [Self; 4] = [Self::Tasks, Self::Stages, Self::TasksPoison, Self::StagesPoison];

    /// The queue's name in the account. The function folders name the same ones.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tasks => "coremachine-tasks",
            Self::Stages => "coremachine-stages",
            Self::TasksPoison => "coremachine-tasks-poison",
            Self::StagesPoison => "coremachine-stages-poison",
        }
    }

    /// Where a message goes that was delivered too often; `None` for a poison queue itself.
    pub const fn poison(self) -> Option<Self> {
        match self {
            Self::Tasks => Some(Self::TasksPoison),
            Self::Stages => Some(Self::StagesPoison),
            Self::TasksPoison | Self::StagesPoison => None,
        }
    }
}

/// The right to settle one delivery of a message; good until the message is delivered again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The message's id.
    pub id: String,
    /// The store's proof of this delivery.
    pub pop: String,
}

/// A delivered message.
#[derive(Clone, Debug)]
pub struct Received {
    /// Settles this delivery.
    pub receipt: Receipt,
    /// The bytes that were sent.
    pub body: Bytes,
    /// How often this message was delivered, this time included; 1 at first.
    pub dequeue_count: u32,
}

/// Queues that deliver at least once, in no promised order.
///
/// A queue that does not exist is created by the first `send` or `receive`.
#[async_trait]
pub trait Queues: Send + Sync {
    /// Makes a message durable; it is first delivered after `delay` (at most 7 days).
    ///
    /// [`StoreError::Rejected`] for a body over [`MESSAGE_LIMIT`]. On [`StoreError::Unavailable`] the message may have
    /// been sent.
    async fn send(&self, queue: Queue, body: Bytes, delay: Duration) -> Result<(), StoreError>;

    /// Takes up to `max` (1–32) due messages and hides each for `visibility`. Two callers never hold the same delivery.
    async fn receive(&self, queue: Queue, max: u32, visibility: Duration) -> Result<Vec<Received>, StoreError>;

    /// Removes a delivered message for good. [`StoreError::NotFound`] if it was delivered anew or deleted meanwhile.
    async fn delete(&self, queue: Queue, receipt: &Receipt) -> Result<(), StoreError>;

    /// Hides a delivered message for `visibility` from now on: zero releases it, more renews it. The old receipt is void.
    /// [`StoreError::NotFound`] as in `delete`.
    async fn hide(&self, queue: Queue, receipt: &Receipt, visibility: Duration) -> Result<Receipt, StoreError>;

    /// How many messages the queue holds, hidden ones included; may be approximate on a distributed store.
    async fn length(&self, queue: Queue) -> Result<u64, StoreError>;
}
