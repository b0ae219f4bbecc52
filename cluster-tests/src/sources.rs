//! The project's sources as text, for the tests of its architecture.
//!
//! No parser: comments and the contents of strings are blanked, tests are cut out, and what remains is
//! looked at as words and braces. That is exact enough for rustfmt's output, and has no dependency.

use std::path::{Path, PathBuf};

/// A source file.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path from the root of the checkout, with forward slashes.
    pub path: String,
    /// As it is.
    pub text: String,
    /// With comments and the contents of strings blanked; every line keeps its number.
    pub code: String,
    /// The code without what is compiled only for tests.
    pub shipped: String,
}

/// A function: its name, its first line and how many lines of code it has.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of `fn`, from 1.
    pub line: usize,
    /// Lines that are neither blank nor comment.
    pub lines: usize,
}

impl Source {
    /// Takes a text as the file of that path.
    #[must_use]
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let code = blank(&text);
        let path = path.into();
        let shipped = if is_test(&path) { String::new() } else { without_tests(&code) };
        Source { path, text, code, shipped }
    }

    /// Lines that are not compiled only for tests.
    #[must_use]
    pub fn shipped_lines(&self) -> usize {
        // What `without_tests` cuts is marked by NUL.
        self.shipped.lines().filter(|line| !line.contains('\0')).count()
    }

    /// The modules `mod NAME;` that it declares.
    #[must_use]
    pub fn declared_modules(&self) -> Vec<String> {
        let words = words(&self.code);
        let declared = words.windows(2).filter_map(|pair| match pair {
            [("mod", _), (name, at)] => Some((name, self.code.get(at + name.len()..)?)),
            _ => None,
        });
        declared
            .filter(|(_, rest)| rest.trim_start().starts_with(';'))
            .map(|(name, _)| (*name).to_owned())
            .collect()
    }

    /// The first segments of the paths that begin with `ROOT::`, also in groups, with their lines.
    #[must_use]
    pub fn paths_from(&self, root: &str) -> Vec<(String, usize)> {
        let mut found = Vec::new();
        for (word, at) in words(&self.shipped) {
            let rest = self.shipped.get(at + word.len()..).unwrap_or_default();
            if word == root
                && let Some(rest) = rest.strip_prefix("::")
            {
                let line = self.line_of(at);
                found.extend(first_segments(rest).into_iter().map(|segment| (segment, line)));
            }
        }
        found
    }

    /// The lines on which a word stands in shipped code.
    #[must_use]
    pub fn lines_with(&self, word: &str) -> Vec<usize> {
        let all = words(&self.shipped).into_iter();
        all.filter(|(found, _)| *found == word).map(|(_, at)| self.line_of(at)).collect()
    }

    /// All functions with a body, tests too.
    #[must_use]
    pub fn functions(&self) -> Vec<Function> {
        let words = words(&self.code);
        let named = words.windows(2).filter_map(|pair| match pair {
            [("fn", at), (name, _)] => Some((*at, *name)),
            _ => None,
        });
        named
            .filter_map(|(at, name)| {
                let end = body_end(&self.code, at)?;
                let text = self.code.get(at..end)?;
                let lines = text.lines().filter(|line| !line.trim().is_empty()).count();
                Some(Function { name: name.to_owned(), line: self.line_of(at), lines })
            })
            .collect()
    }

    fn line_of(&self, at: usize) -> usize {
        self.text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
    }
}

/// Whether a file of the product holds nothing but tests and their helpers.
fn is_test(path: &str) -> bool {
    let helpers = ["tests.rs", "testing.rs", "mirror.rs"];
    path.starts_with("src/")
        && (path.contains("/tests/")
            || helpers.iter().any(|name| path.ends_with(&format!("/{name}"))))
}

/// All files under a directory of the checkout, or the one file, whose names end so.
///
/// # Panics
/// When a file cannot be read.
#[must_use]
pub fn read(root: &Path, under: &str, ends: &[&str]) -> Vec<Source> {
    let mut paths = vec![root.join(under)];
    let mut sources = Vec::new();
    while let Some(path) = paths.pop() {
        if path.is_dir() {
            paths.extend(entries(&path));
        } else if path.is_file() && ends.iter().any(|end| path.to_string_lossy().ends_with(end)) {
            let text = std::fs::read(&path);
            let text = text.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let relative = path.strip_prefix(root).unwrap_or(&path);
            let relative = relative.to_string_lossy().replace('\\', "/");
            sources.push(Source::new(relative, String::from_utf8_lossy(&text)));
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir);
    let entries = entries.unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries.filter_map(Result::ok).map(|entry| entry.path()).collect()
}

/// The words of a text, with where they begin.
#[must_use]
pub fn words(text: &str) -> Vec<(&str, usize)> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut words = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        match (is_word(c), start) {
            (true, None) => start = Some(at),
            (false, Some(from)) => {
                words.extend(text.get(from..at).map(|word| (word, from)));
                start = None;
            }
            _ => {}
        }
    }
    words
}

