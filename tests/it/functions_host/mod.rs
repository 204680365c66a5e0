//! A Functions host for tests: starts a packaged app as the Azure Functions host would and plays its triggers.
//!
//! No binary of the real host takes part. It is built to facts read from the host's source, and what it sends and how
//! it judges answers is checked against bodies that the host's own functions made (`tests/fixtures/host`).
//!
//! | file | plays |
//! | --- | --- |
//! | `app` | indexing: `host.json` and every `function.json` |
//! | `handler` | the handler's process: readiness, restart, SIGKILL |
//! | `listener` | the queue listener: polling, redelivery, poison |
//! | `calls`, `verdict` | the body of a call, and the outcome of its answer |
//! | `front`, `route` | the HTTP front |
//! | `wire` | captured requests, byte for byte |

mod app;
mod calls;
pub(crate) mod fake;
mod front;
mod handler;
mod listener;
mod route;
mod tests;
pub(crate) mod verdict;
pub(crate) mod wire;

pub(crate) use app::{App, Function, Trigger};
pub(crate) use calls::Framing;

use coremachine::ports::{Queue, Queues};
use handler::Life;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use verdict::{Outcome, judge};

/// What the host calls itself.
const VERSION: &str = "4.1037.0";
/// How much of the handler's output is kept.
const OUTPUT_LIMIT: usize = 20_000;

/// How a host is run. The defaults are a real host's, but that every wait is short.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How many handlers run, each with listeners of its own.
    pub(crate) instances: usize,
    /// How the bodies of calls travel.
    pub(crate) framing: Framing,
    /// Sends messages as text even to a function that declares `"dataType": "binary"`.
    pub(crate) as_text: bool,
    /// How long a fetched message is hidden while its call runs, renewed at half of it; 10 minutes on a real host.
    pub(crate) in_flight: Duration,
    /// How long a message is hidden after a failure, in place of what `host.json` says.
    pub(crate) visibility_timeout: Option<Duration>,
    /// The unit of the waits between polls; 100 ms on a real host.
    pub(crate) polling: Duration,
    /// The longest wait between polls, in place of what `host.json` says.
    pub(crate) max_polling_interval: Option<Duration>,
    /// How many messages one poll takes, in place of what `host.json` says; the next poll happens at half of them.
    pub(crate) batch_size: Option<u32>,
    /// The longest call, in place of what `host.json` says.
    pub(crate) function_timeout: Option<Duration>,
    /// Sends SIGKILL at a random moment in every so manieth call that is not HTTP.
    pub(crate) kill_every: Option<u64>,
    /// What goes down with a handler that `kill_every` kills.
    pub(crate) loss: Loss,
    /// Delivers every so manieth message twice.
    pub(crate) duplicate_every: Option<u64>,
    /// The function key, if keys are enforced; Core Tools does not.
    pub(crate) key: Option<String>,
    /// App settings beside `AzureWebJobsStorage`.
    pub(crate) settings: BTreeMap<String, String>,
    /// Where chance begins.
    pub(crate) seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            instances: 1,
            framing: Framing::Chunked,
            as_text: false,
            in_flight: Duration::from_secs(2),
            visibility_timeout: Some(Duration::from_millis(200)),
            polling: Duration::from_millis(10),
            max_polling_interval: Some(Duration::from_millis(200)),
            batch_size: None,
            function_timeout: None,
            kill_every: None,
            loss: Loss::Instance,
            duplicate_every: None,
            key: None,
            settings: BTreeMap::new(),
            seed: 1,
        }
    }
}

impl Options {
    fn applied_to(&self, mut app: App) -> App {
        app.function_timeout = self.function_timeout.unwrap_or(app.function_timeout);
        let queues = &mut app.queues;
        queues.visibility_timeout = self.visibility_timeout.unwrap_or(queues.visibility_timeout);
        queues.max_polling_interval = self.max_polling_interval.unwrap_or(queues.max_polling_interval);
        if let Some(batch_size) = self.batch_size {
            (queues.batch_size, queues.new_batch_threshold) = (batch_size, batch_size / 2);
        }
        app
    }
}

/// What goes down with a killed handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// The handler alone: its calls fail, and the host settles their messages.
    Handler,
    /// The whole instance: messages in flight stay hidden until their invisibility ends, answered or not.
    Instance,
}

