use crate::ports::ContainerName;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The largest value, as JSON text in bytes, that stays in its row: the size of one property of an Azure table.
pub const VALUE_SHARE: usize = 64 * 1024;

/// The container that holds the values too large for their rows.
pub const PAYLOAD_CONTAINER: &str = "coremachine-payloads";

/// [`PAYLOAD_CONTAINER`], as a name.
///
/// # Panics
/// Never: the name is well-formed, as a test of this module shows.
pub fn payload_container() -> ContainerName {
    ContainerName::parse(PAYLOAD_CONTAINER).expect("a constant, well-formed name")
}

/// A value, in its row or in a blob.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// The value itself.
    Inline(Value),
    /// Where the value lies.
    Blob(BlobRef),
}

/// Where a value lies as JSON text: a blob named by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobRef {
    /// The container.
    pub container: ContainerName,
    /// The blob's name.
    pub name: String,
    /// In bytes.
    pub size: u64,
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_payload_container_has_a_name() {
        assert_eq!(super::payload_container().as_str(), super::PAYLOAD_CONTAINER);
    }
}
