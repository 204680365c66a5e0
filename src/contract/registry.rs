//! The job types linked into this binary, found by name.
//!
//! This is the one seam between the typed author's side and the untyped engine: [`JobType`] and [`TaskType`] hold what
//! an author's types come to as plain functions of JSON.

use super::parameters::{faults, typed_fault};
use super::results::ErasedResults;
use super::{
    Job, JobContext, JobError, ParameterFault, Result, StagePolicy, StageResults, SubmitContext, Task, TaskContext,
    TaskError,
};
use crate::ports::StoreError;
use futures_util::future::BoxFuture;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Every job type linked into the binary, in the linker's order; read it through [`Registry::linked`].
#[allow(unsafe_code)] // linkme places its statics in a link section
#[linkme::distributed_slice]
pub static JOBS: [JobType];

/// Registers a [`Job`] and its [`Task`]s in this binary.
///
/// A task that is used by a job without being registered for it does not compile:
///
/// ```compile_fail,E0277
/// # use coremachine::prelude::*;
/// # #[derive(Serialize, Deserialize, JsonSchema)]
/// # struct Parade {}
/// # #[derive(Serialize, Deserialize)]
/// # struct March {}
/// # impl Task for March {
/// #     const TASK_TYPE: &str = "march";
/// #     type Output = ();
/// #     async fn execute(self, _: &TaskContext) -> TaskResult<()> { Ok(()) }
/// # }
/// register_job!(Parade, tasks: []);
/// # impl Job for Parade {
/// #     const JOB_TYPE: &str = "parade";
/// fn create_stage_tasks(&self, _: u32, _: &JobContext) -> Result<StageTasks<'_, Self>> {
///     Ok(StageTasks::one(March {})) // `March` is not a registered task of `Parade`
/// }
/// #     fn aggregate_stage_results(&self, _: u32, _: StageResults<'_, Self>) -> Result<Value> { Ok(Value::Null) }
/// #     fn should_advance_stage(&self, _: u32, _: &JobContext) -> Result<bool> { Ok(false) }
/// #     fn get_final_result(&self, _: &JobContext) -> Result<Value> { Ok(Value::Null) }
/// # }
/// ```
#[macro_export]
macro_rules! register_job {
    ($job:ty, tasks: [$($task:ty),* $(,)?]) => {
        $(impl $crate::contract::TaskOf<$job> for $task {})*

        const _: () = {
            #[allow(unsafe_code)] // linkme places its statics in a link section
            #[$crate::linkme::distributed_slice($crate::contract::registry::JOBS)]
            #[linkme(crate = $crate::linkme)]
            static JOB_TYPE: $crate::contract::registry::JobType =
                $crate::contract::registry::JobType::of::<$job>(&[$($crate::contract::registry::TaskType::of::<$task>()),*]);
        };
    };
}

/// A job type as the engine sees it.
pub struct JobType {
    name: &'static str,
    tasks: &'static [TaskType],
    schema: fn() -> Value,
    read: fn(&Value) -> Result<Box<dyn AnyJob>, ParameterFault>,
}

impl JobType {
    /// What an author's job comes to.
    pub const fn of<J: Job>(tasks: &'static [TaskType]) -> Self {
        Self {
            name: J::JOB_TYPE,
            tasks,
            schema: || schemars::schema_for!(J).to_value(),
            read: |parameters| match serde_path_to_error::deserialize::<_, J>(parameters) {
                Ok(job) => Ok(Box::new(job)),
                Err(error) => Err(typed_fault(&error)),
            },
        }
    }
}

/// A task type as the engine sees it.
pub struct TaskType {
    name: &'static str,
    handler: fn() -> &'static str,
    execute: for<'a> fn(Value, &'a TaskContext) -> BoxFuture<'a, Result<Value, TaskError>>,
}

impl TaskType {
    /// What an author's task comes to.
    pub const fn of<T: Task>() -> Self {
        Self {
            name: T::TASK_TYPE,
            handler: std::any::type_name::<T>,
            execute: |parameters, context| Box::pin(execute::<T>(parameters, context)),
        }
    }

    /// Executes one task of this type.
    pub(crate) fn execute<'a>(
        &self,
        parameters: Value,
        context: &'a TaskContext,
    ) -> BoxFuture<'a, Result<Value, TaskError>> {
        (self.execute)(parameters, context)
    }
}