/// What has happened so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// Calls forwarded, by function; HTTP too.
    pub(crate) calls: BTreeMap<String, u64>,
    /// SIGKILLs sent.
    pub(crate) kills: u64,
    /// Handlers started in place of one that ended.
    pub(crate) restarts: u64,
    /// Messages delivered twice on purpose.
    pub(crate) duplicates: u64,
    /// Calls for messages and timers that failed, killed ones included.
    pub(crate) failures: u64,
    /// Answers for which the host waits until `functionTimeout`, and calls that last as long.
    pub(crate) hangs: u64,
    /// Messages moved to a poison queue.
    pub(crate) poisoned: u64,
    /// Operations of the queue listener that the store failed.
    pub(crate) store_faults: u64,
}

/// A running host. Dropping it kills its handlers.
pub(crate) struct FunctionsHost {
    host: Arc<Host>,
    front: SocketAddr,
    tasks: Vec<AbortHandle>,
}

impl FunctionsHost {
    /// Reads the app folder, starts the handlers, waits until they answer, and begins to listen.
    ///
    /// `queues` is the account that `connection`, the setting `AzureWebJobsStorage`, names. Says why if the app is
    /// wrong or its handler does not start.
    pub(crate) async fn start(
        app: &Path,
        queues: Arc<dyn Queues>,
        connection: &str,
        options: Options,
    ) -> Result<Self, String> {
        let (states, instances): (Vec<_>, Vec<_>) =
            (0..options.instances).map(|_| watch::channel(State::Starting)).unzip();
        let host = Arc::new(Host::new(options.applied_to(App::read(app)?), queues, connection, options, instances)?);
        let mut tasks = Vec::new();
        for (instance, state) in states.into_iter().enumerate() {
            tasks.push(tokio::spawn(handler::supervise(Arc::clone(&host), instance, state)).abort_handle());
        }
        let (front, serving) = front::serve(Arc::clone(&host)).await?;
        tasks.push(serving);
        let started = Self { host, front, tasks };
        for instance in 0..started.host.instances.len() {
            started.host.ready(instance).await.map_err(|fault| format!("{fault}\n{}", started.output()))?;
        }
        Ok(started.listening())
    }

    fn listening(mut self) -> Self {
        for instance in 0..self.host.instances.len() {
            for (function, trigger, queue) in self.host.listened() {
                let listener = listener::listen(Arc::clone(&self.host), instance, function, trigger, queue);
                self.tasks.push(tokio::spawn(listener).abort_handle());
            }
        }
        self
    }

    /// The front's address, `http://127.0.0.1:{port}`.
    pub(crate) fn http(&self) -> String {
        format!("http://{}", self.front)
    }

    /// The handler's own address, past the front; another one after every restart.
    pub(crate) async fn handler(&self, instance: usize) -> Result<String, String> {
        Ok(self.host.ready(instance).await?.base.clone())
    }

    /// Kills an instance's handler, whatever it is doing, as soon as it has one; returns when it is dead.
    pub(crate) async fn kill(&self, instance: usize, loss: Loss) -> Result<(), String> {
        let life = self.host.ready(instance).await?;
        life.kill(loss);
        let mut state = self.host.instances[instance].clone();
        let replaced = |state: &State| !matches!(state, State::Ready(other) if Arc::ptr_eq(other, &life));
        state.wait_for(replaced).await.map(drop).map_err(|error| error.to_string())
    }

    /// Fires a timer function and says whether it succeeded; waits while the same timer is running.
    pub(crate) async fn fire_timer(&self, function: &str, is_past_due: bool) -> Result<bool, String> {
        let host = &self.host;
        let (binding, lease) = host.timers.get(function).ok_or_else(|| format!("`{function}` is no timer"))?;
        let _lease = lease.lock().await;
        let life = host.ready(0).await?;
        let body = calls::timer_body(function, binding, is_past_due);
        Ok(host.call(&life, function, body).await == CallEnd::Success)
    }

    /// What has happened so far.
    pub(crate) fn counters(&self) -> Counters {
        locked(&self.host.counters).clone()
    }

