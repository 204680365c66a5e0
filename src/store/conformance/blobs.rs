//! What containers of blobs must do.

use super::{Subject, at_once, done, unique};
use crate::ports::{BlobName, BlobProperties, ContainerName, Store, StoreError};
use crate::store::limits::LIST_LIMIT;
use bytes::Bytes;
use futures_util::future::join_all;
use std::collections::BTreeSet;
use std::ops::Range;

/// Without its container a blob is not there: no properties, [`StoreError::NotFound`] to read, nothing to delete; and
/// there is nothing to list.
pub async fn a_missing_container_is_no_blob(subject: &Subject) {
    let place = Container::new(subject);
    assert!(!place.exists().await, "a container was there before it was made");
    for missing in ["its container", "the blob"] {
        assert_eq!(place.properties("a.txt").await, None, "without {missing}");
        let read = place.read("a.txt", 0..1, None).await;
        assert!(matches!(read, Err(StoreError::NotFound(_))), "without {missing}: {read:?}");
        if missing == "its container" {
            let listed = place.store.data.list(&place.container, "", None).await;
            assert!(matches!(listed, Err(StoreError::NotFound(_))), "{listed:?}");
            place.delete("a.txt").await;
            assert!(!place.exists().await, "reading made a container");
            place.create().await;
        }
    }
    assert_eq!(place.names("").await, Vec::<String>::new());
}

/// Creating a container again is no error and keeps its blobs; writing a blob creates its container.
pub async fn a_container_can_be_created_twice(subject: &Subject) {
    let place = Container::new(subject);
    place.create().await;
    place.create().await;
    assert!(place.exists().await, "a container that was created is not there");
    place.write("a.txt", "a").await;
    place.create().await;
    assert_eq!(place.names("").await, ["a.txt"]);

    let unmade = Container::new(subject);
    unmade.write("a.txt", "a").await;
    assert!(unmade.exists().await, "a blob was written without making its container");
}

/// A blob is read back, and its properties tell its name, size, type, time and version.
pub async fn a_written_blob_is_read_back(subject: &Subject) {
    for blobs in [&subject.store.data, &subject.store.payloads] {
        let name = BlobName::parse("folder/a.json").expect("a name");
        let container = Container::new(subject).container;
        blobs.write(&container, &name, Bytes::from_static(b"{}"), "application/json").await.expect("writing a blob");
        let properties = blobs.properties(&container, &name).await.expect("reading properties").expect("the blob");
        assert_eq!((properties.name.as_str(), properties.size), ("folder/a.json", 2));
        assert_eq!(properties.content_type.as_deref(), Some("application/json"));
        assert!(properties.last_modified.day().as_str() > "2020-01-01", "modified at {}", properties.last_modified);
        assert!(!properties.etag.is_empty(), "a blob has no version");
        let body = blobs.read(&container, &name, 0..u64::MAX, Some(&properties.etag)).await.expect("reading a blob");
        assert_eq!(body.as_ref(), b"{}");
        let page = blobs.list(&container, "", None).await.expect("listing");
        assert_eq!(page.blobs, [properties], "a listing tells another story");
    }
    let place = Container::new(subject);
    place.write("empty.bin", "").await;
    assert_eq!(place.properties("empty.bin").await.map(|properties| properties.size), Some(0));
    assert_eq!(place.read("empty.bin", 0..10, None).await.expect("reading an empty blob"), "");
    let large: Bytes = (0..9_000_000_u32).map(|number| number.to_le_bytes()[(number % 3) as usize]).collect();
    place.write("large.bin", large.clone()).await;
    assert!(place.read("large.bin", 0..u64::MAX, None).await.expect("reading 9 MB") == large, "9 MB changed");
}

/// A range gives the bytes of it that exist; none past the end.
pub async fn a_read_gives_the_bytes_that_exist(subject: &Subject) {
    let place = Container::new(subject);
    place.write("digits.txt", "0123456789").await;
    for (range, expected) in [
        (0..10, "0123456789"),
        (0..1, "0"),
        (3..7, "3456"),
        (9..10, "9"),
        (5..100, "56789"),
        (0..u64::MAX, "0123456789"),
        (10..20, ""),
        (100..200, ""),
        (4..4, ""),
        (0..0, ""),
    ] {
        let body = place.read("digits.txt", range.clone(), None).await;
        assert_eq!(body.as_ref().ok().map(Bytes::as_ref), Some(expected.as_bytes()), "{range:?}: {body:?}");
    }
}

