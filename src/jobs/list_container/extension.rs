//! The ending of a blob's name.

use crate::prelude::*;
use std::collections::BTreeSet;

/// What a blob's name may end with, such as `.tif`. Case and the leading dot make no difference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("minLength" = 1, "maxLength" = 100))]
pub(super) struct Extension(String); // in lower case and with the dot: what means the same is the same job

impl Extension {
    /// Whether a name ends with one of `extensions`, in whatever case.
    pub(super) fn any_ends(extensions: &BTreeSet<Self>, name: &str) -> bool {
        let name = name.to_lowercase();
        extensions.iter().any(|extension| name.ends_with(&extension.0))
    }
}

impl TryFrom<String> for Extension {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let bare = text.strip_prefix('.').unwrap_or(&text).to_lowercase();
        if bare.is_empty() || bare.starts_with('.') || bare.contains(['/', '\\', '*', '?']) {
            return Err(format!("`{text}` is not an extension; write it like `.tif` or `.tar.gz`"));
        }
        Ok(Self(format!(".{bare}")))
    }
}

impl From<Extension> for String {
    fn from(extension: Extension) -> Self {
        extension.0
    }
}

/// The extension that a blob's name has: what follows the last dot of its last segment, lower-case and with the dot.
///
/// A name such as `.profile` has none, and an ending that is long or has blanks in it is part of the name.
pub(super) fn extension_of(name: &str) -> Option<String> {
    const LONGEST: usize = 16;
    let file = name.rsplit('/').next()?;
    let (stem, ending) = file.rsplit_once('.')?;
    let plausible = (1..=LONGEST).contains(&ending.chars().count()) && !ending.contains(char::is_whitespace);
    (plausible && !stem.is_empty()).then(|| format!(".{}", ending.to_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extension(text: &str) -> Result<Extension, String> {
        Extension::try_from(text.to_owned())
    }

    #[test]
    fn dot_and_case_make_no_difference() {
        for same in [".tif", ".TIF", "tif", "Tif"] {
            assert_eq!(extension(same), Ok(Extension(".tif".to_owned())), "{same}");
        }
    }

    #[test]
    fn what_is_not_an_extension_is_refused_with_an_example() {
        for wrong in [".", "..", "*.tif", "a/b", "t?f"] {
            let refusal = extension(wrong).expect_err(wrong);
            assert_eq!(refusal, format!("`{wrong}` is not an extension; write it like `.tif` or `.tar.gz`"));
        }
    }

    #[test]
    fn a_name_ends_with_an_extension_in_any_case_and_only_after_its_dot() {
        let extensions = ["tif", ".tar.gz"].map(|text| extension(text).expect("an extension")).into();
        for (name, ends) in [("a/B.TIF", true), ("backup.tar.GZ", true), ("a/motif", false), ("backup.gz", false)] {
            assert_eq!(Extension::any_ends(&extensions, name), ends, "{name}");
        }
    }

    #[test]
    fn the_extension_of_a_name_is_what_follows_its_last_dot() {
        for (name, expected) in [
            ("a/b/SCENE.Tif", Some(".tif")),
            ("backup.tar.gz", Some(".gz")),
            ("v1.2/readme", None),
            (".profile", None),
            ("a/.profile", None),
            ("ends.", None),
            ("Report v1.2 final draft", None),
            ("hash.0123456789abcdef0", None),
            ("", None),
        ] {
            assert_eq!(extension_of(name).as_deref(), expected, "{name}");
        }
    }
}
