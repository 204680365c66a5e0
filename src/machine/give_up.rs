use super::{CoreMachine, MachineError};
use crate::contract::{JobError, sha256_hex, with_causes};
use crate::engine::{Delivery, StageStep, next_step};
use crate::model::{PoisonRow, StageMessage, Tally, TaskMessage, UnreadableMessage, document, keys};
use crate::ports::{Queue, StoreError, Table, TablesExt};
use tracing::{error, warn};

impl CoreMachine {
    /// Gives up a message of the task queue: the tasks of its batch that have not ended have failed.
    ///
    /// The message is kept as evidence first. `Ok` for a message that nobody can read: it is kept, and that is all.
    pub async fn give_up_task(&self, body: &[u8]) -> Result<(), MachineError> {
        let parsed = TaskMessage::from_bytes(body);
        let evidence = self.keep_evidence(Queue::Tasks, body, parsed.as_ref().err()).await?;
        let Ok(message) = parsed else { return Ok(()) };
        warn!(job = %message.job_id, stage = message.stage, batch = message.batch, "batch given up");
        let why =
            format!("the message of its batch was delivered too often without an end; it is kept as `{evidence}`");
        self.fail_batch(&message, &why).await
    }

    /// Gives up a message of the stage queue: it is tried once more, and if that fails too, its job has failed.
    ///
    /// The message is kept as evidence first. `Ok` for a message that nobody can read: it is kept, and that is all.
    pub async fn give_up_stage(&self, body: &[u8]) -> Result<(), MachineError> {
        let parsed = StageMessage::from_bytes(body);
        let evidence = self.keep_evidence(Queue::Stages, body, parsed.as_ref().err()).await?;
        let Ok(message) = parsed else { return Ok(()) };
        let Err(error) = self.advance_stage(body, Delivery::Repeated).await else { return Ok(()) };
        warn!(job = %message.job_id, stage = message.stage, "stage given up");
        let Some(state) = self.load(&message.job_id).await? else { return Ok(()) };
        match next_step(&state, &message, Delivery::Repeated) {
            StageStep::Done | StageStep::Refuse => return Ok(()),
            StageStep::OpenFirst | StageStep::Close(_) | StageStep::Dispatch(_) | StageStep::HandOn(_) => {}
        }
        let why = format!(
            "stage {} could not be opened: {}; the message is kept as `{evidence}`",
            message.stage,
            with_causes(&error)
        );
        self.fail(&state, message.stage, JobError::new("given_up", why), Tally::default()).await?;
        Ok(())
    }

    /// Keeps a given-up message, once, and returns the key under which it lies.
    async fn keep_evidence(
        &self,
        queue: Queue,
        body: &[u8],
        unreadable: Option<&UnreadableMessage>,
    ) -> Result<String, StoreError> {
        let key = format!("{}-{}", queue.name(), &sha256_hex(body)[..32]);
        let unreadable = unreadable.map(|error| with_causes(error));
        if let Some(why) = &unreadable {
            error!(key, why, "a message that nobody can read was given up");
        }
        let row = PoisonRow {
            queue: queue.name().to_owned(),
            body: String::from_utf8_lossy(body).into_owned(),
            unreadable,
            given_up_at: self.environment.now(),
        };
        self.store.tables.insert_if_absent(Table::Index, keys::POISON, &key, document(&row)).await?;
        Ok(key)
    }
}
