//! `GET /BUCKET/`: the keys of a bucket in byte order, from one view.
//!
//! The answer is built before it leaves, so it has limits: keys, and bytes of keys and values. A list
//! that would exceed them is refused, never cut: a cut list looks like a complete one.

use bytes::Bytes;
use http::StatusCode;

use super::Edge;
use super::answer::{self, Failure, Format, Outcome, respond};
use super::call::Call;
use super::leader::patiently;
use crate::error::{Error, Result};
use crate::kv::limits::LIST_LIMIT_DEFAULT;
use crate::kv::{BucketName, Credential, ListRange, Number, Permission, Transaction};

/// Most keys that one list may step over: `skip` and `limit` together.
const LIST_STEPS_MAX: usize = 150_000;
/// Most bytes of keys and values in one list.
const LIST_BYTES_MAX: usize = 32 << 20;
/// Keys read at a time: what is held beside the answer.
const PAGE: usize = 64;

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    range: ListRange,
    skip: usize,
    limit: usize,
    values: bool,
    format: Format,
}

/// Lists keys.
pub(super) async fn list(edge: &Edge, call: &Call, bucket: &BucketName) -> Outcome {
    let wanted = wanted(call)?;
    let credential = call.credential()?;
    let txn = patiently(|| edge.node.read(bucket)).await?;
    let revision = txn.read_revision();
    let (format, work) = (wanted.format, move || body(txn, &credential, &wanted));
    let body = tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::Internal(format!("a list: {e}")))?
        .map_err(|error| Failure { error, revision: Some(revision) })?;
    let mut response = respond(StatusCode::OK, format.content_type(), body);
    answer::set_revision(response.headers_mut(), revision);
    Ok(response)
}

fn wanted(call: &Call) -> Result<Wanted> {
    let query = &call.query;
    if query.flag("watch") {
        return Err(Error::invalid("watch is not supported yet"));
    }
    let (skip, limit) = (query.count("skip", 0)?, query.count("limit", LIST_LIMIT_DEFAULT)?);
    if skip.saturating_add(limit) > LIST_STEPS_MAX {
        return Err(Error::invalid(format!(
            "`skip` and `limit` together are at most {LIST_STEPS_MAX}: go on with `start`"
        )));
    }
    let range = ListRange {
        prefix: query.get("prefix").cloned().unwrap_or_default(),
        start: query.get("start").cloned(),
        end: query.get("end").filter(|end| !end.is_empty()).cloned(),
        reverse: query.flag("reverse"),
    };
    Ok(Wanted { range, skip, limit, values: query.flag("values"), format: Format::of(call)? })
}

fn body(mut txn: Transaction, credential: &Credential, wanted: &Wanted) -> Result<Bytes> {
    let grant = txn.policy()?.grant(credential)?;
    grant.check(Permission::Enumerate, &wanted.range.prefix)?;
    if wanted.values {
        grant.check(Permission::Read, &wanted.range.prefix)?;
    }
    let mut writer = Writer::new(wanted);
    let mut range = wanted.range.clone();
    let (mut skip, mut left) = (wanted.skip, wanted.limit);
    while left > 0 {
        let page = txn.list(&range, PAGE.min(skip + left))?;
        let Some((last, _)) = page.last() else { break };
        go_on_after(&mut range, last);
        let found = page.len();
        for (key, record) in page.iter().skip(skip).take(left) {
            writer.push(key, &record.value)?;
            left -= 1;
        }
        if found < PAGE {
            break;
        }
        skip = skip.saturating_sub(found);
    }
    Ok(writer.finish())
}

/// Moves a range behind a key.
fn go_on_after(range: &mut ListRange, key: &Bytes) {
    if range.reverse {
        range.end = Some(key.clone());
    } else {
        range.start = Some([key, &b"\0"[..]].concat().into());
    }
}

/// Writes entries in a format.
struct Writer {
    format: Format,
    values: bool,
    text: Vec<u8>,
    first: bool,
}

impl Writer {
    fn new(wanted: &Wanted) -> Self {
        let text = if wanted.format == Format::Json { b"[".to_vec() } else { Vec::new() };
        Writer { format: wanted.format, values: wanted.values, text, first: true }
    }

    fn push(&mut self, key: &[u8], value: &[u8]) -> Result<()> {
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
        if self.text.len() > LIST_BYTES_MAX {
            let max = LIST_BYTES_MAX as u64;
            return Err(Error::TooLarge { limit: "a list (ask with a smaller `limit`)", max });
        }
        Ok(())
    }

