//! A node that is none: it answers requests with what a test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Largest request.
const REQUEST_BYTES_MAX: usize = 64 << 10;

type Say = dyn Fn(&str) -> String + Send + Sync;

/// The responder; it ends when it is dropped.
pub(super) struct Fake {
    /// Its URL.
    pub(super) url: String,
    counts: Arc<Counts>,
    _task: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

impl Fake {
    /// Starts one that answers each request, of which it sees head and body as text, with the bytes that
    /// `say` makes of it. Where these are empty, it hangs up.
    pub(super) async fn start(say: impl Fn(&str) -> String + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let counts = Arc::new(Counts::default());
        let mut task = JoinSet::new();
        task.spawn(accept(listener, Arc::clone(&counts), Arc::new(say)));
        Fake { url, counts, _task: task }
    }

    /// Connections that were made to it.
    pub(super) fn connections(&self) -> usize {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// Requests that it was sent.
    pub(super) fn requests(&self) -> usize {
        self.counts.requests.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, counts: Arc<Counts>, say: Arc<Say>) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        counts.connections.fetch_add(1, Ordering::Relaxed);
        connections.spawn(serve(stream, Arc::clone(&counts), Arc::clone(&say)));
    }
}

async fn serve(mut stream: TcpStream, counts: Arc<Counts>, say: Arc<Say>) {
    while let Some(request) = read_request(&mut stream).await {
        counts.requests.fetch_add(1, Ordering::Relaxed);
        let answer = say(&request);
        if answer.is_empty() || stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// A whole request; `None` where the client has gone.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(text.into_owned());
            }
        }
        assert!(bytes.len() < REQUEST_BYTES_MAX, "an endless request");
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
}

/// An answer's bytes.
pub(super) fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> String {
    let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text + "\r\n" + body
}
