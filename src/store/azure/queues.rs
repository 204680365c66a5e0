//! [`Queues`] on Azure.

use super::account::Account;
use super::connection::{ConfigError, Service};
use super::encode::encode;
use super::fault::Fault;
use super::transport::repeat;
use crate::ports::{Queue, Queues, Receipt, Received, StoreError};
use crate::store::limits;
use async_trait::async_trait;
use azure_core::http::headers::HeaderName;
use azure_storage_queue::models::{
    QueueClientGetPropertiesResultHeaders as _, QueueClientReceiveMessagesOptions, QueueClientSendMessageOptions,
    QueueMessage, ReceivedMessage,
};
use azure_storage_queue::{QueueClient, QueueClientOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// A version that emulators of some age still take.
const VERSION: &str = "2023-11-03";
/// A message waits until it is settled: the default of 7 days would lose a job silently.
const FOR_EVER: i32 = -1;

pub(super) struct AzureQueues {
    account: Arc<Account>,
    /// In the order of [`Queue::ALL`].
    clients: Vec<QueueClient>,
}

#[async_trait]
impl Queues for AzureQueues {
    async fn send(&self, queue: Queue, body: Bytes, delay: Duration) -> Result<(), StoreError> {
        limits::check_message(&body)?;
        limits::check_hide(delay)?;
        let text = STANDARD.encode(&body);
        let outcome = match self.try_send(queue, &text, delay).await {
            Err(fault) if fault.is(&["QueueNotFound"]) => {
                self.create(queue).await?;
                self.try_send(queue, &text, delay).await
            }
            outcome => outcome,
        };
        outcome.map_err(|fault| self.account.error("sending a message to", queue.name(), fault))
    }

    async fn receive(&self, queue: Queue, max: u32, visibility: Duration) -> Result<Vec<Received>, StoreError> {
        limits::check_receive(max, visibility)?;
        let outcome = match self.try_receive(queue, max, visibility).await {
            Err(fault) if fault.is(&["QueueNotFound"]) => {
                self.create(queue).await?;
                self.try_receive(queue, max, visibility).await
            }
            outcome => outcome,
        };
        outcome.map_err(|fault| self.account.error("receiving from", queue.name(), fault))
    }

    async fn delete(&self, queue: Queue, receipt: &Receipt) -> Result<(), StoreError> {
        let outcome = self.client(queue).delete_message(&encode(&receipt.id), &receipt.pop, None).await;
        outcome.map(drop).map_err(|error| self.settling("deleting message", receipt, error))
    }

    async fn hide(&self, queue: Queue, receipt: &Receipt, visibility: Duration) -> Result<Receipt, StoreError> {
        limits::check_hide(visibility)?;
        let client = self.client(queue);
        let answer = client.update_message(&encode(&receipt.id), &receipt.pop, seconds(visibility), None).await;
        let answer = answer.map_err(|error| self.settling("hiding message", receipt, error))?;
        // The SDK has no typed form of this header.
        match answer.headers().get_optional_str(&HeaderName::from_static("x-ms-popreceipt")) {
            Some(pop) => Ok(Receipt { id: receipt.id.clone(), pop: pop.to_owned() }),
            None => Err(self.account.error("hiding message", &receipt.id, Fault::unreadable("no new receipt came"))),
        }
    }

    async fn length(&self, queue: Queue) -> Result<u64, StoreError> {
        repeat(|| async {
            let answer = self.client(queue).get_properties(None).await.and_then(|it| it.approximate_messages_count());
            match answer.map_err(Fault::from) {
                Ok(count) => Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default()),
                Err(fault) if fault.is(&["QueueNotFound"]) => Ok(0),
                Err(fault) => Err(self.account.error("counting messages of", queue.name(), fault)),
            }
        })
        .await
    }
}

impl AzureQueues {
    pub(super) fn open(account: Arc<Account>) -> Result<Self, ConfigError> {
        let endpoint = account.endpoint(Service::Queue)?;
        let client = |queue: Queue| {
            let mut url = endpoint.clone();
            url.set_path(&format!("{}/{}", endpoint.path().trim_end_matches('/'), queue.name()));
            let client_options = account.options(Service::Queue);
            let options = QueueClientOptions { client_options, version: VERSION.to_owned() };
            QueueClient::new(url, None, Some(options)).map_err(|error| account.unusable(&error))
        };
        let clients = Queue::ALL.into_iter().map(client).collect::<Result<_, _>>()?;
        Ok(Self { account, clients })
    }

    fn client(&self, queue: Queue) -> &QueueClient {
        &self.clients[queue as usize]
    }

    async fn try_send(&self, queue: Queue, text: &str, delay: Duration) -> Result<(), Fault> {
        let message = QueueMessage { message_text: Some(text.to_owned()) };
        let options = QueueClientSendMessageOptions {
            message_time_to_live: Some(FOR_EVER),
            visibility_timeout: Some(seconds(delay)).filter(|delay| *delay > 0),
            ..QueueClientSendMessageOptions::default()
        };
        self.client(queue).send_message(message.try_into()?, Some(options)).await?;
        Ok(())
    }

    async fn try_receive(&self, queue: Queue, max: u32, visibility: Duration) -> Result<Vec<Received>, Fault> {
        let options = QueueClientReceiveMessagesOptions {
            number_of_messages: i32::try_from(max).ok(),
            visibility_timeout: Some(seconds(visibility)),
            ..QueueClientReceiveMessagesOptions::default()
        };
        let messages = self.client(queue).receive_messages(Some(options)).await?.into_model()?;
        messages.items.unwrap_or_default().into_iter().map(received).collect()
    }

    async fn create(&self, queue: Queue) -> Result<(), StoreError> {
        repeat(|| async {
            match self.client(queue).create(None).await.map_err(Fault::from) {
                Err(fault) if !fault.is(&["QueueAlreadyExists"]) => {
                    Err(self.account.error("creating queue", queue.name(), fault))
                }
                Ok(_) | Err(_) => Ok(()),
            }
        })
        .await
    }

    fn settling(&self, operation: &str, receipt: &Receipt, error: azure_core::Error) -> StoreError {
        let fault = Fault::from(error);
        if fault.is(&["PopReceiptMismatch"]) {
            return StoreError::NotFound(receipt.id.clone());
        }
        self.account.error(operation, &receipt.id, fault)
    }
}

fn received(message: ReceivedMessage) -> Result<Received, Fault> {
    let missing = |what: &str| Fault::unreadable(format!("a message without {what}"));
    let text = message.message_text.unwrap_or_default();
    Ok(Received {
        receipt: Receipt {
            id: message.message_id.ok_or_else(|| missing("an id"))?,
            pop: message.pop_receipt.ok_or_else(|| missing("a receipt"))?,
        },
        // What is not base64 was not sent by us; whoever parses it will say so with the text at hand.
        body: STANDARD.decode(&text).map_or_else(|_| Bytes::from(text), Bytes::from),
        dequeue_count: message.dequeue_count.and_then(|count| u32::try_from(count).ok()).unwrap_or(1),
    })
}

/// Whole seconds, never less than asked for: the service knows no others.
fn seconds(duration: Duration) -> i32 {
    let whole = duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    i32::try_from(whole).unwrap_or(i32::MAX)
}
