//! The edge: HTTP in, calls of the node out. The only place that names axum.
//!
//! One handler takes every request: it takes the raw path apart (`path`), and goes by what it names
//! and the method. Dozens of routes would decode keys before we see them, and cost more than the
//! hot paths do. Around it are the accept loop ([`Service::serve`]) and, for peers,
//! [`Service::forward_target`].
//!
//! - `call`: a request taken apart; who asks; its body within limits.
//! - `leader`: run here, redirect or proxy; patience while nobody leads.
//! - `buckets`, `keys`, `list`, `scripts`, `cluster`, `health`: one resource each.
//! - `room`: what all requests together may take; `rate`: how many a client may send; `stall`: clients
//!   that do not read.
//! - `answer`: responses, formats, errors.
//!
//! Invariants:
//! - Authority is never judged here but for the admin key: the edge says who asks.
//! - A ticket is gone before anything but `leader` sees the request; queries and bodies are never logged.
//! - Every answer to a mutating call says what became of it, and claims no more than is known.
//! - A call is proposed or sent on at most once.

mod answer;
mod batch;
mod buckets;
mod call;
mod cluster;
mod consistency;
mod dry_run;
mod fields;
mod health;
mod keys;
mod leader;
mod list;
mod once;
mod owner;
mod path;
mod query;
mod rate;
mod room;
mod scripts;
mod serve;
mod stall;
mod ticket;
mod tokens;
mod watch;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::FutureExt;
use http::Method;
use http_body_util::BodyExt;
use tokio::net::TcpListener;

use self::answer::{APPLIED, Outcome};
use self::call::{Call, Origin, Payload};
use self::path::Target;
use self::rate::Rates;
use self::room::Room;
use crate::api::{Applied, ErrorCode};
use crate::config::{Config, CreateBuckets, ScriptRouting};
use crate::error::{Error, Result};
use crate::metrics;
use crate::node::{ForwardTarget, Forwarded, Node};

/// What the handlers know: the node, and how it is configured at the edge.
struct Edge {
    node: Node,
    value_bytes_max: usize,
    create_buckets: CreateBuckets,
    /// Seconds that keys of a new bucket live, where its creator does not say.
    default_ttl: u64,
    script_routing: ScriptRouting,
    room: Room,
    rates: Rates,
}

/// What answers the requests of a node's clients. Cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Edge>);

impl Service {
    /// The edge of a node.
    #[must_use]
    pub fn new(node: Node, config: &Config) -> Self {
        Service(Arc::new(Edge {
            node,
            value_bytes_max: config.value_bytes_max,
            create_buckets: config.create_buckets,
            default_ttl: config.default_ttl,
            script_routing: config.script_routing,
            room: Room::default(),
            rates: Rates::new(config),
        }))
    }

    /// Serves connections until `shutdown` is ready, then drains them.
    pub async fn serve(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let answer = move |request, origin| self.clone().answer(request, origin);
        serve::serve(listener, answer, shutdown).await;
    }

    /// What a node runs the requests with that its peers hand on to it: the same, but told where the
    /// request came from.
    #[must_use]
    pub fn forward_target(&self) -> ForwardTarget {
        let service = self.clone();
        Arc::new(move |forwarded| service.clone().run_forwarded(forwarded).boxed())
    }

    async fn run_forwarded(self, forwarded: Forwarded) -> Result<http::Response<Bytes>> {
        let origin = Origin { remote_addr: forwarded.remote_addr, hops: forwarded.hops };
        let mut request = http::Request::new(Body::from(forwarded.body));
        *request.uri_mut() = forwarded
            .path_and_query
            .parse()
            .map_err(|e| Error::invalid(format!("a peer's path: {e}")))?;
        *request.method_mut() = forwarded.method;
        *request.headers_mut() = forwarded.headers;
        let (parts, body) = self.answer(request, origin).await.into_parts();
        let body = body.collect().await.map_err(|e| Error::Internal(format!("a body: {e}")))?;
        Ok(http::Response::from_parts(parts, body.to_bytes()))
    }

