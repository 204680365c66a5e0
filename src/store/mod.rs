//! The adapters: one [`Store`](crate::ports::Store) each in memory, on disk and on Azure Storage.
