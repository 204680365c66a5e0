//! The handler's process on one instance: started, awaited, watched, killed and started again as the host does it.

use super::{Host, Loss, State};
use std::net::TcpListener;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

const READINESS_INTERVAL: Duration = Duration::from_millis(25);
const READINESS_DEADLINE: Duration = Duration::from_secs(30);
/// The host stops at the third error within 30 minutes, which no test lasts.
const ERRORS_ALLOWED: u32 = 3;

/// One process of the handler, from its readiness to its end.
#[derive(Debug)]
pub(crate) struct Life {
    /// `http://127.0.0.1:{port}`
    pub(crate) base: String,
    doomed: Notify,
    lost: AtomicBool,
}

impl Life {
    fn new(port: u16) -> Self {
        Self { base: format!("http://127.0.0.1:{port}"), doomed: Notify::new(), lost: AtomicBool::new(false) }
    }

    /// Sends SIGKILL, soon. What its calls answered and is not settled yet counts only if the host lives on.
    pub(crate) fn kill(&self, loss: Loss) {
        if loss == Loss::Instance {
            self.lost.store(true, Ordering::SeqCst);
        }
        self.doomed.notify_one();
    }

    /// Whether the host died with it, so that nobody is left to settle a message.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }
}

/// Keeps one instance's handler running until it is beyond help.
pub(crate) async fn supervise(host: Arc<Host>, instance: usize, state: watch::Sender<State>) {
    let mut errors = 0;
    loop {
        let fault = match run(&host, instance, &state).await {
            End::Killed => None,
            End::Exited(status) if status.success() => {
                state.send_replace(State::Stopped(
                    "the handler exited with 0, after which it is never restarted".into(),
                ));
                return;
            }
            End::Exited(status) => Some(format!("the handler ended with {status}")),
            End::Unready(fault) => Some(fault),
        };
        if let Some(fault) = fault {
            host.say(&format!("instance {instance}: {fault}"));
            errors += 1;
            if errors == ERRORS_ALLOWED {
                state.send_replace(State::Stopped(format!("{errors} errors, the last one: {fault}")));
                return;
            }
        }
        state.send_replace(State::Starting);
        host.count(|counters| counters.restarts += 1);
    }
}

enum End {
    Killed,
    Exited(ExitStatus),
    Unready(String),
}

async fn run(host: &Arc<Host>, instance: usize, state: &watch::Sender<State>) -> End {
    let (mut child, life) = match start(host, instance) {
        Ok(started) => started,
        Err(fault) => return End::Unready(fault),
    };
    tokio::select! {
        ended = child.wait() => return exited(ended),
        ready = answers(host, &life) => if !ready {
            return End::Unready(format!("no answer to `GET /` within {READINESS_DEADLINE:?}"));
        },
    }
    let life = Arc::new(life);
    state.send_replace(State::Ready(Arc::clone(&life)));
    tokio::select! {
        ended = child.wait() => exited(ended),
        () = life.doomed.notified() => {
            host.count(|counters| counters.kills += 1);
            match child.kill().await {
                Ok(()) => End::Killed,
                Err(error) => End::Unready(format!("SIGKILL failed: {error}")),
            }
        }
    }
}

fn exited(ended: std::io::Result<ExitStatus>) -> End {
    ended.map_or_else(|error| End::Unready(error.to_string()), End::Exited)
}

fn start(host: &Arc<Host>, instance: usize) -> Result<(Child, Life), String> {
    let port = free_port().map_err(|error| error.to_string())?;
    let mut child = Command::new(&host.app.executable)
        .args(&host.app.arguments)
        .current_dir(&host.app.folder)
        .envs(&host.settings)
        .env("FUNCTIONS_CUSTOMHANDLER_PORT", port.to_string())
        .env("FUNCTIONS_HTTPWORKER_PORT", port.to_string())
        .env("FUNCTIONS_CUSTOMHANDLER_WORKER_ID", host.random.guid())
        .env("FUNCTIONS_APP_ROOT_PATH", &host.app.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{}: {error}", host.app.executable.display()))?;
    listen_to(host, instance, "out", child.stdout.take());
    listen_to(host, instance, "err", child.stderr.take());
    Ok((child, Life::new(port)))
}

fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn listen_to(
    host: &Arc<Host>,
    instance: usize,
    name: &'static str,
    stream: Option<impl AsyncRead + Send + Unpin + 'static>,
) {
    let Some(stream) = stream else { return };
    let host = Arc::clone(host);
    tokio::spawn(async move {
        let mut lines = BufReader::new(stream).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            host.say(&format!("[{instance} {name}] {line}"));
        }
    });
}

async fn answers(host: &Host, life: &Life) -> bool {
    let deadline = Instant::now() + READINESS_DEADLINE;
    let mut attempts = interval(READINESS_INTERVAL);
    attempts.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        attempts.tick().await;
        match timeout_at(deadline, host.client.get(format!("{}/", life.base)).send()).await {
            Ok(Ok(_)) => return true,
            Ok(Err(_)) if Instant::now() < deadline => {}
            Ok(Err(_)) | Err(_) => return false,
        }
    }
}
