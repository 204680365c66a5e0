//! Just enough of Rust's grammar to tell what a file of `src/` names.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// A file of `src/`, without its comments and tests.
#[derive(Debug)]
pub(super) struct Source {
    /// Below `src/`, with slashes.
    pub(super) path: String,
    pub(super) code: String,
}

impl Source {
    /// Every file that is compiled into the library or the binary.
    pub(super) fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        files_below(&root, &mut files);
        let mut sources = Vec::new();
        let mut for_tests = BTreeSet::new();
        for file in files {
            let path = file.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
            let text = without_comments(&fs::read_to_string(&file).unwrap());
            let (code, modules) = without_tests(&text);
            let parent = path.trim_end_matches("mod.rs").trim_end_matches(".rs").trim_end_matches('/').to_owned();
            for_tests
                .extend(modules.iter().flat_map(|name| [format!("{parent}/{name}.rs"), format!("{parent}/{name}/")]));
            sources.push(Self { path, code });
        }
        sources.retain(|source| !for_tests.iter().any(|tests| source.path.starts_with(tests.as_str())));
        assert!(sources.len() > 50, "the source is not where it was");
        sources
    }

    pub(super) fn of_module(module: &str) -> Vec<Self> {
        let sources: Vec<_> = Self::all().into_iter().filter(|source| source.module() == module).collect();
        assert!(!sources.is_empty(), "there is no module `{module}`");
        sources
    }

    pub(super) fn of(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), code: without_tests(&without_comments(text)).0 }
    }

    /// The top-level module that the file belongs to.
    pub(super) fn module(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// What the file names at the crate's root: through `crate`, through `super` far enough up, or by the crate's name.
    pub(super) fn imports(&self) -> BTreeSet<String> {
        let depth = self.path.trim_end_matches(".rs").trim_end_matches("/mod").split('/').count();
        let climb = vec!["super"; depth].join("::");
        let roots = ["crate", "coremachine", &climb];
        roots.iter().flat_map(|root| paths_from(root, &self.code)).collect()
    }

    /// The macros that the file gives to the crate's root.
    pub(super) fn macros(&self) -> impl Iterator<Item = String> {
        let exported = self.code.split("#[macro_export]").skip(1);
        exported.filter_map(|rest| tokens(rest).get(2).map(|name| (*name).to_owned()))
    }

    /// Every identifier and keyword of the file, those in texts included.
    pub(super) fn words(&self) -> BTreeSet<&str> {
        tokens(&self.code).into_iter().filter(|token| is_word(token)).collect()
    }
}

/// The first segments of all paths that begin with `root::`, the paths of a `{…}` included.
pub(super) fn paths_from(root: &str, code: &str) -> BTreeSet<String> {
    let tokens = tokens(code);
    let root: Vec<&str> = root.split("::").flat_map(|segment| [segment, "::"]).collect();
    let mut found = BTreeSet::new();
    for (start, window) in tokens.windows(root.len()).enumerate() {
        if window != root.as_slice() || start.checked_sub(1).is_some_and(|before| tokens[before] == "::") {
            continue;
        }
        let rest = &tokens[start + root.len()..];
        if rest.first() != Some(&"{") {
            found.extend(rest.first().map(|name| (*name).to_owned()));
            continue;
        }
        let mut depth = 0;
        for pair in rest.windows(2) {
            match pair[0] {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && ["{", ","].contains(&pair[0]) && pair[1] != "}" {
                found.insert(pair[1].to_owned());
            }
        }
    }
    found
}

fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if is_word_part(first) {
            rest.find(|part| !is_word_part(part)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

fn is_word(token: &str) -> bool {
    token.starts_with(is_word_part)
}

fn is_word_part(part: char) -> bool {
    part.is_alphanumeric() || part == '_'
}

/// The text with every comment as a space.
fn without_comments(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (skipped, length) = match first {
            '/' if rest.starts_with("//") => (true, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => (true, block_comment(rest)),
            '"' => (false, quoted(rest)),
            'r' if !code.ends_with(is_word_part) && rest[1..].trim_start_matches('#').starts_with('"') => {
                (false, raw_string(rest))
            }
            '\'' if rest.starts_with("'\\") => (false, 3 + rest[3..].find('\'').unwrap_or(0) + 1),
            '\'' if rest.chars().nth(2) == Some('\'') => {
                (false, rest.char_indices().nth(3).map_or(rest.len(), |(end, _)| end))
            }
            _ => (false, first.len_utf8()),
        };
        code.push_str(if skipped { " " } else { &rest[..length] });
        rest = &rest[length..];
    }
    code
}

fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        let rest = &text[at..];
        match (rest.find("/*"), rest.find("*/")) {
            (Some(open), Some(close)) if open < close => (depth, at) = (depth + 1, at + open + 2),
            (_, Some(close)) if depth > 1 => (depth, at) = (depth - 1, at + close + 2),
            (_, Some(close)) => return at + close + 2,
            (_, None) => return text.len(),
        }
    }
}

fn quoted(text: &str) -> usize {
    let mut escaped = true; // the opening quote does not close
    for (at, character) in text.char_indices() {
        match character {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

fn raw_string(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|character| *character == '#').count();
    let (open, close) = (hashes + 2, format!("\"{}", "#".repeat(hashes)));
    text[open..].find(&close).map_or(text.len(), |at| open + at + close.len())
}

/// The code without its test modules, and the names of those that are files of their own.
fn without_tests(code: &str) -> (String, Vec<String>) {
    const TESTS: &str = "#[cfg(test)]";
    let mut kept = String::new();
    let mut files = Vec::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once(TESTS) {
        kept.push_str(before);
        let item = after.trim_start();
        let name =
            item.strip_prefix("mod ").unwrap_or_else(|| panic!("only modules are for tests alone, got {item:.60}"));
        let end = name.find([';', '{']).expect("the module ends");
        if name[end..].starts_with(';') {
            files.push(name[..end].trim().to_owned());
            rest = &name[end + 1..];
        } else {
            // As rustfmt leaves it, the module's last brace stands below its attribute.
            let indent = before.len() - before.trim_end_matches(' ').len();
            let last = format!("\n{}}}", " ".repeat(indent));
            let end = name.find(&last).map_or(name.len(), |at| at + last.len());
            rest = &name[end..];
        }
    }
    kept.push_str(rest);
    (kept, files)
}

fn files_below(folder: &Path, files: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
