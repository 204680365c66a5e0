//! A container for tests of the tasks: it can change while it is looked at.

use crate::contract::{JobId, TaskId};
use crate::ports::BlobPage;
use crate::prelude::*;
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// The one container there is, `bronze`.
#[derive(Clone, Default)]
pub(super) struct FakeContainer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    blobs: BTreeMap<String, (BlobProperties, Bytes)>,
    archived: BTreeSet<String>,
    writes: i64,
    requests: Vec<String>,
    meanwhile: BTreeMap<usize, Meanwhile>,
}

type Meanwhile = Box<dyn FnOnce(&FakeContainer) + Send>;

impl FakeContainer {
    pub(super) fn with(blobs: &[(&str, &[u8])]) -> Self {
        let container = Self::default();
        for (name, body) in blobs {
            container.put(name, body);
        }
        container
    }

    pub(super) fn put(&self, name: &str, body: &[u8]) {
        let mut state = self.0.lock().expect("no panic");
        state.writes += 1;
        let properties = BlobProperties {
            name: name.to_owned(),
            size: body.len() as u64,
            content_type: Some("application/octet-stream".to_owned()),
            last_modified: Time::from_unix_millis(1_700_000_000_000 + state.writes),
            etag: format!("\"{}\"", state.writes),
        };
        state.blobs.insert(name.to_owned(), (properties, Bytes::copy_from_slice(body)));
    }

    pub(super) fn remove(&self, name: &str) {
        self.0.lock().expect("no panic").blobs.remove(name);
    }

    /// Reads of this blob are refused from here on.
    pub(super) fn archive(&self, name: &str) {
        self.0.lock().expect("no panic").archived.insert(name.to_owned());
    }

    /// Does something after so many requests.
    pub(super) fn after_requests(&self, requests: usize, act: impl FnOnce(&Self) + Send + 'static) {
        self.0.lock().expect("no panic").meanwhile.insert(requests, Box::new(act));
    }

    /// What was asked so far, in order.
    pub(super) fn requests(&self) -> Vec<String> {
        self.0.lock().expect("no panic").requests.clone()
    }

    pub(super) fn properties_of(&self, name: &str) -> BlobProperties {
        self.0.lock().expect("no panic").blobs[name].0.clone()
    }

    pub(super) fn context(&self) -> TaskContext {
        let job_id = JobId::of_work("list_container", &json!({}));
        let task_id = TaskId::new(&job_id, 1, 0);
        TaskContext { job_id, task_id, run: 1, stage: 1, index: 0, attempt: 1, data: Arc::new(self.clone()) }
    }

    fn request(&self, request: String) {
        let act = {
            let mut state = self.0.lock().expect("no panic");
            let before = state.requests.len();
            state.requests.push(request);
            state.meanwhile.remove(&before)
        };
        if let Some(act) = act {
            act(self);
        }
    }
}

#[async_trait]
impl Blobs for FakeContainer {
    async fn container_exists(&self, container: &ContainerName) -> Result<bool, StoreError> {
        Ok(container.as_str() == "bronze")
    }

    async fn create_container(&self, _: &ContainerName) -> Result<(), StoreError> {
        unreachable!("the job creates nothing")
    }

    /// Pages of two.
    async fn list(&self, container: &ContainerName, prefix: &str, after: Option<&str>) -> Result<BlobPage, StoreError> {
        self.request("list".to_owned());
        if !self.container_exists(container).await? {
            return Err(StoreError::NotFound(container.to_string()));
        }
        let state = self.0.lock().expect("no panic");
        let further = |name: &str| name.starts_with(prefix) && after.is_none_or(|after| name > after);
        let mut blobs: Vec<_> =
            state.blobs.values().map(|(blob, _)| blob).filter(|blob| further(&blob.name)).cloned().collect();
        let next = (blobs.len() > 2).then(|| blobs[1].name.clone());
        blobs.truncate(2);
        Ok(BlobPage { blobs, next })
    }

    async fn properties(&self, _: &ContainerName, name: &BlobName) -> Result<Option<BlobProperties>, StoreError> {
        self.request("properties".to_owned());
        Ok(self.0.lock().expect("no panic").blobs.get(name.as_str()).map(|(blob, _)| blob.clone()))
    }

    async fn read(
        &self,
        _: &ContainerName,
        name: &BlobName,
        range: Range<u64>,
        etag: Option<&str>,
    ) -> Result<Bytes, StoreError> {
        self.request(format!("read {}..{}", range.start, range.end));
        let state = self.0.lock().expect("no panic");
        let name = name.as_str();
        let (blob, body) = state.blobs.get(name).ok_or_else(|| StoreError::NotFound(name.to_owned()))?;
        if etag.is_some_and(|etag| etag != blob.etag) {
            return Err(StoreError::Conflict(name.to_owned()));
        }
        if state.archived.contains(name) {
            return Err(StoreError::rejected(format!("reading `{name}`"), "the blob is archived"));
        }
        let end = usize::try_from(range.end).expect("a test's blob").min(body.len());
        let start = usize::try_from(range.start).expect("a test's blob").min(end);
        Ok(body.slice(start..end))
    }

    async fn write(&self, _: &ContainerName, _: &BlobName, _: Bytes, _: &str) -> Result<(), StoreError> {
        unreachable!("the job writes nothing")
    }

    async fn delete(&self, _: &ContainerName, _: &BlobName) -> Result<(), StoreError> {
        unreachable!("the job deletes nothing")
    }
}
