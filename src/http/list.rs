//! `GET /BUCKET/`: the keys of a bucket in byte order, from one view.
//!
//! The answer is built before it leaves, so it has limits: keys, and bytes of keys and values. A list
//! that would exceed them is refused, never cut: a cut list looks like a complete one.

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::Edge;
use super::answer::{self, Format, Outcome, TRUNCATED, respond};
use super::call::Call;
use super::leader::patiently;
use crate::error::{Error, Failure, Result};
use crate::kv::limits::LIST_LIMIT_DEFAULT;
use crate::kv::{BucketName, Credential, ListRange, Number, Permission, Transaction, grant};

/// Most keys that one list may step over: `skip` and `limit` together.
const LIST_STEPS_MAX: usize = 150_000;
/// Most bytes of keys and values in one list.
const LIST_BYTES_MAX: usize = 32 << 20;
/// Keys read at a time, at first and at most: what is held beside the answer.
const PAGE_FIRST: usize = 16;
const PAGE_MAX: usize = 256;
/// Bytes of values in a page above which the next is smaller. The store hands out each key with what
/// it holds, also where only keys are asked for.
const PAGE_BYTES: usize = 1 << 20;

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    range: ListRange,
    skip: usize,
    limit: usize,
    /// Whether the client named the limit: it then knows that there may be more.
    limited: bool,
    values: bool,
    format: Format,
}

/// Lists keys.
pub(super) async fn list(edge: &Edge, call: &Call, bucket: &BucketName) -> Outcome {
    let wanted = wanted(call)?;
    let credential = call.credential()?;
    let _turn = edge.room.list().await?;
    let txn = patiently(|| edge.node.read(bucket)).await?;
    let revision = txn.read_revision();
    let (format, work) = (wanted.format, move || body(txn, &credential, &wanted));
    let (body, truncated) = tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::Internal(format!("a list: {e}")))?
        .map_err(|error| Failure { error, revision: Some(revision) })?;
    let mut response = respond(StatusCode::OK, format.content_type(), body);
    answer::set_revision(response.headers_mut(), revision);
    if truncated {
        response.headers_mut().insert(TRUNCATED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn wanted(call: &Call) -> Result<Wanted> {
    let query = &call.query;
    if query.flag("watch") {
        return Err(Error::invalid("watch is not supported yet"));
    }
    if query.get("cursor").is_some() {
        return Err(Error::invalid("cursor is not supported yet: go on with `start`"));
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
    let (limited, values) = (query.get("limit").is_some(), query.flag("values"));
    Ok(Wanted { range, skip, limit, limited, values, format: Format::of(call)? })
}

/// The list, and whether keys are missing that the client does not know of.
fn body(mut txn: Transaction, credential: &Credential, wanted: &Wanted) -> Result<(Bytes, bool)> {
    let grant = grant(&mut txn, credential)?;
    grant.check(Permission::Enumerate, &wanted.range.prefix)?;
    if wanted.values {
        grant.check(Permission::Read, &wanted.range.prefix)?;
    }
    let mut writer = Writer::new(wanted);
    let mut range = wanted.range.clone();
    let (mut skip, mut left, mut page_size) = (wanted.skip, wanted.limit, PAGE_FIRST);
    while left > 0 {
        let asked = page_size.min(skip + left);
        let page = txn.list(&range, asked)?;
        let Some((last, _)) = page.last() else { break };
        go_on_after(&mut range, last);
        let found = page.len();
        page_size = next_page_size(page_size, page.iter().map(|(_, record)| record.value.len()));
        for (key, record) in page.into_iter().skip(skip).take(left) {
            writer.push(&key, &record.value)?;
            left -= 1;
        }
        if found < asked {
            break;
        }
        skip = skip.saturating_sub(found);
    }
    let truncated = left == 0 && !wanted.limited && !txn.list(&range, 1)?.is_empty();
    Ok((writer.finish(), truncated))
}

/// Pages grow while values are small, and shrink where they are large.
fn next_page_size(page_size: usize, values: impl Iterator<Item = usize>) -> usize {
    match values.sum::<usize>() {
        bytes if bytes > PAGE_BYTES => (page_size / 4).max(1),
        bytes if bytes < PAGE_BYTES / 4 => (page_size * 2).min(PAGE_MAX),
        _ => page_size,
    }
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
        self.text.shrink_to_fit();
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
    use crate::http::call::Origin;
    use crate::kv::memory::Memory;
    use crate::kv::{BucketId, Lifetime, Overlay};

    fn call(query: &str) -> Call {
        let request = http::Request::builder().uri(format!("/b/?{query}")).body(()).unwrap();
        Call::new(request.into_parts().0, Origin::default())
    }

    /// A bucket with 200 keys `k000`…`k199`, and some of their own.
    fn bucket() -> Transaction {
        let view = Arc::new(Memory::default());
        let mut txn = Transaction::new(view, BucketId(1), Overlay::default(), 0);
        let mut set = |key: &[u8], value: &'static [u8]| {
            let key = crate::kv::Key::parse(key.to_vec()).unwrap();
            txn.set(&key, Bytes::from_static(value), None, Lifetime::Unlimited).unwrap();
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
        let (bytes, _) = body(bucket(), &Credential::NONE, &wanted)?;
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
    fn only_a_limit_that_nobody_named_truncates() {
        let truncated = |query: &str, limited: bool| {
            let wanted = Wanted { limited, ..wanted(&call(query)).unwrap() };
            body(bucket(), &Credential::NONE, &wanted).unwrap().1
        };
        assert!(truncated("limit=203", false) && truncated("limit=99&reverse=1", false));
        assert!(!truncated("limit=204", false) && !truncated("limit=205", false));
        assert!(!truncated("limit=203", true));
        assert!(!wanted(&call("")).unwrap().limited && wanted(&call("limit=1")).unwrap().limited);
    }

    #[test]
    fn pages_fit_the_values() {
        assert_eq!(next_page_size(16, [10, 10].into_iter()), 32);
        assert_eq!(next_page_size(PAGE_MAX, [10].into_iter()), PAGE_MAX);
        assert_eq!(next_page_size(16, [PAGE_BYTES / 2].into_iter()), 16);
        assert_eq!(next_page_size(16, [PAGE_BYTES, 1].into_iter()), 4);
        assert_eq!(next_page_size(1, [PAGE_BYTES, 1].into_iter()), 1);
    }

    #[test]
    fn what_is_too_much_is_refused() {
        assert!(matches!(listed("limit=150001"), Err(Error::Invalid(_))));
        assert!(matches!(listed("limit=18446744073709551615&skip=2"), Err(Error::Invalid(_))));
        assert!(matches!(listed("limit=x"), Err(Error::Invalid(_))));
        assert!(matches!(listed("cursor=x"), Err(Error::Invalid(_))));
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
