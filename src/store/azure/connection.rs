//! Where a storage account is and how to be let in, read from settings as the Functions host reads them.

use azure_core::credentials::Secret;
use azure_core::http::Url;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::BTreeMap;

/// A setting that cannot be used: which, why, and what to do. It never holds a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("setting `{setting}`: {fault}; {cure}")]
pub struct ConfigError {
    setting: String,
    fault: String,
    cure: String,
}

impl ConfigError {
    pub(super) fn new(setting: &str, fault: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { setting: setting.to_owned(), fault: fault.into(), cure: cure.into() }
    }
}

/// A storage account: its endpoints and the credential for them. `Debug` shows no key.
#[derive(Clone, Debug)]
pub struct Connection {
    setting: String,
    endpoints: BTreeMap<Service, Url>,
    pub(super) credential: Credential,
}

/// How to be let in.
#[derive(Clone, Debug)]
pub(super) enum Credential {
    /// By the account's key.
    SharedKey { account: String, key: Secret },
    /// By a shared access signature, without the question mark.
    Signature(Secret),
    /// By the managed identity of the host; the system's own unless a client id names one.
    ManagedIdentity { client_id: Option<String> },
    /// By whoever is logged in to `az` or `azd`.
    DeveloperTools,
}

/// A service of a storage account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Service {
    Blob,
    Queue,
    Table,
}

impl Service {
    const ALL: [Self; 3] = [Self::Blob, Self::Queue, Self::Table];

    const fn name(self) -> &'static str {
        match self {
            Self::Blob => "blob",
            Self::Queue => "queue",
            Self::Table => "table",
        }
    }

    /// The part of a connection string that names this service's endpoint, in lower case.
    const fn part(self) -> &'static str {
        match self {
            Self::Blob => "blobendpoint",
            Self::Queue => "queueendpoint",
            Self::Table => "tableendpoint",
        }
    }

    const fn emulator_port(self) -> u16 {
        match self {
            Self::Blob => 10_000,
            Self::Queue => 10_001,
            Self::Table => 10_002,
        }
    }
}

/// The emulator's account, the same for everyone and no secret.
const EMULATOR_ACCOUNT: &str = "devstoreaccount1";
const EMULATOR_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
const PUBLIC_SUFFIX: &str = "core.windows.net";
const COPY_AGAIN: &str = "copy the connection string again from the storage account's access keys";

