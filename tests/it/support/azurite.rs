//! Azurite, the emulator of Azure Storage: installed once per build folder, started once per test process.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha512};
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const VERSION: &str = "3.37.0";
/// How many tests of one process may ask for an account.
const ACCOUNTS: usize = 256;
const CURE: &str = "install Node.js 20 or newer with npm (https://nodejs.org, or `apt-get install nodejs npm`)";
const START_DEADLINE: Duration = Duration::from_mins(1);

/// The connection string of an account that nobody else uses: empty, on an Azurite that ends with this process.
pub(crate) fn account() -> String {
    static AZURITE: OnceLock<Azurite> = OnceLock::new();
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < ACCOUNTS, "more than {ACCOUNTS} accounts asked for: raise `ACCOUNTS`");
    AZURITE.get_or_init(Azurite::start).connection_string(number)
}

struct Azurite {
    ports: [u16; 3],
    /// Its input is what the emulator's life hangs on: the system closes it when this process ends, however it ends.
    _supervisor: Child,
}

impl Azurite {
    fn start() -> Self {
        let script = installed();
        // Another process may take a port between our choice and Azurite's use of it, so try again.
        for _ in 0..3 {
            let ports = free_ports();
            let mut supervisor = supervise(&script, ports);
            if answers(&mut supervisor, ports) {
                return Self { ports, _supervisor: supervisor };
            }
        }
        panic!("Azurite does not start; its words stand above");
    }

    fn connection_string(&self, number: usize) -> String {
        let [blob, queue, table] = self.ports.map(|port| format!("http://127.0.0.1:{port}/{}", name(number)));
        let (name, key) = (name(number), key(number));
        format!("AccountName={name};AccountKey={key};BlobEndpoint={blob};QueueEndpoint={queue};TableEndpoint={table}")
    }
}

fn name(number: usize) -> String {
    format!("acct{number}")
}

fn key(number: usize) -> String {
    STANDARD.encode(Sha512::digest(format!("account {number} of the tests")))
}

/// Starts Azurite below a shell that kills it when our end of the shell's input closes, and then removes its folder.
fn supervise(script: &Path, ports: [u16; 3]) -> Child {
    const SUPERVISE: &str = r#"
        location=$1; shift
        exec 3<&0
        node "$@" --location "$location" </dev/null 3<&- &
        azurite=$!
        (cat <&3 >/dev/null; kill $azurite) 2>/dev/null &
        wait $azurite
        rm -rf "$location"
    "#;
    let [blob, queue, table] = ports.map(|port| port.to_string());
    let accounts: Vec<_> = (0..ACCOUNTS).map(|number| format!("{}:{}", name(number), key(number))).collect();
    Command::new("sh")
        .args(["-c", SUPERVISE, "azurite"])
        .arg(location())
        .arg(script)
        .args(["--silent", "--disableTelemetry"])
        .args(["--blobPort", &blob, "--queuePort", &queue, "--tablePort", &table])
        .env("AZURITE_ACCOUNTS", accounts.join(";"))
        .env("NODE_NO_WARNINGS", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        // Ctrl-C at the tests must not kill the shell before it has cleaned up.
        .process_group(0)
        .spawn()
        .expect("a shell")
}

/// A fresh folder in memory where there is one: on a disk every operation of Azurite waits for it.
fn location() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    let folder = tempfile::Builder::new().prefix("coremachine-azurite-").tempdir_in(parent);
    folder.expect("a temporary folder").keep()
}

fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("its address").port())
}

fn answers(supervisor: &mut Child, ports: [u16; 3]) -> bool {
    let started = Instant::now();
    while started.elapsed() < START_DEADLINE {
        if supervisor.try_wait().expect("a child").is_some() {
            return false;
        }
        if ports.iter().all(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok()) {
            return true;
        }
        thread::sleep(Duration::from_millis(50));
    }
    false
}

/// Azurite's script, installed from npm if it is not there yet.
fn installed() -> PathBuf {
    let node = Command::new("node").arg("--version").output();
    assert!(node.is_ok_and(|node| node.status.success()), "these tests run Azurite, which needs `node`: {CURE}");
    let build = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let home = build.join(format!("azurite-{VERSION}"));
    let script = home.join("node_modules/azurite/dist/src/azurite.js");
    fs::create_dir_all(build).expect("the build folder");
    // Of several test processes one installs; the others wait for the lock, which ends with its file handle.
    let lock = File::create(build.join("azurite.lock")).expect("a lock file");
    lock.lock().expect("the lock");
    if !script.is_file() {
        let unfinished = build.join("azurite-unfinished");
        _ = fs::remove_dir_all(&unfinished);
        _ = fs::remove_dir_all(&home);
        install(&unfinished);
        fs::rename(&unfinished, &home).expect("moving Azurite to its place");
    }
    script
}

fn install(folder: &Path) {
    fs::create_dir_all(folder).expect("a folder for Azurite");
    let npm = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "--prefix"])
        .arg(folder)
        .arg(format!("azurite@{VERSION}"))
        .output()
        .unwrap_or_else(|error| panic!("these tests run Azurite, which needs `npm` ({error}): {CURE}"));
    let words = String::from_utf8_lossy(&npm.stderr);
    assert!(npm.status.success(), "`npm install azurite@{VERSION}` failed; is the npm registry reachable? {words}");
}
