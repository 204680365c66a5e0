//! A proxy before Azurite that fails some requests as a network and a busy service do, and passes on the others byte for
//! byte, so that their signatures stay valid: a signature covers account and path, and not the host.

mod http;
mod tests;

use coremachine::ports::{Environment as _, Time};
use coremachine::store::VirtualEnvironment;
use http::{Message, Stream};
use reqwest::Url;
use std::collections::BTreeMap;
use std::io::Result;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The answer is 503 `ServerBusy`; nothing is applied.
    Busy,
    /// The connection is reset; nothing is applied.
    LoseRequest,
    /// The request is applied, and the connection is reset before any answer.
    LoseAnswer,
    /// The request is applied, and the connection is reset in the middle of the answer.
    CutAnswer,
    /// The request waits on its way.
    Delay,
}

impl Fault {
    pub(crate) const ALL: [Self; 5] = [Self::Busy, Self::LoseRequest, Self::LoseAnswer, Self::CutAnswer, Self::Delay];
}

/// What goes wrong with the next request, and how long it would be delayed. Asked once a request.
pub(crate) type Plan = Box<dyn Fn() -> (Option<Fault>, Duration) + Send + Sync>;

/// Lets so many of a hundred requests go wrong, each kind of fault as often as the others. The same seed gives the same
/// faults in the order in which requests arrive.
pub(crate) fn seeded(percent: u64, seed: u64) -> Plan {
    let chance = VirtualEnvironment::new(Time::from_unix_millis(0), seed);
    Box::new(move || {
        let drawn = chance.random();
        let kind = Fault::ALL[usize::try_from(drawn / 100).unwrap_or_default() % Fault::ALL.len()];
        (Some(kind).filter(|_| drawn % 100 < percent), Duration::from_millis(50 + (drawn >> 32) % 451))
    })
}

/// A service of a storage account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Blob,
    Queue,
    Table,
}

impl Service {
    pub(crate) const ALL: [Self; 3] = [Self::Blob, Self::Queue, Self::Table];

    /// The service whose endpoint a part of a connection string names.
    fn of_part(name: &str) -> Option<Self> {
        match name {
            "BlobEndpoint" => Some(Self::Blob),
            "QueueEndpoint" => Some(Self::Queue),
            "TableEndpoint" => Some(Self::Table),
            _ => None,
        }
    }

    /// The error in the service's own form; it names the error in a header, but not the one for tables.
    fn busy(self, request: &Message) -> String {
        let (headers, body) = match self {
            Self::Blob | Self::Queue => (
                "x-ms-error-code: ServerBusy\r\ncontent-type: application/xml\r\n",
                "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>ServerBusy</Code><Message>Busy.</Message></Error>",
            ),
            Self::Table => (
                "content-type: application/json\r\n",
                r#"{"odata.error":{"code":"ServerBusy","message":{"lang":"en-US","value":"Busy."}}}"#,
            ),
        };
        let head = format!("HTTP/1.1 503 Service Unavailable\r\n{headers}content-length: {}\r\n\r\n", body.len());
        if request.is_head() { head } else { head + body }
    }
}

/// What has happened so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counters {
    /// Requests that came in.
    pub(crate) requests: BTreeMap<Service, u64>,
    /// What was done to some of them.
    pub(crate) faults: BTreeMap<Fault, BTreeMap<Service, u64>>,
    /// Requests that Azurite did not answer, which nobody planned.
    pub(crate) unanswered: u64,
}

impl Counters {
    /// How often this went wrong.
    pub(crate) fn of(&self, fault: Fault) -> u64 {
        self.faults.get(&fault).map_or(0, |by_service| by_service.values().sum())
    }

    /// How often anything went wrong with this service.
    pub(crate) fn at(&self, service: Service) -> u64 {
        self.faults.values().filter_map(|by_service| by_service.get(&service)).sum()
    }
}

/// A running proxy. Dropping it closes its ports.
pub(crate) struct FaultProxy {
    connection: String,
    shared: Arc<Shared>,
    tasks: Vec<AbortHandle>,
}

struct Shared {
    plan: Plan,
    counters: Mutex<Counters>,
}

