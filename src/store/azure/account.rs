//! An account ready for requests.

use super::connection::{ConfigError, Connection, Credential, Service};
use super::fault::Fault;
use super::shared_key::{Scheme, SharedKey};
use super::signature::Signature;
use super::transport::Transport;
use crate::ports::StoreError;
use azure_core::credentials::{Secret, TokenCredential};
use azure_core::http::policies::Policy;
use azure_core::http::policies::auth::BearerTokenAuthorizationPolicy;
use azure_core::http::{ClientOptions, ExponentialRetryOptions, HttpClient, RetryOptions, Url};
use azure_core::time::Duration;
use azure_identity::{
    DeveloperToolsCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions, UserAssignedId,
};
use std::sync::Arc;

/// The scope of a token for any storage account.
const SCOPE: &str = "https://storage.azure.com/.default";
/// How long a token may be asked for; the endpoint of a fresh instance can be late.
const TOKEN_PATIENCE: Duration = Duration::seconds(5);

/// One storage account with its connections and its authorisation, shared by the services on it.
#[derive(Debug)]
pub(super) struct Account {
    connection: Connection,
    http: Arc<dyn HttpClient>,
    login: Login,
}

/// What authorises a request.
#[derive(Debug)]
enum Login {
    SharedKey {
        account: String,
        key: Secret,
    },
    Signature(Secret),
    /// One policy for all services: it is what keeps the token.
    Token(Arc<dyn Policy>),
}

impl Account {
    /// Makes clients and credentials; sends nothing.
    pub(super) fn open(connection: Connection) -> Result<Self, ConfigError> {
        let http = Transport::open(&connection)?;
        let login = Login::open(&connection.credential, &http).map_err(|error| {
            let cure = "see that the identity is assigned to this app";
            ConfigError::new(connection.setting(), format!("its identity cannot be used: {error}"), cure)
        })?;
        Ok(Self { connection, http, login })
    }

    /// Where a service is, without a slash at the end.
    pub(super) fn endpoint(&self, service: Service) -> Result<Url, ConfigError> {
        self.connection.endpoint(service).cloned()
    }

    /// How the SDK's clients and pipelines are to work on this account.
    pub(super) fn options(&self, service: Service) -> ClientOptions {
        ClientOptions {
            per_try_policies: vec![self.login.policy(service)],
            // The SDK repeats writes whose answer was lost, which then look like conflicts.
            retry: RetryOptions::none(),
            transport: Some(azure_core::http::Transport::new(Arc::clone(&self.http))),
            ..ClientOptions::default()
        }
    }

    /// A configuration error of this account.
    pub(super) fn unusable(&self, error: &azure_core::Error) -> ConfigError {
        let fault = format!("no client can be made for it: {error}");
        ConfigError::new(self.connection.setting(), fault, "check its endpoints")
    }

    /// A fault as the port's error.
    pub(super) fn error(&self, operation: &str, subject: &str, fault: impl Into<Fault>) -> StoreError {
        fault.into().into_error(operation, subject, self.connection.setting())
    }
}

impl Login {
    fn open(credential: &Credential, http: &Arc<dyn HttpClient>) -> azure_core::Result<Self> {
        let credential: Arc<dyn TokenCredential> = match credential {
            Credential::SharedKey { account, key } => {
                return Ok(Self::SharedKey { account: account.clone(), key: key.clone() });
            }
            Credential::Signature(signature) => return Ok(Self::Signature(signature.clone())),
            Credential::DeveloperTools => DeveloperToolsCredential::new(None)?,
            Credential::ManagedIdentity { client_id } => {
                let retry = RetryOptions::exponential(ExponentialRetryOptions {
                    max_total_elapsed: TOKEN_PATIENCE,
                    ..ExponentialRetryOptions::default()
                });
                let transport = Some(azure_core::http::Transport::new(Arc::clone(http)));
                ManagedIdentityCredential::new(Some(ManagedIdentityCredentialOptions {
                    user_assigned_id: client_id.clone().map(UserAssignedId::ClientId),
                    client_options: ClientOptions { retry, transport, ..ClientOptions::default() },
                }))?
            }
        };
        Ok(Self::Token(Arc::new(BearerTokenAuthorizationPolicy::new(credential, [SCOPE]))))
    }

    fn policy(&self, service: Service) -> Arc<dyn Policy> {
        match self {
            Self::SharedKey { account, key } => {
                let scheme = match service {
                    Service::Blob | Service::Queue => Scheme::Full,
                    Service::Table => Scheme::Lite,
                };
                Arc::new(SharedKey { account: account.clone(), key: key.clone(), scheme })
            }
            Self::Signature(signature) => Arc::new(Signature(signature.clone())),
            Self::Token(policy) => Arc::clone(policy),
        }
    }
}