impl Connection {
    /// Reads the connection `setting`. A setting of exactly this name holds a connection string and wins; else
    /// `{setting}__accountName`, or `{setting}__blobServiceUri`, `…__queueServiceUri` and `…__tableServiceUri` say where
    /// the account is, and `{setting}__credential` and `{setting}__clientId` which identity to use.
    pub fn resolve(setting: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let lookup = |name: &str| lookup(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        match lookup(setting) {
            Some(text) => Self::parse(setting, &text),
            None => Self::of_identity(setting, lookup),
        }
    }

    /// Reads a connection string; `setting` is where it came from, for errors.
    pub fn parse(setting: &str, text: &str) -> Result<Self, ConfigError> {
        let parts = Parts::parse(setting, text)?;
        match parts.get("usedevelopmentstorage") {
            Some(answer) if answer.eq_ignore_ascii_case("true") => Self::emulator(setting, &parts),
            _ => Self::of_parts(setting, &parts),
        }
    }

    /// The setting's name.
    pub fn setting(&self) -> &str {
        &self.setting
    }

    /// Where a service is, without a slash at the end.
    pub(super) fn endpoint(&self, service: Service) -> Result<&Url, ConfigError> {
        self.endpoints.get(&service).ok_or_else(|| {
            let name = service.name();
            let cure = format!("set `{}__{name}ServiceUri` or, in a connection string, the endpoint", self.setting);
            ConfigError::new(&self.setting, format!("it does not say where the {name} service is"), cure)
        })
    }

    /// Whether every endpoint is on this machine.
    pub(super) fn is_local(&self) -> bool {
        self.endpoints.values().all(|url| matches!(url.host_str(), Some("127.0.0.1" | "localhost" | "[::1]")))
    }

    fn emulator(setting: &str, parts: &Parts) -> Result<Self, ConfigError> {
        let proxy = parts.get("developmentstorageproxyuri").unwrap_or("http://127.0.0.1");
        let proxy = endpoint(setting, "DevelopmentStorageProxyUri", proxy)?;
        let mut endpoints = BTreeMap::new();
        for service in Service::ALL {
            let mut url = proxy.clone();
            // Neither can fail on a checked http address.
            _ = url.set_port(Some(service.emulator_port()));
            url.set_path(EMULATOR_ACCOUNT);
            endpoints.insert(service, url);
        }
        let key = Secret::new(EMULATOR_KEY);
        let credential = Credential::SharedKey { account: EMULATOR_ACCOUNT.to_owned(), key };
        Ok(Self { setting: setting.to_owned(), endpoints, credential })
    }

    fn of_parts(setting: &str, parts: &Parts) -> Result<Self, ConfigError> {
        let endpoints = parts.endpoints(setting)?;
        if endpoints.is_empty() {
            let fault = "it has neither `AccountName` nor an endpoint such as `BlobEndpoint`";
            return Err(ConfigError::new(setting, fault, COPY_AGAIN));
        }
        Ok(Self { setting: setting.to_owned(), endpoints, credential: parts.credential(setting)? })
    }

    fn of_identity(setting: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let member = |name: &str| lookup(&format!("{setting}__{name}"));
        let account = member("accountName");
        let mut endpoints = BTreeMap::new();
        for service in Service::ALL {
            let name = service.name();
            let derived = || account.as_ref().map(|account| format!("https://{account}.{name}.{PUBLIC_SUFFIX}"));
            let Some(text) = member(&format!("{name}ServiceUri")).or_else(derived) else { continue };
            let place = format!("{setting}__{name}ServiceUri");
            let url = endpoint(&place, "its value", &text)?;
            if url.scheme() != "https" {
                let cure = "use https, or a connection string with a key for a local emulator";
                return Err(ConfigError::new(&place, "an identity's token is sent over https only", cure));
            }
            endpoints.insert(service, url);
        }
        if endpoints.is_empty() {
            let cure = format!(
                "set it to a connection string, or `{setting}__accountName` to the account's name to use an identity; \
                 `UseDevelopmentStorage=true` is a local Azurite"
            );
            return Err(ConfigError::new(setting, "it is not set", cure));
        }
        let credential = identity(setting, member, lookup("IDENTITY_ENDPOINT").is_some())?;
        Ok(Self { setting: setting.to_owned(), endpoints, credential })
    }
}

fn identity(setting: &str, member: impl Fn(&str) -> Option<String>, hosted: bool) -> Result<Credential, ConfigError> {
    if member("clientSecret").is_some() {
        let cure = format!("remove it and set `{setting}__credential` to `managedidentity`");
        return Err(ConfigError::new(&format!("{setting}__clientSecret"), "client secrets are not supported", cure));
    }
    let client_id = member("clientId");
    match member("credential") {
        None if hosted => Ok(Credential::ManagedIdentity { client_id }),
        None => Ok(Credential::DeveloperTools),
        Some(kind) if kind.eq_ignore_ascii_case("managedidentity") => Ok(Credential::ManagedIdentity { client_id }),
        Some(_) => {
            let place = format!("{setting}__credential");
            let cure = "set it to `managedidentity`, or remove it to use whoever is logged in to `az`";
            Err(ConfigError::new(&place, "it names a credential that is not supported", cure))
        }
    }
}

/// The parts of a connection string by their names in lower case.
struct Parts(BTreeMap<String, String>);

impl Parts {
    fn parse(setting: &str, text: &str) -> Result<Self, ConfigError> {
        let text = text.trim();
        if text.starts_with(['"', '\'']) {
            return Err(ConfigError::new(setting, "it stands in quotes", "remove the quotes"));
        }
        let mut parts = BTreeMap::new();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            // The part itself may be a key that lost its name, so it is not shown.
            let Some((name, value)) = part.split_once('=') else {
                return Err(ConfigError::new(setting, "a part of it is not of the form `Name=value`", COPY_AGAIN));
            };
            if parts.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned()).is_some() {
                return Err(ConfigError::new(setting, "a part of it stands there twice", COPY_AGAIN));
            }
        }
        Ok(Self(parts))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn endpoints(&self, setting: &str) -> Result<BTreeMap<Service, Url>, ConfigError> {
        let protocol = match self.get("defaultendpointsprotocol") {
            None => "https",
            Some(protocol) if protocol.eq_ignore_ascii_case("https") => "https",
            Some(protocol) if protocol.eq_ignore_ascii_case("http") => "http",
            Some(_) => {
                let fault = "`DefaultEndpointsProtocol` is neither `https` nor `http`";
                return Err(ConfigError::new(setting, fault, COPY_AGAIN));
            }
        };
        let suffix = self.get("endpointsuffix").unwrap_or(PUBLIC_SUFFIX);
        let mut endpoints = BTreeMap::new();
        for service in Service::ALL {
            let derived =
                || self.get("accountname").map(|name| format!("{protocol}://{name}.{}.{suffix}", service.name()));
            let Some(text) = self.get(service.part()).map(str::to_owned).or_else(derived) else { continue };
            endpoints.insert(service, endpoint(setting, &format!("its {} endpoint", service.name()), &text)?);
        }
        Ok(endpoints)
    }