    /// Answers every request.
    async fn answer(self, request: http::Request<Body>, origin: Origin) -> Response {
        let (edge, began) = (&*self.0, Instant::now());
        let (parts, body) = request.into_parts();
        let call = Call::new(parts, origin);
        let target = Target::parse(&call.path);
        let (label, allow) = match &target {
            Ok(target) => (target.label(), allow(&call, target)),
            Err(_) => ("none", ""),
        };
        let mutates = mutates(&call, target.as_ref().ok());
        let standing = edge.rates.count(&call, target.as_ref().ok());
        let target = standing.map_or(Ok(()), |standing| standing.check()).and(target);
        let outcome = match call.has_large_head() {
            true if mutates => Ok(answer::with_applied(answer::large_head(&call), Applied::No)),
            true => Ok(answer::large_head(&call)),
            false => outcome(edge, &call, target, body).await,
        };
        let mut response = match outcome {
            Ok(response) => response,
            Err(failure) => {
                edge.node.heed(&failure.error);
                let mut response = answer::from_failure(&call, &failure, Some(allow));
                if mutates {
                    let applied = ErrorCode::of(&failure.error).applied();
                    response = answer::with_applied(response, applied);
                }
                response
            }
        };
        let says = response.headers().contains_key(APPLIED);
        debug_assert!(!mutates || says, "says what became of it");
        answer::finish(response.headers_mut());
        if let Some(standing) = standing {
            standing.show(response.headers_mut());
        }
        observe(&call, label, &response, began);
        if call.method == Method::HEAD { answer::without_body(response) } else { response }
    }
}

/// Records an answer; neither a query nor a header is shown, they may hold keys.
fn observe(call: &Call, label: &'static str, response: &Response, began: Instant) {
    let (status, took) = (response.status().as_u16(), began.elapsed());
    metrics::observe_request(label, method_label(&call.method), status, took);
    let micros = took.as_micros();
    tracing::debug!(method = %call.method, path = call.path, status, micros, "answered");
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

/// What could be done where something could not: a script's source has a HEAD, a run of it has none.
fn allow(call: &Call, target: &Target) -> &'static str {
    match target {
        Target::Script(..) if call.method == Method::HEAD => "GET, PUT, POST, DELETE, OPTIONS",
        target => target.allow(),
    }
}

/// Whether a call may change something: a run of a script may, whatever the method.
fn mutates(call: &Call, target: Option<&Target>) -> bool {
    match call.method {
        Method::PUT | Method::POST | Method::PATCH | Method::DELETE => true,
        Method::GET | Method::HEAD => {
            let asks = ["source", "versions", "metrics"].iter().any(|what| call.query.flag(what));
            matches!(target, Some(Target::Script(..))) && !asks
        }
        _ => false,
    }
}

async fn outcome(edge: &Edge, call: &Call, target: Result<Target>, body: Body) -> Outcome {
    if call.method == Method::OPTIONS {
        return Ok(answer::preflight(target.map_or("OPTIONS", |target| target.allow())));
    }
    let mut payload = Payload::new(call, body, edge.room.clone());
    let outcome = match target {
        Ok(target) => dispatch(edge, call, &mut payload, &target).await,
        Err(error) => Err(error.into()),
    };
    let outcome = outcome.map(|response| edge.room.hold(response));
    payload.drain().await;
    outcome
}

