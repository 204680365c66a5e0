//! Containers as folders, blobs as files.

use super::{Access, Mount};
use crate::ports::{BlobName, BlobPage, BlobProperties, Blobs, ContainerName, Environment, StoreError, Time};
use crate::store::limits::LIST_LIMIT;
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, UNIX_EPOCH};

/// What the store's own unfinished files are called: `.coremachine-<number>.tmp`.
const TEMPORARY_PREFIX: &str = ".coremachine-";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// Containers under one folder, and mounted ones.
pub(super) struct FolderBlobs {
    folders: Arc<Folders>,
}

impl FolderBlobs {
    pub(super) fn open(
        root: PathBuf,
        containers: Vec<Mount>,
        environment: Arc<dyn Environment>,
    ) -> Result<Self, StoreError> {
        fs::create_dir_all(&root).map_err(|error| failed(format!("creating folder `{}`", root.display()), error))?;
        let mut mounts = BTreeMap::new();
        for mount in containers {
            let operation = format!("mounting `{}` as container `{}`", mount.folder.display(), mount.container);
            if !mount.folder.is_dir() {
                return Err(StoreError::rejected(operation, "there is no such folder"));
            }
            if mounts.insert(mount.container.clone(), mount).is_some() {
                return Err(StoreError::rejected(operation, "the container is mounted twice"));
            }
        }
        let folders = Folders { root, mounts, environment, last_stamp: AtomicU64::new(0), pruning: RwLock::default() };
        Ok(Self { folders: Arc::new(folders) })
    }

    /// Works on the disk where nobody else waits.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folders) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let folders = Arc::clone(&self.folders);
        tokio::task::spawn_blocking(move || work(&folders))
            .await
            .map_err(|error| StoreError::unavailable("working on files", error))?
    }
}

#[async_trait]
impl Blobs for FolderBlobs {
    async fn container_exists(&self, container: &ContainerName) -> Result<bool, StoreError> {
        let container = container.clone();
        self.run(move |folders| Ok(folders.find(&container)?.is_some())).await
    }

    async fn create_container(&self, container: &ContainerName) -> Result<(), StoreError> {
        let container = container.clone();
        self.run(move |folders| match folders.find(&container)? {
            Some(_) => Ok(()),
            None => folders.create(&container).map(|_| ()),
        })
        .await
    }

    async fn list(&self, container: &ContainerName, prefix: &str, after: Option<&str>) -> Result<BlobPage, StoreError> {
        let (container, prefix, after) = (container.clone(), prefix.to_owned(), after.map(str::to_owned));
        self.run(move |folders| folders.list(&container, &prefix, after.as_deref())).await
    }

    async fn properties(
        &self,
        container: &ContainerName,
        name: &BlobName,
    ) -> Result<Option<BlobProperties>, StoreError> {
        let (container, name) = (container.clone(), name.clone());
        self.run(move |folders| {
            let found = folders.locate(&container, &name)?;
            Ok(found.map(|(_, metadata)| properties(name.as_str(), &metadata)))
        })
        .await
    }

    async fn read(
        &self,
        container: &ContainerName,
        name: &BlobName,
        range: Range<u64>,
        etag: Option<&str>,
    ) -> Result<Bytes, StoreError> {
        let (container, name, etag) = (container.clone(), name.clone(), etag.map(str::to_owned));
        self.run(move |folders| folders.read(&container, &name, &range, etag.as_deref())).await
    }

    async fn write(
        &self,
        container: &ContainerName,
        name: &BlobName,
        body: Bytes,
        _content_type: &str,
    ) -> Result<(), StoreError> {
        let (container, name) = (container.clone(), name.clone());
        self.run(move |folders| folders.write(&container, &name, &body)).await
    }

    async fn delete(&self, container: &ContainerName, name: &BlobName) -> Result<(), StoreError> {
        let (container, name) = (container.clone(), name.clone());
        self.run(move |folders| folders.delete(&container, &name)).await
    }
}

struct Folders {
    root: PathBuf,
    mounts: BTreeMap<ContainerName, Mount>,
    environment: Arc<dyn Environment>,
    /// The last modification time given to a file, in nanoseconds.
    last_stamp: AtomicU64,
    /// Held for reading while a file is written, and for writing while empty folders are removed: else a folder could
    /// go between its making and its first file.
    pruning: RwLock<()>,
}

impl Folders {
    /// The container's folder without links in its path; `None` if it is not there.
    fn find(&self, container: &ContainerName) -> Result<Option<PathBuf>, StoreError> {
        match fs::canonicalize(self.folder(container)) {
            Ok(folder) => Ok(folder.is_dir().then_some(folder)),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(failed(format!("opening container `{container}`"), error)),
        }
    }

