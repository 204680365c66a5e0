//! Route templates: literals, `{name}`, and `{*name}` for the rest of a path, an empty one included.

/// A template, which knows what it matches and nothing of other templates: routes have no precedence.
#[derive(Debug)]
pub(crate) struct Route(Vec<Segment>);

#[derive(Debug)]
enum Segment {
    Literal(String),
    Parameter,
    Rest,
}

impl Route {
    /// Reads a template. Constraints and optional parameters are not understood.
    pub(crate) fn parse(template: &str) -> Result<Self, String> {
        let segments = segments(template).map(Segment::parse).collect::<Result<Vec<_>, _>>()?;
        match segments.iter().position(|segment| matches!(segment, Segment::Rest)) {
            Some(rest) if rest + 1 < segments.len() => Err(format!("`{template}` goes on after its rest")),
            _ => Ok(Self(segments)),
        }
    }

    /// Whether a path below the route prefix fits. Letter case and a slash at the end do not matter.
    pub(crate) fn matches(&self, path: &str) -> bool {
        let mut path = segments(path);
        for segment in &self.0 {
            match (segment, path.next()) {
                (Segment::Rest, _) => return true,
                (Segment::Parameter, Some(_)) => {}
                (Segment::Literal(literal), Some(word)) if literal.eq_ignore_ascii_case(word) => {}
                (Segment::Parameter | Segment::Literal(_), _) => return false,
            }
        }
        path.next().is_none()
    }
}

impl Segment {
    fn parse(text: &str) -> Result<Self, String> {
        let parameter = text.strip_prefix('{').and_then(|text| text.strip_suffix('}'));
        let rest = parameter.and_then(|name| name.strip_prefix('*'));
        let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        match (rest, parameter) {
            (Some(name), _) if is_name(name) => Ok(Self::Rest),
            (None, Some(name)) if is_name(name) => Ok(Self::Parameter),
            (None, None) if !text.contains(['{', '}']) => Ok(Self::Literal(text.to_owned())),
            _ => Err(format!("`{text}` is no segment of a route that is understood")),
        }
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

#[test]
fn a_template_matches_its_own_paths_and_no_others() {
    let matches = |template: &str, path: &str| Route::parse(template).unwrap().matches(path);
    assert!(matches("jobs/{job_type}", "jobs/hello"));
    assert!(matches("jobs/{job_type}", "/Jobs/hello/"));
    assert!(!matches("jobs/{job_type}", "jobs"));
    assert!(!matches("jobs/{job_type}", "jobs/hello/tasks"));
    assert!(matches("jobs/{job_id}/{*rest}", "jobs/1"));
    assert!(matches("jobs/{job_id}/{*rest}", "jobs/1/tasks/2"));
    assert!(!matches("jobs/{job_id}/{*rest}", "jobs"));
    assert!(!matches("jobs/{job_id}/completion", "jobs/1/tasks"));
    assert!(matches("{*path}", ""));
    assert!(matches("{*path}", "any/thing"));
    for wrong in ["{a", "{a:int}", "{a?}", "{*}/b", "{*a}/b", "x{a}"] {
        Route::parse(wrong).unwrap_err();
    }
}