    fn credential(&self, setting: &str) -> Result<Credential, ConfigError> {
        match (self.get("accountname"), self.get("accountkey"), self.get("sharedaccesssignature")) {
            (Some(account), Some(key), _) => {
                if !STANDARD.decode(key).is_ok_and(|bytes| !bytes.is_empty()) {
                    return Err(ConfigError::new(setting, "`AccountKey` is not base64 text", COPY_AGAIN));
                }
                Ok(Credential::SharedKey { account: account.to_owned(), key: Secret::new(key.to_owned()) })
            }
            (None, Some(_), _) => {
                Err(ConfigError::new(setting, "it has no `AccountName` for its `AccountKey`", COPY_AGAIN))
            }
            (_, None, Some(signature)) => {
                let signature = signature.trim_start_matches('?');
                if !signature.split('&').any(|pair| pair.starts_with("sig=")) {
                    let cure = "make a new signature for blobs, queues and tables";
                    return Err(ConfigError::new(setting, "`SharedAccessSignature` has no `sig`", cure));
                }
                Ok(Credential::Signature(Secret::new(signature.to_owned())))
            }
            (_, None, None) => {
                let cure =
                    format!("{COPY_AGAIN}, or remove the setting and set `{setting}__accountName` to use an identity");
                Err(ConfigError::new(setting, "it has neither `AccountKey` nor `SharedAccessSignature`", cure))
            }
        }
    }
}

