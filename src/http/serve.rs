//! The accept loop: what `axum::serve` leaves out.
//!
//! Connections are bounded, and a slow or broken client is a task of its own: it never stops the
//! loop. TCP_NODELAY, or small answers wait for the client's acknowledgement. HTTP/1 and HTTP/2 with
//! prior knowledge on one port. A client has [`FIRST_REQUEST_TIME`] to begin a request, then
//! [`HEADER_TIME`] between one and the end of the next one's headers. When the loop is told to
//! stop, it accepts no more, and gives what is under way [`DRAIN_TIME`].

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures::FutureExt;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::call::Origin;
use super::stall::Stalling;
use crate::metrics::{self, OpenConnection};

/// Most connections at a time; others wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 10_000;
/// How long a new connection may go without a request.
const FIRST_REQUEST_TIME: Duration = Duration::from_secs(15);
/// How long an HTTP/1 connection may take for the next request's headers, idle time included: more
/// than the minute after which most clients give up an idle connection, so that they do it first.
const HEADER_TIME: Duration = Duration::from_secs(75);
/// How often an HTTP/2 connection is asked whether it lives.
const PING_EVERY: Duration = Duration::from_secs(20);
/// Most requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// Largest head of a request that is read: more than one may have, so that it is told what the limit is.
const HEADER_BYTES_MAX: usize = 32 << 10;
/// Wait after a connection could not be accepted: it passes when others close, not by trying.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long what is under way may take once the loop is told to stop.
const DRAIN_TIME: Duration = Duration::from_secs(10);

/// Serves connections until `shutdown` is ready, then drains them.
pub(super) async fn serve<A, F>(
    listener: TcpListener,
    answer: A,
    shutdown: impl Future<Output = ()>,
) where
    A: Fn(http::Request<Body>, Origin) -> F + Clone + Send + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let builder = Arc::new(builder());
    let graceful = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let upkeep = tokio::spawn(metrics::upkeep());
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            () = &mut shutdown => break,
        };
        let Some((stream, peer, permit)) = accepted else { continue };
        let connection = Connection { builder: builder.clone(), answer: answer.clone(), peer };
        tokio::spawn(connection.run(stream, graceful.watcher(), permit));
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIME, graceful.shutdown()).await.is_err() {
        tracing::warn!(seconds = DRAIN_TIME.as_secs(), "connections were cut that did not end");
    }
    upkeep.abort();
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_BYTES_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_EVERY)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEADER_BYTES_MAX).unwrap_or(u32::MAX));
    builder
}

/// The next connection, once there is room for one; `None` where it failed.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    // Never closed, so it fails never.
    let permit = permits.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            metrics::count_accept_error();
            if !is_the_clients(&error) {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            None
        }
    }
}

/// Whether a client was gone before it was accepted, which says nothing about us.
fn is_the_clients(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

struct Connection<A> {
    builder: Arc<Builder<TokioExecutor>>,
    answer: A,
    peer: SocketAddr,
}

impl<A, F> Connection<A>
where
    A: Fn(http::Request<Body>, Origin) -> F + Send + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    /// Serves one connection to its end.
    async fn run(self, stream: TcpStream, watcher: Watcher, permit: OwnedSemaphorePermit) {
        let _held = (permit, OpenConnection::count());
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY");
        }
        let began = Arc::new(AtomicBool::new(false));
        let remote_addr = self.peer.ip().to_canonical().to_string();
        let service = {
            let (answer, began) = (self.answer, began.clone());
            hyper::service::service_fn(move |request: http::Request<Incoming>| {
                began.store(true, Ordering::Relaxed);
                let origin = Origin { remote_addr: remote_addr.clone(), hops: 0 };
                answer(request.map(Body::new), origin).map(Ok::<_, Infallible>)
            })
        };
        let connection = self
            .builder
            .serve_connection(TokioIo::new(Stalling::new(stream)), service)
            .into_owned();
        let connection = watcher.watch(connection);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => Some(ended),
            () = idle(&began) => None,
        };
        if let Some(Err(error)) = ended {
            tracing::debug!(error, peer = %self.peer, "a connection broke off");
        }
    }
}

