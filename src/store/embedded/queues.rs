//! Queues of the database file.

use super::state::{DUE, LENGTHS, State, queue_code};
use super::writer::Draft;
use crate::ports::{Environment, Queue, Queues, Receipt, Received, StoreError, Time};
use crate::store::limits::{check_hide, check_message, check_receive};
use async_trait::async_trait;
use bytes::Bytes;
use redb::ReadableTable;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct EmbeddedQueues {
    state: Arc<State>,
    environment: Arc<dyn Environment>,
}

impl EmbeddedQueues {
    pub(super) fn new(state: Arc<State>, environment: Arc<dyn Environment>) -> Self {
        Self { state, environment }
    }

    /// Whether a message is due, so that looking into an idle queue writes nothing.
    async fn is_due(&self, queue: Queue, now: Time) -> Result<bool, StoreError> {
        self.state
            .read("looking for messages", move |snapshot| {
                let due = snapshot.open_table(DUE)?;
                Ok(due.range(due_range(queue, now))?.next().transpose()?.is_some())
            })
            .await
    }
}

#[async_trait]
impl Queues for EmbeddedQueues {
    async fn send(&self, queue: Queue, body: Bytes, delay: Duration) -> Result<(), StoreError> {
        check_message(&body)?;
        check_hide(delay)?;
        let visible_at = self.environment.now() + delay;
        self.state
            .write("sending a message", move |draft| {
                let id = draft.next_number();
                draft.bodies.insert(id, body.as_ref())?;
                draft.put(id, Delivery { queue, visible_at, count: 0, pop: 0 })?;
                draft.change_length(queue, 1)
            })
            .await
    }

    async fn receive(&self, queue: Queue, max: u32, visibility: Duration) -> Result<Vec<Received>, StoreError> {
        check_receive(max, visibility)?;
        let now = self.environment.now();
        if !self.is_due(queue, now).await? {
            return Ok(Vec::new());
        }
        self.state
            .write("receiving messages", move |draft| draft.deliver(queue, max as usize, now, now + visibility))
            .await
    }

    async fn delete(&self, queue: Queue, receipt: &Receipt) -> Result<(), StoreError> {
        let receipt = receipt.clone();
        self.state
            .write("deleting a message", move |draft| {
                let Some((id, _)) = draft.take(queue, &receipt)? else { return Ok(Err(stale(&receipt))) };
                draft.next_number();
                draft.bodies.remove(id)?;
                draft.change_length(queue, -1)?;
                Ok(Ok(()))
            })
            .await?
    }

    async fn hide(&self, queue: Queue, receipt: &Receipt, visibility: Duration) -> Result<Receipt, StoreError> {
        check_hide(visibility)?;
        let visible_at = self.environment.now() + visibility;
        let receipt = receipt.clone();
        self.state
            .write("hiding a message", move |draft| {
                let Some((id, delivery)) = draft.take(queue, &receipt)? else { return Ok(Err(stale(&receipt))) };
                let pop = draft.next_number();
                draft.put(id, Delivery { visible_at, pop, ..delivery })?;
                Ok(Ok(Receipt { id: receipt.id, pop: pop.to_string() }))
            })
            .await?
    }

    async fn length(&self, queue: Queue) -> Result<u64, StoreError> {
        self.state
            .read("counting messages", move |snapshot| {
                let lengths = snapshot.open_table(LENGTHS)?;
                Ok(lengths.get(queue_code(queue))?.map_or(0, |length| length.value()))
            })
            .await
    }
}

/// How a message stands.
#[derive(Clone, Copy)]
struct Delivery {
    queue: Queue,
    visible_at: Time,
    count: u32,
    /// The number of the present delivery; 0 if there is none.
    pop: u64,
}

