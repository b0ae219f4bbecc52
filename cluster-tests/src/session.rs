//! Golden sessions: requests and what must come back, as text that reads as a specification.
//!
//! ```text
//! # A comment.
//! @ secret_key=s&read_key=r          the policy of the session's bucket
//! PATCH /{bucket}/visits             a request
//! > accept: application/json         its headers
//! | +1                               its body, lines joined by a newline
//! = 200                              the status: a number, several as 200|204, or 2xx
//! < etag: "{+1}"                     a header: exact, * for any, - for none, ~part for a part of it
//! : 1                                the whole body, lines joined by a newline
//! ~ part                             a part of the body
//! $ name field                       {name} is from here on that field of the JSON (a name, or a pointer as
//!                                    /0/id), else that header, or without a field the whole body
//! ? 5                                asked again until all this holds, for at most 5 seconds
//! ```
//!
//! `\n`, `\t` and `\\` in bodies are what they are in Rust. `{bucket}` is the session's bucket and `{today}` the
//! date in UTC; `{+N}` is N above the revision that the bucket was created with; `{x*N}` is N times the
//! letter x. A 307 is followed, as `curl -L` does.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::http::{Call, Http, Reply};

/// A session.
#[derive(Debug, Default)]
pub struct Session {
    /// The policy of its bucket, as a form.
    pub policy: String,
    /// Its requests.
    pub steps: Vec<Step>,
}

/// A request and what must come back.
#[derive(Debug, Default)]
pub struct Step {
    line: usize,
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<String>,
    status: String,
    want_headers: Vec<(String, String)>,
    want_body: Vec<String>,
    want_parts: Vec<String>,
    keep: Vec<(String, String)>,
    patience: Duration,
}

/// Pause before a step is asked again.
const PAUSE: Duration = Duration::from_millis(100);

/// Where a session runs.
#[derive(Clone, Debug)]
pub struct Place {
    /// The node's URL.
    pub url: String,
    /// The session's bucket.
    pub bucket: String,
    /// The revision that it was created with.
    pub base_revision: u64,
}

/// What came back.
#[derive(Debug, Default)]
pub struct Report {
    /// What each request did, in order: its line, and the answer.
    pub replies: Vec<(usize, Reply)>,
    /// What differs from what must come back.
    pub failures: Vec<String>,
    /// The words that `$` made, in braces, and what they stand for.
    pub kept: Vec<(String, String)>,
}

impl Session {
    /// Reads a session.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut session = Session::default();
        for (index, line) in text.lines().enumerate() {
            let line_number = index + 1;
            let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
            if mark.is_empty() || mark == "#" {
                continue;
            }
            if mark == "@" {
                rest.clone_into(&mut session.policy);
            } else if mark.len() > 1 {
                let (method, path) = (mark.to_owned(), rest.to_owned());
                session.steps.push(Step { line: line_number, method, path, ..Step::default() });
            } else {
                let step = session.steps.last_mut();
                let step = step.ok_or_else(|| format!("line {line_number}: no request yet"))?;
                step.add(mark, rest).map_err(|reason| format!("line {line_number}: {reason}"))?;
            }
        }
        match session.steps.iter().find(|step| step.status.is_empty()) {
            Some(step) => Err(format!("line {}: no status is expected", step.line)),
            None => Ok(session),
        }
    }

    /// Runs it, and goes on after a failure.
    pub async fn run(&self, http: &Http, place: &Place) -> Report {
        let mut report = Report::default();
        let mut words = Words { place, kept: Vec::new() };
        for step in &self.steps {
            let (reply, failures) = step.run(http, &words).await;
            let at = format!("line {}: {} {}", step.line, step.method, step.path);
            let found = failures.into_iter().map(|failure| format!("{at}: {failure}"));
            report.failures.extend(found);
            if let Some(reply) = reply {
                let kept =
                    step.keep.iter().map(|(name, field)| (name.clone(), part(&reply, field)));
                words.keep(kept);
                report.replies.push((step.line, reply));
            }
        }
        report.kept = words.kept;
        report
    }

    /// The owner's key in its policy.
    #[must_use]
    pub fn secret(&self) -> Option<&str> {
        self.policy.split('&').find_map(|field| field.strip_prefix("secret_key="))
    }
}

