//! What queues must do.

use super::{Subject, at_once, done};
use crate::ports::{MESSAGE_LIMIT, Queue, Receipt, Received, StoreError};
use bytes::Bytes;
use futures_util::future::join_all;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

const SHORT: Duration = Duration::from_secs(1);
/// Surely longer than [`SHORT`], for a store that counts in whole seconds.
const LONGER: Duration = Duration::from_millis(2_100);
/// Longer than any check takes.
const LONG: Duration = Duration::from_mins(5);

/// A message that is not deleted is delivered again and again, and counts its deliveries.
pub async fn a_message_comes_back_until_it_is_deleted(subject: &Subject) {
    let queue = Line::open(subject, Queue::Tasks).await;
    queue.send("again").await;
    for count in 1..=3 {
        let message = queue.receive_one(SHORT).await;
        assert_eq!((message.dequeue_count, message.body.as_ref()), (count, &b"again"[..]));
        queue.wait(LONGER).await;
    }
    let message = queue.receive_one(LONG).await;
    queue.delete(&message.receipt).await.expect("deleting a delivered message");
    assert_eq!(queue.length().await, 0, "a deleted message is still counted");
    let again = queue.delete(&message.receipt).await;
    assert!(matches!(again, Err(StoreError::NotFound(_))), "deleting twice: {again:?}");
}

/// While it is hidden, a message is not delivered to anybody.
pub async fn a_received_message_is_hidden(subject: &Subject) {
    let queue = Line::open(subject, Queue::Stages).await;
    queue.send("hidden").await;
    let message = queue.receive_one(LONG).await;
    queue.nothing_is_due().await;
    queue.wait(SHORT).await;
    queue.nothing_is_due().await;
    queue.delete(&message.receipt).await.expect("deleting a delivered message");
}

/// A message sent with a delay is not delivered before.
pub async fn a_delayed_message_waits(subject: &Subject) {
    let queue = Line::open(subject, Queue::Tasks).await;
    queue.send_later("later", Duration::from_secs(3)).await;
    assert_eq!(queue.length().await, 1, "a delayed message is not counted");
    queue.nothing_is_due().await;
    queue.wait(Duration::from_secs(4)).await;
    let message = queue.receive_one(LONG).await;
    assert_eq!(message.dequeue_count, 1);
    queue.delete(&message.receipt).await.expect("deleting a delivered message");
}

/// Once a message was delivered anew or hidden anew, older receipts neither delete nor hide it.
pub async fn a_stale_receipt_settles_nothing(subject: &Subject) {
    let queue = Line::open(subject, Queue::Tasks).await;
    queue.send("contested").await;
    let first = queue.receive_one(SHORT).await;
    queue.wait(LONGER).await;
    let second = queue.receive_one(LONG).await;
    let deleted = queue.delete(&first.receipt).await;
    assert!(matches!(deleted, Err(StoreError::NotFound(_))), "an old receipt deleted: {deleted:?}");
    let hidden = queue.hide(&first.receipt, Duration::ZERO).await;
    assert!(matches!(hidden, Err(StoreError::NotFound(_))), "an old receipt released: {hidden:?}");
    queue.nothing_is_due().await;

    let renewed = queue.hide(&second.receipt, LONG).await.expect("renewing the present delivery");
    let deleted = queue.delete(&second.receipt).await;
    assert!(matches!(deleted, Err(StoreError::NotFound(_))), "a void receipt deleted: {deleted:?}");
    queue.delete(&renewed).await.expect("deleting by the receipt of the renewal");
    let hidden = queue.hide(&renewed, LONG).await;
    assert!(matches!(hidden, Err(StoreError::NotFound(_))), "a deleted message was hidden: {hidden:?}");
}

/// A receipt outlives its message's hiding, until somebody else takes the message.
pub async fn a_late_receipt_is_good_until_the_next_delivery(subject: &Subject) {
    let queue = Line::open(subject, Queue::Tasks).await;
    queue.send("late").await;
    let message = queue.receive_one(SHORT).await;
    queue.wait(LONGER).await;
    queue.delete(&message.receipt).await.expect("deleting a delivered message that nobody else took");
    queue.nothing_is_due().await;
}

