//! Getting a call to the leader: run here, redirect or proxy.
//!
//! Who leads may change at any moment, and an election leaves nobody for a while. As long as nothing
//! was proposed, a call is routed again, for at most [`PATIENCE`]; it is never proposed or sent twice.
//!
//! A redirect is for script calls: 307 to the leader's advertised URL with path and query as sent.
//! Clients drop `Authorization` on the way, so the leader is asked for a ticket in its place: single
//! use, bound to method, path and query. Whoever issued a ticket takes it, also when it does not lead
//! any more; it then obtains another from the new leader. Hops are counted, or two nodes that each
//! believe in the other would play with the call for ever.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, LOCATION, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::time::Instant;

use super::Edge;
use super::answer::{self, APPLIED, Outcome, from_told, respond, with_applied};
use super::call::{Call, Payload};
use super::once::once;
use super::query::add_ticket;
use super::ticket::{HOPS_MAX, Ticket};
use crate::api::Applied;
use crate::config::ScriptRouting;
use crate::error::{Error, Failure, Result};
use crate::kv::{Answer, BucketName, Operation};
use crate::metrics;
use crate::mutant::{self, Mutant};
use crate::node::{Forwarded, Leadership, Member, Request};

/// How long a call waits for a leader.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long it waits before it looks again.
const PAUSE: Duration = Duration::from_millis(20);
/// What a connection says, not a request.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    CONTENT_LENGTH,
    EXPECT,
    HOST,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The time left to find a leader.
pub(super) struct Patience(Instant);

impl Patience {
    pub(super) fn new() -> Self {
        Patience(Instant::now() + PATIENCE)
    }

