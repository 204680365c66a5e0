//! What only the store on disk promises: what it keeps over restarts and kills, and what its folders are.

use bytes::Bytes;
use coremachine::ports::{
    BlobName, Blobs, ContainerName, Environment, Query, Queue, Receipt, Select, Store, StoreError, Table, TablesExt,
    Time, Write,
};
use coremachine::store::{Access, EmbeddedStore, Mount, SystemEnvironment, VirtualEnvironment};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_mins(5);

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = environment();
    let store = open(folder.path(), &environment);
    insert(&store, "a", json!({ "n": 1 })).await;
    store.queues.send(Queue::Stages, Bytes::from_static(b"m"), Duration::ZERO).await.expect("sending");
    write(&*store.payloads, "sha", "x/y", "payload").await.expect("writing");
    let before = store.tables.get(Table::Jobs, "p", "a").await.expect("reading");
    drop(store);

    let store = open(folder.path(), &environment);
    let after = store.tables.get(Table::Jobs, "p", "a").await.expect("reading");
    assert_eq!(after, before, "the row or its version changed");
    assert_eq!(store.queues.length(Queue::Stages).await.expect("counting"), 1);
    assert_eq!(read(&*store.payloads, "sha", "x/y").await.expect("reading"), "payload");
    // Versions go on where they stopped: one that was read before is still told from the next.
    let etag = before.expect("the row").etag;
    let replace = |n: u32| Write::Replace { key: "a".into(), etag: etag.clone(), document: json!({ "n": n }) };
    store.tables.commit(Table::Jobs, "p", vec![replace(2)]).await.expect("replacing");
    assert!(store.tables.commit(Table::Jobs, "p", vec![replace(3)]).await.is_err(), "an old version was replaced");
}

#[tokio::test]
async fn messages_in_flight_are_due_after_reopening() {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = environment();
    let store = open(folder.path(), &environment);
    for body in ["received", "renewed", "settled"] {
        store.queues.send(Queue::Tasks, body.into(), Duration::ZERO).await.expect("sending");
    }
    let received = store.queues.receive(Queue::Tasks, 32, LONG).await.expect("receiving");
    let renewed = store.queues.hide(Queue::Tasks, &received[1].receipt, LONG).await.expect("renewing");
    store.queues.delete(Queue::Tasks, &received[2].receipt).await.expect("deleting");
    store.queues.send(Queue::Tasks, "delayed".into(), Duration::from_secs(10)).await.expect("sending");
    drop(store);

    let store = open(folder.path(), &environment);
    for receipt in [&received[0].receipt, &renewed] {
        let settled = store.queues.delete(Queue::Tasks, receipt).await;
        assert!(matches!(settled, Err(StoreError::NotFound(_))), "a receipt outlived its process: {settled:?}");
    }
    assert_eq!(deliveries(&store).await, [("received".to_owned(), 2), ("renewed".to_owned(), 2)]);
    assert_eq!(store.queues.length(Queue::Tasks).await.expect("counting"), 3);
    environment.advance(Duration::from_secs(9));
    assert_eq!(deliveries(&store).await, [], "a delayed message was delivered early");
    environment.advance(Duration::from_secs(1));
    assert_eq!(deliveries(&store).await, [("delayed".to_owned(), 1)]);
}

#[tokio::test]
async fn a_folder_is_open_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), &environment());
    let refusal = EmbeddedStore::open(folder.path(), environment(), Vec::new()).expect_err("opening twice");
    let words = format!("{refusal}: {}", refusal.source().expect("a cause"));
    assert!(words.contains(&folder.path().display().to_string()), "{words}");
    assert!(words.contains("another process has it open"), "{words}");
    insert(&store, "a", json!({})).await;
    drop(store);
    open(folder.path(), &environment());
}

#[tokio::test]
async fn what_is_no_store_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("state.redb"), "this is no database, and long enough not to be empty")
        .expect("a file");
    let refusal = EmbeddedStore::open(folder.path(), environment(), Vec::new()).expect_err("opening a text");
    assert!(matches!(refusal, StoreError::Rejected { .. }), "{refusal:?}");
}

