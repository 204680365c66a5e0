//! Every promise of the ports, on every store: one test each.

use coremachine::ports::{Store, Time};
use coremachine::store::conformance::Subject;
use coremachine::store::{EmbeddedStore, MemoryStore, VirtualEnvironment};
use std::ops::Deref;
use std::sync::Arc;
use tempfile::TempDir;

/// One test of each promise, on the subject that `subject()` of the module gives.
macro_rules! check {
    ($($promise:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            coremachine::store::conformance::$promise(&subject()).await;
        }
    )*};
}

mod memory {
    use super::*;

    fn subject() -> Subject {
        let environment = environment();
        in_virtual_time(MemoryStore::open(environment.clone()), environment)
    }

    coremachine::each_promise!(check);
}

mod embedded {
    use super::*;

    /// Holds the folder as long as the store.
    struct OnDisk {
        subject: Subject,
        _folder: TempDir,
    }

    impl Deref for OnDisk {
        type Target = Subject;

        fn deref(&self) -> &Subject {
            &self.subject
        }
    }

    fn subject() -> OnDisk {
        let folder = tempfile::tempdir().expect("a folder");
        let environment = environment();
        let store = EmbeddedStore::open(folder.path(), environment.clone(), Vec::new()).expect("a store");
        OnDisk { subject: in_virtual_time(store, environment), _folder: folder }
    }

    coremachine::each_promise!(check);
}

mod azurite {
    use super::*;
    use crate::support::azurite::account;
    use coremachine::store::azure::{self, Connection, StorageSettings};

    fn subject() -> Subject {
        let connection = Connection::parse("AzureWebJobsStorage", &account()).expect("a connection string");
        let settings = StorageSettings { state: connection.clone(), data: connection };
        Subject::new(azure::connect(&settings).expect("a store"), |duration| Box::pin(tokio::time::sleep(duration)))
    }

    coremachine::each_promise!(check);
}

fn environment() -> Arc<VirtualEnvironment> {
    Arc::new(VirtualEnvironment::new(Time::from_unix_millis(1_795_489_740_000), 1))
}

fn in_virtual_time(store: Store, environment: Arc<VirtualEnvironment>) -> Subject {
    Subject::new(store, move |duration| {
        environment.advance(duration);
        Box::pin(std::future::ready(()))
    })
}
