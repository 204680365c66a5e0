use std::error::Error;

/// Why a store did not do what it was asked; each variant is something a caller can act on.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The thing named does not exist.
    #[error("`{0}` does not exist")]
    NotFound(String),
    /// An insert found the thing already there.
    #[error("`{0}` already exists")]
    AlreadyExists(String),
    /// A conditional write found another version than the one it names.
    #[error("`{0}` has changed since it was read")]
    Conflict(String),
    /// The store cannot be reached, is throttling or failed on its side: trying again later may work. The write may or
    /// may not have been applied.
    #[error("{operation}: storage is unavailable")]
    Unavailable {
        /// What was being done.
        operation: String,
        /// What the service or the network said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The store understood and refused: trying again will not help.
    #[error("{operation}: storage refused")]
    Rejected {
        /// What was being done.
        operation: String,
        /// What the service said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

impl StoreError {
    /// An [`StoreError::Unavailable`] from a cause.
    pub fn unavailable(operation: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unavailable { operation: operation.into(), source: source.into() }
    }

    /// A [`StoreError::Rejected`] from a cause.
    pub fn rejected(operation: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Rejected { operation: operation.into(), source: source.into() }
    }
}