#[tokio::test]
async fn a_page_of_large_rows_is_cut_and_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), &environment());
    let text = "x".repeat(250_000);
    for number in 0..30 {
        insert(&store, &format!("r{number:02}"), json!({ "text": text })).await;
    }
    let query =
        Query { table: Table::Jobs, partition: "p", from: "", to: None, limit: 1_000, select: Select::Documents };
    let page = store.tables.query(query.clone()).await.expect("querying");
    assert!(page.rows.len() < 20 && page.next.is_some(), "{} large rows in a page", page.rows.len());
    assert_eq!(store.tables.query_all(query).await.expect("querying").len(), 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_together_is_written_together() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), &environment());
    let at_once: Vec<_> = (0..2_000)
        .map(|number| {
            let store = store.clone();
            // Every second one is refused, which must not touch its neighbours of the same transaction.
            tokio::spawn(async move {
                let key = format!("r{}", number / 2);
                store.tables.insert_if_absent(Table::Jobs, "p", &key, json!({ "by": number })).await.expect("inserting")
            })
        })
        .collect();
    let mut inserted = 0;
    for one in at_once {
        inserted += usize::from(one.await.expect("one of many"));
    }
    assert_eq!((inserted, rows(&store).await.len()), (1_000, 1_000));
}

// Folders

#[tokio::test]
async fn files_dropped_into_a_container_are_blobs() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), &environment());
    let container = folder.path().join("blobs/bronze/2026");
    fs::create_dir_all(&container).expect("folders");
    fs::write(container.join("a.tif"), "raster").expect("a file");
    fs::write(container.join(".coremachine-00.tmp"), "unfinished").expect("a file");
    fs::write(container.join(std::ffi::OsStr::from_bytes(b"\xff.tif")), "no name").expect("a file");
    assert_eq!(names(&*store.data, "bronze").await, ["2026/a.tif"]);
    let name = BlobName::parse("2026/a.tif").expect("a name");
    let properties = store.data.properties(&container_name("bronze"), &name).await.expect("reading").expect("the blob");
    assert_eq!((properties.size, properties.content_type.as_deref()), (6, Some("image/tiff")));
    assert_eq!(read(&*store.data, "bronze", "2026/a.tif").await.expect("reading"), "raster");
    fs::write(container.join("a.tif"), "another raster").expect("a file");
    let again = store.data.properties(&container_name("bronze"), &name).await.expect("reading").expect("the blob");
    assert_ne!(again.etag, properties.etag, "a file was replaced and kept its version");
}

#[tokio::test]
async fn no_name_leaves_its_container() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), &environment());
    write(&*store.data, "inside", "real/a.txt", "inside").await.expect("writing");
    let container = folder.path().join("blobs/inside");
    let outside = folder.path().join("outside");
    fs::create_dir(&outside).expect("a folder");
    fs::write(outside.join("secret.txt"), "secret").expect("a file");
    symlink(outside.join("secret.txt"), container.join("file-out.txt")).expect("a link");
    symlink(&outside, container.join("folder-out")).expect("a link");
    symlink("../../outside", container.join("relative-out")).expect("a link");
    symlink("real", container.join("folder-in")).expect("a link");
    symlink("..", container.join("real/loop")).expect("a link");
    symlink("real/a.txt", container.join("file-in.txt")).expect("a link");
    symlink("nowhere", container.join("dangling.txt")).expect("a link");

    assert_eq!(names(&*store.data, "inside").await, ["file-in.txt", "real/a.txt"]);
    assert_eq!(read(&*store.data, "inside", "file-in.txt").await.expect("reading a link inside"), "inside");
    for name in ["file-out.txt", "folder-out/secret.txt", "relative-out/secret.txt", "folder-in/a.txt", "real/loop/x"] {
        let read = read(&*store.data, "inside", name).await;
        assert!(matches!(read, Err(StoreError::Rejected { .. } | StoreError::NotFound(_))), "`{name}`: {read:?}");
    }
    for name in ["folder-out/new.txt", "relative-out/new.txt", "folder-in/new.txt"] {
        let written = write(&*store.data, "inside", name, "x").await;
        assert!(matches!(written, Err(StoreError::Rejected { .. })), "`{name}`: {written:?}");
    }
    for name in ["folder-out/secret.txt", "relative-out/secret.txt"] {
        let deleted = store.data.delete(&container_name("inside"), &BlobName::parse(name).expect("a name")).await;
        assert!(matches!(deleted, Err(StoreError::Rejected { .. })), "`{name}`: {deleted:?}");
    }
    // A link is replaced by a write of its name, not followed.
    write(&*store.data, "inside", "file-out.txt", "mine").await.expect("writing over a link");
    assert_eq!(fs::read_to_string(outside.join("secret.txt")).expect("the secret"), "secret");
    assert_eq!(fs::read_dir(&outside).expect("the folder").count(), 1, "something was written outside");

    for name in ["a//b", "/a", "a/", "/", "//", ".coremachine-1.tmp", ".coremachine-1.tmp/a"] {
        let written = write(&*store.data, "inside", name, "x").await;
        assert!(matches!(written, Err(StoreError::Rejected { .. })), "`{name}`: {written:?}");
        let read = read(&*store.data, "inside", name).await;
        assert!(matches!(read, Err(StoreError::Rejected { .. })), "`{name}`: {read:?}");
    }
    for name in [".", "..", "../outside/secret.txt", "real/../../outside/secret.txt", "a/./b"] {
        assert!(BlobName::parse(name).is_err(), "`{name}` is a name");
    }
}

