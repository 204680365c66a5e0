use super::CoreMachine;
use crate::model::keys::APP;
use crate::ports::{StoreError, Table, TablesExt};
use serde_json::json;

/// Where the app keeps it, among what all its instances share.
const KEY: &str = "secret";

impl CoreMachine {
    /// A secret of this app's, drawn by whoever first needed it and shared by every instance on this store.
    pub async fn secret(&self) -> Result<[u8; 32], StoreError> {
        self.secret.get_or_try_init(|| self.find_secret()).await.copied()
    }

    async fn find_secret(&self) -> Result<[u8; 32], StoreError> {
        let drawn: Vec<u64> = (0..4).map(|_| self.environment.random()).collect();
        self.store.tables.insert_if_absent(Table::Index, APP, KEY, json!({ "words": drawn })).await?;
        let row = self.store.tables.get(Table::Index, APP, KEY).await?;
        let row = row.ok_or_else(|| StoreError::NotFound(format!("{APP}/{KEY}")))?;
        let words: Secret = row.read()?;
        let mut secret = [0; 32];
        for (bytes, word) in secret.chunks_exact_mut(8).zip(words.words) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        Ok(secret)
    }
}

#[derive(serde::Deserialize)]
struct Secret {
    words: [u64; 4],
}
