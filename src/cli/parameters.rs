use serde_json::{Map, Value};
use std::io::Read;
use std::path::PathBuf;

/// The parameters of a job, on the command line.
#[derive(Debug, clap::Args)]
pub(super) struct Parameters {
    /// A parameter; a value that is JSON is taken as JSON, anything else as a string
    #[arg(value_name = "name=value")]
    pairs: Vec<String>,
    /// A file with the parameters as one JSON object, `-` for standard input; pairs are laid over it
    #[arg(long, value_name = "FILE")]
    params: Option<PathBuf>,
}

/// Why no parameters could be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ParametersError {
    #[error("expected name=value, got `{0}`")]
    NoPair(String),
    #[error("the parameter `{0}` is given twice")]
    Twice(String),
    #[error("reading the parameters from `{path}`")]
    Unreadable { path: String, source: std::io::Error },
    #[error("the parameters in `{path}` are not one JSON object")]
    NoObject { path: String, source: serde_json::Error },
}

impl Parameters {
    /// Reads them, without looking at what they mean.
    pub(super) fn read(&self) -> Result<Value, ParametersError> {
        let mut parameters = self.read_file()?;
        let mut given = Map::new();
        for pair in &self.pairs {
            let (name, value) = pair.split_once('=').ok_or_else(|| ParametersError::NoPair(pair.clone()))?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
            if given.insert(name.to_owned(), value).is_some() {
                return Err(ParametersError::Twice(name.to_owned()));
            }
        }
        parameters.extend(given);
        Ok(Value::Object(parameters))
    }

    fn read_file(&self) -> Result<Map<String, Value>, ParametersError> {
        let Some(file) = &self.params else { return Ok(Map::new()) };
        let path = file.display().to_string();
        let mut text = String::new();
        let read = if path == "-" {
            std::io::stdin().read_to_string(&mut text).map(drop)
        } else {
            std::fs::read_to_string(file).map(|read| text = read)
        };
        read.map_err(|source| ParametersError::Unreadable { path: path.clone(), source })?;
        serde_json::from_str(&text).map_err(|source| ParametersError::NoObject { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(pairs: &[&str]) -> Result<Value, String> {
        let pairs = pairs.iter().map(ToString::to_string).collect();
        Parameters { pairs, params: None }.read().map_err(|error| error.to_string())
    }

    #[test]
    fn a_value_that_is_json_is_taken_as_json() {
        let read = read(&["count=3", "message=Welcome", "extensions=[\".tif\"]", "text=\"3\"", "empty=", "sum=a=b"]);
        let expected =
            json!({ "count": 3, "message": "Welcome", "extensions": [".tif"], "text": "3", "empty": "", "sum": "a=b" });
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn what_is_no_pair_is_refused_by_name() {
        assert_eq!(read(&["message"]), Err("expected name=value, got `message`".to_owned()));
        assert_eq!(read(&["a=1", "a=2"]), Err("the parameter `a` is given twice".to_owned()));
    }
}