#[tokio::test]
async fn a_blob_cannot_be_where_a_folder_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), &environment());
    write(&*store.data, "data", "a/b", "x").await.expect("writing");
    for name in ["a", "a/b/c", &"long".repeat(100)] {
        let written = write(&*store.data, "data", name, "x").await;
        assert!(matches!(written, Err(StoreError::Rejected { .. })), "`{name}`: {written:?}");
        let read = read(&*store.data, "data", name).await;
        assert!(matches!(read, Err(StoreError::NotFound(_))), "`{name}`: {read:?}");
    }
    assert_eq!(names(&*store.data, "data").await, ["a/b"]);
    let left = fs::read_dir(folder.path().join("blobs/data")).expect("the folder").count();
    assert_eq!(left, 1, "a refused write left a file");
}

#[tokio::test]
async fn a_mount_is_read_only_unless_said_otherwise() {
    let folder = tempfile::tempdir().expect("a folder");
    let elsewhere = tempfile::tempdir().expect("a folder");
    fs::create_dir(elsewhere.path().join("sub")).expect("a folder");
    fs::write(elsewhere.path().join("sub/a.txt"), "there").expect("a file");
    let mount = |name: &str, access: Access| Mount {
        container: container_name(name),
        folder: elsewhere.path().to_owned(),
        access,
    };
    let mounts = vec![mount("fixed", Access::ReadOnly), mount("open", Access::ReadWrite)];
    let store = EmbeddedStore::open(folder.path(), environment(), mounts).expect("a store");
    for container in ["fixed", "open"] {
        assert_eq!(names(&*store.data, container).await, ["sub/a.txt"]);
        assert_eq!(read(&*store.data, container, "sub/a.txt").await.expect("reading"), "there");
    }
    let written = write(&*store.data, "fixed", "b.txt", "x").await.expect_err("writing into a read-only mount");
    assert!(written.source().expect("a cause").to_string().contains("read-only"), "{written:?}");
    let name = BlobName::parse("sub/a.txt").expect("a name");
    let deleted = store.data.delete(&container_name("fixed"), &name).await;
    assert!(matches!(deleted, Err(StoreError::Rejected { .. })), "{deleted:?}");
    write(&*store.data, "open", "b.txt", "x").await.expect("writing into an open mount");
    assert_eq!(fs::read_to_string(elsewhere.path().join("b.txt")).expect("the file"), "x");
    drop(store);

    let twice = vec![mount("fixed", Access::ReadOnly), mount("fixed", Access::ReadWrite)];
    assert!(EmbeddedStore::open(folder.path(), environment(), twice).is_err(), "a container was mounted twice");
    let nowhere = Mount { folder: folder.path().join("nowhere"), ..mount("fixed", Access::ReadOnly) };
    assert!(EmbeddedStore::open(folder.path(), environment(), vec![nowhere]).is_err(), "nothing was mounted");
}

