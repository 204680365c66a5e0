//! What keeps the tree in order.

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
