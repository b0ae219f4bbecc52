//! `kvdb.log`: a few lines for whoever runs the node, or for the author who tries a script out.
//!
//! What a script logs is no effect: it is kept when the call fails, and a call that runs again logs
//! again. Nothing of it can pass for a line of the node's own.

use std::rc::Rc;

use mlua::{Lua, MultiValue, Table};

use super::host::{Host, bad_argument, function};
use super::value;

/// Lines that are kept of a call.
const LINES_MAX: usize = 32;
/// Longest line, in bytes.
const LINE_BYTES_MAX: usize = 1024;
/// How a line ends that was longer.
const CUT: char = '…';

/// The lines of a call.
#[derive(Default)]
pub(super) struct Log {
    lines: Vec<String>,
    dropped: usize,
}

impl Log {
    fn push(&mut self, text: &[u8]) {
        if self.lines.len() < LINES_MAX {
            self.lines.push(line(text));
        } else {
            self.dropped += 1;
        }
    }

    /// The lines, and a last one where there were more.
    pub(super) fn finish(mut self) -> Vec<String> {
        if self.dropped > 0 {
            self.lines.push(format!("{CUT} and {} more lines", self.dropped));
        }
        self.lines
    }
}

/// Text as one line: control characters are shown, not obeyed.
fn line(text: &[u8]) -> String {
    let mut line = String::new();
    for c in String::from_utf8_lossy(text).chars() {
        let before = line.len();
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        if line.len() > LINE_BYTES_MAX {
            line.truncate(before);
            while line.len() + CUT.len_utf8() > LINE_BYTES_MAX {
                line.pop();
            }
            line.push(CUT);
            break;
        }
    }
    line
}

/// Adds `kvdb.log`; `info_mt` marks what `get` returns beside a value.
pub(super) fn register(
    lua: &Lua,
    host: &Rc<Host>,
    kvdb: &Table,
    info_mt: &Table,
) -> mlua::Result<()> {
    let info_mt = info_mt.clone();
    let log = move |host: &Host, lua: &Lua, args: MultiValue| {
        let mut text = Vec::new();
        for (index, arg) in args.iter().filter(|arg| !value::is_info(arg, &info_mt)).enumerate() {
            let before = text.len();
            if !value::print(lua, arg, &mut text)? {
                return Err(bad_argument(lua, "log", index + 1, value::PRINTABLE, arg));
            }
            host.budget.charge_bytes(text.len() - before)?;
            // The rest would be cut off anyhow.
            text.truncate(LINE_BYTES_MAX + 1);
        }
        host.session()?.log.push(&text);
        Ok(())
    };
    kvdb.raw_set("log", function(lua, host, log)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_and_bounded() {
        assert_eq!(line(b"a\nb\x1b[1m\tc\xff"), "a\\nb\\u{1b}[1m\\tc\u{fffd}");
        assert_eq!(line(&[b'x'; LINE_BYTES_MAX]).len(), LINE_BYTES_MAX);
        for long in [vec![b'x'; 5000], "ä".repeat(5000).into_bytes(), vec![b'\n'; 5000]] {
            let line = line(&long);
            assert!(line.len() <= LINE_BYTES_MAX && line.len() > LINE_BYTES_MAX - 8, "{line}");
            assert!(line.ends_with(CUT));
        }
    }

    #[test]
    fn further_lines_are_counted() {
        let mut log = Log::default();
        for number in 0..LINES_MAX + 5 {
            log.push(number.to_string().as_bytes());
        }
        let lines = log.finish();
        assert_eq!(lines.len(), LINES_MAX + 1);
        assert_eq!(lines.last().unwrap(), "… and 5 more lines");
    }
}
