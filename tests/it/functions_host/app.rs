//! An app folder as the Functions host reads it: `host.json` and one `function.json` per function.
//!
//! The real host indexes no function at all, silently, if one of them is wrong; here the fault is said.

use super::route::Route;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the host knows of an app before it starts the handler.
#[derive(Debug)]
pub(crate) struct App {
    /// The folder the package was unpacked into.
    pub(crate) folder: PathBuf,
    /// The handler, by the name that `host.json` gives it.
    pub(crate) executable: PathBuf,
    /// What the handler is started with.
    pub(crate) arguments: Vec<String>,
    /// The longest a call may take; then the whole handler is killed.
    pub(crate) function_timeout: Duration,
    /// What every route begins with.
    pub(crate) route_prefix: String,
    /// How queues are listened to.
    pub(crate) queues: QueueSettings,
    /// In the order in which the host tries their routes: by upper-cased name.
    pub(crate) functions: Vec<Function>,
}

/// `extensions.queues` of `host.json`.
#[derive(Clone, Debug)]
pub(crate) struct QueueSettings {
    /// The longest wait between two polls of an empty queue.
    pub(crate) max_polling_interval: Duration,
    /// How long a message is hidden after its call failed.
    pub(crate) visibility_timeout: Duration,
    /// How many messages one poll takes.
    pub(crate) batch_size: u32,
    /// The next poll happens when no more calls than this are running.
    pub(crate) new_batch_threshold: u32,
    /// The delivery whose failure moves a message to the poison queue.
    pub(crate) max_dequeue_count: u32,
}

/// A function and what triggers it.
#[derive(Debug)]
pub(crate) struct Function {
    /// The name of its folder, and the path of its calls.
    pub(crate) name: String,
    /// What triggers it.
    pub(crate) trigger: Trigger,
}

/// What triggers a function.
#[derive(Debug)]
pub(crate) enum Trigger {
    /// A request to the host's front, forwarded as it is.
    Http(HttpTrigger),
    /// A message.
    Queue(QueueTrigger),
    /// The time.
    Timer {
        /// The binding's name, under which the timer's state arrives.
        binding: String,
    },
}

/// An `httpTrigger`.
#[derive(Debug)]
pub(crate) struct HttpTrigger {
    /// Below the route prefix.
    pub(crate) route: Route,
    /// In upper case; `None` for all.
    pub(crate) methods: Option<Vec<String>>,
    /// Whether a request needs no key.
    pub(crate) anonymous: bool,
}

/// A `queueTrigger`.
#[derive(Clone, Debug)]
pub(crate) struct QueueTrigger {
    /// The binding's name, under which the message arrives.
    pub(crate) binding: String,
    /// The queue in the account.
    pub(crate) queue: String,
    /// Whether `dataType` is `binary`: the message arrives as base64, and not as text.
    pub(crate) binary: bool,
}

impl App {
    /// Reads an app folder, or says why the host would run no function of it.
    pub(crate) fn read(folder: &Path) -> Result<Self, String> {
        let host: HostJson = read_json(&folder.join("host.json"))?;
        let custom_handler = &host.custom_handler;
        if host.version != "2.0" {
            return Err(format!("host.json: expected version `2.0`, got `{}`", host.version));
        }
        if !custom_handler.enable_forwarding_http_request {
            return Err("host.json: `enableForwardingHttpRequest` is off".to_owned());
        }
        let executable = executable(folder, &custom_handler.description.default_executable_path)?;
        let functions = functions(folder)?;
        let listens = functions.iter().any(|function| matches!(function.trigger, Trigger::Queue(_)));
        let bundle = host.extension_bundle.as_ref().map(|bundle| (bundle.id.as_str(), bundle.version.as_str()));
        if listens && bundle != Some(("Microsoft.Azure.Functions.ExtensionBundle", "[4.*, 5.0.0)")) {
            return Err("host.json: queue triggers need the extension bundle `[4.*, 5.0.0)`".to_owned());
        }
        Ok(Self {
            folder: folder.to_owned(),
            executable,
            arguments: custom_handler.description.arguments.clone(),
            function_timeout: host.function_timeout.as_deref().map_or(Ok(FUNCTION_TIMEOUT), duration)?,
            route_prefix: host.extensions.http.route_prefix.clone().unwrap_or_else(|| "api".to_owned()),
            queues: host.extensions.queues.settings()?,
            functions,
        })
    }