    fn push_line(&mut self, key: &[u8], value: &[u8]) {
        push_escaped(&mut self.text, key);
        if self.values {
            self.text.push(b'=');
            push_escaped(&mut self.text, value);
        }
        self.text.push(b'\n');
    }

    fn push_json(&mut self, key: &[u8], value: &[u8]) {
        if !self.values {
            push_string(&mut self.text, key);
            return;
        }
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

    fn finish(mut self) -> Bytes {
        if self.format == Format::Json {
            self.text.push(b']');
        }
        self.text.into()
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
    use std::sync::Arc;

    use super::*;
    use crate::kv::memory::Memory;
    use crate::kv::{BucketId, Overlay};

    fn call(query: &str) -> Call {
        let request = http::Request::builder().uri(format!("/b/?{query}")).body(()).unwrap();
        Call::new(request.into_parts().0)
    }

    /// A bucket with 200 keys `k000`…`k199`, and some of their own.
    fn bucket() -> Transaction {
        let view = Arc::new(Memory::default());
        let mut txn = Transaction::new(view, BucketId(1), Overlay::default(), 0);
        let mut set = |key: &[u8], value: &'static [u8]| {
            let key = crate::kv::Key::parse(key.to_vec()).unwrap();
            txn.set(&key, Bytes::from_static(value), None, None).unwrap();
        };
        for i in 0..200 {
            set(format!("k{i:03}").as_bytes(), b"v");
        }
        set(b"n:int", b"42");
        set(b"n:text", b"4 2");
        set(b"n:plus", b"+1");
        set(b"x\ny", b"two\nlines");
        txn
    }

    fn listed(query: &str) -> Result<String> {
        let wanted = wanted(&call(query))?;
        let bytes = body(bucket(), &Credential::NONE, &wanted)?;
        Ok(String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[test]
    fn formats() {
        for (query, expected) in [
            ("prefix=n:", "n:int\nn:plus\nn:text\n"),
            ("prefix=n:&values=true", "n:int=42\nn:plus=+1\nn:text=4 2\n"),
            ("prefix=n:&format=json", r#"["n:int","n:plus","n:text"]"#),
            (
                "prefix=n:&format=json&values=1",
                r#"[["n:int",42],["n:plus","+1"],["n:text","4 2"]]"#,
            ),
            ("prefix=n:i&format=jsonl&values=1", "[\"n:int\",42]\n"),
            ("prefix=n:i&format=jsonl", "\"n:int\"\n"),
            ("prefix=x&values=1", "x\\ny=two\\nlines\n"),
            ("prefix=x&values=1&format=json", r#"[["x\ny","two\nlines"]]"#),
            ("prefix=none&format=json", "[]"),
            ("prefix=none", ""),
        ] {
            assert_eq!(listed(query).unwrap(), expected, "{query}");
        }
    }

    #[test]
    fn ranges() {
        let lines = |query: &str| {
            let text = listed(query).unwrap();
            let lines: Vec<_> = text.lines().map(str::to_owned).collect();
            (lines.len(), lines.first().cloned().unwrap_or_default())
        };
        let expect = |query: &str, count: usize, first: &str| {
            assert_eq!(lines(query), (count, first.to_owned()), "{query}");
        };
        expect("", 204, "k000");
        expect("prefix=k", 200, "k000");
        expect("prefix=k&skip=150", 50, "k150");
        expect("prefix=k&skip=64&limit=70", 70, "k064");
        expect("prefix=k&skip=199&limit=5", 1, "k199");
        expect("prefix=k&skip=200", 0, "");
        expect("limit=0", 0, "");
        expect("prefix=k&reverse=true&limit=130", 130, "k199");
        expect("prefix=k&reverse=true&skip=130", 70, "k069");
        expect("start=k100&end=k110", 10, "k100");
        expect("start=k100&end=k110&reverse=1", 10, "k109");
        expect("prefix=k&start=k190", 10, "k190");
    }

    #[test]
    fn what_is_too_much_is_refused() {
        assert!(matches!(listed("limit=150001"), Err(Error::Invalid(_))));
        assert!(matches!(listed("limit=18446744073709551615&skip=2"), Err(Error::Invalid(_))));
        assert!(matches!(listed("limit=x"), Err(Error::Invalid(_))));
        assert!(matches!(listed("format=xml"), Err(Error::NotAcceptable(_))));
        let mut writer = Writer::new(&wanted(&call("values=1")).unwrap());
        let half = vec![b'v'; LIST_BYTES_MAX / 2];
        writer.push(b"a", &half).unwrap();
        assert!(matches!(writer.push(b"b", &half), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn numbers_in_jsons_spelling() {
        for number in ["0", "-1", "42", "1.5", "-0.5", "1e300", "9223372036854775807"] {
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
}
