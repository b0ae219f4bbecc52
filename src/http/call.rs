//! A request as the edge sees it: who asks, for what, and where the request has been.

use std::sync::OnceLock;
use std::time::Duration;

use axum::body::Body;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, EXPECT, IF_MATCH, IF_NONE_MATCH};
use http::{HeaderMap, HeaderName, Method, Version, request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tokio::sync::OwnedSemaphorePermit;

use super::query::{Query, split_ticket};
use super::room::Room;
use super::ticket::Ticket;
use crate::error::{Error, Result};
use crate::kv::Credential;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);
/// How much of a body that nobody reads is taken, so that the client reads the answer.
const DRAIN_BYTES_MAX: usize = 8 << 20;
/// How long that may take.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Largest path, query and headers of a client's request, counted as HTTP/2 counts. A follower hands
/// them on with some of its own, and peers take 16 KiB: every node must answer the same.
pub(super) const HEAD_BYTES_MAX: usize = 12 << 10;
/// What HTTP/2 counts for a header beside its name and value.
const HEADER_OVERHEAD: usize = 32;

/// Where a request comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    /// The client's IP address, also behind a follower's proxy.
    pub(super) remote_addr: String,
    /// How many nodes handed it on.
    pub(super) hops: u8,
}

/// A request without its body, the ticket taken off.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) version: Version,
    /// As sent.
    pub(super) path: String,
    /// As sent, without a ticket.
    pub(super) raw_query: Option<String>,
    pub(super) query: Query,
    pub(super) ticket: Option<Ticket>,
    pub(super) headers: HeaderMap,
    pub(super) origin: Origin,
    /// Who a ticket says asks, once it was redeemed.
    pub(super) principal: OnceLock<Credential>,
}

impl Call {
    /// Takes a request's head apart.
    pub(super) fn new(parts: request::Parts, origin: Origin) -> Self {
        let (raw_query, ticket) = split_ticket(parts.uri.query());
        Call {
            method: parts.method,
            version: parts.version,
            path: parts.uri.path().to_owned(),
            query: Query::parse(raw_query.as_deref().unwrap_or_default().as_bytes()),
            raw_query,
            ticket: ticket.map(|ticket| Ticket::parse(&ticket)),
            headers: parts.headers,
            origin,
            principal: OnceLock::new(),
        }
    }

    /// Path and query as sent, without a ticket.
    pub(super) fn path_and_query(&self) -> String {
        match &self.raw_query {
            Some(query) => format!("{}?{query}", self.path),
            None => self.path.clone(),
        }
    }

    /// Whether it is to be answered as a GET is.
    pub(super) fn reads(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    /// A header as text; nothing where it is absent or no text.
    pub(super) fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Whether path, query and headers are more than a node takes; what a peer handed on was judged
    /// there, and has a ticket added.
    pub(super) fn has_large_head(&self) -> bool {
        let headers = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len());
        let headers: usize = headers.map(|bytes| bytes + HEADER_OVERHEAD).sum();
        let query = self.raw_query.as_ref().map_or(0, String::len);
        self.origin.hops == 0 && self.path.len() + query + headers > HEAD_BYTES_MAX
    }

    /// A header's values as texts. To overlook one that cannot be read could mean the contrary of what
    /// the client asked for.
    pub(super) fn texts(&self, name: &HeaderName) -> Result<Vec<&str>> {
        let unreadable = |_| Error::invalid(format!("the header `{name}` is not ASCII"));
        let values = self.headers.get_all(name).iter();
        values.map(|value| value.to_str().map(str::trim).map_err(unreadable)).collect()
    }

    /// Fails where a condition is set on what takes none: ignored, it would not protect.
    pub(super) fn check_unconditional(&self) -> Result<()> {
        match [IF_MATCH, IF_NONE_MATCH].iter().find(|name| self.headers.contains_key(*name)) {
            Some(name) => Err(Error::invalid(format!("`{name}` is not supported here"))),
            None => Ok(()),
        }
    }

    /// Who asks; judged elsewhere.
    pub(super) fn credential(&self) -> Result<Credential> {
        if let Some(principal) = self.principal.get() {
            return Ok(principal.clone());
        }
        if let Some(header) = self.headers.get(AUTHORIZATION) {
            let text = header.to_str().map_err(|_| unreadable())?;
            let credential = parse_authorization(text)?;
            // One without a key says nothing, and would get no ticket: as if it were not there.
            if !credential.is_none() {
                return Ok(credential);
            }
        }
        Ok(self.query.credential().map_or(Credential::NONE, Credential::new))
    }

    /// Whether the credential would be lost on the way through a redirect.
    pub(super) fn needs_ticket(&self) -> bool {
        let header = || self.header(&AUTHORIZATION).map(parse_authorization);
        match self.principal.get() {
            Some(principal) => !principal.is_none(),
            None => header().is_some_and(|key| key.is_ok_and(|key| !key.is_none())),
        }
    }

