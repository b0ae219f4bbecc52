//! A typed client of the HTTP interface, for the command line and for tests.
//!
//! Redirects to the leader are followed here and not by reqwest, so that the key never goes where it
//! was not meant to go: `Location` carries a ticket in its place. A redirect that a *script*
//! answered is an answer, and is not followed. Nothing is sent twice but what was redirected, which is
//! to say not done.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, LOCATION};
use http::{HeaderValue, Method, StatusCode};
use reqwest::{Url, redirect};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::{
    AddMember, Applied, BucketCreated, ErrorBody, NewBucket, ScriptInfo, Status, TransferLeader,
    paths,
};

/// Most redirects that one call follows.
const REDIRECTS_MAX: usize = 5;
/// How long a connection may take to come about.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// How long a call may take: more than any script and any election.
const CALL_TIME: Duration = Duration::from_secs(30);

/// Why a call came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// What was asked cannot be said over HTTP, or the URL of the server is none.
    #[error("{0}")]
    Invalid(String),
    /// No connection: nothing was sent.
    #[error("cannot reach {url}: {cause}")]
    Unreachable {
        /// The server.
        url: String,
        /// What the system said.
        cause: String,
    },
    /// The connection broke, or the answer did not come: a write may have happened.
    #[error("no answer from {url}: {cause}")]
    Broken {
        /// The server.
        url: String,
        /// What the system said.
        cause: String,
    },
    /// The server said no.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The name of an [`ErrorCode`](crate::api::ErrorCode); empty where the server named none.
        code: String,
        /// What it said.
        message: String,
        /// What became of the call.
        applied: Applied,
    },
    /// The answer is not what this version understands.
    #[error("the answer of {url} cannot be read: {cause}")]
    Malformed {
        /// The server.
        url: String,
        /// What is wrong with it.
        cause: String,
    },
}

/// What calls come to.
pub type Result<T> = std::result::Result<T, ClientError>;

/// An answer as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: http::HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Which keys to list.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    /// Only keys that begin with this.
    pub prefix: String,
    /// Show what they hold.
    pub values: bool,
    /// No more than this.
    pub limit: Option<usize>,
    /// From the last to the first.
    pub reverse: bool,
    /// Where the page before ended, as it said.
    pub cursor: Option<String>,
}

/// A call before it is sent.
struct Request {
    method: Method,
    path_and_query: String,
    key: Option<String>,
    accept: &'static str,
    content_type: Option<&'static str>,
    body: Bytes,
}

impl Request {
    fn json(mut self, body: &impl Serialize) -> Result<Self> {
        let bytes =
            serde_json::to_vec(body).map_err(|error| ClientError::Invalid(error.to_string()))?;
        self.body = bytes.into();
        self.content_type = Some("application/json");
        Ok(self)
    }
}

/// A client of one server; cheap to clone.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
    key: Option<String>,
    admin_key: Option<String>,
}