/// A read that names a version fails with [`StoreError::Conflict`] once the blob was written again.
pub async fn a_read_of_another_version_conflicts(subject: &Subject) {
    let place = Container::new(subject);
    let mut seen = BTreeSet::new();
    // The same bytes each time: a version is of the write, not of what was written.
    for _ in 0..4 {
        place.write("a.txt", "same").await;
        let etag = place.properties("a.txt").await.expect("the blob").etag;
        assert!(seen.insert(etag.clone()), "version `{etag}` came twice");
        assert_eq!(place.read("a.txt", 0..4, Some(&etag)).await.expect("reading the present version"), "same");
    }
    let newest = place.properties("a.txt").await.expect("the blob").etag;
    seen.remove(&newest);
    for old in &seen {
        let read = place.read("a.txt", 0..4, Some(old)).await;
        assert!(matches!(read, Err(StoreError::Conflict(_))), "an old version was read: {read:?}");
    }
    place.delete("a.txt").await;
    let read = place.read("a.txt", 0..4, Some(&newest)).await;
    assert!(matches!(read, Err(StoreError::NotFound(_))), "a deleted blob: {read:?}");
}

/// A write leaves nothing of the blob that was there.
pub async fn an_overwrite_replaces_the_whole_blob(subject: &Subject) {
    let place = Container::new(subject);
    place.write("a.txt", "a long text").await;
    place.write("a.txt", "short").await;
    assert_eq!(place.read("a.txt", 0..u64::MAX, None).await.expect("reading"), "short");
    assert_eq!(place.properties("a.txt").await.map(|properties| properties.size), Some(5));
    assert_eq!(place.names("").await, ["a.txt"]);
}

/// Whoever reads while others write gets one of the bodies written, whole.
pub async fn a_reader_sees_no_mixture(subject: &Subject) {
    const SIZE: usize = 200_000;
    let place = Container::new(subject);
    place.write("a.bin", vec![0; SIZE]).await;
    at_once(4, |number| {
        let place = place.clone();
        async move {
            for round in 0..6_u8 {
                if number % 2 == 0 {
                    let filler = 6 * u8::from(number == 0) + round;
                    place.write("a.bin", vec![filler; SIZE]).await;
                } else {
                    let body = place.read("a.bin", 0..u64::MAX, None).await.expect("reading what is being written");
                    assert_eq!(body.len(), SIZE, "a blob was read in part");
                    assert!(body.iter().all(|byte| *byte == body[0]), "two writes were mixed");
                }
            }
        }
    })
    .await;
}

/// A blob can be deleted that is not there; one that was deleted is gone from everywhere.
pub async fn a_delete_of_a_missing_blob_is_no_error(subject: &Subject) {
    let place = Container::new(subject);
    place.create().await;
    place.delete("a.txt").await;
    place.delete("no/such/folder/a.txt").await;
    place.write("folder/a.txt", "a").await;
    place.delete("folder/a.txt").await;
    place.delete("folder/a.txt").await;
    assert_eq!(place.properties("folder/a.txt").await, None, "a deleted blob has properties");
    assert_eq!(place.names("").await, Vec::<String>::new(), "a deleted blob is listed");
    // What looked like a folder is none any more.
    place.write("folder", "a").await;
    assert_eq!(place.names("").await, ["folder"]);
}

/// A listing gives all blobs whose names begin with the prefix, through all that look like folders, and no folders.
pub async fn a_listing_goes_by_prefix_whatever_the_folders(subject: &Subject) {
    let place = Container::new(subject);
    for name in ["a/b/c.txt", "a/b.txt", "a.txt", "ab/c.txt", "b/a.txt", "a/b/d/e.txt"] {
        place.write(name, "x").await;
    }
    for (prefix, expected) in [
        ("", &["a.txt", "a/b.txt", "a/b/c.txt", "a/b/d/e.txt", "ab/c.txt", "b/a.txt"][..]),
        ("a", &["a.txt", "a/b.txt", "a/b/c.txt", "a/b/d/e.txt", "ab/c.txt"]),
        ("a/", &["a/b.txt", "a/b/c.txt", "a/b/d/e.txt"]),
        ("a/b", &["a/b.txt", "a/b/c.txt", "a/b/d/e.txt"]),
        ("a/b/", &["a/b/c.txt", "a/b/d/e.txt"]),
        ("a/b/c.txt", &["a/b/c.txt"]),
        ("a/b/c.txt/", &[]),
        ("b/a.t", &["b/a.txt"]),
        ("A", &[]),
        ("c", &[]),
        ("/", &[]),
        ("a//", &[]),
        ("../", &[]),
        ("a/../", &[]),
    ] {
        assert_eq!(place.names(prefix).await, expected, "of prefix `{prefix}`");
    }
}

