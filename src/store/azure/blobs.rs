//! [`Blobs`] on Azure.

use super::account::Account;
use super::connection::{ConfigError, Service};
use super::encode::encode;
use super::fault::Fault;
use super::transport::repeat;
use crate::ports::{BlobName, BlobPage, BlobProperties, Blobs, ContainerName, StoreError, Time};
use async_trait::async_trait;
use azure_core::http::{ClientOptions, Etag, Url};
use azure_core::time::OffsetDateTime;
use azure_storage_blob::models::{
    BlobClientDeleteOptions, BlobClientDownloadOptions, BlobClientGetPropertiesResultHeaders as _,
    BlobClientUploadOptions, BlobContainerClientListBlobsOptions, BlobItem, DeleteSnapshotsOptionType,
    ListBlobsIncludeItem,
};
use azure_storage_blob::{BlobClient, BlobClientOptions, BlobContainerClient, BlobContainerClientOptions};
use bytes::Bytes;
use futures_util::TryStreamExt as _;
use std::num::NonZero;
use std::ops::Range;
use std::sync::Arc;

/// A version that emulators of some age still take; the first with names that XML cannot hold is 2021-02-12.
const VERSION: &str = "2023-11-03";
/// The most blobs in one page; the service's own limit.
const PAGE: i32 = 5000;
/// The most bytes written in one request, which is what makes a write atomic; the service's own limit.
const ONE_REQUEST: NonZero<u64> = NonZero::new(5000 * 1024 * 1024).unwrap();
/// The most bytes read in one request; a longer range is read in parallel parts of one version.
const PART: NonZero<usize> = NonZero::new(16 * 1024 * 1024).unwrap();

pub(super) struct AzureBlobs {
    account: Arc<Account>,
    endpoint: Url,
    options: ClientOptions,
}

#[async_trait]
impl Blobs for AzureBlobs {
    async fn container_exists(&self, container: &ContainerName) -> Result<bool, StoreError> {
        repeat(|| async {
            match self.try_exists(container).await {
                Ok(()) => Ok(true),
                Err(fault) if fault.status() == Some(404) => Ok(false),
                Err(fault) => Err(self.account.error("looking for container", container.as_str(), fault)),
            }
        })
        .await
    }

    async fn create_container(&self, container: &ContainerName) -> Result<(), StoreError> {
        repeat(|| async {
            match self.try_create(container).await {
                Err(fault) if !fault.is(&["ContainerAlreadyExists"]) => {
                    Err(self.account.error("creating container", container.as_str(), fault))
                }
                Ok(()) | Err(_) => Ok(()),
            }
        })
        .await
    }

    async fn list(&self, container: &ContainerName, prefix: &str, after: Option<&str>) -> Result<BlobPage, StoreError> {
        repeat(|| async {
            let page = self.page(container, prefix, after).await;
            page.map_err(|fault| self.account.error("listing container", container.as_str(), fault))
        })
        .await
    }