    /// Whether the body has this media type, whatever its parameters.
    pub(super) fn is_content(&self, media: &str) -> bool {
        let content_type = self.header(&CONTENT_TYPE).unwrap_or_default();
        let own = content_type.split(';').next().unwrap_or_default();
        own.trim().eq_ignore_ascii_case(media)
    }

    /// Whether the body is a form, which is also what curl calls every body.
    pub(super) fn is_form(&self) -> bool {
        self.is_content("application/x-www-form-urlencoded")
    }

    /// `Accept` as it was sent.
    pub(super) fn accept(&self) -> &str {
        self.header(&ACCEPT).unwrap_or_default()
    }

    /// Whether the client holds the body back until it is asked for.
    pub(super) fn expects_continue(&self) -> bool {
        self.header(&EXPECT).is_some_and(|expect| expect.eq_ignore_ascii_case("100-continue"))
    }
}

fn unreadable() -> Error {
    Error::Unauthorized(
        "the Authorization header cannot be read: send `Bearer KEY`, or Basic with the key as user"
            .to_owned(),
    )
}

/// The key in `Bearer KEY`, or in the user name of `Basic …`.
fn parse_authorization(text: &str) -> Result<Credential> {
    let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let rest = rest.trim();
    let key = if scheme.eq_ignore_ascii_case("bearer") {
        rest.to_owned()
    } else if scheme.eq_ignore_ascii_case("basic") {
        let bytes = BASE64_STANDARD.decode(rest).map_err(|_| unreadable())?;
        let pair = String::from_utf8(bytes).map_err(|_| unreadable())?;
        pair.split_once(':').map_or(pair.as_str(), |(user, _)| user).to_owned()
    } else {
        return Err(unreadable());
    };
    Ok(if key.is_empty() { Credential::NONE } else { Credential::new(key) })
}

/// A request's body: read at most once, kept where it may be needed again.
pub(super) struct Payload {
    body: Option<Body>,
    bytes: Bytes,
    held_back: bool,
    room: Room,
    /// What the bytes take of the room, until the answer is made.
    held: Option<OwnedSemaphorePermit>,
}

impl Payload {
    /// A body not read yet.
    pub(super) fn new(call: &Call, body: Body, room: Room) -> Self {
        let held_back = call.expects_continue();
        Payload { body: Some(body), bytes: Bytes::new(), held_back, room, held: None }
    }

    /// The whole body, if it has no more bytes than `max`; counted as they come.
    pub(super) async fn read(&mut self, limit: &'static str, max: usize) -> Result<Bytes> {
        let Some(mut body) = self.body.take() else { return Ok(self.bytes.clone()) };
        let too_large = || Error::TooLarge { limit, max: max as u64 };
        if http_body::Body::size_hint(&body).lower() > max as u64 {
            self.body = Some(body);
            self.drain().await;
            return Err(too_large());
        }
        let whole = self.collect(Limited::new(&mut body, max), too_large);
        match tokio::time::timeout(BODY_TIME, whole).await {
            Ok(Ok(bytes)) => self.bytes = bytes,
            Ok(Err(error)) => {
                self.held = None;
                if !matches!(error, Error::Invalid(_)) {
                    self.body = Some(body);
                    // What came so far shows that the client does not wait to be asked.
                    self.held_back = false;
                    self.drain().await;
                }
                return Err(error);
            }
            Err(_) => {
                let seconds = BODY_TIME.as_secs();
                return Err(Error::invalid(format!("the body took longer than {seconds} s")));
            }
        }
        Ok(self.bytes.clone())
    }