/// A listing is in ascending order of full names.
pub async fn a_listing_is_in_order(subject: &Subject) {
    let place = Container::new(subject);
    let mut names = vec!["a", "b-1", "b.txt", "b/1", "b/2/x", "b/2/y", "b/2-", "b0", "ba/1", "c"];
    join_all(names.iter().rev().map(|name| place.write(name, "x"))).await;
    names.sort_unstable();
    assert_eq!(place.names("").await, names);
}

/// A listing of more blobs than a page holds gives each of them once.
pub async fn a_listing_is_paged(subject: &Subject) {
    let place = Container::new(subject);
    let mut names: Vec<_> = (0..LIST_LIMIT + 10).map(|number| format!("{}/{number:04}/x", number % 7)).collect();
    for some in names.chunks(64) {
        join_all(some.iter().map(|name| place.write(name, ""))).await;
    }
    names.sort_unstable();
    assert!(place.names("").await == names, "a listing by pages lost, repeated or reordered blobs");
}

/// Names with blanks, signs that mean something in a URL, and letters of any script name blobs of their own.
pub async fn odd_names_are_names(subject: &Subject) {
    let place = Container::new(subject);
    let mut names = vec![
        "a b.txt",
        "a%20b.txt",
        "a%2fb.txt",
        "a+b.txt",
        "a?b=c&d.txt",
        "a#b.txt",
        "~!@$^&*()_-=[]{};',.txt",
        "\"quoted\" <tag>|.txt",
        "Grüße/世界/🦀.txt",
        ".hidden/.file",
        ".a",
        "a:b.txt",
        " leading",
    ];
    for name in &names {
        place.write(name, name.as_bytes().to_vec()).await;
    }
    for name in &names {
        let body = place.read(name, 0..u64::MAX, None).await.unwrap_or_else(|error| panic!("`{name}`: {error:?}"));
        assert_eq!(body, name.as_bytes(), "`{name}` names another blob");
        assert_eq!(place.properties(name).await.map(|properties| properties.name).as_deref(), Some(*name));
    }
    names.sort_unstable();
    assert_eq!(place.names("").await, names);
    for name in &names {
        assert_eq!(place.names(name).await.first().map(String::as_str), Some(*name), "as a prefix");
        place.delete(name).await;
        assert_eq!(place.properties(name).await, None, "`{name}` was not deleted");
    }
    assert_eq!(place.names("").await, Vec::<String>::new());
}

/// A container of a check's own.
#[derive(Clone)]
struct Container {
    store: Store,
    container: ContainerName,
}

impl Container {
    fn new(subject: &Subject) -> Self {
        let container = done("naming", ContainerName::parse(&format!("check-{}", unique())));
        Self { store: subject.store.clone(), container }
    }

    async fn exists(&self) -> bool {
        done("looking for a container", self.store.data.container_exists(&self.container).await)
    }

    async fn create(&self) {
        done("creating a container", self.store.data.create_container(&self.container).await);
    }

    async fn properties(&self, name: &str) -> Option<BlobProperties> {
        done("reading properties", self.store.data.properties(&self.container, &blob(name)).await)
    }

    async fn read(&self, name: &str, range: Range<u64>, etag: Option<&str>) -> Result<Bytes, StoreError> {
        self.store.data.read(&self.container, &blob(name), range, etag).await
    }

    async fn write(&self, name: &str, body: impl Into<Bytes>) {
        let written = self.store.data.write(&self.container, &blob(name), body.into(), "text/plain").await;
        done("writing a blob", written);
    }

    async fn delete(&self, name: &str) {
        done("deleting a blob", self.store.data.delete(&self.container, &blob(name)).await);
    }

    /// Every name of a prefix, page by page.
    async fn names(&self, prefix: &str) -> Vec<String> {
        let mut names = Vec::new();
        let mut after = None;
        loop {
            let page = done("listing", self.store.data.list(&self.container, prefix, after.as_deref()).await);
            assert!(page.blobs.len() <= LIST_LIMIT, "{} blobs in a page", page.blobs.len());
            names.extend(page.blobs.into_iter().map(|blob| blob.name));
            after = page.next;
            if after.is_none() {
                return names;
            }
        }
    }
}

fn blob(name: &str) -> BlobName {
    done("naming", BlobName::parse(name))
}