impl Step {
    fn add(&mut self, mark: &str, rest: &str) -> Result<(), String> {
        let header = || {
            let (name, value) = rest.split_once(':').ok_or("a header needs a colon")?;
            Ok::<_, String>((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        match mark {
            ">" => self.headers.push(header()?),
            "|" => self.body.push(rest.to_owned()),
            "=" => rest.trim().clone_into(&mut self.status),
            "<" => self.want_headers.push(header()?),
            ":" => self.want_body.push(rest.to_owned()),
            "~" => self.want_parts.push(rest.to_owned()),
            "$" => {
                let (name, field) = rest.split_once(' ').unwrap_or((rest, ""));
                self.keep.push((name.to_owned(), field.to_owned()));
            }
            "?" => {
                let seconds = rest.parse().map_err(|_| "`?` needs a number of seconds")?;
                self.patience = Duration::from_secs(seconds);
            }
            _ => return Err(format!("no meaning for `{mark}`")),
        }
        Ok(())
    }

    /// Asks until all holds, or its time is over: the last answer, and what differs in it.
    async fn run(&self, http: &Http, words: &Words<'_>) -> (Option<Reply>, Vec<String>) {
        let end = Instant::now() + self.patience;
        loop {
            let (reply, failures) = match self.call(http, words).send().await {
                Ok(reply) => {
                    let failures = self.check(&reply, words);
                    (Some(reply), failures)
                }
                Err(failure) => (None, vec![failure.reason]),
            };
            if failures.is_empty() || Instant::now() >= end {
                return (reply, failures);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn call(&self, http: &Http, words: &Words) -> Call {
        let url = format!("{}{}", words.place.url, words.expand(&self.path));
        let mut call = http.call(&self.method, url).follow();
        for (name, value) in &self.headers {
            call = call.header(name, &words.expand(value));
        }
        if self.body.is_empty() {
            return call;
        }
        call.body(unescape(&words.expand(&self.body.join("\n"))))
    }

    fn check(&self, reply: &Reply, words: &Words) -> Vec<String> {
        let mut failures = Vec::new();
        if !status_fits(&self.status, reply.status) {
            failures.push(format!("expected status {}, got {reply}", self.status));
        }
        for (name, want) in &self.want_headers {
            let got = reply.header(name);
            if !header_fits(&words.expand(want), got) {
                failures.push(format!("expected {name}: {}, got {got:?}", words.expand(want)));
            }
        }
        let body = reply.text();
        let want = unescape(&words.expand(&self.want_body.join("\n")));
        if !self.want_body.is_empty() && want != body {
            failures.push(format!("expected the body {want:?}, got {body:?}"));
        }
        for part in &self.want_parts {
            if !body.contains(&unescape(&words.expand(part))) {
                failures.push(format!("expected {part:?} in the body, got {body:?}"));
            }
        }
        failures
    }
}

fn status_fits(want: &str, got: u16) -> bool {
    want.split('|').any(|want| match want.strip_suffix("xx") {
        Some(class) => class == (got / 100).to_string(),
        None => want == got.to_string(),
    })
}

fn header_fits(want: &str, got: Option<&str>) -> bool {
    match (want, got) {
        ("-", got) => got.is_none(),
        (_, None) => false,
        ("*", Some(_)) => true,
        (want, Some(got)) => match want.strip_prefix('~') {
            Some(part) => got.to_lowercase().contains(&part.to_lowercase()),
            None => want == got,
        },
    }
}

impl Place {
    fn expand(&self, text: &str) -> String {
        let text = text.replace("{bucket}", &self.bucket).replace("{today}", &today());
        let text = expand_number(&text, "{+", |n| (self.base_revision + n).to_string());
        expand_number(&text, "{x*", |n| "x".repeat(usize::try_from(n).unwrap_or(0)))
    }
}

/// What words in braces stand for: those of the place, and what earlier answers said.
struct Words<'a> {
    place: &'a Place,
    kept: Vec<(String, String)>,
}

impl Words<'_> {
    fn expand(&self, text: &str) -> String {
        let text = self.place.expand(text);
        self.kept.iter().fold(text, |text, (word, value)| text.replace(word, value))
    }

    /// Keeps parts of an answer under their names.
    fn keep(&mut self, parts: impl Iterator<Item = (String, String)>) {
        for (name, value) in parts {
            let word = format!("{{{name}}}");
            self.kept.retain(|(known, _)| *known != word);
            self.kept.push((word, value));
        }
    }
}

/// A part of an answer: a field of its JSON, a header, or else all of it.
fn part(reply: &Reply, field: &str) -> String {
    let json = serde_json::from_slice::<serde_json::Value>(&reply.body).unwrap_or_default();
    let found = if field.starts_with('/') { json.pointer(field) } else { json.get(field) };
    match (found, reply.header(field)) {
        (Some(serde_json::Value::String(text)), _) => text.clone(),
        (Some(value), _) => value.to_string(),
        (None, Some(header)) => header.to_owned(),
        (None, None) => reply.text().trim_end().to_owned(),
    }
}

/// Replaces `OPEN N }` by what N stands for.
fn expand_number(text: &str, open: &str, meaning: impl Fn(u64) -> String) -> String {
    let mut parts = text.split(open);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let number = part.split_once('}').and_then(|(n, rest)| Some((n.parse().ok()?, rest)));
        match number {
            Some((number, rest)) => out.push_str(&(meaning(number) + rest)),
            None => out.push_str(&format!("{open}{part}")),
        }
    }
    out
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('t') => out.push('\t'),
            Some('\\') => out.push('\\'),
            Some(other) => out.extend(['\\', other]),
            None => out.push('\\'),
        }
    }
    out
}

/// The date in UTC, as `YYYY-MM-DD`.
#[must_use]
pub fn today() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    date(since.as_secs() / 86_400)
}