    fn create(&self, container: &ContainerName) -> Result<PathBuf, StoreError> {
        let operation = || format!("creating container `{container}`");
        self.check_access(container, operation)?;
        let folder = self.folder(container);
        fs::create_dir_all(&folder)
            .and_then(|()| folder.parent().map_or(Ok(()), sync_folder))
            .and_then(|()| fs::canonicalize(&folder))
            .map_err(|error| failed(operation(), error))
    }

    fn folder(&self, container: &ContainerName) -> PathBuf {
        match self.mounts.get(container) {
            Some(mount) => mount.folder.clone(),
            None => self.root.join(container.as_str()),
        }
    }

    fn check_access(&self, container: &ContainerName, operation: impl Fn() -> String) -> Result<(), StoreError> {
        match self.mounts.get(container).map(|mount| mount.access) {
            Some(Access::ReadOnly) => {
                Err(StoreError::rejected(operation(), format!("container `{container}` is mounted read-only")))
            }
            Some(Access::ReadWrite) | None => Ok(()),
        }
    }

    /// The file that a name stands for; `None` if there is none, an error if the name leads elsewhere.
    fn locate(&self, container: &ContainerName, name: &BlobName) -> Result<Option<(PathBuf, Metadata)>, StoreError> {
        let operation = || format!("opening blob `{container}/{name}`");
        let (parents, last) = segments(name, operation)?;
        let Some(root) = self.find(container)? else { return Ok(None) };
        let parent = real_folder(&root, &parents).and_then(Found::unlinked);
        let Some(parent) = parent.map_err(|error| failed(operation(), error))? else { return Ok(None) };
        let path = parent.join(last);
        let file = real_file(&root, &path).and_then(Found::unlinked);
        Ok(file.map_err(|error| failed(operation(), error))?.map(|metadata| (path, metadata)))
    }

    fn read(
        &self,
        container: &ContainerName,
        name: &BlobName,
        range: &Range<u64>,
        etag: Option<&str>,
    ) -> Result<Bytes, StoreError> {
        let place = || format!("{container}/{name}");
        let (path, _) = self.locate(container, name)?.ok_or_else(|| StoreError::NotFound(place()))?;
        // What was opened is read to its end even if another file takes its name meanwhile.
        let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        let (file, metadata) = match opened {
            Ok(opened) => opened,
            Err(error) if is_absence(&error) => return Err(StoreError::NotFound(place())),
            Err(error) => return Err(failed(format!("opening blob `{}`", place()), error)),
        };
        if etag.is_some_and(|etag| etag != version(&metadata)) {
            return Err(StoreError::Conflict(place()));
        }
        read_range(&file, metadata.len(), range).map_err(|error| failed(format!("reading blob `{}`", place()), error))
    }

    fn write(&self, container: &ContainerName, name: &BlobName, body: &[u8]) -> Result<(), StoreError> {
        let operation = || format!("writing blob `{container}/{name}`");
        let (parents, last) = segments(name, operation)?;
        self.check_access(container, operation)?;
        let root = match self.find(container)? {
            Some(root) => root,
            None => self.create(container)?,
        };
        let _not_pruning = self.pruning.read().unwrap_or_else(PoisonError::into_inner);
        make_folder(root, &parents)
            .and_then(|folder| self.replace_file(&folder, last, body))
            .map_err(|error| failed(operation(), error))
    }

