//! The local stand-in for the host's queue listener: wakes the machine through the same routes, with the same calls.

use super::functions::{ADVANCE_STAGE, GIVE_UP_STAGE, GIVE_UP_TASK, PROCESS_TASK, SWEEP};
use crate::contract::with_causes;
use crate::ports::{Queue, Queues, Receipt, Received, Store, StoreError};
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{interval, interval_at, sleep};
use tower::ServiceExt;
use tracing::{error, warn};

// The waits and counts of the app's own host.json; a test below keeps the two in step.
/// How many messages are taken at a time: `batchSize`.
const BATCH_SIZE: u32 = 16;
/// How few calls must be left before more messages are taken: `newBatchThreshold`.
const NEW_BATCH_THRESHOLD: u32 = 8;
/// How many calls of one function run side by side.
const CONCURRENCY: usize = (BATCH_SIZE + NEW_BATCH_THRESHOLD) as usize;
/// How often a message is tried: `maxDequeueCount`.
pub(crate) const MAX_DEQUEUE_COUNT: u32 = 20;
/// How long a failed message waits: `visibilityTimeout`.
pub(crate) const VISIBILITY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a message stays hidden while its call runs, and how often that is renewed.
const LEASE: Duration = Duration::from_mins(10);
const RENEWAL: Duration = Duration::from_mins(5);
/// How soon and how late an empty queue is looked at again. Messages sent by this process wake the pump at once; the
/// rest are delayed ones, and those of other processes.
const SHORTEST_POLL: Duration = Duration::from_millis(50);
const LONGEST_POLL: Duration = Duration::from_millis(500);

/// Delivers messages to the routes of the functions, until it is drained or dropped.
#[derive(Debug)]
pub struct Pump {
    listeners: JoinSet<()>,
    stop: watch::Sender<bool>,
}

impl Pump {
    /// Listens to every queue, and sweeps once a minute.
    pub fn start(router: &Router, queues: &WakingQueues) -> Self {
        let mut listeners = JoinSet::new();
        let stop = watch::Sender::new(false);
        for (queue, function) in [
            (Queue::Tasks, PROCESS_TASK),
            (Queue::Stages, ADVANCE_STAGE),
            (Queue::TasksPoison, GIVE_UP_TASK),
            (Queue::StagesPoison, GIVE_UP_STAGE),
        ] {
            let listener = Listener { queue, function, router: router.clone(), queues: queues.clone() };
            listeners.spawn(listener.listen(stop.subscribe()));
        }
        listeners.spawn(sweep(router.clone(), stop.subscribe()));
        Self { listeners, stop }
    }

    /// Waits for as long as the pump runs.
    pub async fn forever(&mut self) {
        while self.listeners.join_next().await.is_some() {}
    }

    /// Takes no further message, and waits for the calls under way.
    pub async fn drain(mut self) {
        self.stop.send_replace(true);
        self.forever().await;
    }
}

/// Queues that wake the pump of their own process when something is sent.
#[derive(Clone)]
pub struct WakingQueues {
    queues: Arc<dyn Queues>,
    sent: Arc<[Notify; Queue::ALL.len()]>,
}

impl WakingQueues {
    /// Puts itself between a store and its queues.
    pub fn within(store: Store) -> (Store, Self) {
        let waking = Self { queues: store.queues, sent: Arc::default() };
        (Store { queues: Arc::new(waking.clone()), ..store }, waking)
    }

    fn sent_to(&self, queue: Queue) -> &Notify {
        &self.sent[queue as usize]
    }
}

#[async_trait]
impl Queues for WakingQueues {
    async fn send(&self, queue: Queue, body: Bytes, delay: Duration) -> Result<(), StoreError> {
        self.queues.send(queue, body, delay).await?;
        self.sent_to(queue).notify_one();
        Ok(())
    }

    async fn receive(&self, queue: Queue, max: u32, visibility: Duration) -> Result<Vec<Received>, StoreError> {
        self.queues.receive(queue, max, visibility).await
    }

    async fn delete(&self, queue: Queue, receipt: &Receipt) -> Result<(), StoreError> {
        self.queues.delete(queue, receipt).await
    }

    async fn hide(&self, queue: Queue, receipt: &Receipt, visibility: Duration) -> Result<Receipt, StoreError> {
        self.queues.hide(queue, receipt, visibility).await
    }

    async fn length(&self, queue: Queue) -> Result<u64, StoreError> {
        self.queues.length(queue).await
    }
}

/// One queue and the function that it triggers.
#[derive(Clone)]
struct Listener {
    queue: Queue,
    function: &'static str,
    router: Router,
    queues: WakingQueues,
}