    /// The function that answers a request: the first one, by upper-cased name, whose template and methods match.
    pub(crate) fn http_function(&self, method: &str, path: &str) -> Option<(&str, &HttpTrigger)> {
        let path = path.strip_prefix('/')?.strip_prefix(self.route_prefix.as_str())?;
        if !path.is_empty() && !path.starts_with('/') {
            return None;
        }
        self.functions.iter().find_map(|function| match &function.trigger {
            Trigger::Http(trigger) => {
                let listed = trigger.methods.as_ref().is_none_or(|methods| methods.iter().any(|own| own == method));
                (listed && trigger.route.matches(path)).then_some((function.name.as_str(), trigger))
            }
            Trigger::Queue(_) | Trigger::Timer { .. } => None,
        })
    }
}

/// Of the Consumption plan, the shortest of all.
const FUNCTION_TIMEOUT: Duration = Duration::from_mins(5);

fn executable(folder: &Path, name: &str) -> Result<PathBuf, String> {
    // The mode bit is set on the zip entry that equals the name letter by letter, which no entry with a `./` does.
    if name.is_empty() || name.contains(['/', '\\']) {
        return Err(format!("host.json: `{name}` is not the bare name of a file beside it"));
    }
    let path = folder.join(name);
    let metadata = fs::metadata(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    if !metadata.is_file() || metadata.permissions().mode() & 0o111 == 0 {
        return Err(format!("{}: not an executable file", path.display()));
    }
    Ok(path)
}

fn functions(folder: &Path) -> Result<Vec<Function>, String> {
    let mut functions = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))? {
        let path = entry.map_err(|error| error.to_string())?.path();
        let function_json = path.join("function.json");
        if !function_json.is_file() {
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if !is_function_name(&name) {
            return Err(format!("`{name}` is not a function's name"));
        }
        let declared: FunctionJson = read_json(&function_json)?;
        let trigger = trigger(declared.bindings).map_err(|fault| format!("{}: {fault}", function_json.display()))?;
        if functions.insert(name.to_uppercase(), Function { name: name.clone(), trigger }).is_some() {
            return Err(format!("there are two functions `{name}`"));
        }
    }
    if functions.is_empty() {
        return Err(format!("{}: no function in it", folder.display()));
    }
    Ok(functions.into_values().collect())
}

/// `^[a-z][a-z0-9_-]{0,127}$` in any case.
fn is_function_name(name: &str) -> bool {
    name.len() <= 128
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_' || character == '-')
}