impl FaultProxy {
    /// A proxy before every service that a connection string names.
    pub(crate) async fn before(connection: &str, plan: Plan) -> Self {
        let shared = Arc::new(Shared { plan, counters: Mutex::default() });
        let (mut parts, mut tasks) = (Vec::new(), Vec::new());
        for part in connection.split(';') {
            let endpoint = part.split_once('=').and_then(|(name, url)| Some((name, Service::of_part(name)?, url)));
            let Some((name, service, url)) = endpoint else {
                parts.push(part.to_owned());
                continue;
            };
            let mut url = Url::parse(url).expect("an endpoint");
            let azurite = url.socket_addrs(|| None).expect("an address")[0];
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            url.set_port(Some(listener.local_addr().expect("its address").port())).expect("an address with a port");
            parts.push(format!("{name}={url}"));
            tasks.push(tokio::spawn(serve(Arc::clone(&shared), listener, service, azurite)).abort_handle());
        }
        Self { connection: parts.join(";"), shared, tasks }
    }

    /// The connection string that leads through the proxy.
    pub(crate) fn connection(&self) -> &str {
        &self.connection
    }

    /// What has happened so far.
    pub(crate) fn counters(&self) -> Counters {
        self.shared.counters().clone()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

impl Shared {
    /// A panic elsewhere does not make counters wrong.
    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What becomes of the request that has just come.
    fn decide(&self, service: Service) -> (Option<Fault>, Duration) {
        let (fault, delay) = (self.plan)();
        let mut counters = self.counters();
        *counters.requests.entry(service).or_default() += 1;
        if let Some(fault) = fault {
            *counters.faults.entry(fault).or_default().entry(service).or_default() += 1;
        }
        (fault, delay)
    }
}

/// Takes connections; they end with the listener.
async fn serve(shared: Arc<Shared>, listener: TcpListener, service: Service, azurite: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let mut connection = Connection {
            shared: Arc::clone(&shared),
            service,
            azurite,
            client: BufReader::new(client),
            upstream: None,
        };
        // A client that is killed in the middle of a request is no business of the proxy's.
        connections.spawn(async move { drop(connection.relay().await) });
    }
}

/// One connection of a client, and ours to Azurite for it.
struct Connection {
    shared: Arc<Shared>,
    service: Service,
    azurite: SocketAddr,
    client: Stream,
    /// Opened by the first request that is passed on.
    upstream: Option<Stream>,
}

impl Connection {
    async fn relay(&mut self) -> Result<()> {
        self.client.get_ref().set_nodelay(true)?;
        while let Some(request) = Message::request(&mut self.client).await? {
            let (fault, delay) = self.shared.decide(self.service);
            match fault {
                None => {
                    let answer = self.pass_on(&request).await?;
                    self.client.write_all(&answer.bytes).await?;
                }
                Some(Fault::Delay) => {
                    sleep(delay).await;
                    let answer = self.pass_on(&request).await?;
                    self.client.write_all(&answer.bytes).await?;
                }
                Some(Fault::Busy) => self.client.write_all(self.service.busy(&request).as_bytes()).await?,
                Some(Fault::LoseRequest) => return self.reset(),
                Some(Fault::LoseAnswer) => {
                    self.pass_on(&request).await?;
                    return self.reset();
                }
                Some(Fault::CutAnswer) => {
                    let answer = self.pass_on(&request).await?;
                    self.client.write_all(&answer.bytes[..answer.bytes.len() / 2]).await?;
                    return self.reset();
                }
            }
        }
        Ok(())
    }

    /// Has Azurite carry out a request to its end, whatever becomes of the client meanwhile.
    async fn pass_on(&mut self, request: &Message) -> Result<Message> {
        let answer = self.answered(request).await;
        if answer.is_err() {
            self.shared.counters().unanswered += 1;
        }
        answer
    }

    async fn answered(&mut self, request: &Message) -> Result<Message> {
        let upstream = match &mut self.upstream {
            Some(upstream) => upstream,
            none => {
                let stream = TcpStream::connect(self.azurite).await?;
                stream.set_nodelay(true)?;
                none.insert(BufReader::new(stream))
            }
        };
        upstream.write_all(&request.bytes).await?;
        Message::answer(upstream, request).await
    }

    /// Ends the connection with RST instead of FIN, as soon as it is dropped.
    fn reset(&self) -> Result<()> {
        self.client.get_ref().set_zero_linger()
    }
}