impl Listener {
    async fn listen(self, mut stop: watch::Receiver<bool>) {
        let mut calls = JoinSet::new();
        let mut poll = SHORTEST_POLL;
        while !*stop.borrow() {
            while calls.try_join_next().is_some() {}
            let room = u32::try_from(CONCURRENCY - calls.len()).unwrap_or(0).min(BATCH_SIZE);
            if room == 0 {
                calls.join_next().await;
                continue;
            }
            let messages = self.queues.receive(self.queue, room, LEASE).await.unwrap_or_else(|error| {
                error!(queue = self.queue.name(), error = with_causes(&error), "receiving failed");
                Vec::new()
            });
            if messages.is_empty() {
                tokio::select! {
                    () = self.queues.sent_to(self.queue).notified() => poll = SHORTEST_POLL,
                    () = sleep(poll) => poll = (poll * 2).min(LONGEST_POLL),
                    _ = stop.changed() => {}
                }
                continue;
            }
            poll = SHORTEST_POLL;
            for message in messages {
                calls.spawn(self.clone().deliver(message));
            }
        }
        calls.join_all().await;
    }

    /// Calls the function for one delivery and settles it by the answer.
    async fn deliver(self, message: Received) {
        let mut receipt = message.receipt.clone();
        let done = {
            let call = self.call(&message);
            tokio::pin!(call);
            let mut renewal = interval_at(tokio::time::Instant::now() + RENEWAL, RENEWAL);
            loop {
                tokio::select! {
                    done = &mut call => break done,
                    _ = renewal.tick() => match self.queues.hide(self.queue, &receipt, LEASE).await {
                        Ok(renewed) => receipt = renewed,
                        Err(error) => warn!(error = with_causes(&error), "the message may be delivered twice"),
                    },
                }
            }
        };
        let settled = if done {
            self.queues.delete(self.queue, &receipt).await
        } else if let Some(poison) = self.queue.poison().filter(|_| message.dequeue_count >= MAX_DEQUEUE_COUNT) {
            self.give_up(poison, &message, &receipt).await
        } else {
            self.queues.hide(self.queue, &receipt, VISIBILITY_TIMEOUT).await.map(drop)
        };
        if let Err(error) = settled {
            warn!(queue = self.queue.name(), error = with_causes(&error), "settling failed; the message comes again");
        }
    }

    async fn call(&self, message: &Received) -> bool {
        let body = json!({
            "Data": { "message": STANDARD.encode(&message.body) },
            "Metadata": { "DequeueCount": message.dequeue_count.to_string(), "Id": json!(message.receipt.id).to_string() },
        });
        call(&self.router, self.function, &format!("{}-{}", message.receipt.id, message.dequeue_count), &body).await
    }

    async fn give_up(&self, poison: Queue, message: &Received, receipt: &Receipt) -> Result<(), StoreError> {
        error!(queue = self.queue.name(), message = message.receipt.id, "given up; moved to the poison queue");
        self.queues.send(poison, message.body.clone(), Duration::ZERO).await?;
        self.queues.delete(self.queue, receipt).await
    }
}

/// Fires the timer of the sweep, once a minute as its function.json says.
async fn sweep(router: Router, mut stop: watch::Receiver<bool>) {
    let mut minutes = interval(Duration::from_mins(1));
    for tick in 0_u64.. {
        tokio::select! {
            _ = minutes.tick() => {}
            _ = stop.changed() => return,
        }
        let body = json!({ "Data": { "timer": { "IsPastDue": false } }, "Metadata": {} });
        call(&router, SWEEP, &format!("sweep-{tick}"), &body).await;
    }
}

/// Calls a function as the host does; `true` if it succeeded.
async fn call(router: &Router, function: &str, invocation_id: &str, body: &Value) -> bool {
    let request = Request::post(format!("/{function}"))
        .header(header::CONTENT_TYPE, "application/json; charset=utf-8")
        .header("x-azure-functions-invocationid", invocation_id)
        .body(Body::from(body.to_string()));
    match request {
        Ok(request) => match router.clone().oneshot(request).await {
            Ok(response) => response.status().is_success(),
            Err(never) => match never {},
        },
        Err(error) => {
            error!(error = with_causes(&error), "a call that cannot be made");
            false
        }
    }
}

impl std::fmt::Debug for WakingQueues {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("WakingQueues")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pump_delivers_as_host_json_says() {
        let host: Value = serde_json::from_str(include_str!("../../host.json")).expect("host.json is JSON");
        let queues = &host["extensions"]["queues"];
        assert_eq!(queues["batchSize"], BATCH_SIZE);
        assert_eq!(queues["newBatchThreshold"], NEW_BATCH_THRESHOLD);
        assert_eq!(queues["maxDequeueCount"], MAX_DEQUEUE_COUNT);
        assert_eq!(queues["visibilityTimeout"], format!("00:00:{:02}", VISIBILITY_TIMEOUT.as_secs()));
    }
}