fn trigger(bindings: Vec<Binding>) -> Result<Trigger, String> {
    let (inputs, outputs): (Vec<_>, Vec<_>) = bindings.into_iter().partition(|binding| binding.direction == "in");
    let outputs: Vec<&str> = outputs.iter().map(|output| output.r#type.as_str()).collect();
    let [input] = <[Binding; 1]>::try_from(inputs).map_err(|inputs| format!("{} triggers", inputs.len()))?;
    match (input.r#type.as_str(), outputs.as_slice()) {
        ("httpTrigger", ["http"]) => input.http().map(Trigger::Http),
        ("queueTrigger", []) => input.queue().map(Trigger::Queue),
        ("timerTrigger", []) if input.schedule.is_some() => Ok(Trigger::Timer { binding: input.name }),
        (kind, outputs) => Err(format!("a `{kind}` with the outputs {outputs:?} is none that is understood")),
    }
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, String> {
    let text = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_slice(&text).map_err(|error| format!("{}: {error}", path.display()))
}

/// `hh:mm:ss`
fn duration(text: &str) -> Result<Duration, String> {
    let parts: Result<Vec<u64>, _> = text.split(':').map(str::parse).collect();
    match parts.as_deref() {
        Ok([hours @ 0..24, minutes @ 0..60, seconds @ 0..60]) => {
            Ok(Duration::from_secs(hours * 3600 + minutes * 60 + seconds))
        }
        _ => Err(format!("host.json: expected `hh:mm:ss`, got `{text}`")),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HostJson {
    version: String,
    function_timeout: Option<String>,
    extension_bundle: Option<ExtensionBundle>,
    custom_handler: CustomHandler,
    #[serde(default)]
    extensions: Extensions,
}

#[derive(Deserialize)]
struct ExtensionBundle {
    id: String,
    version: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CustomHandler {
    description: Description,
    #[serde(default)]
    enable_forwarding_http_request: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    default_executable_path: String,
    #[serde(default)]
    arguments: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Extensions {
    http: Http,
    queues: Queues,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Http {
    route_prefix: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Queues {
    max_polling_interval: Option<String>,
    visibility_timeout: Option<String>,
    batch_size: Option<u32>,
    new_batch_threshold: Option<u32>,
    max_dequeue_count: Option<u32>,
    message_encoding: Option<String>,
}

impl Queues {
    fn settings(&self) -> Result<QueueSettings, String> {
        if self.message_encoding.as_deref().unwrap_or("base64") != "base64" {
            return Err("host.json: the queues' `messageEncoding` is not `base64`".to_owned());
        }
        let batch_size = self.batch_size.unwrap_or(16);
        if !(1..=32).contains(&batch_size) {
            return Err(format!("host.json: expected a `batchSize` of 1–32, got {batch_size}"));
        }
        Ok(QueueSettings {
            max_polling_interval: self.max_polling_interval.as_deref().map_or(Ok(Duration::from_mins(1)), duration)?,
            visibility_timeout: self.visibility_timeout.as_deref().map_or(Ok(Duration::ZERO), duration)?,
            batch_size,
            new_batch_threshold: self.new_batch_threshold.unwrap_or(batch_size / 2),
            max_dequeue_count: self.max_dequeue_count.unwrap_or(5),
        })
    }
}

#[derive(Deserialize)]
struct FunctionJson {
    bindings: Vec<Binding>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Binding {
    r#type: String,
    direction: String,
    name: String,
    auth_level: Option<String>,
    methods: Option<Vec<String>>,
    route: Option<String>,
    queue_name: Option<String>,
    connection: Option<String>,
    data_type: Option<String>,
    schedule: Option<String>,
}

impl Binding {
    fn http(self) -> Result<HttpTrigger, String> {
        let route = self.route.ok_or("no route")?;
        if ["admin", "runtime"].iter().any(|reserved| route.split('/').next() == Some(reserved)) {
            return Err(format!("the route `{route}` is the host's own"));
        }
        let upper = |methods: Vec<String>| methods.iter().map(|method| method.to_uppercase()).collect();
        Ok(HttpTrigger {
            route: Route::parse(&route)?,
            methods: self.methods.map(upper),
            anonymous: match self.auth_level.as_deref().unwrap_or("function") {
                "anonymous" => true,
                "function" | "admin" => false,
                other => return Err(format!("`{other}` is no authLevel")),
            },
        })
    }

    fn queue(self) -> Result<QueueTrigger, String> {
        // Without one the listener looks for a setting that the app may not have; only `AzureWebJobsStorage` is given.
        if self.connection.as_deref() != Some("AzureWebJobsStorage") {
            return Err(format!("expected the connection `AzureWebJobsStorage`, got {:?}", self.connection));
        }
        let binary = match self.data_type.as_deref() {
            Some("binary") => true,
            None | Some("string") => false,
            Some(other) => return Err(format!("`{other}` is no dataType of a message")),
        };
        Ok(QueueTrigger { binding: self.name, queue: self.queue_name.ok_or("no queueName")?, binary })
    }
}
