//! [`Tables`] on Azure: a thin client of our own, since the SDK's current line has none for tables.

use super::account::Account;
use super::batch::{self, Failure, Operation};
use super::connection::{ConfigError, Service};
use super::encode::encode;
use super::entity;
use super::fault::{Fault, code_header};
use super::transport::repeat;
use crate::ports::{CommitError, Page, QUERY_LIMIT, Query, Row, Select, StoreError, Table, Tables, Write};
use crate::store::limits;
use async_trait::async_trait;
use azure_core::http::headers::HeaderName;
use azure_core::http::{Context, Method, Pipeline, PipelineSendOptions, RawResponse, Request, Url};
use serde_json::{Value, json};
use std::sync::Arc;

/// The first version that takes an identity's tokens for tables.
const VERSION: &str = "2020-12-06";
/// With versions of rows, without types of numbers.
const JSON: &str = "application/json;odata=minimalmetadata";

pub(super) struct AzureTables {
    account: Arc<Account>,
    endpoint: Url,
    pipeline: Pipeline,
}

#[async_trait]
impl Tables for AzureTables {
    async fn get(&self, table: Table, partition: &str, key: &str) -> Result<Option<Row>, StoreError> {
        let url = self.url(&place(table, partition, key), "");
        repeat(|| async {
            match self.send(Method::Get, url.clone(), &[], None).await {
                Ok(answer) => {
                    let etag = header(&answer, "etag");
                    json_of(&answer).and_then(|entity| entity::read(&entity, etag, Select::Documents)).map(Some)
                }
                Err(fault) if fault.status() == Some(404) => Ok(None),
                Err(fault) => Err(fault),
            }
            .map_err(|fault| self.account.error("reading row", &subject(table, partition, key), fault))
        })
        .await
    }

    async fn query(&self, query: Query<'_>) -> Result<Page, StoreError> {
        let filtered = filter(&query);
        let mut continuation = String::new();
        loop {
            let url = self.url(&format!("{}()", query.table.name()), &format!("{filtered}{continuation}"));
            let (rows, more) = repeat(|| self.page(&query, url.clone())).await?;
            // The service may answer with nothing but a continuation, of which the port's callers know nothing.
            match more {
                Some(more) if rows.is_empty() => continuation = more,
                more => return Ok(Page { next: rows.last().filter(|_| more.is_some()).map(after), rows }),
            }
        }
    }

    async fn commit(&self, table: Table, partition: &str, writes: Vec<Write>) -> Result<(), CommitError> {
        limits::check_commit(partition, &writes)?;
        let operations: Vec<_> = writes.iter().map(|write| self.operation(table, partition, write)).collect();
        let outcome = match self.apply(&operations).await {
            // A write that was refused for this has not been made, so it may be sent again.
            Err(failure) if failure.fault.is(&["TableNotFound"]) => {
                self.create(table).await.map_err(|error| CommitError { index: 0, error })?;
                self.apply(&operations).await
            }
            outcome => outcome,
        };
        outcome.map_err(|Failure { index, fault }| {
            let index = index.min(writes.len() - 1);
            let write = &writes[index];
            let subject = subject(table, partition, write.key());
            let error = match write {
                Write::Replace { .. } if fault.is(&["ResourceNotFound", "EntityNotFound"]) => {
                    StoreError::Conflict(subject)
                }
                _ => self.account.error("writing row", &subject, fault),
            };
            CommitError { index, error }
        })
    }
}

impl AzureTables {
    pub(super) fn open(account: Arc<Account>) -> Result<Self, ConfigError> {
        let endpoint = account.endpoint(Service::Table)?;
        let pipeline = Pipeline::new(
            Some("coremachine"),
            Some(env!("CARGO_PKG_VERSION")),
            account.options(Service::Table),
            Vec::new(),
            Vec::new(),
            None,
        );
        Ok(Self { account, endpoint, pipeline })
    }

    async fn page(&self, query: &Query<'_>, url: Url) -> Result<(Vec<Row>, Option<String>), StoreError> {
        let read = async {
            let answer = match self.send(Method::Get, url, &[], None).await {
                Err(fault) if fault.status() == Some(404) => return Ok((Vec::new(), None)),
                answer => answer?,
            };
            let body = json_of(&answer)?;
            let entities = body.get("value").and_then(Value::as_array);
            let entities = entities.ok_or_else(|| Fault::unreadable("a query's answer without `value`"))?;
            let rows =
                entities.iter().map(|entity| entity::read(entity, None, query.select)).collect::<Result<_, _>>()?;
            Ok((rows, continuation(&answer)))
        };
        let subject = format!("{}/{}", query.table.name(), query.partition);
        read.await.map_err(|fault: Fault| self.account.error("querying partition", &subject, fault))
    }

    async fn apply(&self, operations: &[Operation]) -> Result<(), Failure> {
        if let [Operation { method, url, headers, body }] = operations {
            let url = url.parse().map_err(|_| Fault::unreadable("a row's address"))?;
            self.send(*method, url, headers, body.as_deref().map(entity::ascii)).await?;
            return Ok(());
        }
        let headers = [("content-type", batch::CONTENT_TYPE.to_owned())];
        let answer = self.send(Method::Post, self.url("$batch", ""), &headers, Some(batch::write(operations))).await?;
        batch::read(&String::from_utf8_lossy(answer.body()), operations.len())
    }