#[tokio::test]
async fn a_large_container_is_listed_in_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = open(folder.path(), &environment());
    let mut expected = Vec::new();
    for sub in 0..40 {
        let path = folder.path().join(format!("blobs/large/{sub}/deep"));
        fs::create_dir_all(&path).expect("folders");
        for file in 0..600 {
            fs::write(path.join(format!("{file}.bin")), "").expect("a file");
            expected.push(format!("{sub}/deep/{file}.bin"));
        }
    }
    expected.sort_unstable();
    let started = Instant::now();
    assert!(names(&*store.data, "large").await == expected, "the listing lost or reordered blobs");
    let page = store.data.list(&container_name("large"), "3", None).await.expect("listing");
    assert_eq!(page.blobs.len(), 5_000);
    let page = store.data.list(&container_name("large"), "39/deep/5", None).await.expect("listing");
    assert_eq!(page.blobs.len(), 111);
    assert!(started.elapsed() < Duration::from_secs(20), "24,000 blobs took {:?}", started.elapsed());
}

// Kills

const CHILD_FOLDER: &str = "COREMACHINE_TEST_CHILD_FOLDER";

/// Not a test of its own: the process that [`nothing_acknowledged_is_lost_by_a_kill`] kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_until_it_is_killed() {
    let Ok(folder) = std::env::var(CHILD_FOLDER) else { return };
    let store = EmbeddedStore::open(Path::new(&folder), Arc::new(SystemEnvironment), Vec::new()).expect("a store");
    let run = format!("{:016x}", SystemEnvironment.random());
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (store, run) = (store.clone(), run.clone());
            tokio::spawn(async move {
                for number in 0.. {
                    write_and_say(&store, &format!("{run}-{writer}-{number:06}")).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("writing until killed");
    }
}

/// A commit of three rows, a message and a blob, each told when it is acknowledged.
async fn write_and_say(store: &Store, id: &str) {
    let document = json!({ "id": id, "text": id.repeat(50) });
    let writes = ["a", "b", "c"].map(|row| Write::Insert { key: format!("{id}-{row}"), document: document.clone() });
    store.tables.commit(Table::Jobs, "p", writes.to_vec()).await.expect("committing");
    say("rows", id);
    store.queues.send(Queue::Tasks, id.to_owned().into(), Duration::ZERO).await.expect("sending");
    say("message", id);
    write(&*store.payloads, "payloads", id, &id.repeat(50)).await.expect("writing");
    say("blob", id);
    // Some messages are in flight at the kill and some are settled.
    for message in store.queues.receive(Queue::Tasks, 1, LONG).await.expect("receiving") {
        let settled = String::from_utf8(message.body.to_vec()).expect("an id");
        if settled.ends_with('7') {
            store.queues.delete(Queue::Tasks, &message.receipt).await.expect("deleting");
            say("settled", &settled);
        }
    }
}

fn say(what: &str, id: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "acknowledged {what} {id}").and_then(|()| out.flush()).expect("a pipe");
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_by_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for patience in [40, 300, 120] {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["embedded::writes_until_it_is_killed", "--exact", "--nocapture"])
            .env(CHILD_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a child");
        let mut heard = 0;
        for line in BufReader::new(child.stdout.take().expect("its output")).lines() {
            let line = line.expect("a line");
            // What it managed to say between the kill being sent and its end counts too.
            let Some((_, said)) = line.split_once("acknowledged ") else { continue };
            let (what, id) = said.split_once(' ').expect("what and which");
            acknowledged.entry(what.to_owned()).or_default().push(id.to_owned());
            heard += 1;
            if heard == patience {
                child.kill().expect("killing it");
            }
        }
        let status = child.wait().expect("its end");
        assert!(!status.success() && heard >= patience, "the child ended by itself: {status}, {heard} lines");
        let store = EmbeddedStore::open(folder.path(), Arc::new(SystemEnvironment), Vec::new()).expect("a store");
        check(&store, &acknowledged).await;
    }
}

