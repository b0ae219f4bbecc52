//! Errors of a script in words that its author understands: name, line, message. Never an address,
//! a path or a type of ours.

use super::budget::is_out_of_memory;
use crate::error::Error;

/// The chunk name of the prelude, whose lines mean nothing to an author.
pub(super) const PRELUDE: &str = "[kvdb]";
/// What mlua puts between a message and the stack.
const TRACEBACK: &str = "\nstack traceback:";
/// The longest message or traceback that is answered, in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// An uncaught error of a call. `names` are those of its scripts, the called one first: an error is told
/// as one of the script whose line it names.
pub(super) fn script_error<'n>(
    names: impl Iterator<Item = &'n str> + Clone,
    error: &mlua::Error,
) -> Error {
    let (text, traceback) = parts(error);
    let traceback = own_lines(&traceback);
    let text = without_address(&text);
    let positioned = names.clone().find_map(|name| Some((name, position(name, &text)?)));
    let message = match positioned {
        Some((name, (line, text))) => format!("script `{name}` line {line}: {text}"),
        // Raised without a position: the innermost line of a script is the next best.
        None => match innermost_line(names.clone(), &traceback) {
            Some((name, line)) => format!("script `{name}` line {line}: {text}"),
            None => message(names.clone().next().unwrap_or_default(), &text),
        },
    };
    Error::Script { message: cut(message), traceback: Some(cut(traceback)) }
}

/// `NAME:LINE: text` as ``script `NAME` line LINE: text``.
pub(super) fn message(name: &str, text: &str) -> String {
    match position(name, text) {
        Some((line, text)) => format!("script `{name}` line {line}: {text}"),
        None => format!("script `{name}`: {text}"),
    }
}

/// Takes the position off a message; the compiler leaves the name out.
fn position<'t>(name: &str, text: &'t str) -> Option<(&'t str, &'t str)> {
    let rest = text.strip_prefix(name).unwrap_or(text);
    let (line, text) = rest.strip_prefix(':')?.split_once(": ")?;
    is_number(line).then_some((line, text))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// What the compiler said: `:LINE: text`.
pub(super) fn compile_text(error: &mlua::Error) -> String {
    match error {
        // Without the colon that begins a position elsewhere.
        mlua::Error::SyntaxError { message, .. } => format!(":{}", message.trim_start_matches(':')),
        other => plain(other),
    }
}

/// What a script that catches an error of the host gets to see.
pub(super) fn caught_text(error: &mlua::Error) -> String {
    without_address(&parts(error).0)
}

/// Message and stack.
fn parts(error: &mlua::Error) -> (String, String) {
    let (text, traceback) = raw_parts(error);
    (without_own_position(&text).to_owned(), traceback)
}

/// Library functions are called by the prelude: Luau puts its position before what they say.
fn without_own_position(text: &str) -> &str {
    position(PRELUDE, text).filter(|_| text.starts_with(PRELUDE)).map_or(text, |(_, text)| text)
}

fn raw_parts(error: &mlua::Error) -> (String, String) {
    match error {
        mlua::Error::CallbackError { traceback, cause } => {
            let (text, inner) = raw_parts(cause);
            // What failed within a module knows more of the stack than the `require` around it.
            let outer = traceback.trim_start_matches("stack traceback:");
            (text, if inner.is_empty() { outer.to_owned() } else { inner })
        }
        mlua::Error::RuntimeError(text) => match text.rsplit_once(TRACEBACK) {
            Some((text, traceback)) => (text.to_owned(), traceback.to_owned()),
            None => (text.clone(), String::new()),
        },
        other => (compile_text(other), String::new()),
    }
}

/// Errors of the binding itself, none of which a script should be able to cause.
fn plain(error: &mlua::Error) -> String {
    match error {
        mlua::Error::StackError => "stack overflow".to_owned(),
        error if is_out_of_memory(error) => "not enough memory".to_owned(),
        _ => "the call failed".to_owned(),
    }
}

/// An error value that is no string comes as `table: 0x…`.
fn without_address(text: &str) -> String {
    let kinds = ["table", "function", "userdata", "thread", "buffer"];
    for kind in kinds {
        for form in ["0x", "(nil)"] {
            if text.strip_prefix(kind).is_some_and(|rest| {
                rest.strip_prefix(": ").is_some_and(|rest| rest.starts_with(form))
            }) {
                return format!("the error is a {kind}, not a message");
            }
        }
    }
    text.to_owned()
}

fn own_lines(traceback: &str) -> String {
    let foreign = |line: &&str| !line.starts_with("[C]") && !line.starts_with(PRELUDE);
    let lines: Vec<&str> =
        traceback.lines().map(str::trim).filter(|l| !l.is_empty()).filter(foreign).collect();
    lines.join("\n")
}

fn innermost_line<'n, 't>(
    names: impl Iterator<Item = &'n str> + Clone,
    traceback: &'t str,
) -> Option<(&'n str, &'t str)> {
    let (name, rest) = traceback.lines().find_map(|line| {
        names.clone().find_map(|name| Some((name, line.strip_prefix(name)?.strip_prefix(':')?)))
    })?;
    let (line, _) = rest.split_once(':')?;
    is_number(line).then_some((name, line))
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}
