use super::{StoreError, Time};
use async_trait::async_trait;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::Range;

/// A name that Azure would refuse, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidName(String);

/// A container's name by Azure's rules: 3–63 lower-case letters, digits and single hyphens, or `$root`, `$web`, `$logs`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("pattern" = r"^(\$root|\$web|\$logs|[a-z0-9](-?[a-z0-9]){2,62})$", "minLength" = 3, "maxLength" = 63))]
pub struct ContainerName(String);

impl ContainerName {
    /// Checks a name.
    pub fn parse(name: &str) -> Result<Self, InvalidName> {
        let well_formed = (3..=63).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !name.starts_with('-')
            && !name.ends_with('-')
            && !name.contains("--");
        if well_formed || ["$root", "$web", "$logs"].contains(&name) {
            return Ok(Self(name.to_owned()));
        }
        Err(InvalidName(format!(
            "`{name}` is not a container name: use 3–63 lower-case letters, digits and single hyphens, beginning and ending with a letter or digit"
        )))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A blob's name by Azure's rules: 1–1,024 characters in at most 254 segments between slashes, none of them `.` or `..`,
/// no control characters or backslashes. (Azure keeps names such as `a//b`, so those are names here.)
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("minLength" = 1, "maxLength" = 1024))]
pub struct BlobName(String);

impl BlobName {
    /// Checks a name.
    pub fn parse(name: &str) -> Result<Self, InvalidName> {
        let refuse = |fault: &str| Err(InvalidName(format!("`{name}` is not a blob name: {fault}")));
        let characters = name.chars().count();
        if !(1..=1024).contains(&characters) {
            return refuse("use 1–1,024 characters");
        }
        if name.chars().any(|character| character.is_control() || character == '\\') {
            return refuse("control characters and backslashes are not allowed");
        }
        if name.split('/').count() > 254 {
            return refuse("use at most 254 path segments");
        }
        if name.split('/').any(|segment| segment == "." || segment == "..") {
            return refuse("`.` and `..` are not path segments of a blob");
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! string_type {
    ($name:ident) => {
        impl TryFrom<String> for $name {
            type Error = InvalidName;

            fn try_from(name: String) -> Result<Self, InvalidName> {
                Self::parse(&name)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}
string_type!(ContainerName);
string_type!(BlobName);

/// What a store knows of a blob without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobProperties {
    /// As stored; a listing may hold names that [`BlobName::parse`] refuses.
    pub name: String,
    /// In bytes.
    pub size: u64,
    /// As declared by whoever wrote it.
    pub content_type: Option<String>,
    /// Of the last write.
    pub last_modified: Time,
    /// The version; another one after every write.
    pub etag: String,
}

/// Part of a container's blobs.
#[derive(Clone, Debug, Default)]
pub struct BlobPage {
    /// In the store's order, by name.
    pub blobs: Vec<BlobProperties>,
    /// Goes on after this page. A page may be empty and still have one.
    pub next: Option<String>,
}

/// Containers of blobs of one account. Reads see every write acknowledged before them.
#[async_trait]
pub trait Blobs: Send + Sync {
    /// Whether the container is there.
    async fn container_exists(&self, container: &ContainerName) -> Result<bool, StoreError>;

    /// Makes sure the container is there.
    async fn create_container(&self, container: &ContainerName) -> Result<(), StoreError>;

    /// Lists blobs whose names start with `prefix`, at most 5,000 a page, whatever folders they seem to lie in. Folder
    /// markers of hierarchical accounts are left out. [`StoreError::NotFound`] if there is no such container.
    async fn list(&self, container: &ContainerName, prefix: &str, after: Option<&str>) -> Result<BlobPage, StoreError>;

    /// Reads a blob's properties; `None` if the blob or its container is not there.
    async fn properties(
        &self,
        container: &ContainerName,
        name: &BlobName,
    ) -> Result<Option<BlobProperties>, StoreError>;

    /// Reads the bytes of `range` that exist; empty if it begins at or past the end. [`StoreError::NotFound`] if the blob
    /// is not there, [`StoreError::Conflict`] if `etag` is given and is not the blob's.
    async fn read(
        &self,
        container: &ContainerName,
        name: &BlobName,
        range: Range<u64>,
        etag: Option<&str>,
    ) -> Result<Bytes, StoreError>;

    /// Writes a whole blob in place of whatever was there. Creates the container if it is missing. A reader
    /// sees the old or the new bytes, never a mixture.
    async fn write(
        &self,
        container: &ContainerName,
        name: &BlobName,
        body: Bytes,
        content_type: &str,
    ) -> Result<(), StoreError>;

    /// Removes a blob; it is no error if it is not there.
    async fn delete(&self, container: &ContainerName, name: &BlobName) -> Result<(), StoreError>;
}
