use super::{Exit, Failure, Outcome};
use crate::contract::registry::{RegisteredJob, Registry};
use serde_json::{Value, json};
use std::fmt::Write;

/// The registered job types.
#[derive(Debug, clap::Args)]
pub(super) struct JobTypes {
    /// Shows this one with its parameters
    job_type: Option<String>,
    /// Prints JSON
    #[arg(long)]
    json: bool,
}

impl JobTypes {
    pub(super) fn execute(&self) -> Outcome {
        let registry = Registry::linked().map_err(Failure::usage)?;
        match &self.job_type {
            None if self.json => registry.iter().for_each(|job| println!("{}", document(job))),
            None => registry.iter().for_each(|job| println!("{:<20} {}", job.name(), first_line(job.description()))),
            Some(name) => {
                let job = registry.get(name).ok_or_else(|| unknown(&registry, name))?;
                if self.json { println!("{}", document(job)) } else { print!("{}", describe(job)) }
            }
        }
        Ok(Exit::Done)
    }
}

/// There is no such job type; these there are.
pub(super) fn unknown(registry: &Registry, name: &str) -> Failure {
    Failure::usage(format!("there is no job type `{name}`; the registered ones are {}", registry.names().join(", ")))
}

fn document(job: &RegisteredJob) -> Value {
    json!({ "job_type": job.name(), "description": job.description(), "parameters": job.schema() })
}

fn describe(job: &RegisteredJob) -> String {
    let mut text = format!("{}\n{}\n", job.name(), job.description());
    let required = job.schema()["required"].as_array().cloned().unwrap_or_default();
    for (name, schema) in job.schema()["properties"].as_object().into_iter().flatten() {
        let note = if required.contains(&json!(name)) {
            "required".to_owned()
        } else {
            schema.get("default").map_or_else(|| "optional".to_owned(), |default| format!("default {default}"))
        };
        let description = schema["description"].as_str().unwrap_or_default().replace('\n', "\n      ");
        let _ = writeln!(text, "\n  {name} ({note})\n      {description}"); // writing to a String cannot fail
    }
    text
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