/// A message hidden for no time is due at once, with one delivery more.
pub async fn a_released_message_is_delivered_again(subject: &Subject) {
    let queue = Line::open(subject, Queue::Stages).await;
    queue.send("released").await;
    let first = queue.receive_one(LONG).await;
    queue.hide(&first.receipt, Duration::ZERO).await.expect("releasing a delivered message");
    let second = queue.receive_one(LONG).await;
    assert_eq!((second.dequeue_count, second.body), (2, first.body));
    queue.delete(&second.receipt).await.expect("deleting a delivered message");
}

/// A renewed message stays hidden beyond its first visibility, and comes back after the renewed one.
pub async fn a_renewed_message_stays_hidden(subject: &Subject) {
    let queue = Line::open(subject, Queue::Tasks).await;
    queue.send("renewed").await;
    let message = queue.receive_one(SHORT).await;
    let receipt = queue.hide(&message.receipt, Duration::from_secs(4)).await.expect("renewing a delivery");
    queue.wait(Duration::from_secs(2)).await;
    queue.nothing_is_due().await;
    queue.wait(Duration::from_secs(3)).await;
    let message = queue.receive_one(LONG).await;
    assert_eq!(message.dequeue_count, 2, "a renewal is no delivery");
    assert_ne!(message.receipt, receipt);
    queue.delete(&message.receipt).await.expect("deleting a delivered message");
}

/// Receivers at the same time get different messages, and together all of them.
pub async fn two_receivers_never_share_a_delivery(subject: &Subject) {
    const MESSAGES: usize = 40;
    let queue = Line::open(subject, Queue::Tasks).await;
    let sent: BTreeSet<String> = (0..MESSAGES).map(|number| format!("message {number}")).collect();
    join_all(sent.iter().map(|body| queue.send(body))).await;
    let queues = Arc::clone(&subject.store.queues);
    let received = at_once(8, |_| {
        let queues = Arc::clone(&queues);
        async move {
            let mut received = Vec::new();
            loop {
                let messages = queues.receive(Queue::Tasks, 3, LONG).await.expect("receiving");
                if messages.is_empty() {
                    return received;
                }
                received.extend(messages);
            }
        }
    })
    .await
    .concat();
    assert!(received.iter().all(|message| message.dequeue_count == 1), "a message was delivered twice");
    let bodies: Vec<_> = received.iter().map(|message| String::from_utf8_lossy(&message.body).into_owned()).collect();
    assert_eq!(bodies.len(), MESSAGES, "some messages were shared or lost");
    assert_eq!(bodies.into_iter().collect::<BTreeSet<_>>(), sent);
    queue.clear(received).await;
}

/// A body comes back byte for byte, whatever its bytes, up to the limit.
pub async fn a_message_is_bytes(subject: &Subject) {
    let queue = Line::open(subject, Queue::TasksPoison).await;
    let every_byte: Vec<u8> = (0..=255).cycle().take(MESSAGE_LIMIT).collect();
    for body in [
        &b"\xff\xfe\x00\x80"[..],
        b"\0",
        b"{\"a\": \"<&>\"}",
        "Grüße 🦀".as_bytes(),
        b"aGVsbG8=",
        every_byte.as_slice(),
    ] {
        queue.send(body.to_vec()).await;
        let message = queue.receive_one(LONG).await;
        assert!(message.body == body, "{} bytes came back as {} others", body.len(), message.body.len());
        queue.delete(&message.receipt).await.expect("deleting a delivered message");
    }
}

/// A body over [`MESSAGE_LIMIT`] is [`StoreError::Rejected`] and not sent.
pub async fn a_message_over_the_limit_is_refused(subject: &Subject) {
    let queue = Line::open(subject, Queue::Stages).await;
    let refusal = subject.store.queues.send(queue.queue, vec![0; MESSAGE_LIMIT + 1].into(), Duration::ZERO).await;
    assert!(matches!(refusal, Err(StoreError::Rejected { .. })), "{refusal:?}");
    assert_eq!(queue.length().await, 0, "a refused message was sent");
}