async fn execute<T: Task>(parameters: Value, context: &TaskContext) -> Result<Value, TaskError> {
    let task: T = serde_json::from_value(parameters).map_err(|error| {
        TaskError::permanent("invalid_task", format!("the parameters of a `{}`: {error}", T::TASK_TYPE))
    })?;
    let output = task.execute(context).await?;
    serde_json::to_value(output)
        .map_err(|error| TaskError::permanent("invalid_output", format!("the output of a `{}`: {error}", T::TASK_TYPE)))
}

/// A task as planned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlannedTask {
    pub(crate) task_type: &'static str,
    pub(crate) parameters: Value,
}

/// [`Job`] with its types erased.
pub(crate) trait AnyJob: Send + Sync {
    fn parameters(&self) -> Result<Value>;
    fn create_stage_tasks<'a>(&'a self, stage: u32, context: &JobContext) -> Result<PlannedTasks<'a>>;
    fn aggregate_stage_results(&self, stage: u32, results: &ErasedResults<'_>) -> Result<Value>;
    fn should_advance_stage(&self, stage: u32, context: &JobContext) -> Result<bool>;
    fn get_final_result(&self, context: &JobContext) -> Result<Value>;
    fn stage_policy(&self, stage: u32) -> Result<StagePolicy>;
    fn check<'a>(&'a self, context: &'a SubmitContext) -> BoxFuture<'a, Result<Vec<ParameterFault>, StoreError>>;
}

type PlannedTasks<'a> = Box<dyn Iterator<Item = Result<PlannedTask>> + Send + 'a>;

impl<J: Job> AnyJob for J {
    fn parameters(&self) -> Result<Value> {
        Ok(serde_json::to_value(self)?)
    }

    fn create_stage_tasks<'a>(&'a self, stage: u32, context: &JobContext) -> Result<PlannedTasks<'a>> {
        let tasks = Job::create_stage_tasks(self, stage, context)?;
        Ok(Box::new(tasks.0.map(|task| Ok(PlannedTask { task_type: task.task_type, parameters: task.parameters? }))))
    }

    fn aggregate_stage_results(&self, stage: u32, results: &ErasedResults<'_>) -> Result<Value> {
        Job::aggregate_stage_results(self, stage, StageResults::new(results))
    }

    fn should_advance_stage(&self, stage: u32, context: &JobContext) -> Result<bool> {
        Job::should_advance_stage(self, stage, context)
    }

    fn get_final_result(&self, context: &JobContext) -> Result<Value> {
        Job::get_final_result(self, context)
    }

    fn stage_policy(&self, stage: u32) -> Result<StagePolicy> {
        Job::stage_policy(self, stage).checked()
    }

    fn check<'a>(&'a self, context: &'a SubmitContext) -> BoxFuture<'a, Result<Vec<ParameterFault>, StoreError>> {
        Box::pin(Job::check(self, context))
    }
}

/// Why the registered job types cannot stand together; found before anything starts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// Two jobs of one name.
    #[error("job type `{0}` is registered twice; give one of them another `JOB_TYPE`")]
    DuplicateJobType(&'static str),
    /// A name that would not do in a URL or a stored row.
    #[error("`{0}` is not a name for a job or task type: use 1–63 of a–z, 0–9 and `_`, beginning with a letter")]
    MalformedName(&'static str),
    /// One task name, two meanings.
    #[error(
        "task type `{name}` is registered with two handlers, `{first}` and `{second}`; give one of them another `TASK_TYPE`"
    )]
    AmbiguousTaskType {
        /// The name.
        name: &'static str,
        /// One type of that name.
        first: &'static str,
        /// The other.
        second: &'static str,
    },
    /// The struct's schema cannot check parameters.
    #[error("job type `{name}` has no usable parameter schema: {detail}")]
    UnusableSchema {
        /// The job type.
        name: &'static str,
        /// What is wrong with it.
        detail: String,
    },
}

/// The job types by name.
#[derive(Debug)]
pub struct Registry {
    jobs: BTreeMap<&'static str, RegisteredJob>,
}

