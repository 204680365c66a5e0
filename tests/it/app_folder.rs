//! What ships: the app folder and its zip file obey the Functions host's rules and the public schemas.

use crate::functions_host::{App, Trigger};
use crate::support::app;
use coremachine::ports::Queue;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_host_indexes_every_function_of_the_app() {
    let app = App::read(&app::folder()).unwrap();
    let names: Vec<_> = app.functions.iter().map(|function| function.name.as_str()).collect();
    assert_eq!(names, function_folders(repository()));
    for function in &app.functions {
        if let Trigger::Queue(trigger) = &function.trigger {
            assert!(trigger.binary, "{}: text arrives encoded twice, with its members as metadata", function.name);
            let known = Queue::ALL.iter().any(|queue| queue.name() == trigger.queue);
            assert!(known, "{} listens to `{}`, which is no queue of the app", function.name, trigger.queue);
        }
    }
}

#[test]
fn every_request_reaches_the_function_that_is_meant_for_it() {
    let app = App::read(&app::folder()).unwrap();
    for (method, path, function) in [
        ("POST", "/api/jobs/hello_world", Some("function_submit")),
        ("GET", "/api/jobs/0a1b", Some("function_status")),
        ("GET", "/api/jobs/0a1b/tasks", Some("function_status")),
        ("GET", "/api/jobs/0a1b/completion", Some("function_completion")),
        ("GET", "/api/health", Some("function_health")),
        // All else, the API's own 404 and 405 included, is answered by the handler's router.
        ("POST", "/api/jobs/0a1b/cancel", Some("function_web")),
        ("DELETE", "/api/jobs/0a1b", Some("function_web")),
        ("PUT", "/api/jobs/0a1b/completion", Some("function_web")),
        ("GET", "/api/jobs", Some("function_web")),
        ("POST", "/api/health", Some("function_web")),
        ("GET", "/api/job_types/hello_world", Some("function_web")),
        ("GET", "/api/no/such/path", Some("function_web")),
        ("GET", "/api", Some("function_web")),
        ("GET", "/elsewhere", None),
    ] {
        let found = app.http_function(method, path).map(|(name, _)| name);
        assert_eq!(found, function, "{method} {path}");
    }
}

#[test]
fn every_file_obeys_its_public_schema() {
    let folder = app::folder();
    let mut documents = vec![(folder.join("host.json"), "host.json")];
    documents.extend([
        (folder.join("local.settings.json"), "local.settings.json"),
        (repository().join("local.settings.json.example"), "local.settings.json"),
    ]);
    for function in function_folders(&folder) {
        documents.push((folder.join(function).join("function.json"), "function.json"));
    }
    for (document, schema) in documents {
        assert_eq!(faults(schema, &read(&document)), [""; 0], "{}", document.display());
    }
    assert_ne!(
        faults("function.json", &json!({ "bindings": [{ "type": "queueTrigger", "direction": "in" }] })),
        [""; 0]
    );
    assert_ne!(faults("host.json", &json!({ "version": "2.0", "customHandler": { "route": 1 } })), [""; 0]);
    assert_ne!(faults("local.settings.json", &json!({ "Values": { "AzureWebJobsStorage": 1 } })), [""; 0]);
}

/// What a public schema has against a document.
fn faults(schema: &str, document: &Value) -> Vec<String> {
    let schema = read(&repository().join("tests/fixtures/schemas").join(schema));
    // The schema of `function.json` names draft 4 and relies on `const`, which is younger: read as draft 4 it refuses
    // every queue and HTTP trigger.
    let validator = jsonschema::options().with_draft(jsonschema::Draft::Draft7).build(&schema).unwrap();
    validator.iter_errors(document).map(|fault| fault.to_string()).collect()
}