/// A receive gives at most as many messages as asked for, and the rest to the next.
pub async fn a_receive_takes_no_more_than_it_asks_for(subject: &Subject) {
    let queue = Line::open(subject, Queue::StagesPoison).await;
    join_all((0..35).map(|number| queue.send(format!("{number}")))).await;
    let mut received = queue.receive(1, LONG).await;
    assert_eq!(received.len(), 1);
    received.extend(queue.receive(32, LONG).await);
    assert_eq!(received.len(), 33);
    received.extend(queue.receive(32, LONG).await);
    assert_eq!(received.len(), 35);
    queue.clear(received).await;
}

/// A message is delivered from the queue it was sent to and from no other.
pub async fn queues_do_not_mix(subject: &Subject) {
    let held = subject.queues.lock().await;
    let mut lines = Vec::new();
    for queue in Queue::ALL {
        lines.push(Line { subject, queue, _held: None });
    }
    for line in &lines {
        line.empty().await;
        line.send(line.queue.name()).await;
    }
    for line in &lines {
        let message = line.receive_one(LONG).await;
        assert_eq!(message.body, line.queue.name(), "a message came from another queue");
        line.nothing_is_due().await;
        line.delete(&message.receipt).await.expect("deleting a delivered message");
    }
    drop(held);
}

/// Messages that wait for their time or for their receiver are counted.
pub async fn length_counts_hidden_messages(subject: &Subject) {
    let queue = Line::open(subject, Queue::Stages).await;
    assert_eq!(queue.length().await, 0);
    queue.send("one").await;
    queue.send("two").await;
    queue.send_later("three", Duration::from_secs(1)).await;
    assert_eq!(queue.length().await, 3);
    let mut received = queue.receive(2, LONG).await;
    assert_eq!(queue.length().await, 3, "hidden messages are not counted");
    queue.wait(Duration::from_secs(3)).await;
    received.extend(queue.receive(32, LONG).await);
    queue.clear(received).await;
    assert_eq!(queue.length().await, 0, "deleted messages are counted");
}

/// A queue that nobody else uses meanwhile.
struct Line<'a> {
    subject: &'a Subject,
    queue: Queue,
    _held: Option<tokio::sync::MutexGuard<'a, ()>>,
}

impl<'a> Line<'a> {
    async fn open(subject: &'a Subject, queue: Queue) -> Self {
        let line = Self { subject, queue, _held: Some(subject.queues.lock().await) };
        line.empty().await;
        line
    }

    /// Removes what a check that failed has left.
    async fn empty(&self) {
        loop {
            let left = self.receive(32, LONG).await;
            if left.is_empty() {
                return;
            }
            self.clear(left).await;
        }
    }

    async fn send(&self, body: impl AsRef<[u8]>) {
        self.send_later(body, Duration::ZERO).await;
    }

    async fn send_later(&self, body: impl AsRef<[u8]>, delay: Duration) {
        let body = Bytes::copy_from_slice(body.as_ref());
        done("sending", self.subject.store.queues.send(self.queue, body, delay).await);
    }

    async fn receive(&self, max: u32, visibility: Duration) -> Vec<Received> {
        done("receiving", self.subject.store.queues.receive(self.queue, max, visibility).await)
    }

    async fn receive_one(&self, visibility: Duration) -> Received {
        let mut received = self.receive(32, visibility).await;
        assert_eq!(received.len(), 1, "expected one message to be due");
        received.remove(0)
    }

    async fn nothing_is_due(&self) {
        let received = self.receive(32, SHORT).await;
        assert!(received.is_empty(), "a hidden or deleted message was delivered: {received:?}");
    }

    async fn delete(&self, receipt: &Receipt) -> Result<(), StoreError> {
        self.subject.store.queues.delete(self.queue, receipt).await
    }

    async fn hide(&self, receipt: &Receipt, visibility: Duration) -> Result<Receipt, StoreError> {
        self.subject.store.queues.hide(self.queue, receipt, visibility).await
    }

    async fn length(&self) -> u64 {
        done("counting", self.subject.store.queues.length(self.queue).await)
    }

    async fn wait(&self, duration: Duration) {
        (self.subject.wait)(duration).await;
    }

    async fn clear(&self, received: Vec<Received>) {
        for message in received {
            done("deleting", self.delete(&message.receipt).await);
        }
    }
}