/// Days since 1970 as a date: Howard Hinnant's `civil_from_days`.
fn date(days: u64) -> String {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (days, text) in
            [(0, "1970-01-01"), (59, "1970-03-01"), (11_016, "2000-02-29"), (20_454, "2026-01-01")]
        {
            assert_eq!(date(days), text);
        }
    }

    #[test]
    fn expands() {
        let place = Place { url: String::new(), bucket: "b".into(), base_revision: 7 };
        assert_eq!(place.expand("/{bucket}/k{x*3} \"{+2}\" {\"a\":1}"), "/b/kxxx \"9\" {\"a\":1}");
        assert_eq!(unescape(r"a\nb\\n\q"), "a\nb\\n\\q");
    }

    #[test]
    fn parses() {
        let session = Session::parse("# c\n@ secret_key=s\n\nPUT /a\n| x\n| y\n= 200\n").unwrap();
        assert_eq!((session.policy.as_str(), session.secret()), ("secret_key=s", Some("s")));
        assert_eq!(session.steps[0].body, ["x", "y"]);
        assert!(Session::parse("= 200").unwrap_err().contains("line 1"));
        assert!(Session::parse("GET /a").unwrap_err().contains("no status"));
        assert!(Session::parse("GET /a\n! x").unwrap_err().contains("no meaning"));
    }

    #[test]
    fn keeps_what_answers_say() {
        let place = Place { url: String::new(), bucket: "b".into(), base_revision: 7 };
        let mut words = Words { place: &place, kept: Vec::new() };
        let reply = |body: &str| {
            let mut headers = reqwest::header::HeaderMap::new();
            headers.insert("x-kvdb-cursor", "c+".parse().unwrap());
            Reply { status: 200, headers, body: body.into(), hops: 0 }
        };
        let parts = [
            ("token", "", "abc\n"),
            ("job", "id", r#"{"id":7}"#),
            ("first", "/0/id", r#"[{"id":"x"}]"#),
            ("cursor", "x-kvdb-cursor", "a\n"),
        ];
        words.keep(
            parts.iter().map(|(name, field, body)| ((*name).to_owned(), part(&reply(body), field))),
        );
        let expanded = words.expand("/{bucket}/{token}/{job}/{first}/{cursor}/{other}");
        assert_eq!(expanded, "/b/abc/7/x/c+/{other}");
        words.keep(std::iter::once(("job".to_owned(), "y".to_owned())));
        assert_eq!(words.expand("{job}"), "y");
    }

    #[test]
    fn compares() {
        assert!(status_fits("200|204", 204) && status_fits("2xx", 201) && !status_fits("2xx", 301));
        assert!(header_fits("-", None) && !header_fits("-", Some("")));
        assert!(header_fits("*", Some("")) && !header_fits("*", None));
        assert!(header_fits("~If-Match", Some("accept, if-match")) && !header_fits("a", Some("b")));
    }
}