    /// Puts a whole new file in the place of whatever bears the name. A link of that name is replaced, not followed.
    fn replace_file(&self, folder: &Path, name: &str, body: &[u8]) -> io::Result<()> {
        let number = self.environment.random();
        let temporary = folder.join(format!("{TEMPORARY_PREFIX}{number:016x}{TEMPORARY_SUFFIX}"));
        let mut file = File::create_new(&temporary)?;
        let written = file
            .write_all(body)
            .and_then(|()| file.set_modified(UNIX_EPOCH + Duration::from_nanos(self.next_stamp())))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&temporary, folder.join(name)));
        if written.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_file(&temporary);
        }
        written.and_then(|()| sync_folder(folder))
    }

    /// A modification time later than any given before: a disk's clock ticks too slowly to tell two writes apart.
    fn next_stamp(&self) -> u64 {
        let now = u64::try_from(self.environment.now().unix_millis()).unwrap_or(0).saturating_mul(1_000_000);
        let next = |last: u64| now.max(last.saturating_add(1));
        let last = self.last_stamp.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(next(last)));
        next(last.unwrap_or_default())
    }

    fn delete(&self, container: &ContainerName, name: &BlobName) -> Result<(), StoreError> {
        let operation = || format!("deleting blob `{container}/{name}`");
        let (parents, last) = segments(name, operation)?;
        self.check_access(container, operation)?;
        let Some(root) = self.find(container)? else { return Ok(()) };
        let removed = real_folder(&root, &parents).and_then(Found::unlinked).and_then(|folder| match folder {
            Some(folder) => fs::remove_file(folder.join(last)).and_then(|()| sync_folder(&folder)),
            None => Ok(()),
        });
        match removed {
            Ok(()) => {
                self.prune(&root, &parents);
                Ok(())
            }
            // A folder is no blob, so there was nothing to remove.
            Err(error) if is_absence(&error) || error.kind() == ErrorKind::IsADirectory => Ok(()),
            Err(error) => Err(failed(operation(), error)),
        }
    }

    /// Removes the folders that a deleted blob leaves empty: else they would stand in the way of a blob of their name.
    fn prune(&self, root: &Path, parents: &[&str]) {
        let _pruning = self.pruning.write().unwrap_or_else(PoisonError::into_inner);
        for depth in (1..=parents.len()).rev() {
            let folder = root.join(parents[..depth].join("/"));
            // Refused if it holds anything, and then so do the folders around it.
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }

    fn list(&self, container: &ContainerName, prefix: &str, after: Option<&str>) -> Result<BlobPage, StoreError> {
        let root = self.find(container)?.ok_or_else(|| StoreError::NotFound(format!("container {container}")))?;
        let mut listing = Listing { root: &root, prefix, after, blobs: Vec::new() };
        // Straight to the folder that holds every name of this prefix.
        let folder = prefix.rfind('/').map_or("", |slash| &prefix[..=slash]);
        let parents: Vec<&str> = folder.split_terminator('/').collect();
        if parents.iter().any(|segment| check_segment(segment).is_err()) {
            return Ok(BlobPage::default());
        }
        real_folder(&root, &parents)
            .and_then(|start| match start {
                Found::Here(start) => listing.walk(&start, folder),
                // No blob is reached through a link, so none is listed.
                Found::Nothing | Found::Link(_) => Ok(()),
            })
            .map_err(|error| failed(format!("listing container `{container}`"), error))?;
        let mut blobs = listing.blobs;
        let more = blobs.len() > LIST_LIMIT;
        blobs.truncate(LIST_LIMIT);
        let next = blobs.last().filter(|_| more).map(|blob| blob.name.clone());
        Ok(BlobPage { blobs, next })
    }
}

/// A walk through a container in the order of full names, until there is one blob more than a page holds.
struct Listing<'a> {
    root: &'a Path,
    prefix: &'a str,
    after: Option<&'a str>,
    blobs: Vec<BlobProperties>,
}

impl Listing<'_> {
    /// Lists what lies in `folder`, whose blobs' names begin with `base`.
    fn walk(&mut self, folder: &Path, base: &str) -> io::Result<()> {
        for (name, path) in self.entries(folder, base)? {
            if self.blobs.len() > LIST_LIMIT {
                return Ok(());
            }
            if name.ends_with('/') {
                self.walk(&path, &name)?;
            } else if let Found::Here(metadata) = real_file(self.root, &path)? {
                self.blobs.push(properties(&name, &metadata));
            }
        }
        Ok(())
    }

    /// What matters of a folder by full name, folders with a `/` behind: that is where their blobs stand in the order.
    fn entries(&self, folder: &Path, base: &str) -> io::Result<BTreeMap<String, PathBuf>> {
        let mut entries = BTreeMap::new();
        let listed = match fs::read_dir(folder) {
            Ok(listed) => listed,
            Err(error) if is_absence(&error) => return Ok(entries),
            Err(error) => return Err(error),
        };
        for entry in listed {
            let entry = entry?;
            let Ok(segment) = entry.file_name().into_string() else { continue };
            if is_temporary(&segment) {
                continue;
            }
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let name = if is_folder { format!("{base}{segment}/") } else { format!("{base}{segment}") };
            if self.wants(&name, is_folder) {
                entries.insert(name, entry.path());
            }
        }
        Ok(entries)
    }

    /// Whether a blob, or some blob of a folder, is of the prefix and comes after.
    fn wants(&self, name: &str, is_folder: bool) -> bool {
        let of_prefix = name.starts_with(self.prefix) || is_folder && self.prefix.starts_with(name);
        let comes_after = |after: &str| name > after || is_folder && after.starts_with(name);
        of_prefix && self.after.is_none_or(comes_after)
    }
}

/// A name's folders and its last segment, if it is a name that a folder can hold.
fn segments(name: &BlobName, operation: impl Fn() -> String) -> Result<(Vec<&str>, &str), StoreError> {
    let mut segments: Vec<&str> = name.as_str().split('/').collect();
    for segment in &segments {
        check_segment(segment).map_err(|fault| StoreError::rejected(operation(), fault))?;
    }
    let last = segments.pop().unwrap_or_default();
    Ok((segments, last))
}

