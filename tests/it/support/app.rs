//! The package under test: the one named by `COREMACHINE_APP`, or else the debug binary, packaged by the same script.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The app folder, which the Functions host starts.
pub(crate) fn folder() -> PathBuf {
    PACKAGE.clone()
}

/// The zip file beside it, which is deployed.
pub(crate) fn zip() -> PathBuf {
    PACKAGE.with_file_name("coremachine.zip")
}

/// Whether the package is one that ships, and not the debug binary's.
pub(crate) fn ships() -> bool {
    env::var_os("COREMACHINE_APP").is_some()
}

/// Packages a file as the handler; `app` and `coremachine.zip` are left in `out`.
pub(crate) fn package(binary: &Path, out: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("infra/package.sh");
    let output = Command::new(script).arg("--binary").arg(binary).arg("--out").arg(out).output();
    let output = output.expect("infra/package.sh starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

static PACKAGE: LazyLock<PathBuf> = LazyLock::new(|| {
    if let Some(folder) = env::var_os("COREMACHINE_APP") {
        return fs::canonicalize(&folder).expect("COREMACHINE_APP names an app folder");
    }
    let out = Path::new(env!("CARGO_TARGET_TMPDIR"));
    package(Path::new(env!("CARGO_BIN_EXE_coremachine")), out);
    out.join("app")
});