impl Draft<'_> {
    /// Makes every message of the queue due at `now` that somebody had received and not settled.
    pub(super) fn release_in_flight(&mut self, queue: Queue, now: Time) -> Result<(), redb::Error> {
        let hidden = (queue_code(queue), now.unix_millis(), u64::MAX)..=(queue_code(queue), i64::MAX, u64::MAX);
        let hidden = ids(self.due.range(hidden)?)?;
        for id in hidden {
            let Some(delivery) = self.delivery(queue, id)? else { continue };
            if delivery.pop != 0 {
                self.next_number();
                self.remove_due(id, &delivery)?;
                self.put(id, Delivery { visible_at: now, pop: 0, ..delivery })?;
            }
        }
        Ok(())
    }

    fn deliver(&mut self, queue: Queue, max: usize, now: Time, visible_at: Time) -> Result<Vec<Received>, redb::Error> {
        let due = ids(self.due.range(due_range(queue, now))?.take(max))?;
        let mut received = Vec::with_capacity(due.len());
        for id in due {
            let Some(delivery) = self.delivery(queue, id)? else { continue };
            let Some(body) = self.bodies.get(id)?.map(|body| Bytes::copy_from_slice(body.value())) else { continue };
            let pop = self.next_number();
            let count = delivery.count.saturating_add(1);
            self.remove_due(id, &delivery)?;
            self.put(id, Delivery { queue, visible_at, count, pop })?;
            let receipt = Receipt { id: id.to_string(), pop: pop.to_string() };
            received.push(Received { receipt, body, dequeue_count: count });
        }
        Ok(received)
    }

    /// Takes the delivered message that the receipt stands for out of the queue, all but its body; `None` if the receipt
    /// is stale.
    fn take(&mut self, queue: Queue, receipt: &Receipt) -> Result<Option<(u64, Delivery)>, redb::Error> {
        let Ok(id) = receipt.id.parse() else { return Ok(None) };
        let Some(delivery) = self.delivery(queue, id)? else { return Ok(None) };
        if delivery.pop == 0 || delivery.pop.to_string() != receipt.pop {
            return Ok(None);
        }
        self.remove_due(id, &delivery)?;
        self.messages.remove(id)?;
        Ok(Some((id, delivery)))
    }

    fn delivery(&self, queue: Queue, id: u64) -> Result<Option<Delivery>, redb::Error> {
        let stored = self.messages.get(id)?.map(|stored| stored.value());
        Ok(stored.filter(|(code, ..)| *code == queue_code(queue)).map(|(_, visible_at, count, pop)| Delivery {
            queue,
            visible_at: Time::from_unix_millis(visible_at),
            count,
            pop,
        }))
    }

    fn put(&mut self, id: u64, delivery: Delivery) -> Result<(), redb::Error> {
        let (code, visible_at) = (queue_code(delivery.queue), delivery.visible_at.unix_millis());
        self.messages.insert(id, (code, visible_at, delivery.count, delivery.pop))?;
        self.due.insert((code, visible_at, id), ())?;
        Ok(())
    }

    fn remove_due(&mut self, id: u64, delivery: &Delivery) -> Result<(), redb::Error> {
        self.due.remove((queue_code(delivery.queue), delivery.visible_at.unix_millis(), id))?;
        Ok(())
    }

    fn change_length(&mut self, queue: Queue, by: i64) -> Result<(), redb::Error> {
        let length = self.lengths.get(queue_code(queue))?.map_or(0, |length| length.value());
        self.lengths.insert(queue_code(queue), length.saturating_add_signed(by))?;
        Ok(())
    }
}

fn due_range(queue: Queue, now: Time) -> std::ops::RangeInclusive<(u8, i64, u64)> {
    (queue_code(queue), i64::MIN, 0)..=(queue_code(queue), now.unix_millis(), u64::MAX)
}

fn ids<'a>(
    entries: impl Iterator<
        Item = Result<(redb::AccessGuard<'a, (u8, i64, u64)>, redb::AccessGuard<'a, ()>), redb::StorageError>,
    >,
) -> Result<Vec<u64>, redb::Error> {
    entries.map(|entry| Ok(entry?.0.value().2)).collect()
}

fn stale(receipt: &Receipt) -> StoreError {
    StoreError::NotFound(format!("delivery of message {}", receipt.id))
}