impl Registry {
    /// The job types linked into this binary.
    pub fn linked() -> Result<Self, RegistryError> {
        Self::of(JOBS.iter())
    }

    /// The given job types.
    pub fn of(job_types: impl IntoIterator<Item = &'static JobType>) -> Result<Self, RegistryError> {
        let mut jobs = BTreeMap::new();
        let mut handlers = BTreeMap::new();
        for job_type in job_types {
            check_name(job_type.name)?;
            for task in job_type.tasks {
                check_name(task.name)?;
                let second = (task.handler)();
                if let Some(first) = handlers.insert(task.name, second).filter(|first| *first != second) {
                    return Err(RegistryError::AmbiguousTaskType { name: task.name, first, second });
                }
            }
            if jobs.insert(job_type.name, RegisteredJob::new(job_type)?).is_some() {
                return Err(RegistryError::DuplicateJobType(job_type.name));
            }
        }
        Ok(Self { jobs })
    }

    /// The job type of that name.
    pub fn get(&self, job_type: &str) -> Option<&RegisteredJob> {
        self.jobs.get(job_type)
    }

    /// Every job type, by name.
    pub fn iter(&self) -> impl Iterator<Item = &RegisteredJob> {
        self.jobs.values()
    }

    /// Every job type's name, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.jobs.keys().copied().collect()
    }
}

/// A job type that has passed the start-up checks.
pub struct RegisteredJob {
    job_type: &'static JobType,
    schema: Value,
    validator: jsonschema::Validator,
}

impl RegisteredJob {
    fn new(job_type: &'static JobType) -> Result<Self, RegistryError> {
        let mut schema = (job_type.schema)();
        let unusable = |detail: String| RegistryError::UnusableSchema { name: job_type.name, detail };
        let members = schema.as_object_mut().ok_or_else(|| unusable("it is not an object".to_owned()))?;
        // An unknown parameter is a caller's mistake, whether or not the struct says `deny_unknown_fields`.
        members.entry("additionalProperties").or_insert(Value::Bool(false));
        let validator = jsonschema::validator_for(&schema).map_err(|error| unusable(error.to_string()))?;
        Ok(Self { job_type, schema, validator })
    }

    /// The job type's name.
    pub fn name(&self) -> &'static str {
        self.job_type.name
    }

    /// The JSON Schema (2020-12) of its parameters.
    pub fn schema(&self) -> &Value {
        &self.schema
    }

    /// What the job type does: the doc comment of its struct.
    pub fn description(&self) -> &str {
        self.schema.get("description").and_then(Value::as_str).unwrap_or_default()
    }

    /// The names of its task types.
    pub fn task_types(&self) -> impl Iterator<Item = &'static str> {
        self.job_type.tasks.iter().map(|task| task.name)
    }

    /// Checks parameters and makes the job of them, or tells every fault.
    pub(crate) fn read(&self, parameters: &Value) -> Result<Box<dyn AnyJob>, Vec<ParameterFault>> {
        let mut all: Vec<_> = self.validator.iter_errors(parameters).flat_map(|error| faults(&error)).collect();
        all.sort();
        all.dedup();
        if all.is_empty() { (self.job_type.read)(parameters).map_err(|fault| vec![fault]) } else { Err(all) }
    }

    /// Makes a job of parameters that were accepted before.
    pub(crate) fn restore(&self, parameters: &Value) -> Result<Box<dyn AnyJob>> {
        (self.job_type.read)(parameters).map_err(|fault| {
            JobError::new(
                "parameters_unreadable",
                format!("the stored parameters no longer fit `{}`: {} {}", self.name(), fault.pointer, fault.detail),
            )
        })
    }

    /// The task type of that name, if it belongs to this job type.
    pub(crate) fn task_type(&self, name: &str) -> Option<&'static TaskType> {
        self.job_type.tasks.iter().find(|task| task.name == name)
    }
}

impl fmt::Debug for RegisteredJob {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("RegisteredJob").field(&self.name()).finish()
    }
}