impl Client {
    /// A client of the server at a base URL, with the key of the bucket and the cluster's, if any.
    pub fn new(url: &str, key: Option<String>, admin_key: Option<String>) -> Result<Self> {
        let invalid = |cause: String| ClientError::Invalid(format!("the URL `{url}`: {cause}"));
        let parsed = Url::parse(url).map_err(|error| invalid(error.to_string()))?;
        if parsed.scheme() != "http" || !parsed.has_host() {
            return Err(invalid("write http://HOST:PORT".to_owned()));
        }
        let http = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT_TIME)
            .timeout(CALL_TIME)
            .build()
            .map_err(|error| ClientError::Invalid(describe(&error)))?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Client { http, url, key, admin_key })
    }

    /// The server's base URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The cluster as the server sees it.
    pub async fn status(&self) -> Result<Status> {
        self.read_json(self.request(Method::GET, paths::CLUSTER)).await
    }

    /// Creates a bucket; its name.
    pub async fn create_bucket(&self, new: &NewBucket) -> Result<String> {
        let mut request = self.request(Method::POST, "/").json(new)?;
        request.key.clone_from(&self.admin_key);
        let created: BucketCreated = self.read_json(request).await?;
        Ok(created.id)
    }

    /// Deletes a bucket with all that is in it.
    pub async fn delete_bucket(&self, bucket: &str) -> Result<()> {
        self.call(self.request(Method::DELETE, &paths::keys(bucket))).await.map(drop)
    }

    /// What a key holds.
    pub async fn get(&self, bucket: &str, key: &[u8]) -> Result<Bytes> {
        Ok(self.call(self.request(Method::GET, &paths::key(bucket, key))).await?.body)
    }

    /// Sets a key.
    pub async fn set(&self, bucket: &str, key: &[u8], value: Bytes) -> Result<()> {
        let mut request = self.request(Method::PUT, &paths::key(bucket, key));
        request.body = value;
        self.call(request).await.map(drop)
    }

    /// Adds to a number; the new value as text.
    pub async fn incr(&self, bucket: &str, key: &[u8], by: &str) -> Result<Bytes> {
        let mut request = self.request(Method::PATCH, &paths::key(bucket, key));
        request.body = Bytes::copy_from_slice(by.as_bytes());
        Ok(self.call(request).await?.body)
    }

    /// Removes a key.
    pub async fn delete(&self, bucket: &str, key: &[u8]) -> Result<()> {
        self.call(self.request(Method::DELETE, &paths::key(bucket, key))).await.map(drop)
    }

    /// Lists keys, a line each; and where the list goes on if a limit cut it.
    pub async fn list(
        &self,
        bucket: &str,
        options: &ListOptions,
    ) -> Result<(Bytes, Option<String>)> {
        let path = Self::list_path(bucket, options);
        let answer = self.call(self.request(Method::GET, &path)).await?;
        let cursor = answer.headers.get(paths::CURSOR).and_then(|cursor| cursor.to_str().ok());
        Ok((answer.body, cursor.map(str::to_owned)))
    }

    fn list_path(bucket: &str, options: &ListOptions) -> String {
        let mut path = format!("{}?format=text", paths::keys(bucket));
        let cursor = options.cursor.as_deref().unwrap_or_default();
        for (name, text) in [("prefix", options.prefix.as_str()), ("cursor", cursor)] {
            if !text.is_empty() {
                path += &format!("&{}", paths::pair(name, text));
            }
        }
        if let Some(limit) = options.limit {
            path += &format!("&limit={limit}");
        }
        for (name, wanted) in [("values", options.values), ("reverse", options.reverse)] {
            if wanted {
                path += &format!("&{name}=true");
            }
        }
        path
    }

    /// Uploads a script; its version.
    pub async fn put_script(&self, bucket: &str, name: &str, source: Bytes) -> Result<String> {
        let mut request = self.request(Method::PUT, &paths::script(bucket, name));
        request.body = source;
        request.content_type = Some("text/plain");
        let answer = self.call(request).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Runs a script with arguments; what it answered, whatever the status it chose. An error is
    /// what the server, and not the script, refused.
    pub async fn run_script(
        &self,
        bucket: &str,
        name: &str,
        args: &[(String, String)],
    ) -> Result<Response> {
        let mut request = self.request(Method::POST, &paths::script(bucket, name));
        let pairs: Vec<_> = args.iter().map(|(name, value)| paths::pair(name, value)).collect();
        request.body = pairs.join("&").into();
        request.content_type = Some("application/x-www-form-urlencoded");
        let url = request.path_and_query.clone();
        let answer = self.send(request).await?;
        match self.refusal(&url, &answer) {
            Some(ClientError::Refused { code, .. }) if code.is_empty() => Ok(answer),
            Some(error) => Err(error),
            None => Ok(answer),
        }
    }

    /// The scripts of a bucket.
    pub async fn scripts(&self, bucket: &str) -> Result<Vec<ScriptInfo>> {
        self.read_json(self.request(Method::GET, &paths::scripts(bucket))).await
    }

    /// Adds the node that listens there for peers, as a learner.
    pub async fn add_member(&self, peer_addr: &str) -> Result<Status> {
        let body = AddMember { peer_addr: peer_addr.to_owned() };
        self.read_json(self.admin(Method::POST, paths::MEMBERS).json(&body)?).await
    }

    /// Makes a learner a voter.
    pub async fn promote(&self, id: u64) -> Result<Status> {
        self.read_json(self.admin(Method::POST, &paths::promote(id))).await
    }

    /// Removes a member.
    pub async fn remove(&self, id: u64) -> Result<Status> {
        self.read_json(self.admin(Method::DELETE, &paths::member(id))).await
    }

    /// Hands leadership to a voter.
    pub async fn transfer(&self, to: u64) -> Result<Status> {
        let request = self.admin(Method::POST, paths::LEADER).json(&TransferLeader { to })?;
        self.read_json(request).await
    }

    /// Has the server take a snapshot and purge its log.
    pub async fn snapshot(&self) -> Result<Status> {
        self.read_json(self.admin(Method::POST, paths::SNAPSHOT)).await
    }

    fn request(&self, method: Method, path_and_query: &str) -> Request {
        Request {
            method,
            path_and_query: path_and_query.to_owned(),
            key: self.key.clone(),
            accept: "application/json",
            content_type: None,
            body: Bytes::new(),
        }
    }

    fn admin(&self, method: Method, path: &str) -> Request {
        Request { key: self.admin_key.clone(), ..self.request(method, path) }
    }

    async fn read_json<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        let answer = self.call(request).await?;
        serde_json::from_slice(&answer.body).map_err(|error| self.malformed(error))
    }

    fn malformed(&self, cause: impl ToString) -> ClientError {
        ClientError::Malformed { url: self.url.clone(), cause: cause.to_string() }
    }

    /// Sends a request; any status from 400 on is an error.
    async fn call(&self, request: Request) -> Result<Response> {
        let url = request.path_and_query.clone();
        let answer = self.send(request).await?;
        match self.refusal(&url, &answer) {
            Some(error) => Err(error),
            None => Ok(answer),
        }
    }

    fn refusal(&self, path: &str, answer: &Response) -> Option<ClientError> {
        if answer.status.as_u16() < 400 {
            return None;
        }
        let status = answer.status.as_u16();
        let applied = answer.headers.get(paths::APPLIED).and_then(|value| value.to_str().ok());
        let applied = Applied::parse(applied.unwrap_or_default());
        let json = answer.headers.get(CONTENT_TYPE).is_some_and(|own| own == "application/json");
        let body = json.then(|| serde_json::from_slice::<ErrorBody>(&answer.body).ok()).flatten();
        let (code, message) = match body {
            Some(body) => (body.error.code, body.error.message),
            None => (String::new(), format!("{}{path} answered {}", self.url, answer.status)),
        };
        Some(ClientError::Refused { status, code, message, applied })
    }

    /// Sends a request, and again wherever the leader is said to be.
    async fn send(&self, request: Request) -> Result<Response> {
        let mut url = self.address(&request.path_and_query)?;
        let mut key = request.key.clone();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.send_once(&request, url.clone(), key.as_deref()).await?;
            let Some(location) = routed(&answer) else { return Ok(answer) };
            url = Url::parse(location).map_err(|error| self.malformed(error))?;
            // The ticket in the location stands for the key, which is not for other hosts.
            key = None;
        }
        Err(ClientError::Refused {
            status: StatusCode::SERVICE_UNAVAILABLE.as_u16(),
            code: "no_leader".to_owned(),
            message: format!("redirected {REDIRECTS_MAX} times without finding the leader"),
            applied: Applied::No,
        })
    }

    /// The URL of a path; fails where URLs cannot say it.
    fn address(&self, path_and_query: &str) -> Result<Url> {
        let text = format!("{}{path_and_query}", self.url);
        let url = Url::parse(&text).map_err(|error| ClientError::Invalid(error.to_string()))?;
        // `.` and `..` between slashes are resolved by every URL library, however they are encoded.
        if url.as_str() != text && path_and_query != "/" {
            let message = "a key or name with `.` or `..` between slashes has no URL".to_owned();
            return Err(ClientError::Invalid(message));
        }
        Ok(url)
    }

    async fn send_once(&self, request: &Request, url: Url, key: Option<&str>) -> Result<Response> {
        let mut builder = self
            .http
            .request(request.method.clone(), url)
            .header(ACCEPT, request.accept)
            .body(request.body.clone());
        if let Some(content_type) = request.content_type {
            builder = builder.header(CONTENT_TYPE, content_type);
        }
        if let Some(key) = key {
            builder = builder.header(AUTHORIZATION, bearer(key)?);
        }
        let response = builder.send().await.map_err(|error| self.failed(&error))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(|error| self.failed(&error))?;
        Ok(Response { status, headers, body })
    }

    fn failed(&self, error: &reqwest::Error) -> ClientError {
        let (url, cause) = (self.url.clone(), describe(error));
        if error.is_connect() {
            return ClientError::Unreachable { url, cause };
        }
        ClientError::Broken { url, cause }
    }
}

