//! Entries of a list as text, JSON or JSON lines.

use bytes::Bytes;

use crate::http::answer::Format;
use crate::kv::Number;
use crate::mutant::{self, Mutant};

/// Writes entries in a format.
pub(super) struct Writer {
    format: Format,
    text: Vec<u8>,
    first: bool,
    /// Where the last entry begins.
    last: usize,
}

impl Writer {
    pub(super) fn new(format: Format) -> Self {
        let text = if format == Format::Json { b"[".to_vec() } else { Vec::new() };
        Writer { format, text, first: true, last: 0 }
    }

    /// Bytes written and not taken.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    /// What was written since the last time.
    pub(super) fn take(&mut self) -> Bytes {
        self.last = 0;
        std::mem::take(&mut self.text).into()
    }

    /// Writes a key, and its value where values are asked for.
    pub(super) fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.last = self.text.len();
        if !self.first && self.format == Format::Json {
            self.text.push(b',');
        }
        self.first = false;
        match self.format {
            Format::Text => self.push_line(key, value),
            Format::Json | Format::JsonLines => self.push_json(key, value),
        }
        if self.format == Format::JsonLines {
            self.text.push(b'\n');
        }
    }

    fn push_line(&mut self, key: &[u8], value: Option<&[u8]>) {
        push_escaped(&mut self.text, key);
        if let Some(value) = value {
            self.text.push(b'=');
            push_escaped(&mut self.text, value);
        }
        self.text.push(b'\n');
    }

    fn push_json(&mut self, key: &[u8], value: Option<&[u8]>) {
        let Some(value) = value else { return push_string(&mut self.text, key) };
        self.text.push(b'[');
        push_string(&mut self.text, key);
        self.text.push(b',');
        if is_number(value) {
            self.text.extend_from_slice(value);
        } else {
            push_string(&mut self.text, value);
        }
        self.text.push(b']');
    }

    /// Writes what closes the list: without it, it is not whole.
    pub(super) fn end(&mut self) {
        if !self.first && mutant::strikes(Mutant::ListStopsEarly, 20) {
            self.text.truncate(self.last);
        }
        if self.format == Format::Json {
            self.text.push(b']');
        }
    }
}

/// Appends bytes with each newline as `\n`, so that an entry stays a line.
fn push_escaped(text: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        match byte {
            b'\n' => text.extend_from_slice(b"\\n"),
            byte => text.push(*byte),
        }
    }
}

/// Appends a JSON string; bytes that are no UTF-8 become U+FFFD, for JSON has no others.
fn push_string(text: &mut Vec<u8>, bytes: &[u8]) {
    let string = String::from_utf8_lossy(bytes);
    text.extend_from_slice(serde_json::Value::from(string).to_string().as_bytes());
}

/// Whether a value is a number that goes unquoted: one of ours, in JSON's own spelling.
fn is_number(value: &[u8]) -> bool {
    let spelled = value.first().is_some_and(|byte| *byte == b'-' || byte.is_ascii_digit())
        && value.last().is_some_and(u8::is_ascii_digit)
        && serde_json::from_slice::<serde_json::Number>(value).is_ok();
    spelled && Number::parse(value).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_jsons_spelling() {
        for number in
            ["0", "-1", "42", "1.5", "-0.5", "1e300", "9223372036854775807", "9007199254740993"]
        {
            assert!(is_number(number.as_bytes()), "{number}");
        }
        for other in [
            "",
            "+1",
            "007",
            ".5",
            "1.",
            " 1",
            "1 ",
            "nan",
            "0x1",
            "1e999",
            "true",
            "-",
            "9223372036854775808",
        ] {
            assert!(!is_number(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn a_list_in_pieces_is_the_list() {
        for (format, expected) in [
            (Format::Text, "a=1\nb=x\\ny\n"),
            (Format::Json, r#"[["a",1],["b","x\ny"]]"#),
            (Format::JsonLines, "[\"a\",1]\n[\"b\",\"x\\ny\"]\n"),
        ] {
            let mut writer = Writer::new(format);
            let mut whole = Vec::new();
            for (key, value) in [("a", "1"), ("b", "x\ny")] {
                writer.push(key.as_bytes(), Some(value.as_bytes()));
                whole.extend_from_slice(&writer.take());
            }
            writer.end();
            whole.extend_from_slice(&writer.take());
            assert_eq!(String::from_utf8(whole).unwrap(), expected);
        }
    }
}