fn check_name(name: &'static str) -> Result<(), RegistryError> {
    let well_formed = (1..=63).contains(&name.len())
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if well_formed { Ok(()) } else { Err(RegistryError::MalformedName(name)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{StageResults, StageTasks, TaskResult};
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};
    use serde_json::json;

    macro_rules! job {
        ($job:ident, $name:literal, { $($member:tt)* }) => {
            #[derive(Serialize, Deserialize, JsonSchema)]
            struct $job { $($member)* }

            impl Job for $job {
                const JOB_TYPE: &str = $name;

                fn create_stage_tasks(&self, _: u32, _: &JobContext) -> Result<StageTasks<'_, Self>> {
                    Ok(StageTasks::none())
                }

                fn aggregate_stage_results(&self, _: u32, _: StageResults<'_, Self>) -> Result<Value> {
                    Ok(Value::Null)
                }

                fn should_advance_stage(&self, _: u32, _: &JobContext) -> Result<bool> {
                    Ok(false)
                }

                fn get_final_result(&self, _: &JobContext) -> Result<Value> {
                    Ok(Value::Null)
                }
            }
        };
    }

    macro_rules! task {
        ($task:ident, $name:literal) => {
            #[derive(Serialize, Deserialize)]
            struct $task;

            impl Task for $task {
                const TASK_TYPE: &str = $name;
                type Output = ();

                async fn execute(self, _: &TaskContext) -> TaskResult<()> {
                    Ok(())
                }
            }
        };
    }

    job!(One, "one", { name: String, sizes: Option<Vec<u8>> });
    job!(Another, "one", {});
    job!(Two, "two", {});
    job!(Shouted, "Two", {});
    task!(Walk, "walk");
    task!(Stroll, "walk");
    task!(Spaced, "go on");

    static ONE: JobType = JobType::of::<One>(&[TaskType::of::<Walk>()]);
    static ANOTHER: JobType = JobType::of::<Another>(&[]);
    static TWO: JobType = JobType::of::<Two>(&[TaskType::of::<Walk>()]);
    static TWO_WAYS: JobType = JobType::of::<Two>(&[TaskType::of::<Stroll>()]);
    static SHOUTED: JobType = JobType::of::<Shouted>(&[]);
    static SPACED: JobType = JobType::of::<Two>(&[TaskType::of::<Spaced>()]);

    fn refused(job_types: &[&'static JobType]) -> String {
        Registry::of(job_types.iter().copied()).expect_err("these cannot stand together").to_string()
    }

    #[test]
    fn what_cannot_stand_together_is_told_before_anything_starts() {
        assert_eq!(
            refused(&[&ONE, &ANOTHER]),
            "job type `one` is registered twice; give one of them another `JOB_TYPE`"
        );
        assert!(refused(&[&SHOUTED]).starts_with("`Two` is not a name for a job or task type: use 1–63 of a–z"));
        assert!(refused(&[&SPACED]).starts_with("`go on` is not a name"));
        let ambiguous = refused(&[&ONE, &TWO_WAYS]);
        assert!(ambiguous.starts_with("task type `walk` is registered with two handlers"), "{ambiguous}");
        assert!(ambiguous.contains("::Walk`") && ambiguous.contains("::Stroll`"), "{ambiguous}");
    }

    #[test]
    fn jobs_may_share_a_task_and_are_listed_by_name() {
        let registry = Registry::of([&TWO, &ONE]).expect("these can stand together");
        assert_eq!(registry.names(), ["one", "two"]);
        assert!(registry.get("three").is_none());
    }

    #[test]
    fn parameters_are_checked_whole_and_unknown_ones_refused() {
        let registry = Registry::of([&ONE]).expect("a registry");
        let faults = |parameters: Value| match registry.get("one").expect("a job type").read(&parameters) {
            Ok(_) => Vec::new(),
            Err(faults) => faults.into_iter().map(|fault| format!("{}: {}", fault.pointer, fault.detail)).collect(),
        };
        assert_eq!(faults(json!({ "name": "n", "sizes": [1, 2] })), [""; 0]);
        assert_eq!(
            faults(json!({ "sizes": [1, 300], "a/b": 1 })),
            [
                "/a~1b: is not a parameter of this job type; remove it",
                "/name: is required; give it a value",
                "/sizes/1: must be at most 255, got `300`",
            ]
        );
        assert_eq!(faults(json!([])).len(), 1);
        let long = faults(json!({ "name": ["x".repeat(10_000)] }));
        assert!(long[0].len() < 200, "{long:?}");
    }
}