/// Goes by what the path names and the method.
async fn dispatch(edge: &Edge, call: &Call, payload: &mut Payload, target: &Target) -> Outcome {
    let reads = call.reads();
    match (target, &call.method) {
        (Target::Key(bucket, key), _) if reads => keys::get(edge, call, bucket, key).await,
        (Target::Key(bucket, key), &Method::PUT | &Method::POST | &Method::PATCH)
        | (Target::Key(bucket, key), &Method::DELETE) => {
            keys::write(edge, call, payload, bucket, key).await
        }
        (Target::Script(bucket, name), _) if reads && call.query.flag("source") => {
            scripts::source(edge, call, bucket, name).await
        }
        (Target::Script(bucket, name), _) if reads && call.query.flag("versions") => {
            scripts::versions(edge, call, bucket, name).await
        }
        (Target::Script(bucket, name), _) if reads && call.query.flag("metrics") => {
            scripts::metrics(edge, call, bucket, name).await
        }
        // Not for HEAD: who asks for it expects that nothing runs.
        (Target::Script(bucket, name), &Method::GET | &Method::POST) => {
            scripts::run(edge, call, payload, bucket, name).await
        }
        (Target::Script(bucket, name), &Method::PUT) => {
            scripts::put(edge, call, payload, bucket, name).await
        }
        (Target::Script(bucket, name), &Method::DELETE) => {
            scripts::delete(edge, call, payload, bucket, name).await
        }
        (Target::Keys(bucket), _) if reads && call.query.flag("watch") => {
            watch::watch(edge, call, bucket).await
        }
        (Target::Keys(bucket), _) if reads => list::list(edge, call, bucket).await,
        (Target::Scripts(bucket), _) if reads => scripts::list(edge, call, bucket).await,
        (Target::Root, &Method::POST) => buckets::create(edge, call, payload).await,
        (Target::Bucket(_) | Target::Tokens(_) | Target::Token(..), _)
        | (Target::Keys(_), &Method::DELETE)
        | (Target::Scripts(_), &Method::POST) => dispatch_owned(edge, call, payload, target).await,
        _ => dispatch_own(edge, call, payload, target).await,
    }
}

/// The same for what mostly the owner of a bucket does.
async fn dispatch_owned(
    edge: &Edge,
    call: &Call,
    payload: &mut Payload,
    target: &Target,
) -> Outcome {
    let reads = call.reads();
    match (target, &call.method) {
        (Target::Bucket(bucket), _) if reads => buckets::policy(edge, call, bucket).await,
        (Target::Bucket(bucket), &Method::POST) => batch::run(edge, call, payload, bucket).await,
        (Target::Bucket(bucket), &Method::PATCH) => {
            buckets::change(edge, call, payload, bucket).await
        }
        (Target::Keys(bucket), &Method::DELETE) => {
            buckets::delete(edge, call, payload, bucket).await
        }
        (Target::Tokens(bucket), _) if reads => tokens::list(edge, call, bucket).await,
        (Target::Tokens(bucket), &Method::POST) => tokens::mint(edge, call, payload, bucket).await,
        (Target::Token(bucket, id), &Method::DELETE) => {
            tokens::revoke(edge, call, payload, bucket, id).await
        }
        (Target::Scripts(bucket), &Method::POST) => dry_run::run(edge, call, payload, bucket).await,
        _ => dispatch_own(edge, call, payload, target).await,
    }
}

/// The same for the paths that are no bucket's.
async fn dispatch_own(edge: &Edge, call: &Call, payload: &mut Payload, target: &Target) -> Outcome {
    let reads = call.reads();
    match target {
        Target::Livez if reads => Ok(health::live()),
        Target::Readyz if reads => Ok(health::ready(edge)),
        Target::Metrics if reads => Ok(health::render(edge)),
        Target::OpenApi if reads => Ok(health::describe()),
        Target::Cluster if reads => cluster::status(edge),
        Target::Digest if reads => cluster::digest(edge, call).await,
        Target::Snapshot if call.method == Method::POST => cluster::snapshot(edge, call).await,
        Target::Members | Target::Member(_) | Target::Promote(_) | Target::Leader
            if call.method == cluster::method(target) =>
        {
            cluster::change(edge, call, payload, target).await
        }
        _ => Err(Error::MethodNotAllowed(format!(
            "there is no {} here, but {}",
            call.method,
            allow(call, target)
        ))
        .into()),
    }
}
