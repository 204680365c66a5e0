//! What the source may say: imports point down, and each floor keeps to what it is for.
//!
//! The modules of one crate cannot forbid each other's imports, so these tests read `src/` and do.

mod source;

use crate::linked::shipped;
use serde_json::Value;
use source::{Source, paths_from};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The floors, from the ground up: a module may name those below its own, and itself.
const FLOORS: [(&str, u32); 9] = [
    ("ports", 0),
    ("contract", 1),
    ("model", 2),
    ("engine", 3),
    ("store", 3),
    ("machine", 4),
    ("host", 5),
    ("testing", 6),
    ("cli", 6),
];

fn floor(module: &str) -> Option<u32> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// Whether code of `module` may name `other`.
fn may_name(module: &str, other: &str) -> bool {
    match module {
        _ if module == other => true,
        // The top: a job knows the contract by its prelude and nothing else, and nobody knows a job.
        "jobs" => other == "prelude",
        "prelude" => floor(other).is_some_and(|floor| floor <= 1),
        "main" => other == "cli",
        _ => floor(module).zip(floor(other)).is_some_and(|(module, other)| other < module),
    }
}

#[test]
fn imports_point_down() {
    let sources = Source::all();
    let macros: BTreeMap<_, _> =
        sources.iter().flat_map(|source| source.macros().map(|name| (name, source.module()))).collect();
    let mut found = BTreeSet::new();
    for source in sources.iter().filter(|source| source.module() != "lib") {
        for name in source.imports() {
            // The crate's root has macros, and one crate re-exported for them; each belongs to where it is written.
            let other = match name.as_str() {
                "linkme" => "contract",
                name => macros.get(name).copied().unwrap_or(name),
            };
            assert!(may_name(source.module(), other), "{} names `{other}`", source.path);
            found.insert((source.module().to_owned(), other.to_owned()));
        }
    }
    for (above, below) in [("machine", "engine"), ("cli", "host"), ("jobs", "prelude"), ("main", "cli")] {
        assert!(found.contains(&(above.to_owned(), below.to_owned())), "`{above}` does name `{below}`: unseen");
    }
}

#[test]
fn every_module_has_its_floor() {
    let modules: BTreeSet<_> = Source::all().iter().map(|source| source.module().to_owned()).collect();
    let expected: BTreeSet<_> =
        FLOORS.iter().map(|(name, _)| *name).chain(["jobs", "lib", "main", "prelude"]).map(str::to_owned).collect();
    assert_eq!(modules, expected);
}

#[test]
fn a_forbidden_import_is_seen_however_it_is_written() {
    let code = r##"
        use crate::{contract::{JobId, registry::Registry}, machine::{self, CoreMachine}};
        // use crate::comment::Never;
        /* use crate::comment::Never; /* nested */ use crate::comment::Never; */
        const URL: &str = "http://localhost"; use crate::cli;
        const RAW: (&str, char, char) = (r#" " // "#, '"', '\''); use crate::prelude;
        fn f<'a>(host: &'a super::super::host::App) -> super::Node { crate::store::azure::connect(host) }
        pub(crate) use super::super::{testing::Bench};

        #[cfg(test)]
        mod tests {
            use crate::jobs;
        }
    "##;
    let source = Source::of("engine/plan.rs", code);
    let expected = ["cli", "contract", "host", "machine", "prelude", "store", "testing"];
    assert_eq!(source.imports(), expected.map(str::to_owned).into());
    assert_eq!(expected.map(|other| may_name("engine", other)), [false, true, false, false, false, false, false]);
    assert!(!may_name("machine", "jobs") && !may_name("jobs", "contract") && !may_name("store", "engine"));
}

#[test]
fn the_engine_decides_and_touches_nothing() {
    let crates = dependencies();
    for source in Source::of_module("engine") {
        let path = &source.path;
        let std = paths_from("std", &source.code);
        for name in &std {
            assert!(["collections", "mem", "ops", "time"].contains(&name.as_str()), "{path} uses `std::{name}`");
        }
        let words = source.words();
        for word in ["async", "await", "SystemTime", "Instant", "Environment", "Store", "Tables", "Queues", "Blobs"] {
            assert!(!words.contains(word), "{path} says `{word}`");
        }
        for name in &crates {
            let allowed = ["serde", "serde_json"].contains(&name.as_str());
            assert!(allowed || !words.contains(name.as_str()), "{path} uses the crate `{name}`");
        }
    }
}