    fn operation(&self, table: Table, partition: &str, write: &Write) -> Operation {
        let body = write.document().map(|document| entity::write(partition, write.key(), document));
        let mut headers = vec![("dataserviceversion", "3.0".to_owned()), ("accept", JSON.to_owned())];
        if body.is_some() {
            headers.push(("content-type", "application/json".to_owned()));
        }
        let (method, path) = match write {
            Write::Insert { .. } => {
                headers.push(("prefer", "return-no-content".to_owned()));
                (Method::Post, table.name().to_owned())
            }
            Write::Replace { key, etag, .. } => {
                headers.push(("if-match", etag.0.clone()));
                (Method::Put, place(table, partition, key))
            }
            Write::Delete { key } => {
                headers.push(("if-match", "*".to_owned()));
                (Method::Delete, place(table, partition, key))
            }
        };
        Operation { method, url: self.url(&path, "").to_string(), headers, body }
    }

    async fn create(&self, table: Table) -> Result<(), StoreError> {
        let headers = [("content-type", "application/json".to_owned()), ("prefer", "return-no-content".to_owned())];
        repeat(|| async {
            let body = json!({ "TableName": table.name() }).to_string();
            match self.send(Method::Post, self.url("Tables", ""), &headers, Some(body)).await {
                Err(fault) if !fault.is(&["TableAlreadyExists"]) => {
                    Err(self.account.error("creating table", table.name(), fault))
                }
                Ok(_) | Err(_) => Ok(()),
            }
        })
        .await
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        headers: &[(&'static str, String)],
        body: Option<String>,
    ) -> Result<RawResponse, Fault> {
        let mut request = Request::new(url, method);
        request.insert_header("accept", JSON);
        request.insert_header("dataserviceversion", "3.0");
        request.insert_header("maxdataserviceversion", "3.0");
        request.insert_header("x-ms-version", VERSION);
        for (name, value) in headers {
            request.insert_header(*name, value.clone());
        }
        if let Some(body) = body {
            request.set_body(body);
        }
        let options = PipelineSendOptions { skip_checks: true, ..PipelineSendOptions::default() };
        let answer = self.pipeline.send(&Context::new(), &mut request, Some(options)).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(Fault::of_answer(u16::from(answer.status()), code_header(&answer), answer.body()))
    }

    fn url(&self, path: &str, query: &str) -> Url {
        let mut url = self.endpoint.clone();
        url.set_path(&format!("{}/{path}", self.endpoint.path().trim_end_matches('/')));
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        url
    }
}

fn place(table: Table, partition: &str, key: &str) -> String {
    // A key that is written needs none of this; one that is only asked for may be anything.
    let [partition, key] = [partition, key].map(|key| encode(&key.replace('\'', "''")));
    format!("{}(PartitionKey='{partition}',RowKey='{key}')", table.name())
}

fn subject(table: Table, partition: &str, key: &str) -> String {
    format!("{}/{partition}/{key}", table.name())
}

fn filter(query: &Query<'_>) -> String {
    let quoted = |key: &str| format!("'{}'", key.replace('\'', "''"));
    let mut conditions = vec![format!("PartitionKey eq {}", quoted(query.partition))];
    if !query.from.is_empty() {
        conditions.push(format!("RowKey ge {}", quoted(query.from)));
    }
    conditions.extend(query.to.map(|to| format!("RowKey lt {}", quoted(to))));
    let select = match query.select {
        Select::Keys => "&$select=RowKey,Timestamp",
        Select::Documents => "",
    };
    format!("$filter={}&$top={}{select}", encode(&conditions.join(" and ")), query.limit.clamp(1, QUERY_LIMIT))
}

/// The least key that can follow a row's: no character of a key sorts before `-`. The service's own continuation is no key.
fn after(row: &Row) -> String {
    format!("{}-", row.key)
}

/// Where the service would go on, as parameters of the next request.
fn continuation(answer: &RawResponse) -> Option<String> {
    let partition = header(answer, "x-ms-continuation-nextpartitionkey")?;
    let row = header(answer, "x-ms-continuation-nextrowkey").map(|row| format!("&NextRowKey={}", encode(row)));
    Some(format!("&NextPartitionKey={}{}", encode(partition), row.unwrap_or_default()))
}

fn header<'a>(answer: &'a RawResponse, name: &'static str) -> Option<&'a str> {
    answer.headers().get_optional_str(&HeaderName::from_static(name))
}

fn json_of(answer: &RawResponse) -> Result<Value, Fault> {
    serde_json::from_slice(answer.body()).map_err(Fault::unreadable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_becomes_a_filter_that_cannot_be_broken_out_of() {
        let query =
            Query { table: Table::Jobs, partition: "p", from: "a'", to: Some("b"), limit: 9, select: Select::Keys };
        let text = filter(&query);
        assert_eq!(
            text,
            "$filter=PartitionKey%20eq%20%27p%27%20and%20RowKey%20ge%20%27a%27%27%27%20and%20RowKey%20lt%20%27b%27\
             &$top=9&$select=RowKey,Timestamp"
        );
    }
}