/// Ready if no request began in time; else never.
async fn idle(began: &AtomicBool) {
    tokio::time::sleep(FIRST_REQUEST_TIME).await;
    if began.load(Ordering::Relaxed) {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    use super::*;

    async fn start<A, F>(
        answer: A,
    ) -> (SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>)
    where
        A: Fn(http::Request<Body>, Origin) -> F + Clone + Send + 'static,
        F: Future<Output = Response> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        (addr, stop, tokio::spawn(serve(listener, answer, shutdown)))
    }

    async fn exchange(addr: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn echo(request: http::Request<Body>, origin: Origin) -> Response {
        Response::new(format!("{} {}", request.uri().path(), origin.remote_addr).into())
    }

    #[tokio::test]
    async fn paths_and_addresses_arrive_as_they_are() {
        let (addr, _stop, _) = start(echo).await;
        let answer =
            exchange(addr, "GET /b//a%2Fb/../ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                .await;
        assert!(answer.ends_with("/b//a%2Fb/../ 127.0.0.1"), "{answer}");
    }

    #[tokio::test]
    async fn a_head_has_no_body_and_its_length() {
        let (addr, _stop, _) = start(echo).await;
        let answer =
            exchange(addr, "HEAD /b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(answer.contains("content-length: 12\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_looks_broken() {
        let broken = async |request: http::Request<Body>, _| {
            let begun = futures::stream::iter([Ok("begun")]);
            // Not at once, or hyper would not even send what was begun.
            let cut = futures::stream::once(async {
                tokio::task::yield_now().await;
                Err(std::io::Error::other("cut"))
            });
            let response = Response::new(Body::from_stream(begun.chain(cut)));
            match *request.method() {
                http::Method::HEAD => crate::http::answer::without_body(response),
                _ => response,
            }
        };
        let (addr, _stop, _) = start(broken).await;
        let answer =
            exchange(addr, "GET /b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(answer.contains("transfer-encoding: chunked") && answer.contains("begun"));
        assert!(!answer.contains("\r\n0\r\n"), "the chunk that ends a body: {answer}");
        let head = exchange(addr, "HEAD /b HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        assert!(!head.contains("content-length"), "no length that a GET's answer lacks: {head}");
    }

    #[tokio::test]
    async fn garbage_and_silence_do_not_stop_the_loop() {
        let (addr, _stop, _) = start(echo).await;
        let _silent = TcpStream::connect(addr).await.unwrap();
        let mut half = TcpStream::connect(addr).await.unwrap();
        half.write_all(b"GET / HT").await.unwrap();
        assert!(exchange(addr, "\0\0garbage\r\n\r\n").await.contains("400"));
        let answer = exchange(addr, "GET /b HTTP/1.0\r\n\r\n").await;
        assert!(answer.ends_with("/b 127.0.0.1"), "{answer}");
    }

    #[tokio::test]
    async fn what_is_under_way_is_answered_before_it_ends() {
        let slow = async |_, _| {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Response::new("late".into())
        };
        let (addr, stop, served) = start(slow).await;
        let idle = TcpStream::connect(addr).await.unwrap();
        let call =
            tokio::spawn(async move { exchange(addr, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.send(()).unwrap();
        assert!(call.await.unwrap().ends_with("late"));
        tokio::time::timeout(Duration::from_secs(2), served).await.unwrap().unwrap();
        assert!(TcpStream::connect(addr).await.is_err());
        drop(idle);
    }

    #[test]
    fn only_our_own_faults_pause_the_loop() {
        assert!(is_the_clients(&std::io::ErrorKind::ConnectionAborted.into()));
        // EMFILE: too many open files.
        assert!(!is_the_clients(&std::io::Error::from_raw_os_error(24)));
    }
}