#[test]
fn only_the_azure_adapter_names_the_sdk() {
    let sdk: Vec<_> = dependencies().into_iter().filter(|name| name.starts_with("azure_")).collect();
    assert_eq!(sdk, ["azure_core", "azure_identity", "azure_storage_blob", "azure_storage_queue"]);
    let names_it = |source: &Source| sdk.iter().any(|name| source.words().contains(name.as_str()));
    let (inside, outside): (Vec<_>, Vec<_>) =
        Source::all().into_iter().filter(names_it).map(|source| source.path).partition(|path| is_azure(path));
    assert!(!inside.is_empty());
    assert_eq!(outside, [""; 0]);
}

fn is_azure(path: &str) -> bool {
    path.starts_with("store/azure/")
}

#[test]
fn settings_are_read_by_the_command_line_alone() {
    for source in Source::all().iter().filter(|source| source.module() != "cli") {
        assert!(!paths_from("std", &source.code).contains("env"), "{} reads the environment", source.path);
    }
}

/// A constant is evaluated by the compiler, so there it cannot panic in anyone's face.
#[test]
fn nothing_is_unwrapped_outside_tests() {
    let is_constant =
        |line: &str| ["const ", "pub const ", "pub(crate) const "].iter().any(|word| line.starts_with(word));
    for source in Source::all() {
        for line in source.code.lines().map(str::trim_start).filter(|line| !is_constant(line)) {
            assert!(!line.contains(".unwrap()"), "{}: {line}", source.path);
        }
    }
}

#[test]
fn nobody_names_a_job_that_ships() {
    let mut texts: Vec<_> = Source::all()
        .into_iter()
        .filter(|source| source.module() != "jobs")
        .map(|source| (source.path, source.code))
        .collect();
    for (function, _) in functions() {
        let file = format!("{function}/function.json");
        texts.push((file.clone(), read(&file)));
    }
    texts.push(("host.json".to_owned(), read("host.json")));
    let shipped = shipped();
    assert!(!shipped.is_empty());
    for (path, text) in texts {
        for job_type in &shipped {
            assert!(!text.contains(job_type), "{path} names `{job_type}`");
        }
    }
}

#[test]
fn every_function_that_is_not_http_has_its_route_and_the_reverse() {
    let folders: BTreeSet<_> =
        functions().into_iter().filter(|(_, trigger)| trigger != "httpTrigger").map(|(name, _)| name).collect();
    let code = Source::of_module("host").into_iter().find(|source| source.path == "host/functions.rs").unwrap().code;
    let routes: BTreeSet<_> = code.split('"').filter(|text| text.starts_with("function_")).map(str::to_owned).collect();
    assert_eq!(folders, routes);
    for name in routes {
        let constant = name.trim_start_matches("function_").to_ascii_uppercase();
        assert!(code.contains(&format!("pub const {constant}: &str = \"{name}\";")), "{name}");
        assert!(code.contains(&format!("\"/{{{constant}}}\"")), "`{name}` has no route");
    }
}

#[test]
fn the_readme_shows_a_job_that_works() {
    let job = format!("```rust\n{}```\n", read("tests/it/readme_job.rs"));
    assert!(read("README.md").contains(&job), "README.md does not show tests/it/readme_job.rs as it is");
}

/// Every function folder and the type of its trigger.
fn functions() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let functions = names.filter(|name| name.starts_with("function_")).map(|name| {
        let function: Value = serde_json::from_str(&read(&format!("{name}/function.json"))).unwrap();
        let bindings = function["bindings"].as_array().unwrap();
        let trigger =
            bindings.iter().filter_map(|binding| binding["type"].as_str()).find(|kind| kind.ends_with("Trigger"));
        (name, trigger.unwrap().to_owned())
    });
    functions.collect()
}

/// The crates that `src/` may name, as Rust spells them.
fn dependencies() -> Vec<String> {
    let manifest = read("Cargo.toml");
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let names = section.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name.replace('-', "_"));
    names.collect()
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