    /// Waits a little, or gives up.
    pub(super) async fn pause(&self) -> Result<()> {
        if Instant::now() >= self.0 {
            return Err(Error::NoLeader("an election is under way, ask again".to_owned()));
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

/// Whether an error says that nothing was proposed or sent, so that the call may be routed again.
fn may_reroute(error: &Error) -> bool {
    matches!(error, Error::NotLeader { .. } | Error::NoLeader(_))
        || (mutant::is(Mutant::BlindRetry) && matches!(error, Error::Unknown(_)))
}

/// How a call that this node cannot run travels.
pub(super) enum Route<'a> {
    /// Proxied.
    Proxy,
    /// Redirected where the configuration says so: a call of this bucket's scripts.
    Script(&'a BucketName),
}

/// Runs a call on the leader, wherever that is. `run` is called only here, and again only after it
/// said that nothing was proposed. The body is read when it is needed, with its limit.
pub(super) async fn on_leader<F>(
    edge: &Edge,
    call: &Call,
    payload: &mut Payload,
    limit: (&'static str, usize),
    route: Route<'_>,
    run: impl Fn(bytes::Bytes) -> F,
) -> Outcome
where
    F: Future<Output = Outcome>,
{
    let patience = Patience::new();
    loop {
        let result: Outcome = match (edge.node.leadership(), &route) {
            (Leadership::Own, _) => run(payload.read(limit.0, limit.1).await?).await,
            (Leadership::Other(leader), Route::Script(bucket)) if redirects(edge, call) => {
                redirect(edge, call, payload, bucket, &leader).await
            }
            (Leadership::Other(_), Route::Script(bucket)) if call.principal.get().is_some() => {
                // The ticket is spent here: the leader takes another in its place.
                let body = payload.read(limit.0, limit.1).await?;
                match ticket(edge, call, bucket).await {
                    Ok(ticket) => {
                        forward(edge, call, Some(&ticket), body).await.map_err(Failure::from)
                    }
                    Err(failure) => Err(failure),
                }
            }
            (Leadership::Other(_), _) => {
                let body = payload.read(limit.0, limit.1).await?;
                forward(edge, call, None, body).await.map_err(Failure::from)
            }
            (Leadership::Unknown, _) => Err(Error::NotLeader { leader: None }.into()),
        };
        match result {
            Err(failure) if may_reroute(&failure.error) => patience.pause().await?,
            Ok(done)
                if done.status().is_success() && mutant::strikes(Mutant::RedirectDenied, 50) =>
            {
                return Err(Error::NoLeader("the leader was lost".to_owned()).into());
            }
            result => return result,
        }
    }
}

/// A change that is no script: of which bucket, and how large its body may be.
pub(super) struct Write<'a> {
    pub(super) bucket: &'a BucketName,
    pub(super) limit: (&'static str, usize),
    /// How the answer is said.
    pub(super) dress: fn(&Call, Answer) -> Result<Answer>,
}

impl<'a> Write<'a> {
    /// One whose answer is said as it is.
    pub(super) fn plain(bucket: &'a BucketName, limit: (&'static str, usize)) -> Self {
        Write { bucket, limit, dress: |_, answer| Ok(answer) }
    }
}

/// Makes a change on the leader, wherever that is: `operation` says of the body what it is.
pub(super) async fn write_on_leader(
    edge: &Edge,
    call: &Call,
    payload: &mut Payload,
    Write { bucket, limit, dress }: Write<'_>,
    operation: impl Fn(bytes::Bytes) -> Result<Operation>,
) -> Outcome {
    let credential = call.credential()?;
    let run = async |body: bytes::Bytes| {
        let once = once(call, &body)?;
        let request = Request::Operation(operation(body)?);
        let answer = edge.node.execute(bucket, request, credential.clone(), once).await?;
        from_told(dress(call, answer).map_err(|error| Error::Unknown(error.to_string()).into()))
    };
    on_leader(edge, call, payload, limit, Route::Proxy, run).await
}

/// Asks again while there is no leader to confirm a read.
pub(super) async fn patiently<T, F>(read: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let patience = Patience::new();
    loop {
        match read().await {
            Err(error) if may_reroute(&error) => patience.pause().await?,
            result => return result,
        }
    }
}

/// What a peer handed on is answered to that peer, which cannot follow.
fn redirects(edge: &Edge, call: &Call) -> bool {
    edge.script_routing == ScriptRouting::Redirect && call.origin.hops == 0
}

/// A call that brings a ticket is who the ticket says, if the ticket is good.
pub(super) fn redeem(edge: &Edge, call: &Call) -> Result<()> {
    let Some(ticket) = &call.ticket else { return Ok(()) };
    let path_and_query = call.path_and_query();
    let principal = edge.node.take_ticket(&ticket.nonce, call.method.as_str(), &path_and_query);
    let principal = principal.ok_or_else(|| {
        Error::Unauthorized(
            "the ticket was used, is too old or belongs to another request: call again without \
             `kvdb_ticket`"
                .to_owned(),
        )
    })?;
    call.principal.get_or_init(|| principal);
    Ok(())
}

async fn ticket(
    edge: &Edge,
    call: &Call,
    bucket: &BucketName,
) -> std::result::Result<Ticket, Failure> {
    let hops = call.ticket.as_ref().map_or(0, |ticket| ticket.hops);
    check_hops(hops)?;
    let (method, path_and_query) = (call.method.as_str(), call.path_and_query());
    let credential = call.credential()?;
    let nonce = edge.node.issue_ticket(bucket, method, &path_and_query, &credential).await?;
    Ok(Ticket { nonce, hops: hops + 1 })
}

fn check_hops(hops: u8) -> Result<()> {
    if hops < HOPS_MAX {
        return Ok(());
    }
    Err(Error::NoLeader(format!("the call was handed on {HOPS_MAX} times without finding one")))
}

async fn redirect(
    edge: &Edge,
    call: &Call,
    payload: &mut Payload,
    bucket: &BucketName,
    leader: &Member,
) -> Outcome {
    let ticket = match call.needs_ticket() {
        true => Some(ticket(edge, call, bucket).await?),
        false => None,
    };
    // A ticket of one node is worth nothing at another.
    if edge.node.leadership() != Leadership::Other(leader.clone()) {
        return Err(Error::NotLeader { leader: None }.into());
    }
    payload.drain().await;
    metrics::count_redirect();
    let location = location(&leader.url, &call.path_and_query(), ticket.as_ref());
    let location = HeaderValue::from_str(&location)
        .map_err(|_| Error::invalid("the path or query has bytes that must be percent-encoded"))?;
    let mut response = respond(
        StatusCode::TEMPORARY_REDIRECT,
        answer::TEXT,
        "scripts run on the leader: follow Location\n".into(),
    );
    response.headers_mut().insert(LOCATION, location);
    Ok(with_applied(response, Applied::No))
}

/// Where the leader answers the call.
fn location(base_url: &str, path_and_query: &str, ticket: Option<&Ticket>) -> String {
    match ticket {
        Some(ticket) => format!("{base_url}{}", add_ticket(path_and_query, &ticket.text())),
        None => format!("{base_url}{path_and_query}"),
    }
}

async fn forward(
    edge: &Edge,
    call: &Call,
    ticket: Option<&Ticket>,
    body: bytes::Bytes,
) -> Result<Response> {
    check_hops(call.origin.hops)?;
    // The answer cannot be refused once it is there.
    edge.room.check()?;
    metrics::count_forward();
    let path_and_query = location("", &call.path_and_query(), ticket);
    let request = Forwarded {
        method: call.method.clone(),
        path_and_query,
        headers: end_to_end(&call.headers),
        body,
        remote_addr: call.origin.remote_addr.clone(),
        hops: call.origin.hops + 1,
    };
    let response = edge.node.forward(request).await?;
    let (parts, body) = response.into_parts();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = parts.status;
    *response.headers_mut() = end_to_end(&parts.headers);
    // A leader that did not say what became of the call leaves it unknown.
    if !response.headers().contains_key(APPLIED) {
        response = with_applied(response, Applied::Unknown);
    }
    Ok(response)
}

fn end_to_end(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for name in &HOP_BY_HOP {
        kept.remove(name);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_location_is_the_call_as_sent() {
        let ticket = |hops| Ticket { nonce: "n".to_owned(), hops };
        for (sent, ticket, expected) in [
            ("/b/scripts/s", None, "http://l:1/b/scripts/s"),
            ("/b/scripts/s?a=%20+&&b", None, "http://l:1/b/scripts/s?a=%20+&&b"),
            ("/b/scripts/s", Some(ticket(1)), "http://l:1/b/scripts/s?kvdb_ticket=n"),
            ("/b/scripts/s?", Some(ticket(1)), "http://l:1/b/scripts/s?&kvdb_ticket=n"),
            ("/b/scripts/s?a=1", Some(ticket(2)), "http://l:1/b/scripts/s?a=1&kvdb_ticket=n.2"),
            ("//evil.example/x", None, "http://l:1//evil.example/x"),
        ] {
            assert_eq!(location("http://l:1", sent, ticket.as_ref()), expected, "{sent}");
        }
    }

    #[test]
    fn what_a_connection_says_stays_behind() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("host", "a"), ("connection", "close"), ("authorization", "Bearer k"), ("x-a", "1")]
        {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let kept = end_to_end(&headers);
        let mut names: Vec<_> = kept.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "x-a"]);
    }

    #[test]
    fn hops_end() {
        assert!(check_hops(0).is_ok() && check_hops(HOPS_MAX - 1).is_ok());
        assert!(matches!(check_hops(HOPS_MAX), Err(Error::NoLeader(_))));
    }

    #[tokio::test]
    async fn patience_ends() {
        let patience = Patience(Instant::now() + PAUSE * 2);
        let mut pauses = 0;
        while patience.pause().await.is_ok() {
            pauses += 1;
        }
        assert!((1..=2).contains(&pauses));
        assert!(matches!(patience.pause().await, Err(Error::NoLeader(_))));
    }

    #[tokio::test]
    async fn only_what_was_not_proposed_is_asked_again() {
        let asked = std::cell::Cell::new(0);
        let answers = async |errors: &[Error]| {
            let answer = async || {
                asked.set(asked.get() + 1);
                errors.get(asked.get() - 1).cloned().map_or(Ok(()), Err)
            };
            patiently(answer).await
        };
        let leaderless = [Error::NotLeader { leader: None }, Error::NoLeader("x".into())];
        assert_eq!(answers(&leaderless).await, Ok(()));
        assert_eq!(asked.replace(0), 3);
        let unknown = [Error::Unknown("x".into())];
        assert_eq!(answers(&unknown).await, Err(Error::Unknown("x".into())));
        assert_eq!(asked.get(), 1);
    }
}
