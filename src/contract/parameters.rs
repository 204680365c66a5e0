//! Checking parameters against a job type's schema, all faults at once.

use jsonschema::error::{ValidationError, ValidationErrorKind};
use serde::{Deserialize, Serialize};

/// One thing wrong with the parameters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ParameterFault {
    /// Where, as a JSON pointer: `/message`; empty for the whole.
    pub pointer: String,
    /// What is wrong, and what would be right.
    pub detail: String,
}

impl ParameterFault {
    /// A fault at a place.
    pub fn new(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), detail: detail.into() }
    }
}

/// The faults of one schema violation; several for unknown members.
pub(super) fn faults(error: &ValidationError<'_>) -> Vec<ParameterFault> {
    let place = error.instance_path().as_str();
    match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected } => unexpected
            .iter()
            .map(|name| ParameterFault::new(member(place, name), "is not a parameter of this job type; remove it"))
            .collect(),
        ValidationErrorKind::Required { property } => {
            let name = property.as_str().unwrap_or_default();
            vec![ParameterFault::new(member(place, name), "is required; give it a value")]
        }
        ValidationErrorKind::Minimum { limit } => {
            vec![ParameterFault::new(place, format!("must be at least {limit}, got {}", got(error)))]
        }
        ValidationErrorKind::Maximum { limit } => {
            vec![ParameterFault::new(place, format!("must be at most {limit}, got {}", got(error)))]
        }
        ValidationErrorKind::MinLength { limit } => {
            vec![ParameterFault::new(place, format!("must have at least {limit} {}", plural(*limit, "character")))]
        }
        ValidationErrorKind::MaxLength { limit } => {
            vec![ParameterFault::new(place, format!("must have at most {limit} {}", plural(*limit, "character")))]
        }
        ValidationErrorKind::Pattern { pattern } => {
            vec![ParameterFault::new(place, format!("must match `{pattern}`, got {}", got(error)))]
        }
        ValidationErrorKind::Enum { options } => {
            vec![ParameterFault::new(place, format!("must be one of {options}, got {}", got(error)))]
        }
        // The wording of the rest is the validator's own, without the value, which may be a megabyte.
        _ => vec![ParameterFault::new(place, format!("{}, got {}", error.masked_with("the value"), got(error)))],
    }
}

/// The fault that only the typed parameters could see.
pub(super) fn typed_fault(error: &serde_path_to_error::Error<serde_json::Error>) -> ParameterFault {
    let pointer = error.path().iter().fold(String::new(), |place, segment| match segment {
        serde_path_to_error::Segment::Seq { index } => format!("{place}/{index}"),
        serde_path_to_error::Segment::Map { key } => member(&place, key),
        serde_path_to_error::Segment::Enum { .. } | serde_path_to_error::Segment::Unknown => place,
    });
    ParameterFault::new(pointer, error.inner().to_string())
}

fn member(place: &str, name: &str) -> String {
    format!("{place}/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// The value at fault, cut to what a message can bear.
fn got(error: &ValidationError<'_>) -> String {
    let text = error.instance().to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("`{}…`", &text[..end]),
        None => format!("`{text}`"),
    }
}

fn plural(count: u64, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}