    async fn properties(
        &self,
        container: &ContainerName,
        name: &BlobName,
    ) -> Result<Option<BlobProperties>, StoreError> {
        repeat(|| async {
            match self.try_properties(container, name).await {
                Ok(properties) => Ok(Some(properties)),
                Err(fault) if fault.status() == Some(404) => Ok(None),
                Err(fault) => Err(self.account.error("looking for blob", &subject(container, name), fault)),
            }
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
        repeat(|| async {
            let outcome = match self.try_read(container, name, range.clone(), etag).await {
                Err(fault) if fault.status() == Some(412) => {
                    Err(self.other_version(container, name, etag, fault).await)
                }
                Err(fault) if fault.status() == Some(416) => Ok(Bytes::new()),
                outcome => outcome,
            };
            outcome.map_err(|fault| self.account.error("reading blob", &subject(container, name), fault))
        })
        .await
    }

    async fn write(
        &self,
        container: &ContainerName,
        name: &BlobName,
        body: Bytes,
        content_type: &str,
    ) -> Result<(), StoreError> {
        let outcome = match self.try_write(container, name, body.clone(), content_type).await {
            Err(fault) if fault.is(&["ContainerNotFound"]) => {
                self.create_container(container).await?;
                self.try_write(container, name, body, content_type).await
            }
            outcome => outcome,
        };
        outcome.map_err(|fault| self.account.error("writing blob", &subject(container, name), fault))
    }

    async fn delete(&self, container: &ContainerName, name: &BlobName) -> Result<(), StoreError> {
        match self.try_delete(container, name).await {
            Err(fault) if fault.status() != Some(404) => {
                Err(self.account.error("deleting blob", &subject(container, name), fault))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl AzureBlobs {
    pub(super) fn open(account: Arc<Account>) -> Result<Self, ConfigError> {
        let endpoint = account.endpoint(Service::Blob)?;
        let options = account.options(Service::Blob);
        Ok(Self { account, endpoint, options })
    }

    async fn try_exists(&self, container: &ContainerName) -> Result<(), Fault> {
        self.container(container)?.get_properties(None).await?;
        Ok(())
    }

    async fn try_create(&self, container: &ContainerName) -> Result<(), Fault> {
        self.container(container)?.create(None).await?;
        Ok(())
    }

    async fn page(&self, container: &ContainerName, prefix: &str, after: Option<&str>) -> Result<BlobPage, Fault> {
        let options = BlobContainerClientListBlobsOptions {
            // Without its metadata a folder marker looks like an empty blob.
            include: Some(vec![ListBlobsIncludeItem::Metadata]),
            marker: after.map(str::to_owned),
            maxresults: Some(PAGE),
            prefix: Some(prefix.to_owned()).filter(|prefix| !prefix.is_empty()),
            ..BlobContainerClientListBlobsOptions::default()
        };
        let client = self.container(container)?;
        let page = client.list_blobs(Some(options))?.into_pages().try_next().await?;
        let page = page.ok_or_else(|| Fault::unreadable("a listing without a page"))?.into_model()?;
        Ok(BlobPage {
            blobs: page.blob_items.into_iter().filter(|item| !is_folder(item)).map(listed).collect(),
            next: page.next_marker.filter(|next| !next.is_empty()),
        })
    }

    async fn try_properties(&self, container: &ContainerName, name: &BlobName) -> Result<BlobProperties, Fault> {
        let answer = self.blob(container, name)?.get_properties(None).await?;
        Ok(BlobProperties {
            name: name.as_str().to_owned(),
            size: answer.content_length()?.unwrap_or_default(),
            content_type: answer.content_type()?,
            last_modified: time(answer.last_modified()?),
            etag: unquoted(answer.etag()?),
        })
    }

    async fn try_read(
        &self,
        container: &ContainerName,
        name: &BlobName,
        range: Range<u64>,
        etag: Option<&str>,
    ) -> Result<Bytes, Fault> {
        // The service knows no empty range; its first byte answers the rest of the question.
        let asked = range.start..range.end.max(range.start.saturating_add(1));
        let options = BlobClientDownloadOptions {
            if_match: etag.map(|etag| Etag::from(format!("\"{}\"", etag.trim_matches('"')))),
            partition_size: Some(PART),
            range: Some(asked.into()),
            ..BlobClientDownloadOptions::default()
        };
        let client = self.blob(container, name)?;
        let body = client.download(Some(options)).await?.body.collect().await?;
        Ok(if range.is_empty() { Bytes::new() } else { body })
    }

    /// What is behind a read that met another version than it was to.
    async fn other_version(
        &self,
        container: &ContainerName,
        name: &BlobName,
        etag: Option<&str>,
        fault: Fault,
    ) -> Fault {
        if etag.is_none() {
            // It was replaced between two parts of the read, which the next try will not meet again.
            return Fault::Network("the blob was replaced while it was read".into());
        }
        // A blob that is not there has no version either, and the service may say just that.
        self.try_properties(container, name).await.err().unwrap_or(fault)
    }

    async fn try_write(
        &self,
        container: &ContainerName,
        name: &BlobName,
        body: Bytes,
        content_type: &str,
    ) -> Result<(), Fault> {
        let options = BlobClientUploadOptions {
            blob_content_type: Some(content_type.to_owned()),
            partition_size: Some(ONE_REQUEST),
            ..BlobClientUploadOptions::default()
        };
        self.blob(container, name)?.upload(body.into(), Some(options)).await?;
        Ok(())
    }

    async fn try_delete(&self, container: &ContainerName, name: &BlobName) -> Result<(), Fault> {
        // A blob with snapshots cannot be removed without them.
        let delete_snapshots = Some(DeleteSnapshotsOptionType::Include);
        let options = BlobClientDeleteOptions { delete_snapshots, ..BlobClientDeleteOptions::default() };
        self.blob(container, name)?.delete(Some(options)).await?;
        Ok(())
    }

    fn container(&self, container: &ContainerName) -> Result<BlobContainerClient, Fault> {
        let options = BlobContainerClientOptions { client_options: self.options.clone(), version: VERSION.to_owned() };
        Ok(BlobContainerClient::new(self.url(container.as_str()), None, Some(options))?)
    }

    fn blob(&self, container: &ContainerName, name: &BlobName) -> Result<BlobClient, Fault> {
        let url = self.url(&format!("{container}/{}", encode(name.as_str())));
        let options = BlobClientOptions { client_options: self.options.clone(), version: VERSION.to_owned() };
        Ok(BlobClient::new(url, None, Some(options))?)
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}/{path}", self.endpoint.path().trim_end_matches('/')));
        url
    }
}

fn subject(container: &ContainerName, name: &BlobName) -> String {
    format!("{container}/{name}")
}

fn is_folder(item: &BlobItem) -> bool {
    let metadata = item.metadata.as_ref().and_then(|metadata| metadata.values.as_ref());
    metadata.is_some_and(|values| {
        values
            .iter()
            .any(|(name, value)| name.eq_ignore_ascii_case("hdi_isfolder") && value.eq_ignore_ascii_case("true"))
    })
}

fn listed(item: BlobItem) -> BlobProperties {
    let properties = item.properties.unwrap_or_default();
    BlobProperties {
        name: item.name.unwrap_or_default(),
        size: properties.content_length.unwrap_or_default(),
        content_type: properties.content_type.filter(|content_type| !content_type.is_empty()),
        last_modified: time(properties.last_modified),
        etag: unquoted(properties.etag),
    }
}

/// A listing gives versions without the quotes that headers have.
fn unquoted(etag: Option<Etag>) -> String {
    etag.map(|etag| etag.to_string().trim_matches('"').to_owned()).unwrap_or_default()
}

fn time(moment: Option<OffsetDateTime>) -> Time {
    Time::from_unix_millis(moment.map_or(0, |moment| moment.unix_timestamp() * 1000))
}

#[cfg(test)]
mod tests {
    use super::*;
    use azure_core::xml::from_xml;
    use azure_storage_blob::models::ListBlobsResponse;

    #[test]
    fn a_listing_of_a_hierarchical_account_gives_blobs_without_folder_markers() {
        let listing = r#"<?xml version="1.0" encoding="utf-8"?>
            <EnumerationResults ServiceEndpoint="https://one.blob.core.windows.net/" ContainerName="c"><Blobs>
            <Blob><Name>folder</Name><Properties><Last-Modified>Tue, 24 Nov 2026 03:09:00 GMT</Last-Modified>
            <Etag>0x1</Etag><ResourceType>directory</ResourceType><Content-Length>0</Content-Length></Properties>
            <Metadata><hdi_isfolder>true</hdi_isfolder></Metadata></Blob>
            <Blob><Name Encoded="true">folder%2Fa%EF%BF%BF</Name><Properties>
            <Last-Modified>Tue, 24 Nov 2026 03:09:00 GMT</Last-Modified><Etag>0x2</Etag>
            <Content-Length>7</Content-Length><Content-Type>image/tiff</Content-Type></Properties>
            <Metadata><other>true</other></Metadata></Blob>
            <Blob><Name> b </Name><Properties><Content-Type /></Properties><Metadata /></Blob>
            </Blobs><NextMarker /></EnumerationResults>"#;
        let page: ListBlobsResponse = from_xml(listing.as_bytes()).expect("a listing");
        let blobs: Vec<_> = page.blob_items.into_iter().filter(|item| !is_folder(item)).map(listed).collect();
        let first = BlobProperties {
            name: "folder/a\u{FFFF}".to_owned(),
            size: 7,
            content_type: Some("image/tiff".to_owned()),
            last_modified: Time::parse("2026-11-24T03:09:00Z").expect("a time"),
            etag: "0x2".to_owned(),
        };
        assert_eq!(blobs[0], first);
        assert_eq!((blobs.len(), blobs[1].name.as_str(), &blobs[1].content_type), (2, " b ", &None));
    }
}