/// Checks an address. Its text is not shown: people put signatures there.
fn endpoint(setting: &str, what: &str, text: &str) -> Result<Url, ConfigError> {
    let refuse = |fault: &str, cure: &str| Err(ConfigError::new(setting, format!("{what} {fault}"), cure));
    let form = "write it as `https://account.blob.core.windows.net`";
    let Ok(mut url) = Url::parse(text.trim_end_matches('/')) else {
        return refuse("is not an address", form);
    };
    if !["http", "https"].contains(&url.scheme()) || url.host_str().is_none() {
        return refuse("is not a web address", form);
    }
    if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return refuse(
            "carries more than an address",
            "put a signature into `SharedAccessSignature` of a connection string",
        );
    }
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQ=";

    fn place(connection: &Connection, service: Service) -> String {
        connection.endpoint(service).expect("an endpoint").to_string()
    }

    #[test]
    fn connection_strings_are_read() {
        let cases = [
            (
                format!("DefaultEndpointsProtocol=https;AccountName=one;AccountKey={KEY};EndpointSuffix=core.windows.net"),
                "https://one.blob.core.windows.net/",
                "https://one.table.core.windows.net/",
            ),
            (
                format!(" accountname = one ; ACCOUNTKEY={KEY} ;; "),
                "https://one.blob.core.windows.net/",
                "https://one.table.core.windows.net/",
            ),
            (
                format!("DefaultEndpointsProtocol=HTTP;AccountName=one;AccountKey={KEY};EndpointSuffix=core.chinacloudapi.cn"),
                "http://one.blob.core.chinacloudapi.cn/",
                "http://one.table.core.chinacloudapi.cn/",
            ),
            (
                format!("AccountName=one;AccountKey={KEY};BlobEndpoint=http://127.0.0.1:9/one//;TableEndpoint=http://[::1]:8/one"),
                "http://127.0.0.1:9/one",
                "http://[::1]:8/one",
            ),
            (
                "BlobEndpoint=https://one.blob.core.windows.net/;TableEndpoint=https://t/;SharedAccessSignature=?sv=1&sig=a%3D".to_owned(),
                "https://one.blob.core.windows.net/",
                "https://t/",
            ),
            (
                "UseDevelopmentStorage=true".to_owned(),
                "http://127.0.0.1:10000/devstoreaccount1",
                "http://127.0.0.1:10002/devstoreaccount1",
            ),
            (
                "usedevelopmentstorage=TRUE;DevelopmentStorageProxyUri=http://azurite/".to_owned(),
                "http://azurite:10000/devstoreaccount1",
                "http://azurite:10002/devstoreaccount1",
            ),
        ];
        for (text, blob, table) in cases {
            let connection = Connection::parse("X", &text).expect(&text);
            assert_eq!(place(&connection, Service::Blob), blob);
            assert_eq!(place(&connection, Service::Table), table);
            let shown = format!("{connection:?}");
            assert!(!shown.contains(KEY) && !shown.contains("sig="), "{shown}");
        }
    }

    #[test]
    fn a_connection_string_with_a_fault_is_refused_in_words_without_its_key() {
        let cases = [
            (KEY.trim_end_matches('=').to_owned(), "not of the form"),
            (format!("\"AccountName=one;AccountKey={KEY}\""), "in quotes"),
            (format!("AccountKey={KEY}"), "neither `AccountName` nor"),
            (format!("AccountKey={KEY};BlobEndpoint=http://h"), "no `AccountName`"),
            ("AccountName=one".to_owned(), "neither `AccountKey` nor"),
            ("AccountName=one;AccountKey=".to_owned(), "neither `AccountKey` nor"),
            (format!("AccountName=one;AccountKey={KEY}!"), "not base64"),
            (format!("AccountName=one;AccountKey={KEY};AccountKey={KEY}"), "twice"),
            (format!("AccountName=one;AccountKey={KEY};DefaultEndpointsProtocol=ftp"), "DefaultEndpointsProtocol"),
            (format!("AccountName=one;AccountKey={KEY};BlobEndpoint=one"), "is not an address"),
            (format!("AccountName=one;AccountKey={KEY};BlobEndpoint=ftp://one"), "not a web address"),
            (format!("AccountName=one;AccountKey={KEY};BlobEndpoint=https://one?sig={KEY}"), "more than an address"),
            (format!("AccountName=one;SharedAccessSignature={KEY}"), "no `sig`"),
            ("UseDevelopmentStorage=true;DevelopmentStorageProxyUri=azurite".to_owned(), "DevelopmentStorageProxyUri"),
        ];
        for (text, words) in cases {
            let error = Connection::parse("Some__Setting", &text).expect_err(&text);
            let shown = format!("{error} {error:?}");
            assert!(shown.contains(words), "{text}: {shown}");
            assert!(shown.contains("setting `Some__Setting`"), "{shown}");
            assert!(!shown.contains(KEY.trim_end_matches('=')), "{shown}");
        }
    }

    fn settings(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn identities_are_resolved_as_the_host_does() {
        let connection = Connection::resolve("X", settings(&[("X__accountName", "one")])).expect("an account");
        assert_eq!(place(&connection, Service::Queue), "https://one.queue.core.windows.net/");
        assert!(matches!(connection.credential, Credential::DeveloperTools));

        let hosted = settings(&[("X__accountName", "one"), ("IDENTITY_ENDPOINT", "http://here")]);
        let connection = Connection::resolve("X", hosted).expect("an account");
        assert!(matches!(connection.credential, Credential::ManagedIdentity { client_id: None }));

        let assigned = settings(&[
            ("X", " "),
            ("X__blobServiceUri", "https://one.blob.core.windows.net/"),
            ("X__credential", "managedIdentity"),
            ("X__clientId", "id"),
        ]);
        let connection = Connection::resolve("X", assigned).expect("an account");
        assert!(matches!(&connection.credential, Credential::ManagedIdentity { client_id: Some(id) } if id == "id"));
        let error = connection.endpoint(Service::Table).expect_err("no table endpoint").to_string();
        assert!(error.contains("X__tableServiceUri"), "{error}");

        let both = settings(&[("X", "UseDevelopmentStorage=true"), ("X__accountName", "one")]);
        let connection = Connection::resolve("X", both).expect("the exact setting wins");
        assert!(matches!(connection.credential, Credential::SharedKey { .. }));
    }

    #[test]
    fn an_identity_with_a_fault_is_refused_in_words() {
        let cases: [(&[(&str, &str)], &str); 4] = [
            (&[], "`X`: it is not set"),
            (&[("X__blobServiceUri", "http://one")], "https only"),
            (&[("X__accountName", "one"), ("X__credential", "workload")], "`X__credential`"),
            (&[("X__accountName", "one"), ("X__clientSecret", "hush")], "client secrets are not supported"),
        ];
        for (pairs, words) in cases {
            let lookup = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
            let error = Connection::resolve("X", lookup).expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
            assert!(!error.contains("hush"));
        }
    }
}