fn bearer(key: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
        .map_err(|_| ClientError::Invalid("the key cannot be sent in a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Where a redirect to the leader goes. It says that nothing was done; a script's redirect says that
/// its call was.
fn routed(answer: &Response) -> Option<&str> {
    let undone = answer.headers.get(paths::APPLIED).is_some_and(|applied| applied == "no");
    if answer.status != StatusCode::TEMPORARY_REDIRECT || !undone {
        return None;
    }
    answer.headers.get(LOCATION)?.to_str().ok()
}

/// The innermost cause: what reqwest wraps around it says nothing more, and shows the URL, which may
/// hold a ticket.
fn describe(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "it took too long".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// A server that answers what it is told to, and remembers what it was asked.
    struct Server {
        url: String,
        seen: Arc<Mutex<Vec<String>>>,
    }

    type Scripted = (u16, Vec<(&'static str, String)>, &'static str);

    async fn server(answer: impl Fn(&str) -> Scripted + Send + Sync + 'static) -> Server {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let log = seen.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                exchange(stream, &log, &answer).await;
            }
        });
        Server { url, seen }
    }

    /// Reads one request, notes its method, path and credential, and answers it.
    async fn exchange(
        stream: TcpStream,
        log: &Mutex<Vec<String>>,
        answer: &impl Fn(&str) -> Scripted,
    ) {
        let mut stream = BufReader::new(stream);
        let (mut head, mut length, mut key) = (String::new(), 0, "-".to_owned());
        stream.read_line(&mut head).await.unwrap();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            match line.trim().split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("authorization", value)) => key = value.to_owned(),
                Some(_) => {}
                None => break,
            }
        }
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        let asked = head.trim().strip_suffix(" HTTP/1.1").unwrap();
        let (_, path) = asked.split_once(' ').unwrap();
        log.lock().unwrap().push(format!("{asked} {key}"));
        let (status, headers, body) = answer(path);
        let headers: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        let length = body.len();
        let text = format!(
            "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-length: {length}\r\n\
             {headers}\r\n{body}"
        );
        stream.write_all(text.as_bytes()).await.unwrap();
    }

    fn client(server: &Server) -> Client {
        Client::new(&server.url, Some("k".to_owned()), None).unwrap()
    }

    #[tokio::test]
    async fn a_redirect_to_the_leader_is_followed_without_the_key() {
        let leader = server(|_| (200, vec![("x-kvdb-applied", "yes".to_owned())], "ran")).await;
        let location = format!("{}/b/scripts/s?kvdb_ticket=n", leader.url);
        let follower = server(move |_| {
            let headers = vec![("x-kvdb-applied", "no".to_owned()), ("location", location.clone())];
            (307, headers, "")
        })
        .await;
        let args = [("a b".to_owned(), "1&2".to_owned())];
        let answer = client(&follower).run_script("b", "s", &args).await.unwrap();
        assert_eq!(answer.body, "ran");
        assert_eq!(*follower.seen.lock().unwrap(), ["POST /b/scripts/s Bearer k"]);
        assert_eq!(*leader.seen.lock().unwrap(), ["POST /b/scripts/s?kvdb_ticket=n -"]);
    }

    #[tokio::test]
    async fn a_scripts_own_redirect_and_status_are_its_answer() {
        let applied = |word: &str| ("x-kvdb-applied", word.to_owned());
        let moved = server(move |uri| {
            let location = ("location", "http://example.invalid/".to_owned());
            match uri {
                "/b/scripts/go" => (307, vec![applied("yes"), location], ""),
                _ => (404, vec![applied("no")], "mine"),
            }
        })
        .await;
        let go = client(&moved).run_script("b", "go", &[]).await.unwrap();
        assert_eq!(go.status, 307);
        let own = client(&moved).run_script("b", "own", &[]).await.unwrap();
        assert_eq!((own.status.as_u16(), &own.body[..]), (404, &b"mine"[..]));
    }

    #[tokio::test]
    async fn redirects_end() {
        let own = Arc::new(Mutex::new(String::new()));
        let target = own.clone();
        let looping = server(move |_| {
            let location = target.lock().unwrap().clone();
            (307, vec![("x-kvdb-applied", "no".to_owned()), ("location", location)], "")
        })
        .await;
        *own.lock().unwrap() = format!("{}/b/scripts/s", looping.url);
        let error = client(&looping).run_script("b", "s", &[]).await.unwrap_err();
        assert!(matches!(error, ClientError::Refused { applied: Applied::No, .. }), "{error}");
        assert_eq!(looping.seen.lock().unwrap().len(), REDIRECTS_MAX + 1);
    }

    #[tokio::test]
    async fn an_error_says_what_the_server_said() {
        let body = r#"{"error":{"code":"outcome_unknown","message":"outcome unknown: x","retryable":false,"applied":"unknown"}}"#;
        let server = server(move |_| {
            let json = ("content-type", "application/json".to_owned());
            (503, vec![json, ("x-kvdb-applied", "unknown".to_owned())], body)
        })
        .await;
        let error = client(&server).set("b", b"k", Bytes::new()).await.unwrap_err();
        assert_eq!(
            error,
            ClientError::Refused {
                status: 503,
                code: "outcome_unknown".to_owned(),
                message: "outcome unknown: x".to_owned(),
                applied: Applied::Unknown,
            }
        );
    }

    #[tokio::test]
    async fn nobody_there_is_not_a_broken_call() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", closed.local_addr().unwrap());
        drop(closed);
        let error = Client::new(&url, None, None).unwrap().status().await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    }

    #[tokio::test]
    async fn keys_arrive_as_they_are_or_are_refused() {
        let server = server(|_| (200, vec![], "")).await;
        let client = client(&server);
        client.get("b", b"a/b c?#%\xff").await.unwrap();
        client.get("b", b"//x").await.unwrap();
        assert_eq!(
            *server.seen.lock().unwrap(),
            ["GET /b/a/b%20c%3F%23%25%FF Bearer k", "GET /b///x Bearer k"]
        );
        for unsayable in [&b".."[..], b"a/../b", b"."] {
            let error = client.get("b", unsayable).await.unwrap_err();
            assert!(matches!(error, ClientError::Invalid(_)), "{unsayable:?}");
        }
    }

    #[tokio::test]
    async fn a_list_goes_on_where_the_server_says() {
        let server = server(|uri| match uri.contains("cursor") {
            true => (200, vec![], "b\n"),
            false => (200, vec![("x-kvdb-cursor", "a-_1".to_owned())], "a\n"),
        })
        .await;
        let client = client(&server);
        let mut options = ListOptions { prefix: "p:".to_owned(), ..ListOptions::default() };
        let (lines, cursor) = client.list("b", &options).await.unwrap();
        assert_eq!((&lines[..], cursor.as_deref()), (&b"a\n"[..], Some("a-_1")));
        options.cursor = cursor;
        let (lines, cursor) = client.list("b", &options).await.unwrap();
        assert_eq!((&lines[..], cursor), (&b"b\n"[..], None));
        assert_eq!(
            *server.seen.lock().unwrap(),
            [
                "GET /b/?format=text&prefix=p%3A Bearer k",
                "GET /b/?format=text&prefix=p%3A&cursor=a%2D%5F1 Bearer k"
            ]
        );
    }

    #[test]
    fn urls_without_a_server_are_refused() {
        for bad in ["", "localhost:7400", "ftp://a", "https://a", "http://"] {
            assert!(Client::new(bad, None, None).is_err(), "{bad}");
        }
    }
}
