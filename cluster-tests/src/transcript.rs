//! Transcripts: commands and what they print, as a document shows them, held against a real shell.
//!
//! A fenced block of a Markdown document is a transcript where its first line begins with `$ `:
//!
//! ```text
//! $ curl -X PATCH -d +2 localhost:7411/tour/apples
//! 5
//! ```
//!
//! All commands of a document run in order, in one bash and an empty directory, so a variable or a file lasts.
//! A command goes on in the next line behind a `\`, and to `END` behind a `<<'END'`. What a command
//! prints, errors too, must be the lines below it, but for this:
//!
//! - `…` within a line stands for anything, a line `…` for any lines, also none;
//! - spaces and newlines at the end do not count: most answers end without a newline.

use std::fs;
use std::path::Path;
use std::process::Command;

/// How long all commands of a document may take, in seconds.
const TIME: &str = "300";
/// Before each command's output. No answer has it.
const MARK: char = '\u{1e}';
/// What may differ.
const ANYTHING: &str = "…";
/// What curl is told beside the command: to be quiet, to ask nobody in between, and to end.
const CURLRC: &str = "silent\nshow-error\nnoproxy = \"*\"\nmax-time = 20\n";

/// The commands of a document.
#[derive(Debug, Default)]
pub struct Transcript {
    /// In order.
    pub steps: Vec<Step>,
}

/// A command and what it must print.
#[derive(Debug, Default, PartialEq)]
pub struct Step {
    /// Where it is in the document.
    pub line: usize,
    /// What is run.
    pub command: String,
    /// What must come.
    pub expected: Vec<String>,
}

impl Transcript {
    /// Finds the transcripts in a Markdown document.
    #[must_use]
    pub fn of_document(text: &str) -> Self {
        let mut steps = Vec::new();
        let mut lines = text.lines().zip(1..);
        while let Some((line, _)) = lines.next() {
            if !line.starts_with("```") {
                continue;
            }
            let block: Vec<_> = lines.by_ref().take_while(|(line, _)| *line != "```").collect();
            if block.first().is_some_and(|(first, _)| first.starts_with("$ ")) {
                steps.extend(steps_of(&block));
            }
        }
        Transcript { steps }
    }

    /// Runs all commands in a directory; `replace` names what is another here than in the document. What
    /// differs, a line each.
    ///
    /// # Panics
    /// When no shell can be run.
    #[must_use]
    pub fn run(&self, dir: &Path, replace: &[(&str, String)]) -> Vec<String> {
        let mut script = String::from("exec 2>&1\n");
        for step in &self.steps {
            let here = |text: String, (from, to): &(&str, String)| text.replace(from, to);
            let command = replace.iter().fold(step.command.clone(), here);
            script += &format!("printf '\\036'\n{command}\n");
        }
        fs::write(dir.join(".curlrc"), CURLRC).expect("the directory can be written");
        fs::write(dir.join(".commands"), script).expect("the directory can be written");
        let shell = Command::new("timeout")
            .args([TIME, "bash", ".commands"])
            .current_dir(dir)
            .env("CURL_HOME", dir)
            .output()
            .expect("bash and timeout are installed");
        let printed = String::from_utf8_lossy(&shell.stdout).replace('\r', "");
        self.compare(&printed)
    }

    fn compare(&self, printed: &str) -> Vec<String> {
        let printed: Vec<&str> = printed.split(MARK).skip(1).collect();
        let mut failures = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            let got = printed.get(index).map(|text| lines_of(text));
            if got.as_ref().is_none_or(|got| !fits(&step.expected, got)) {
                let got =
                    got.map_or("nothing: it did not run".to_owned(), |got| got.join("\n    "));
                let want = step.expected.join("\n    ");
                let Step { line, command, .. } = step;
                failures.push(format!(
                    "line {line}: {command}\n  expected\n    {want}\n  printed\n    {got}"
                ));
            }
        }
        failures
    }
}