    /// The bytes of a body, as long as there is room for them.
    async fn collect(
        &mut self,
        mut body: Limited<&mut Body>,
        too_large: impl Fn() -> Error,
    ) -> Result<Bytes> {
        let mut chunks: Vec<Bytes> = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| match error.is::<LengthLimitError>() {
                true => too_large(),
                false => Error::invalid("the request's body broke off"),
            })?;
            if let Ok(chunk) = frame.into_data() {
                self.room.add(&mut self.held, chunk.len())?;
                chunks.push(chunk);
            }
        }
        match <[Bytes; 1]>::try_from(chunks) {
            Ok([whole]) => Ok(whole),
            Err(chunks) => Ok(chunks.concat().into()),
        }
    }

    /// Takes the rest of a body that nobody wants, within bounds: a client that is answered while it
    /// sends may see its connection reset, and lose the answer.
    pub(super) async fn drain(&mut self) {
        let Some(body) = self.body.take().filter(|_| !self.held_back) else { return };
        let rest = async {
            let mut body = Limited::new(body, DRAIN_BYTES_MAX);
            while let Some(Ok(_)) = body.frame().await {}
        };
        // Whatever is left then is the client's loss.
        let _ = tokio::time::timeout(DRAIN_TIME, rest).await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(uri: &str, headers: &[(&str, &str)]) -> Call {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Call::new(request.body(()).unwrap().into_parts().0, Origin::default())
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", BASE64_STANDARD.encode(pair))
    }

    #[test]
    fn credentials_are_found_where_clients_put_them() {
        let key = Credential::new("k");
        for header in ["Bearer k", "bearer  k ", &basic("k:"), &basic("k"), &basic("k:ignored")] {
            let call = call("/b/x?key=other", &[("authorization", header)]);
            assert!(call.credential().unwrap() == key, "{header}");
            assert!(call.needs_ticket());
        }
        for uri in ["/b/x?key=k", "/b/x?access_token=k&key=other", "/b/x?key=%6b"] {
            assert!(call(uri, &[]).credential().unwrap() == key, "{uri}");
            assert!(!call(uri, &[]).needs_ticket());
        }
        for header in ["Bearer", "Bearer ", &basic(""), &basic(":password")] {
            let stranger = call("/b/x", &[("authorization", header)]);
            assert!(stranger.credential().unwrap().is_none(), "{header}");
            assert!(!stranger.needs_ticket(), "{header}");
            let keyed = call("/b/x?key=k", &[("authorization", header)]);
            assert!(keyed.credential().unwrap() == key, "{header}");
        }
        assert!(call("/b/x", &[]).credential().unwrap().is_none());
    }

    #[test]
    fn heads_are_limited_as_peers_count_them() {
        let long = |bytes: usize| "x".repeat(bytes);
        let name_and_path = "a".len() + "/".len() + HEADER_OVERHEAD;
        let fits = long(HEAD_BYTES_MAX - name_and_path);
        assert!(!call("/", &[("a", &fits)]).has_large_head());
        assert!(call("/b", &[("a", &fits)]).has_large_head());
        assert!(call(&format!("/?{}", long(HEAD_BYTES_MAX)), &[]).has_large_head());
    }

    #[test]
    fn an_unreadable_credential_is_no_stranger() {
        for header in ["", "k", "Digest k", "Basic ***", "Basic /w==", "Bearer\tk"] {
            let result = call("/b/x?key=k", &[("authorization", header)]).credential();
            assert!(matches!(result, Err(Error::Unauthorized(_))), "{header:?}");
        }
    }

    #[test]
    fn a_ticket_is_gone_before_anything_looks() {
        let call = call("/b/scripts/s?a=1&kvdb_ticket=n", &[]);
        assert_eq!(call.path_and_query(), "/b/scripts/s?a=1");
        assert_eq!(call.query.get("kvdb_ticket"), None);
        assert_eq!(call.ticket.unwrap().nonce, "n");
    }

    #[test]
    fn media_types_are_compared_without_parameters() {
        let form = "Application/x-www-form-urlencoded; charset=utf-8";
        assert!(call("/", &[("content-type", form)]).is_form());
        assert!(!call("/", &[("content-type", "text/plain")]).is_form());
        assert!(!call("/", &[]).is_form());
    }

    #[tokio::test]
    async fn a_body_is_counted_as_it_comes() {
        let head = call("/", &[]);
        let chunks = |n: usize| {
            let chunks = (0..n).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"1234")));
            Body::from_stream(futures::stream::iter(chunks))
        };
        let payload = |body| Payload::new(&head, body, Room::default());
        let mut whole = payload(chunks(2));
        assert_eq!(whole.read("a body", 8).await.unwrap(), "12341234");
        assert_eq!(whole.read("a body", 8).await.unwrap(), "12341234", "kept");
        let refused = payload(chunks(3)).read("a body", 8).await.unwrap_err();
        assert_eq!(refused.to_string(), "a body is limited to 8 bytes");
        let known = payload(Body::from("123456789")).read("a body", 8).await;
        assert!(matches!(known, Err(Error::TooLarge { .. })));

        let room = Room::new(0, 8);
        let mut first = Payload::new(&head, chunks(2), room.clone());
        assert_eq!(first.read("a body", 8).await.unwrap(), "12341234");
        let full = Payload::new(&head, chunks(1), room.clone()).read("a body", 8).await;
        assert!(matches!(full, Err(Error::Overloaded(_))));
        drop(first);
        assert!(Payload::new(&head, chunks(2), room).read("a body", 8).await.is_ok());
    }

    proptest! {
        #[test]
        fn reading_a_credential_never_panics(header: String) {
            let _ = parse_authorization(&header);
            let _ = parse_authorization(&format!("Basic {header}"));
        }
    }
}
