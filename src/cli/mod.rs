//! The command line: one binary, three ways to run it.

mod containers;
mod dev;
mod handler;
mod job_types;
mod local;
mod parameters;
mod run;
mod storage;

use clap::{Parser, Subcommand};
use std::error::Error;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Runs jobs as ordered stages of parallel tasks.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = false)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs one job to its end, in this process
    Run(run::Run),
    /// Serves the whole HTTP API on the embedded engine
    Dev(dev::Dev),
    /// Lists the job types, or one of them with its parameters
    JobTypes(job_types::JobTypes),
}

/// How a command ended, as its exit code says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exit {
    /// The job completed, or what was asked for was done.
    Done = 0,
    /// The job failed or was cancelled.
    Failed = 1,
    /// Wrong usage or parameters; nothing was accepted.
    Usage = 2,
    /// The server or the store cannot be reached.
    Unreachable = 3,
    /// The time allowed passed first.
    TimedOut = 4,
}

/// Why a command did not come to an end of its own.
#[derive(Debug)]
struct Failure {
    exit: Exit,
    error: Box<dyn Error>,
}

impl Failure {
    fn usage(error: impl Into<Box<dyn Error>>) -> Self {
        Self { exit: Exit::Usage, error: error.into() }
    }

    fn unreachable(error: impl Into<Box<dyn Error>>) -> Self {
        Self { exit: Exit::Unreachable, error: error.into() }
    }
}

type Outcome = Result<Exit, Failure>;

/// The setting that tells the custom handler its port; its presence makes the binary the custom handler.
const HANDLER_PORT: &str = "FUNCTIONS_CUSTOMHANDLER_PORT";

/// Runs the command that the arguments name.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::unreachable(error)),
    };
    let outcome = runtime.block_on(async {
        match (cli.command, std::env::var(HANDLER_PORT)) {
            (Some(Command::Run(run)), _) => run.execute().await,
            (Some(Command::Dev(dev)), _) => dev.execute().await,
            (Some(Command::JobTypes(job_types)), _) => job_types.execute(),
            (None, Ok(port)) => handler::serve(&port).await,
            (None, Err(_)) => {
                let help = <Cli as clap::CommandFactory>::command().render_help();
                Err(Failure::usage(format!("name a command, or set {HANDLER_PORT}\n\n{help}")))
            }
        }
    });
    match outcome {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => report(&failure),
    }
}

fn report(failure: &Failure) -> ExitCode {
    let text = crate::contract::with_causes(failure.error.as_ref());
    eprintln!("error: {text}");
    ExitCode::from(failure.exit as u8)
}

/// Logs for people, on stderr; `RUST_LOG` chooses.
fn log_for_people() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// Logs for the Functions host: one JSON line per event on stdout.
fn log_for_the_host() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).init();
}
