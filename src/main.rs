//! The `coremachine` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    coremachine::cli::main()
}