/// The first segment of a path, or those of a `{…}` group.
fn first_segments(rest: &str) -> Vec<String> {
    let first = |text: &str| words(text).first().map(|(word, _)| (*word).to_owned());
    let Some(group) = rest.strip_prefix('{') else {
        return first(rest).into_iter().collect();
    };
    let mut depth = 0;
    let mut items = vec![String::new()];
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(String::new()),
            c => items.last_mut().into_iter().for_each(|item| item.push(c)),
        }
    }
    items.iter().filter_map(|item| first(item)).collect()
}

/// Where the body of the item that begins here ends; `None` for an item without one.
fn body_end(code: &str, from: usize) -> Option<usize> {
    let (mut braces, mut parens) = (0usize, 0usize);
    for (at, c) in code.get(from..)?.char_indices() {
        match c {
            '(' | '[' => parens += 1,
            ')' | ']' => parens = parens.saturating_sub(1),
            ';' if braces == 0 && parens == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return Some(from + at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Blanks what is compiled only for tests, and marks its lines with NUL.
fn without_tests(code: &str) -> String {
    const MARK: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut from = 0;
    while let Some(found) = code.get(from..).and_then(|rest| rest.find(MARK)) {
        let start = from + found;
        let end = body_end(code, start + MARK.len()).or_else(|| {
            let semicolon = code.get(start..)?.find(';')?;
            Some(start + semicolon + 1)
        });
        let end = end.unwrap_or(code.len());
        out.push_str(code.get(from..start).unwrap_or_default());
        let cut = code.get(start..end).unwrap_or_default();
        out.extend(cut.bytes().map(|byte| if byte == b'\n' { '\n' } else { '\0' }));
        from = end;
    }
    out.push_str(code.get(from..).unwrap_or_default());
    // A blank line inside a cut has no NUL; give it one in place of nothing.
    mark_blank_lines(&out)
}

/// Blank lines between lines that are cut are cut as well. The text keeps its length, but for them.
fn mark_blank_lines(text: &str) -> String {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.split('\n') {
        inside = line.contains('\0') || (inside && line.is_empty());
        lines.push(if inside && line.is_empty() { "\0" } else { line });
    }
    lines.join("\n")
}

/// Blanks comments and the contents of strings and characters, byte for byte.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut after_word = false;
    while let Some(c) = rest.chars().next() {
        let (length, blanked) = match blank_length(rest, after_word) {
            Some(length) => (length, true),
            None => (c.len_utf8(), false),
        };
        let (token, tail) = rest.split_at(length);
        if blanked {
            out.extend(token.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        } else {
            out.push_str(token);
        }
        after_word = !blanked && (c.is_alphanumeric() || c == '_');
        rest = tail;
    }
    out
}

/// The length of the comment, string or character that the text begins with.
fn blank_length(text: &str, after_word: bool) -> Option<usize> {
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(block_comment_length(text));
    }
    if text.starts_with('"') {
        return Some(string_length(text));
    }
    if text.starts_with('\'') {
        return character_length(text);
    }
    let raw = text.strip_prefix('r').or_else(|| text.strip_prefix("br"))?;
    if after_word {
        return None;
    }
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    if !raw.get(hashes..)?.starts_with('"') {
        return None;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    let begin = text.len() - raw.len() + hashes + 1;
    let end = text.get(begin..)?.find(&close)?;
    Some(begin + end + close.len())
}

fn block_comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

fn string_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// A character's length; `None` for a lifetime.
fn character_length(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next();
        return chars.find(|(_, c)| *c == '\'').map(|(at, _)| at + 1);
    }
    chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_what_is_no_code() {
        for (text, code) in [
            ("a // b\nc", "a     \nc"),
            ("a /* /* b */ */ c", "a               c"),
            (r#"f("a\"b", x)"#, "f(      , x)"),
            (r##"r#"a"b"# c"##, "         c"),
            (r"'a' '\'' 'x: &'a str", "         'x: &'a str"),
            ("for\"x\"", "for   "),
        ] {
            assert_eq!(blank(text), code, "{text}");
        }
    }

    #[test]
    fn finds_paths_and_modules() {
        let source = Source::new(
            "a.rs",
            "mod one;\npub mod two;\nmod three {}\nuse crate::kv::Key;\n\
             use crate::{error::{Error, Result}, node};\npub(crate) fn f() { crate::raft::g() }\n\
             // crate::http\n#[cfg(test)]\nmod tests { use crate::storage; }\n",
        );
        assert_eq!(source.declared_modules(), ["one", "two"]);
        let paths: Vec<_> = source.paths_from("crate").into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["kv", "error", "node", "raft"]);
        assert_eq!(source.paths_from("crate")[3].1, 6);
    }

    #[test]
    fn measures() {
        let source = Source::new(
            "a.rs",
            "trait T { fn f(&self); }\nfn g() {\n    // why\n\n    h();\n}\n\
             #[cfg(test)]\nmod tests {\n\n    fn t() {}\n}\n",
        );
        assert_eq!(source.shipped_lines(), 6);
        let functions = source.functions();
        let g = Function { name: "g".into(), line: 2, lines: 3 };
        assert_eq!(functions[0], g);
        assert_eq!(functions[1].name, "t");
    }
}