fn check_segment(segment: &str) -> Result<(), &'static str> {
    match segment {
        "" => Err("a folder cannot hold a name with an empty segment"),
        "." | ".." => Err("`.` and `..` are not segments of a name"),
        _ if segment.contains('\0') => Err("a file's name cannot hold a zero character"),
        _ if is_temporary(segment) => Err("the name is reserved for unfinished files"),
        _ => Ok(()),
    }
}

fn is_temporary(segment: &str) -> bool {
    segment.starts_with(TEMPORARY_PREFIX) && segment.ends_with(TEMPORARY_SUFFIX)
}

/// What a path leads to.
enum Found<T> {
    Here(T),
    Nothing,
    /// A link that is not followed, and why.
    Link(&'static str),
}

impl<T> Found<T> {
    /// What is there; for one blob a link is an error.
    fn unlinked(self) -> io::Result<Option<T>> {
        match self {
            Self::Here(found) => Ok(Some(found)),
            Self::Nothing => Ok(None),
            Self::Link(fault) => Err(refused(fault)),
        }
    }
}

/// The folder under `root`.
fn real_folder(root: &Path, parents: &[&str]) -> io::Result<Found<PathBuf>> {
    let folder = parents.iter().fold(root.to_owned(), |folder, segment| folder.join(segment));
    match fs::canonicalize(&folder) {
        Ok(real) if real != folder => Ok(Found::Link("the name leads through a link")),
        Ok(real) if real.is_dir() => Ok(Found::Here(real)),
        Ok(_) => Ok(Found::Nothing),
        Err(error) if is_absence(&error) => Ok(Found::Nothing),
        Err(error) => Err(error),
    }
}

/// What is known of the file at `path`. Only plain files are blobs: opening a pipe would wait for ever.
fn real_file(root: &Path, path: &Path) -> io::Result<Found<Metadata>> {
    let metadata = fs::symlink_metadata(path).and_then(|metadata| {
        if !metadata.is_symlink() {
            return Ok(Some(metadata));
        }
        let target = fs::canonicalize(path)?;
        if target.starts_with(root) { fs::symlink_metadata(target).map(Some) } else { Ok(None) }
    });
    match metadata {
        Ok(Some(metadata)) if metadata.is_file() => Ok(Found::Here(metadata)),
        Ok(Some(_)) => Ok(Found::Nothing),
        Ok(None) => Ok(Found::Link("it is a link that leads outside its container")),
        Err(error) if is_absence(&error) => Ok(Found::Nothing),
        Err(error) => Err(error),
    }
}

/// Makes the folders of a name under `root`, durably.
fn make_folder(root: PathBuf, parents: &[&str]) -> io::Result<PathBuf> {
    let mut folder = root;
    for segment in parents {
        let inner = folder.join(segment);
        match fs::create_dir(&inner) {
            Ok(()) => sync_folder(&folder)?,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if !fs::symlink_metadata(&inner)?.is_dir() {
                    return Err(refused("a part of the name before a `/` is no folder of the container"));
                }
            }
            Err(error) => return Err(error),
        }
        folder = inner;
    }
    Ok(folder)
}

/// Makes durable which files a folder holds.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn read_range(file: &File, size: u64, range: &Range<u64>) -> io::Result<Bytes> {
    let end = range.end.min(size);
    let length = end.saturating_sub(range.start);
    let mut bytes = vec![0; usize::try_from(length).map_err(|_| ErrorKind::OutOfMemory)?];
    file.read_exact_at(&mut bytes, range.start)?;
    Ok(bytes.into())
}

fn properties(name: &str, metadata: &Metadata) -> BlobProperties {
    BlobProperties {
        name: name.to_owned(),
        size: metadata.len(),
        content_type: mime_guess::from_path(name).first_raw().map(str::to_owned),
        last_modified: Time::from_unix_millis(metadata.mtime() * 1_000 + metadata.mtime_nsec() / 1_000_000),
        etag: version(metadata),
    }
}

fn version(metadata: &Metadata) -> String {
    format!("{}.{:09}-{}-{}", metadata.mtime(), metadata.mtime_nsec(), metadata.len(), metadata.ino())
}

/// Nothing is there, or nothing could be: names too long for the disk are names of no file.
fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename)
}

fn refused(fault: &'static str) -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, fault)
}

/// What the disk refuses for good, and what it may do later.
fn failed(operation: String, error: io::Error) -> StoreError {
    match error.kind() {
        ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::InvalidFilename
        | ErrorKind::AlreadyExists
        | ErrorKind::IsADirectory
        | ErrorKind::NotADirectory => StoreError::rejected(operation, error),
        _ => StoreError::unavailable(operation, error),
    }
}
