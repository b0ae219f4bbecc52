//! One HTTP/1.1 connection per node, with as little between the test and the socket as can be: under
//! load the test shares two cores with the cluster, and must not be what is measured.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::{Failure, Reply};

/// How long one exchange may take, and how long a connection, unless the client says otherwise.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest head of an answer.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// The headers that are kept: what a call goes by and what its outcome is judged by.
const KEPT: [&str; 9] = [
    "connection",
    "content-length",
    "etag",
    "idempotency-replayed",
    "location",
    "x-kvdb-age-ms",
    "x-kvdb-applied",
    "x-kvdb-expires-at",
    "x-kvdb-revision",
];
/// Most redirects that a call takes.
const HOPS_MAX: u32 = 5;

/// A client's connections, by `host:port`.
pub struct Wire {
    connections: BTreeMap<String, TcpStream>,
    connect_timeout: Duration,
    exchange_timeout: Duration,
}

impl Default for Wire {
    fn default() -> Self {
        Wire::within(TIMEOUT, TIMEOUT)
    }
}

/// A request, without the node that it goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The HTTP method.
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// Headers beside `Host` and `Content-Length`.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

impl Wire {
    /// Connections that may take this long to be made, and exchanges that may take this long each.
    #[must_use]
    pub fn within(connect_timeout: Duration, exchange_timeout: Duration) -> Self {
        Wire { connections: BTreeMap::new(), connect_timeout, exchange_timeout }
    }

    /// Sends a request without headers to a node's URL, as [`Wire::send`] does.
    pub async fn call(
        &mut self,
        method: &'static str,
        url: &str,
        path: &str,
        body: &str,
    ) -> Result<Reply, Failure> {
        let (path, body) = (path.to_owned(), body.to_owned());
        self.send(url, Request { method, path, headers: Vec::new(), body }).await
    }

    /// Sends a request to a node's URL and follows its redirects. Never sends one twice.
    pub async fn send(&mut self, url: &str, mut request: Request) -> Result<Reply, Failure> {
        let mut host = host_of(url)?.to_owned();
        for hops in 0..=HOPS_MAX {
            let mut reply = self.exchange(&host, &request).await?;
            reply.hops = hops;
            if reply.status != 307 {
                return Ok(reply);
            }
            let location = reply.header("location");
            let location = location.ok_or_else(|| unsent(format!("to nowhere: {reply}")))?;
            (host, request.path) = split(location)?;
        }
        Err(unsent("too many redirects"))
    }

    async fn exchange(&mut self, host: &str, request: &Request) -> Result<Reply, Failure> {
        let mut stream = match self.connections.remove(host) {
            Some(stream) if still_open(&stream) => stream,
            _ => connect(host, self.connect_timeout).await?,
        };
        let bytes = on_the_wire(host, request);
        let answer = async {
            stream.write_all(bytes.as_bytes()).await?;
            read_reply(&mut stream).await
        };
        let what = || format!("{} {host}{}", request.method, request.path);
        let reply = match tokio::time::timeout(self.exchange_timeout, answer).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => return Err(lost(format!("{}: {error}", what()))),
            Err(_) => return Err(lost(format!("{}: no answer", what()))),
        };
        if reply.header("connection") != Some("close") {
            self.connections.insert(host.to_owned(), stream);
        }
        Ok(reply)
    }
}

fn on_the_wire(host: &str, request: &Request) -> String {
    let Request { method, path, headers, body } = request;
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text + &format!("content-length: {}\r\n\r\n{body}", body.len())
}

async fn connect(host: &str, limit: Duration) -> Result<TcpStream, Failure> {
    let connect = tokio::time::timeout(limit, TcpStream::connect(host)).await;
    let stream = match connect {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(unsent(format!("connect {host}: {error}"))),
        Err(_) => return Err(unsent(format!("connect {host}: no answer"))),
    };
    stream.set_nodelay(true).map_err(|error| unsent(error.to_string()))?;
    Ok(stream)
}