/// The commands of one block.
fn steps_of(block: &[(&str, usize)]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut lines = block.iter();
    while let Some((text, line)) = lines.next() {
        let Some(command) = text.strip_prefix("$ ") else {
            if let Some(step) = steps.last_mut() {
                step.expected.push(text.trim_end().to_owned());
            }
            continue;
        };
        let mut command = command.to_owned();
        let here_document = command.contains("<<'END'");
        let more = |command: &str| {
            if here_document { !command.ends_with("\nEND") } else { command.ends_with('\\') }
        };
        while more(&command) {
            let Some((text, _)) = lines.next() else { break };
            command = format!("{command}\n{text}");
        }
        steps.push(Step { line: *line, command, expected: Vec::new() });
    }
    for step in &mut steps {
        while step.expected.last().is_some_and(String::is_empty) {
            step.expected.pop();
        }
    }
    steps
}

fn lines_of(text: &str) -> Vec<&str> {
    text.trim_end().lines().map(str::trim_end).collect()
}

/// Whether lines are as expected.
fn fits(want: &[String], got: &[&str]) -> bool {
    match want.split_first() {
        None => got.is_empty(),
        Some((line, rest)) if line == ANYTHING => {
            (0..=got.len()).any(|skipped| fits(rest, got.get(skipped..).unwrap_or_default()))
        }
        Some((line, rest)) => match got.split_first() {
            Some((first, left)) => line_fits(line, first) && fits(rest, left),
            None => false,
        },
    }
}

fn line_fits(want: &str, got: &str) -> bool {
    let mut parts: Vec<&str> = want.split(ANYTHING).collect();
    let last = parts.pop().unwrap_or_default();
    if parts.is_empty() {
        return got == last;
    }
    let mut rest = got;
    for (index, part) in parts.iter().enumerate() {
        match rest.split_once(part) {
            Some((before, after)) if index > 0 || before.is_empty() => rest = after,
            _ => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "# A\n```\nnot run\n```\n\n```\n$ echo a\na\n$ cat <<'END'\nb\nEND\nb\n\n\
        $ printf '%s' \\\n  c\nc\n```\n```lua\nx = 1\n```\n";

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn finds_the_commands_of_a_document() {
        let steps = Transcript::of_document(DOCUMENT).steps;
        let step = |line, command: &str, expected| Step {
            line,
            command: command.to_owned(),
            expected: lines(expected),
        };
        assert_eq!(
            steps,
            [
                step(7, "echo a", "a"),
                step(9, "cat <<'END'\nb\nEND", "b"),
                step(14, "printf '%s' \\\n  c", "c")
            ]
        );
    }

    #[test]
    fn compares_with_gaps() {
        for (want, got, holds) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a", "", false),
            ("", "a", false),
            ("a…", "abc", true),
            ("…c", "abc", true),
            ("a…c", "abbc", true),
            ("a…c", "xabc", false),
            ("a…b…c", "a1b2c3", false),
            ("{\"v\":…}", "{\"v\":12}", true),
            ("…", "", true),
            ("…", "a\nb", true),
            ("a\n…\nd", "a\nb\nc\nd", true),
            ("a\n…\nd", "a\nd", true),
            ("a\n…\nd", "a\nb", false),
            ("a\n…", "b", false),
        ] {
            assert_eq!(fits(&lines(want), &lines_of(got)), holds, "{want:?} {got:?}");
        }
    }

    #[test]
    fn runs_in_one_shell_and_says_what_differs() {
        let dir = tempfile::tempdir().unwrap();
        let good = Transcript::of_document(DOCUMENT).run(dir.path(), &[]);
        assert!(good.is_empty(), "{good:?}");
        let text = "```\n$ X=1\n$ echo $X >file\n$ cat file\n2\n$ cat none\n…No such file…\n$ echo WHO\nme\n```\n";
        let found = Transcript::of_document(text).run(dir.path(), &[("WHO", "me".to_owned())]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("line 4: cat file\n"), "{found:?}");
    }
}
