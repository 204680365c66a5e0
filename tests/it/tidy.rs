//! What keeps the tree in order.

use crate::functions_host::{App, Function, Trigger};
use crate::support::app;
use coremachine::host::functions::{ADVANCE_STAGE, GIVE_UP_STAGE, GIVE_UP_TASK, PROCESS_TASK};
use coremachine::ports::Queue;
use std::fs;
use std::path::Path;

/// The host indexes a folder for its `function.json` alone, whatever its name, and packaging takes `function_*` alone.
#[test]
fn a_folder_is_a_function_if_its_name_says_so() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = fs::read_dir(root).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.path().is_dir());
    for folder in folders {
        let name = folder.file_name().into_string().unwrap();
        let files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let files: Vec<_> = files.map(|name| name.into_string().unwrap()).collect();
        if name.starts_with("function_") {
            assert_eq!(files, ["function.json"], "{name}");
        } else {
            assert!(!files.contains(&"function.json".to_owned()), "{name} would not be packaged");
        }
    }
}

#[test]
fn every_queue_has_the_function_that_the_binary_answers_for_it() {
    let listening = |function: Function| match function.trigger {
        Trigger::Queue(trigger) => Some((function.name, trigger.queue)),
        Trigger::Http(_) | Trigger::Timer { .. } => None,
    };
    let app = App::read(&app::folder()).unwrap();
    let found: Vec<_> = app.functions.into_iter().filter_map(listening).collect();
    let meant = [
        (ADVANCE_STAGE, Queue::Stages),
        (GIVE_UP_STAGE, Queue::StagesPoison),
        (GIVE_UP_TASK, Queue::TasksPoison),
        (PROCESS_TASK, Queue::Tasks),
    ];
    assert_eq!(found, meant.map(|(function, queue)| (function.to_owned(), queue.name().to_owned())));
}