async fn check(store: &Store, acknowledged: &BTreeMap<String, Vec<String>>) {
    let rows = rows(store).await;
    for id in &acknowledged["rows"] {
        for row in ["a", "b", "c"] {
            assert!(rows.contains_key(&format!("{id}-{row}")), "row {id}-{row} was acknowledged and is lost");
        }
    }
    for (key, document) in &rows {
        let id = &key[..key.len() - 2];
        assert_eq!(document, &json!({ "id": id, "text": id.repeat(50) }), "row {key} is torn");
        let together = ["a", "b", "c"].iter().filter(|row| rows.contains_key(&format!("{id}-{row}"))).count();
        assert_eq!(together, 3, "part of commit {id} happened");
    }

    for id in &acknowledged["blob"] {
        let body = read(&*store.payloads, "payloads", id).await.expect("a blob that was acknowledged");
        assert_eq!(body, id.repeat(50));
    }
    for id in names(&*store.payloads, "payloads").await {
        let body = read(&*store.payloads, "payloads", &id).await.expect("a blob that is listed");
        assert_eq!(body, id.repeat(50), "blob {id} is torn");
    }

    // Everything not settled is due at once, in flight or not; it is handed back for the next round.
    let mut held = BTreeMap::new();
    let mut receipts: Vec<Receipt> = Vec::new();
    loop {
        let received = store.queues.receive(Queue::Tasks, 32, LONG).await.expect("receiving");
        if received.is_empty() {
            break;
        }
        for message in received {
            let id = String::from_utf8(message.body.to_vec()).expect("an id");
            assert_eq!(held.insert(id.clone(), message.dequeue_count), None, "message {id} is there twice");
            receipts.push(message.receipt);
        }
    }
    assert_eq!(store.queues.length(Queue::Tasks).await.expect("counting"), held.len() as u64);
    let settled = acknowledged.get("settled").map(Vec::as_slice).unwrap_or_default();
    for id in &acknowledged["message"] {
        // One whose deletion was under way at the kill may be gone without having been told.
        let is_gone = !held.contains_key(id);
        assert!(!is_gone || id.ends_with('7'), "message {id} was acknowledged and is lost");
    }
    for id in settled {
        assert!(!held.contains_key(id), "message {id} was settled and is back");
    }
    for receipt in receipts {
        store.queues.hide(Queue::Tasks, &receipt, Duration::ZERO).await.expect("handing back");
    }
}

// How the tests speak

fn environment() -> Arc<VirtualEnvironment> {
    Arc::new(VirtualEnvironment::new(Time::from_unix_millis(1_795_489_740_000), 1))
}

fn open(folder: &Path, environment: &Arc<VirtualEnvironment>) -> Store {
    EmbeddedStore::open(folder, environment.clone(), Vec::new()).expect("a store")
}

async fn insert(store: &Store, key: &str, document: Value) {
    let write = Write::Insert { key: key.to_owned(), document };
    store.tables.commit(Table::Jobs, "p", vec![write]).await.expect("inserting");
}

async fn rows(store: &Store) -> BTreeMap<String, Value> {
    let query =
        Query { table: Table::Jobs, partition: "p", from: "", to: None, limit: 1_000, select: Select::Documents };
    let rows = store.tables.query_all(query).await.expect("querying");
    rows.into_iter().map(|row| (row.key, row.document)).collect()
}

async fn deliveries(store: &Store) -> Vec<(String, u32)> {
    let received = store.queues.receive(Queue::Tasks, 32, LONG).await.expect("receiving");
    let body = |body: &[u8]| String::from_utf8_lossy(body).into_owned();
    received.iter().map(|message| (body(&message.body), message.dequeue_count)).collect()
}

fn container_name(name: &str) -> ContainerName {
    ContainerName::parse(name).expect("a container's name")
}

async fn write(blobs: &dyn Blobs, container: &str, name: &str, body: &str) -> Result<(), StoreError> {
    let name = BlobName::parse(name).expect("a blob's name");
    blobs.write(&container_name(container), &name, body.to_owned().into(), "text/plain").await
}

async fn read(blobs: &dyn Blobs, container: &str, name: &str) -> Result<Bytes, StoreError> {
    let name = BlobName::parse(name).expect("a blob's name");
    blobs.read(&container_name(container), &name, 0..u64::MAX, None).await
}

async fn names(blobs: &dyn Blobs, container: &str) -> Vec<String> {
    let container = container_name(container);
    let mut names = Vec::new();
    let mut after = None;
    loop {
        let page = blobs.list(&container, "", after.as_deref()).await.expect("listing");
        names.extend(page.blobs.into_iter().map(|blob| blob.name));
        after = page.next;
        if after.is_none() {
            return names;
        }
    }
}
