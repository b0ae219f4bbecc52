//! Query strings and forms: pairs of a name and bytes. Parsing never fails.
//!
//! A ticket (`kvdb_ticket`) is taken off the raw query before anything else sees it, and what is left
//! is, byte for byte, what the follower that redirected was sent: the leader compares.

use std::borrow::Cow;

use bytes::Bytes;

use crate::api::paths::{CREDENTIALS, TICKET};
use crate::error::{Error, Result};

/// Most fields of a form.
const FORM_FIELDS_MAX: usize = 1000;

/// The pairs of a query or a form, in the order they were sent.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Query(Vec<(String, Bytes)>);

impl Query {
    /// Parses `a=1&b=2`, with `+` for a space and `%XX`; what is no escape stays as it is.
    pub(super) fn parse(raw: &[u8]) -> Self {
        let pairs = raw.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
        Query(pairs.map(parse_pair).collect())
    }

    /// The same for a form, which may be as long as a body: with its own limit, for a field in memory takes
    /// many times its bytes.
    pub(super) fn parse_form(raw: &[u8]) -> Result<Self> {
        if raw.iter().filter(|byte| **byte == b'&').count() >= FORM_FIELDS_MAX {
            return Err(Error::invalid(format!("a form has at most {FORM_FIELDS_MAX} fields")));
        }
        Ok(Self::parse(raw))
    }

    /// A parameter's bytes; the last, where it was sent more than once.
    pub(super) fn get(&self, name: &str) -> Option<&Bytes> {
        self.0.iter().rev().find(|(own, _)| own == name).map(|(_, value)| value)
    }

    /// A parameter as text.
    pub(super) fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(|value| String::from_utf8_lossy(value))
    }

    /// Whether a parameter is there and does not say no.
    pub(super) fn flag(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| !matches!(&value[..], b"0" | b"false" | b"no"))
    }

    /// A parameter as a count.
    pub(super) fn count(&self, name: &str, default: usize) -> Result<usize> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| {
                Error::invalid(format!("`{name}` is a whole number, 0 or more, not `{text}`"))
            }),
        }
    }

    /// The credential among the parameters.
    pub(super) fn credential(&self) -> Option<Cow<'_, str>> {
        CREDENTIALS.iter().find_map(|name| self.text(name).filter(|text| !text.is_empty()))
    }

    /// The pairs as texts, for a script; without tickets.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&str, String)> {
        self.0
            .iter()
            .filter(|(name, _)| name != TICKET)
            .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value).into_owned()))
    }
}

fn parse_pair(pair: &[u8]) -> (String, Bytes) {
    let mut halves = pair.splitn(2, |byte| *byte == b'=');
    let name = decode(halves.next().unwrap_or_default());
    let value = decode(halves.next().unwrap_or_default());
    (String::from_utf8_lossy(&name).into_owned(), value.into())
}

fn decode(text: &[u8]) -> Vec<u8> {
    let spaced: Vec<u8> = text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    percent_encoding::percent_decode(&spaced).collect()
}

/// Takes the tickets off a raw query: what was sent before one was added, and the last ticket.
pub(super) fn split_ticket(raw: Option<&str>) -> (Option<String>, Option<String>) {
    let Some(raw) = raw else { return (None, None) };
    if !raw.contains(TICKET) {
        return (Some(raw.to_owned()), None);
    }
    let ticket = |pair: &'_ str| -> Option<String> {
        pair.strip_prefix(TICKET)?.strip_prefix('=').map(str::to_owned)
    };
    let nonce = raw.split('&').filter_map(ticket).next_back();
    let kept: Vec<_> = raw.split('&').filter(|pair| ticket(pair).is_none()).collect();
    let query = if kept.is_empty() { None } else { Some(kept.join("&")) };
    (query, nonce)
}

/// Adds a ticket to a path and query, so that [`split_ticket`] gives back what was there.
pub(super) fn add_ticket(path_and_query: &str, nonce: &str) -> String {
    let separator = if path_and_query.contains('?') { '&' } else { '?' };
    format!("{path_and_query}{separator}{TICKET}={nonce}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs() {
        let query = Query::parse(b"a=1&b=x+y%21&&c&a=2&=v&d=%ff&e=%zz&f=a=b");
        assert_eq!(query.text("a").unwrap(), "2");
        assert_eq!(query.text("b").unwrap(), "x y!");
        assert_eq!(query.text("c").unwrap(), "");
        assert_eq!(query.text("").unwrap(), "v");
        assert_eq!(query.get("d").unwrap(), &b"\xff"[..]);
        assert_eq!(query.text("e").unwrap(), "%zz");
        assert_eq!(query.text("f").unwrap(), "a=b");
        assert_eq!(query.get("g"), None);
    }

    #[test]
    fn forms_have_a_limit() {
        let form = |fields: usize| Query::parse_form("a=1&".repeat(fields - 1).as_bytes());
        assert!(form(FORM_FIELDS_MAX).is_ok());
        assert!(matches!(form(FORM_FIELDS_MAX + 1), Err(Error::Invalid(_))));
    }

    #[test]
    fn flags_and_counts() {
        let query = Query::parse(b"on&yes=1&off=0&no=false&n=12&bad=x&minus=-1");
        assert!(query.flag("on") && query.flag("yes"));
        assert!(!query.flag("off") && !query.flag("no") && !query.flag("absent"));
        assert_eq!(query.count("n", 5).unwrap(), 12);
        assert_eq!(query.count("absent", 5).unwrap(), 5);
        assert!(query.count("bad", 5).is_err() && query.count("minus", 5).is_err());
    }

    #[test]
    fn credentials() {
        assert_eq!(Query::parse(b"key=k").credential().unwrap(), "k");
        assert_eq!(Query::parse(b"key=k&access_token=t").credential().unwrap(), "t");
        assert_eq!(Query::parse(b"key=&x=1").credential(), None);
    }

    #[test]
    fn a_ticket_is_taken_off_wherever_it_is() {
        let split = |raw: &str| split_ticket(Some(raw));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(split("kvdb_ticket=n"), (None, some("n")));
        assert_eq!(split("a=1&kvdb_ticket=n&b=2"), (some("a=1&b=2"), some("n")));
        assert_eq!(split("kvdb_ticket=m&a=1&kvdb_ticket=n"), (some("a=1"), some("n")));
        assert_eq!(split("my_kvdb_ticket=n"), (some("my_kvdb_ticket=n"), None));
        assert_eq!(split("kvdb_tickets=n"), (some("kvdb_tickets=n"), None));
        assert_eq!(split_ticket(None), (None, None));
        let spelled = Query::parse(b"kvdb%5Fticket=n&a=1");
        assert_eq!(spelled.texts().collect::<Vec<_>>(), [("a", "1".to_owned())]);
    }

    proptest! {
        #[test]
        fn parsing_never_panics(raw: Vec<u8>) {
            let query = Query::parse(&raw);
            let _ = (query.credential(), query.flag("a"), query.count("a", 0));
        }

        #[test]
        fn a_ticket_comes_off_as_it_went_on(query in proptest::option::of("[ -~&&[^#]]{0,20}")) {
            let sent = match &query {
                Some(query) => format!("/b/scripts/s?{query}"),
                None => "/b/scripts/s".to_owned(),
            };
            let redirected = add_ticket(&sent, "nonce");
            let (path, raw) = redirected.split_once('?').unwrap();
            prop_assert_eq!(path, "/b/scripts/s");
            prop_assert_eq!(split_ticket(Some(raw)), (query, Some("nonce".to_owned())));
        }
    }
}
