//! The completion link's token: lets whoever holds the link read one job's end, and nothing else.

use super::App;
use crate::contract::JobId;
use crate::ports::StoreError;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use std::fmt::Write;

/// The token of a job: HMAC-SHA256 of its id under the app's secret, as 64 hex digits.
pub(super) async fn issue(app: &App, job_id: &JobId) -> Result<String, StoreError> {
    let digest = keyed(app, job_id).await?.finalize().into_bytes();
    Ok(digest.iter().fold(String::with_capacity(64), |mut token, byte| {
        let _ = write!(token, "{byte:02x}"); // writing to a String cannot fail
        token
    }))
}

/// Whether `token` is the job's; takes the same time for every wrong one.
pub(super) async fn verify(app: &App, job_id: &JobId, token: &str) -> Result<bool, StoreError> {
    let Some(bytes) = unhex(token) else { return Ok(false) };
    Ok(keyed(app, job_id).await?.verify_slice(&bytes).is_ok())
}

async fn keyed(app: &App, job_id: &JobId) -> Result<Hmac<Sha256>, StoreError> {
    let secret = app.machine.secret().await?;
    let mut hmac = Hmac::<Sha256>::new_from_slice(&secret).map_err(|error| StoreError::rejected("signing", error))?;
    hmac.update(b"completion:");
    hmac.update(job_id.as_str().as_bytes());
    Ok(hmac)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.chars().map(|digit| digit.to_digit(16)?.try_into().ok()).collect::<Option<_>>()?;
    digits.len().is_multiple_of(2).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
