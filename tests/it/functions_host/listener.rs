//! The queue listener of one function on one instance.

use super::app::QueueTrigger;
use super::calls::Delivery;
use super::handler::Life;
use super::{CallEnd, Host};
use coremachine::ports::{Queue, Receipt, Received, StoreError};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at, sleep};

/// Polls until the instance stops for good. Running calls end with the listener.
pub(crate) async fn listen(host: Arc<Host>, instance: usize, function: String, trigger: QueueTrigger, queue: Queue) {
    let listener = Arc::new(Listener { host, instance, function, trigger, queue });
    let settings = &listener.host.app.queues;
    let mut calls = JoinSet::new();
    let mut empty_polls = 0;
    while let Ok(life) = listener.host.ready(instance).await {
        while calls.try_join_next().is_some() {}
        while calls.len() > settings.new_batch_threshold as usize {
            calls.join_next().await;
        }
        let messages = listener.host.queues.receive(queue, settings.batch_size, listener.host.options.in_flight).await;
        let messages = listener.noted(messages).unwrap_or_default();
        empty_polls = if messages.is_empty() { empty_polls + 1 } else { 0 };
        for message in messages {
            let (listener, life) = (Arc::clone(&listener), Arc::clone(&life));
            calls.spawn(async move { listener.deliver(&life, message).await });
        }
        sleep(listener.wait(empty_polls)).await;
    }
}

struct Listener {
    host: Arc<Host>,
    instance: usize,
    function: String,
    trigger: QueueTrigger,
    queue: Queue,
}

impl Listener {
    /// The unit after a hit; the unit and about the unit · 2^(n−1) after the n-th empty poll, up to the longest wait.
    fn wait(&self, empty_polls: u32) -> Duration {
        let unit = self.host.options.polling;
        let Some(doublings) = empty_polls.checked_sub(1) else { return unit };
        let percent = 80 + u32::try_from(self.host.random.next() % 41).unwrap_or(0);
        (unit + unit * 2_u32.pow(doublings.min(16)) * percent / 100).min(self.host.app.queues.max_polling_interval)
    }

    async fn deliver(&self, life: &Arc<Life>, message: Received) {
        let max_dequeue_count = self.host.app.queues.max_dequeue_count;
        let mut receipt = message.receipt.clone();
        if message.dequeue_count > max_dequeue_count {
            return self.give_up(&receipt, &message).await;
        }
        match self.renewing(&mut receipt, self.called(life, &message)).await {
            CallEnd::Lost => {}
            CallEnd::Success => drop(self.noted(self.host.queues.delete(self.queue, &receipt).await)),
            CallEnd::Failure if message.dequeue_count >= max_dequeue_count => self.give_up(&receipt, &message).await,
            CallEnd::Failure => self.release(&receipt).await,
        }
    }

    /// Keeps the message hidden while its call runs.
    async fn renewing(&self, receipt: &mut Receipt, call: impl Future<Output = CallEnd>) -> CallEnd {
        let in_flight = self.host.options.in_flight;
        let mut renewals = interval_at(Instant::now() + in_flight / 2, in_flight / 2);
        tokio::pin!(call);
        loop {
            tokio::select! {
                end = &mut call => return end,
                _ = renewals.tick() => {
                    if let Some(renewed) = self.noted(self.host.queues.hide(self.queue, receipt, in_flight).await) {
                        *receipt = renewed;
                    }
                }
            }
        }
    }

    /// One call, or two if it is this message's turn. The message is done only if both succeed.
    async fn called(&self, life: &Arc<Life>, message: &Received) -> CallEnd {
        match self.next_twin() {
            None => self.call(life, message, message.dequeue_count).await,
            Some(Twin { together: true, counted }) => {
                let again = message.dequeue_count + counted;
                let twins =
                    tokio::join!(self.call(life, message, message.dequeue_count), self.call(life, message, again));
                match twins {
                    (CallEnd::Lost, _) | (_, CallEnd::Lost) => CallEnd::Lost,
                    (CallEnd::Failure, _) | (_, CallEnd::Failure) => CallEnd::Failure,
                    (CallEnd::Success, CallEnd::Success) => CallEnd::Success,
                }
            }
            Some(Twin { together: false, counted }) => match self.call(life, message, message.dequeue_count).await {
                CallEnd::Success => {
                    // The handler may have died since; a redelivery would meet its successor.
                    let Ok(life) = self.host.ready(self.instance).await else { return CallEnd::Failure };
                    self.call(&life, message, message.dequeue_count + counted).await
                }
                end => end,
            },
        }
    }

    async fn call(&self, life: &Arc<Life>, message: &Received, dequeue_count: u32) -> CallEnd {
        let delivery = Delivery {
            function: &self.function,
            binding: &self.trigger.binding,
            message: &message.body,
            binary: self.trigger.binary && !self.host.options.as_text,
            id: &message.receipt.id,
            pop_receipt: &message.receipt.pop,
            dequeue_count,
        };
        self.host.call(life, &self.function, delivery.body()).await
    }

    /// Whether this message is delivered twice: each of the four kinds in turn.
    fn next_twin(&self) -> Option<Twin> {
        let every = self.host.options.duplicate_every?;
        let messages = self.host.messages.fetch_add(1, Ordering::SeqCst) + 1;
        if !messages.is_multiple_of(every) {
            return None;
        }
        self.host.count(|counters| counters.duplicates += 1);
        let kind = messages / every;
        Some(Twin { together: kind.is_multiple_of(2), counted: u32::from(kind % 4 < 2) })
    }

    /// A failed message is visible again after a constant time, but on a poison queue it stays hidden as it is.
    async fn release(&self, receipt: &Receipt) {
        if self.queue.poison().is_some() {
            let host = &self.host;
            self.noted(host.queues.hide(self.queue, receipt, host.app.queues.visibility_timeout).await);
        }
    }

    /// Moves the message to the poison queue as a new one. There is none for a poison queue: there it is never run again.
    async fn give_up(&self, receipt: &Receipt, message: &Received) {
        let Some(poison) = self.queue.poison() else { return };
        let queues = &self.host.queues;
        if self.noted(queues.send(poison, message.body.clone(), Duration::ZERO).await).is_some() {
            self.host.count(|counters| counters.poisoned += 1);
            self.noted(queues.delete(self.queue, receipt).await);
        }
    }

    /// A message that is not ours any more is the redelivery's business; any other fault is written down.
    fn noted<T>(&self, result: Result<T, StoreError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(StoreError::NotFound(_)) => None,
            Err(error) => {
                self.host.count(|counters| counters.store_faults += 1);
                self.host.say(&format!("{}: {error}: {:?}", self.function, std::error::Error::source(&error)));
                None
            }
        }
    }
}

/// A second delivery of the same message.
struct Twin {
    /// At the same time as the first, or after its success.
    together: bool,
    /// What it adds to the first's `DequeueCount`: 1 for a redelivery, 0 for a message that was sent twice.
    counted: u32,
}