/// Whether the node has not hung up while the connection was idle.
fn still_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let peeked = stream.try_read(&mut byte);
    matches!(peeked, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

async fn read_reply(stream: &mut TcpStream) -> std::io::Result<Reply> {
    let mut bytes = Vec::with_capacity(1024);
    let (head_end, mut reply, length) = loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = bytes.get(..end).unwrap_or_default();
            let (reply, length) = parse_head(&String::from_utf8_lossy(head)).map_err(malformed)?;
            break (end + 4, reply, length);
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(malformed("an endless head".to_owned()));
        }
    };
    while bytes.len() < head_end + length {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    reply.body = bytes.split_off(head_end);
    Ok(reply)
}

/// The answer without its body, and the body's length.
fn parse_head(head: &str) -> Result<(Reply, usize), String> {
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1));
    let status = status.and_then(|status| status.parse().ok()).ok_or("no status")?;
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("a header without a colon")?;
        let Some(name) = KEPT.iter().find(|kept| name.eq_ignore_ascii_case(kept)) else {
            continue;
        };
        let value = HeaderValue::from_str(value.trim()).map_err(|_| "a header's value")?;
        headers.append(HeaderName::from_static(name), value);
    }
    let reply = Reply { status, headers, body: Vec::new(), hops: 0 };
    if matches!(status, 204 | 304) {
        // These have no body, whatever they say of its length.
        return Ok((reply, 0));
    }
    let length = reply.header("content-length").ok_or("no content-length")?;
    let length = length.parse().map_err(|_| "a content-length that is no number")?;
    Ok((reply, length))
}

fn host_of(url: &str) -> Result<&str, Failure> {
    let rest = url.strip_prefix("http://").ok_or_else(|| unsent(format!("no http URL: {url}")))?;
    Ok(rest.split('/').next().unwrap_or(rest))
}

/// A URL as `host:port` and path with query.
fn split(url: &str) -> Result<(String, String), Failure> {
    let host = host_of(url)?;
    let path = url.get("http://".len() + host.len()..).filter(|path| !path.is_empty());
    Ok((host.to_owned(), path.unwrap_or("/").to_owned()))
}

fn malformed(reason: String) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, reason)
}

fn unsent(reason: impl Into<String>) -> Failure {
    Failure { sent: false, reason: reason.into() }
}

fn lost(reason: impl Into<String>) -> Failure {
    Failure { sent: true, reason: reason.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_urls() {
        let (host, path) = split("http://127.0.0.1:7400/b/scripts/s?a=b").unwrap();
        assert_eq!((host.as_str(), path.as_str()), ("127.0.0.1:7400", "/b/scripts/s?a=b"));
        assert_eq!(split("http://h:1").unwrap().1, "/");
        assert!(split("ftp://h").is_err());
    }

    #[test]
    fn writes_requests() {
        let request = Request {
            method: "PUT",
            path: "/b/k".into(),
            headers: vec![("if-match", "\"7\"".into())],
            body: "v".into(),
        };
        assert_eq!(
            on_the_wire("h:1", &request),
            "PUT /b/k HTTP/1.1\r\nhost: h:1\r\nif-match: \"7\"\r\ncontent-length: 1\r\n\r\nv"
        );
    }

    #[test]
    fn reads_heads() {
        let head = "HTTP/1.1 503 Service Unavailable\r\nX-Kvdb-Applied: no\r\ncontent-length: 12";
        let (reply, length) = parse_head(head).unwrap();
        assert_eq!((reply.status, length), (503, 12));
        assert_eq!(reply.header("x-kvdb-applied"), Some("no"));
        assert!(parse_head("HTTP/1.1 200 OK").is_err());
        assert_eq!(parse_head("HTTP/1.1 304 Not Modified\r\nContent-Length: 9").unwrap().1, 0);
    }
}
