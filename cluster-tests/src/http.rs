//! A small HTTP client that hides nothing: redirects are followed only when asked for, nothing is
//! sent twice, and a call that failed says whether it may have arrived.

use std::net::IpAddr;
use std::time::Duration;

use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{Method, redirect};
use serde_json::Value;

/// How long a call may take unless it says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most redirects that a following call takes.
const HOPS_MAX: u32 = 5;

/// The client.
#[derive(Clone)]
pub struct Http {
    client: reqwest::Client,
}

impl Default for Http {
    fn default() -> Self {
        Http::build(None)
    }
}

impl Http {
    /// A client whose connections come from this address.
    #[must_use]
    pub fn from_address(address: IpAddr) -> Self {
        Http::build(Some(address))
    }

    fn build(address: Option<IpAddr>) -> Self {
        let client = reqwest::Client::builder()
            .redirect(redirect::Policy::none())
            .retry(reqwest::retry::never())
            .local_address(address)
            .no_proxy()
            .build();
        Http { client: client.expect("a client without TLS can always be built") }
    }

    /// Begins a call.
    pub fn call(&self, method: &str, url: impl Into<String>) -> Call {
        Call {
            http: self.clone(),
            method: Method::from_bytes(method.as_bytes()).expect("a method is a token"),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            timeout: TIMEOUT,
            follow: false,
        }
    }

    /// Begins a GET.
    pub fn get(&self, url: impl Into<String>) -> Call {
        self.call("GET", url)
    }

    /// Begins a PUT.
    pub fn put(&self, url: impl Into<String>, body: impl Into<Vec<u8>>) -> Call {
        self.call("PUT", url).body(body)
    }

    /// Begins a POST.
    pub fn post(&self, url: impl Into<String>, body: impl Into<Vec<u8>>) -> Call {
        self.call("POST", url).body(body)
    }
}

/// A call that is being put together.
#[derive(Clone)]
pub struct Call {
    http: Http,
    method: Method,
    url: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    timeout: Duration,
    follow: bool,
}

impl Call {
    /// Adds a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds a bearer's credential.
    #[must_use]
    pub fn bearer(self, secret: &str) -> Self {
        self.header("authorization", &format!("Bearer {secret}"))
    }

    /// Sets the body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets how long it may take, each hop.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Follows a 307 as curl does: same method and body, and no credential for another port. A
    /// script's own redirects (302 and the like) are answers.
    #[must_use]
    pub fn follow(mut self) -> Self {
        self.follow = true;
        self
    }

    /// Sends it.
    pub async fn send(mut self) -> Result<Reply, Failure> {
        let mut hops = 0;
        loop {
            let reply = self.send_once(hops).await?;
            let location = reply.header("location").map(str::to_owned);
            match location {
                Some(location) if self.follow && reply.status == 307 => {
                    if hops == HOPS_MAX {
                        return Err(Failure { sent: false, reason: "too many redirects".into() });
                    }
                    hops += 1;
                    self.url = location;
                    self.headers.retain(|(name, _)| name != "authorization");
                }
                _ => return Ok(reply),
            }
        }
    }

    async fn send_once(&self, hops: u32) -> Result<Reply, Failure> {
        let mut request = self.http.client.request(self.method.clone(), &self.url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let request = request.timeout(self.timeout).body(self.body.clone());
        let response = request.send().await.map_err(|error| self.failure(&error))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.map_err(|error| self.failure(&error))?;
        Ok(Reply { status, headers, body: body.to_vec(), hops })
    }

    fn failure(&self, error: &reqwest::Error) -> Failure {
        let sent = !(error.is_connect() || error.is_builder());
        let source = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
        Failure { sent, reason: format!("{} {}: {error}: {source}", self.method, self.url) }
    }

    /// Sends it, and sorts what came of it.
    pub async fn outcome(self) -> Outcome {
        Outcome::of(self.send().await)
    }

    /// Sends it and expects a status.
    ///
    /// # Panics
    /// When it failed or answered otherwise.
    pub async fn expect(self, status: u16) -> Reply {
        let what = format!("{} {}", self.method, self.url);
        match self.send().await {
            Ok(reply) if reply.status == status => reply,
            Ok(reply) => panic!("{what}: expected {status}, got {reply}"),
            Err(failure) => panic!("{what}: expected {status}, got {}", failure.reason),
        }
    }

    /// Sends it and expects success within the limit, trying again while it is refused.
    ///
    /// # Panics
    /// When the limit is over, or the outcome is unknown.
    pub async fn must(self, limit: Duration) -> Reply {
        let what = format!("{} {}", self.method, self.url);
        let attempt = async || match self.clone().outcome().await {
            Outcome::Done(reply) => Ok(reply),
            Outcome::Refused(reason) => Err(reason),
            Outcome::Unknown(reason) => panic!("{what}: outcome unknown: {reason}"),
        };
        crate::wait::until(&what, limit, attempt).await
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// All headers.
    pub headers: HeaderMap,
    /// The body's bytes.
    pub body: Vec<u8>,
    /// Redirects followed on the way here.
    pub hops: u32,
}

impl Reply {
    /// A header's value as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {self}"))
    }

    /// Where a redirect points.
    ///
    /// # Panics
    /// When it points nowhere.
    #[must_use]
    pub fn location(&self) -> String {
        let location = self.headers.get(LOCATION).and_then(|value| value.to_str().ok());
        location.unwrap_or_else(|| panic!("no Location in {self}")).to_owned()
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body: String = self.text().chars().take(400).collect();
        write!(f, "{} {body:?} {:?}", self.status, self.headers)
    }
}

/// A call without an answer.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Whether it may have arrived.
    pub sent: bool,
    /// What went wrong.
    pub reason: String,
}

/// What is known of a call that writes.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was acknowledged.
    Done(Reply),
    /// Nothing of it was or will be written: it never left, or the answer says so.
    Refused(String),
    /// Anything may have happened.
    Unknown(String),
}

impl Outcome {
    /// Sorts an answer by `X-Kvdb-Applied`. A redirect is taken before anything is proposed.
    #[must_use]
    pub fn of(answer: Result<Reply, Failure>) -> Self {
        match answer {
            Ok(reply) if reply.status < 300 => Outcome::Done(reply),
            Ok(reply) if reply.header("x-kvdb-applied") == Some("no") || reply.status == 307 => {
                Outcome::Refused(reply.to_string())
            }
            Ok(reply) => Outcome::Unknown(reply.to_string()),
            Err(failure) if failure.sent => Outcome::Unknown(failure.reason),
            Err(failure) => Outcome::Refused(failure.reason),
        }
    }
}