#[test]
fn the_folder_holds_what_it_must_with_the_right_modes_and_nothing_else() {
    let mut expected = BTreeMap::from([
        ("coremachine".to_owned(), 0o755),
        ("host.json".to_owned(), 0o644),
        ("local.settings.json".to_owned(), 0o600),
    ]);
    expected.extend(function_folders(repository()).iter().map(|name| (format!("{name}/function.json"), 0o644)));
    let mode = |name: &String| fs::metadata(app::folder().join(name)).unwrap().permissions().mode() & 0o777;
    let found: BTreeMap<_, _> = files(&app::folder()).into_iter().map(|name| (name.clone(), mode(&name))).collect();
    assert_eq!(found, expected);
}

#[test]
fn the_zip_file_holds_the_folder_made_by_unix_with_its_modes() {
    let zip = fs::read(app::zip()).unwrap();
    let entries = entries(&zip);
    let mut expected = files(&app::folder());
    expected.remove("local.settings.json");
    assert_eq!(entries.iter().map(|entry| entry.name.clone()).collect::<BTreeSet<_>>(), expected);
    assert!(entries.is_sorted_by_key(|entry| &entry.name));
    for entry in &entries {
        let bytes = fs::read(app::folder().join(&entry.name)).unwrap();
        let mode = if entry.name == "coremachine" { 0o100_755 } else { 0o100_644 };
        assert_eq!((entry.made_by, entry.mode), (UNIX, mode), "{}", entry.name);
        assert_eq!((entry.size, entry.crc), (bytes.len(), crc32(&bytes)), "{}", entry.name);
    }
}

#[test]
fn the_same_files_make_the_same_zip_file() {
    let zip = |out: &Path| {
        app::package(&repository().join("infra/package.sh"), out);
        fs::read(out.join("coremachine.zip")).unwrap()
    };
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(zip(one.path()) == zip(other.path()));
}

#[test]
fn the_handler_that_ships_needs_no_library_of_the_machine() {
    let handler = fs::read(app::folder().join("coremachine")).unwrap();
    assert_eq!(&handler[..4], b"\x7fELF");
    if app::ships() {
        assert!(!asks_for_an_interpreter(&handler), "the handler is linked dynamically");
    }
}

/// The folders with a `function.json`, by name.
fn function_folders(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let functions = entries.filter(|entry| entry.path().join("function.json").is_file());
    let names: BTreeSet<_> = functions.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.into_iter().collect()
}

/// Every file below a folder, by its name from there.
fn files(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let names = entries.flat_map(|entry| {
        let name = entry.file_name().into_string().unwrap();
        if !entry.path().is_dir() {
            return BTreeSet::from([name]);
        }
        files(&entry.path()).into_iter().map(|below| format!("{name}/{below}")).collect()
    });
    names.collect()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

const UNIX: u8 = 3;

/// An entry as the zip file's central directory describes it.
struct Entry {
    name: String,
    made_by: u8,
    mode: u32,
    size: usize,
    crc: u32,
}

fn entries(zip: &[u8]) -> Vec<Entry> {
    let number = |at, length| little_endian(&zip[at..at + length]);
    let end = zip.len() - 22;
    assert_eq!(&zip[end..end + 4], b"PK\x05\x06");
    let mut at = number(end + 16, 4);
    let mut entries = Vec::new();
    for _ in 0..number(end + 10, 2) {
        assert_eq!(&zip[at..at + 4], b"PK\x01\x02");
        let name = String::from_utf8(zip[at + 46..at + 46 + number(at + 28, 2)].to_vec()).unwrap();
        entries.push(Entry {
            made_by: zip[at + 5],
            crc: u32::try_from(number(at + 16, 4)).unwrap(),
            size: number(at + 24, 4),
            mode: u32::try_from(number(at + 38, 4) >> 16).unwrap(),
            name,
        });
        at += 46 + number(at + 28, 2) + number(at + 30, 2) + number(at + 32, 2);
    }
    entries
}

fn little_endian(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, byte| (number << 8) | usize::from(*byte))
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// Whether a 64-bit little-endian ELF file has a program header `PT_INTERP`.
fn asks_for_an_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: usize = 3;
    let number = |at, length| little_endian(&elf[at..at + length]);
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).any(|index| number(table + index * size, 4) == PT_INTERP)
}