    /// Waits until every queue that a function listens to is empty and no call runs; says what is left at the deadline.
    pub(crate) async fn quiesced(&self, within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        let mut calls_when_empty = None;
        while Instant::now() < deadline {
            let calls: u64 = self.counters().calls.values().sum();
            // The queues are read one after the other: only two readings with no call between them mean anything.
            match (self.is_empty().await?, calls_when_empty) {
                (true, Some(before)) if before == calls => return Ok(()),
                (true, _) => calls_when_empty = Some(calls),
                (false, _) => calls_when_empty = None,
            }
            sleep(self.host.options.polling).await;
        }
        Err(format!("not quiet after {within:?}; {:?}\n{}", self.counters(), self.output()))
    }

    /// What the handlers have written, one line each, with the instance and the stream in front.
    pub(crate) fn output(&self) -> String {
        let lines = locked(&self.host.output);
        lines.iter().fold(String::new(), |mut output, line| {
            let _ = writeln!(output, "{line}");
            output
        })
    }

    /// Waits until the handlers have written what is wanted: an answer may arrive before the lines written before it.
    pub(crate) async fn writes(&self, wanted: impl Fn(&str) -> bool, within: Duration) -> Result<(), String> {
        let deadline = Instant::now() + within;
        while !wanted(&self.output()) {
            if Instant::now() > deadline {
                return Err(format!("not written after {within:?}; {:?}\n{}", self.counters(), self.output()));
            }
            sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    async fn is_empty(&self) -> Result<bool, String> {
        for instance in 0..self.host.instances.len() {
            self.host.ready(instance).await?;
        }
        for (_, _, queue) in self.host.listened() {
            if self.host.queues.length(queue).await.map_err(|error| error.to_string())? > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Drop for FunctionsHost {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        if std::thread::panicking() {
            eprintln!("{:?}\n{}", self.counters(), self.output());
        }
    }
}

/// What an instance's handler is doing.
#[derive(Clone, Debug)]
enum State {
    Starting,
    Ready(Arc<Life>),
    /// For good, and why.
    Stopped(String),
}

/// What all parts of a running host share.
struct Host {
    app: App,
    options: Options,
    settings: BTreeMap<String, String>,
    queues: Arc<dyn Queues>,
    client: reqwest::Client,
    instances: Vec<watch::Receiver<State>>,
    /// The binding and the lease of every timer: it runs once at a time across all instances.
    timers: BTreeMap<String, (String, tokio::sync::Mutex<()>)>,
    counters: Mutex<Counters>,
    /// Calls that are not HTTP, and how long they took together, in microseconds.
    called: AtomicU64,
    call_micros: AtomicU64,
    messages: AtomicU64,
    output: Mutex<VecDeque<String>>,
    random: Random,
}

/// How a call ended for its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CallEnd {
    Success,
    Failure,
    /// The host died: nobody settles the message.
    Lost,
}

impl Host {
    fn new(
        app: App,
        queues: Arc<dyn Queues>,
        connection: &str,
        options: Options,
        instances: Vec<watch::Receiver<State>>,
    ) -> Result<Self, String> {
        // The client asks for a TLS provider though it only ever speaks http; a second installation changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| error.to_string())?;
        let mut settings = options.settings.clone();
        settings.insert("AzureWebJobsStorage".to_owned(), connection.to_owned());
        settings.entry("FUNCTIONS_WORKER_RUNTIME".to_owned()).or_insert_with(|| "custom".to_owned());
        let timers = app.functions.iter().filter_map(|function| match &function.trigger {
            Trigger::Timer { binding } => {
                Some((function.name.clone(), (binding.clone(), tokio::sync::Mutex::default())))
            }
            Trigger::Http(_) | Trigger::Queue(_) => None,
        });
        let host = Self {
            timers: timers.collect(),
            random: Random(AtomicU64::new(options.seed)),
            app,
            options,
            settings,
            queues,
            client,
            instances,
            counters: Mutex::default(),
            called: AtomicU64::new(0),
            call_micros: AtomicU64::new(0),
            messages: AtomicU64::new(0),
            output: Mutex::default(),
        };
        let triggers = host.app.functions.iter().filter(|function| matches!(function.trigger, Trigger::Queue(_)));
        if triggers.count() != host.listened().count() {
            return Err("a function listens to a queue that the app does not have".to_owned());
        }
        Ok(host)
    }

    /// Every function that listens to a queue.
    fn listened(&self) -> impl Iterator<Item = (String, app::QueueTrigger, Queue)> {
        self.app.functions.iter().filter_map(|function| match &function.trigger {
            Trigger::Queue(trigger) => {
                let queue = Queue::ALL.into_iter().find(|queue| queue.name() == trigger.queue)?;
                Some((function.name.clone(), trigger.clone(), queue))
            }
            Trigger::Http(_) | Trigger::Timer { .. } => None,
        })
    }

    /// Waits for an instance's handler; why there will be none, if so.
    async fn ready(&self, instance: usize) -> Result<Arc<Life>, String> {
        let mut state = self.instances[instance].clone();
        let settled = state.wait_for(|state| !matches!(state, State::Starting)).await;
        match settled.map_err(|error| error.to_string())?.clone() {
            State::Ready(life) => Ok(life),
            State::Stopped(fault) => Err(format!("instance {instance} has stopped: {fault}")),
            State::Starting => Err("unreachable: awaited otherwise".to_owned()),
        }
    }

    /// Calls a function that is not HTTP.
    async fn call(&self, life: &Arc<Life>, function: &str, body: String) -> CallEnd {
        self.count(|counters| *counters.calls.entry(function.to_owned()).or_default() += 1);
        let called = self.called.fetch_add(1, Ordering::SeqCst) + 1;
        if self.options.kill_every.is_some_and(|every| called.is_multiple_of(every)) {
            self.kill_within(life, called);
        }
        let began = Instant::now();
        let deadline = began + self.app.function_timeout;
        let outcome = match timeout_at(deadline, self.answer(life, function, body)).await {
            Ok(Outcome::Hang) => {
                sleep_until(deadline).await;
                Outcome::Hang
            }
            Ok(outcome) => outcome,
            Err(_) => Outcome::Hang,
        };
        let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.call_micros.fetch_add(micros, Ordering::SeqCst);
        if outcome == Outcome::Hang {
            self.count(|counters| counters.hangs += 1);
            life.kill(Loss::Handler);
        }
        if outcome != Outcome::Success {
            self.count(|counters| counters.failures += 1);
        }
        match outcome {
            _ if life.is_lost() => CallEnd::Lost,
            Outcome::Success => CallEnd::Success,
            Outcome::Failure | Outcome::Hang => CallEnd::Failure,
        }
    }

    async fn answer(&self, life: &Life, function: &str, body: String) -> Outcome {
        let request = self
            .client
            .post(format!("{}/{function}", life.base))
            .header("X-Azure-Functions-HostVersion", VERSION)
            .header("X-Azure-Functions-InvocationId", self.random.guid())
            .header("User-Agent", format!("Azure-Functions-Host/{VERSION}"))
            .header("Content-Type", "application/json; charset=utf-8")
            .body(self.options.framing.body(body));
        let Ok(response) = request.send().await else { return Outcome::Failure };
        let status = response.status().as_u16();
        let content_type = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let content_type = content_type.map(str::to_owned);
        match response.bytes().await {
            Ok(body) => judge(status, content_type.as_deref(), &body),
            Err(_) => Outcome::Failure,
        }
    }

    /// Kills at a random moment of about as long as a call takes, so that some die early and some late in it.
    fn kill_within(&self, life: &Arc<Life>, called: u64) {
        let mean = self.call_micros.load(Ordering::SeqCst) / called;
        let moment = Duration::from_micros(self.random.next() % (2 * mean.clamp(500, 500_000)));
        let (life, loss, moment) = (Arc::clone(life), self.options.loss, Instant::now() + moment);
        tokio::spawn(async move {
            sleep_until(moment).await;
            life.kill(loss);
        });
    }

    fn count(&self, add: impl FnOnce(&mut Counters)) {
        add(&mut locked(&self.counters));
    }

    fn say(&self, line: &str) {
        let mut output = locked(&self.output);
        if output.len() == OUTPUT_LIMIT {
            output.pop_front();
        }
        output.push_back(line.to_owned());
    }
}

/// A panic elsewhere does not make counters or lines wrong.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `SplitMix64`
struct Random(AtomicU64);

impl Random {
    fn next(&self) -> u64 {
        let state = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn guid(&self) -> String {
        let (high, low) = (self.next(), self.next());
        let (a, b, c) = (high >> 32, (high >> 16) & 0xffff, high & 0xfff);
        format!("{a:08x}-{b:04x}-4{c:03x}-8{:03x}-{:012x}", low >> 52, low & 0xffff_ffff_ffff)
    }
}
