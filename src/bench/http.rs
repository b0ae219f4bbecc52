//! A lean client of HTTP/1.1, which costs less than what it measures.
//!
//! A request is one write from a buffer that is used again, an answer is read into another, and of its head
//! only the status and what says where the body ends is looked at. Nothing is sent twice but what was
//! redirected, which is to say not done.
//!
//! A client makes calls of one kind. So where one was redirected, the next ones go at once: a leader is found
//! once, not for each call. The client's own headers go along, credentials too. What fails sends the client back to the
//! nodes that it was given, and on to the next of them.

use std::io::Write;
use std::time::Duration;

use memchr::memchr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Client;

/// How long a connection may take to come about.
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// Most redirects that one call follows.
const HOPS_MAX: usize = 3;
/// Most bytes of an answer's head.
const HEAD_MAX: usize = 64 * 1024;
/// Most bytes of an answer's body.
const BODY_MAX: usize = 64 * 1024 * 1024;
/// What a buffer holds at first: most answers, and what is read at once of others.
const BUFFER: usize = 8 * 1024;
/// Most bytes of an answer that an error quotes.
const QUOTED_MAX: usize = 200;

/// What is asked, in buffers that are filled again for each call.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The method.
    pub method: &'static str,
    /// The path with its query, ready for the wire.
    pub path: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// Empties the buffers, and keeps them.
    pub fn clear(&mut self) {
        self.method = "GET";
        self.path.clear();
        self.body.clear();
    }
}

/// An answer, where it was read.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: &'a [u8],
    head: &'a [u8],
}

impl<'a> Answer<'a> {
    /// What a header says, by its name in small letters.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.head.split(|byte| *byte == b'\n').find_map(|line| value(line, name.as_bytes()))
    }

    /// Fails where the status is another, and quotes what was answered.
    ///
    /// # Errors
    /// With status and body.
    pub fn expect(&self, status: u16) -> Result<(), String> {
        if self.status == status {
            return Ok(());
        }
        let quoted = self.body.get(..QUOTED_MAX).unwrap_or(self.body);
        Err(format!("{}: {}", self.status, String::from_utf8_lossy(quoted).trim_end()))
    }
}

/// The value of a header's line, where it has that name.
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a str> {
    let (own, rest) = line.split_at_checked(name.len())?;
    let value = rest.strip_prefix(b":").filter(|_| own.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(value).ok().map(str::trim)
}

/// What an [`HttpClient`] asks, call by call, and what it thinks of the answers.
pub trait Work {
    /// Fills in the request of a call; it comes empty.
    fn ask(&mut self, serial: u64, request: &mut Request);
    /// Judges the answer to what was asked last.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check(&mut self, answer: &Answer<'_>) -> Result<(), String>;
}

/// Two closures, where the answer can be judged without a memory of what was asked.
impl<A, C> Work for (A, C)
where
    A: FnMut(u64, &mut Request),
    C: FnMut(&Answer<'_>) -> Result<(), String>,
{
    fn ask(&mut self, serial: u64, request: &mut Request) {
        (self.0)(serial, request);
    }

    fn check(&mut self, answer: &Answer<'_>) -> Result<(), String> {
        (self.1)(answer)
    }
}

/// A client whose calls are one request each.
#[derive(Debug)]
pub struct HttpClient<W> {
    connection: Connection,
    request: Request,
    work: W,
}

impl<W: Work> HttpClient<W> {
    /// A client that does this work over this connection.
    pub fn new(connection: Connection, work: W) -> Self {
        HttpClient { connection, request: Request::default(), work }
    }
}

impl<W: Work> Client for HttpClient<W> {
    async fn call(&mut self, serial: u64) -> Result<(), String> {
        self.request.clear();
        self.work.ask(serial, &mut self.request);
        let answer = self.connection.call(&self.request).await?;
        self.work.check(&answer)
    }
}

/// A connection to one of several nodes at a time, or to where one of them redirects.
#[derive(Debug)]
pub struct Connection {
    /// `HOST:PORT` of the nodes that may be asked.
    nodes: Vec<String>,
    /// Which of them is asked.
    node: usize,
    /// Who is asked in its place, since it said so.
    leader: Option<String>,
    /// The lines that each request has.
    headers: String,
    /// Absent before the first call, after an error, and while a call is under way: one that is dropped
    /// half-way leaves nothing that the next would take for its answer.
    stream: Option<TcpStream>,
    output: Vec<u8>,
    input: Vec<u8>,
}

/// What the head of an answer says about where things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Where the body begins.
    body: usize,
    /// Where the answer ends.
    end: usize,
    /// Whether the connection ends with it.
    close: bool,
}

impl Connection {
    /// Connects to one of these nodes (`http://HOST:PORT`): to the one with this number, modulo how many there
    /// are, or the first after it that can be reached. Each request will have these headers.
    ///
    /// # Errors
    /// When none can be reached, or a URL is none.
    pub async fn new(
        urls: &[String],
        first: usize,
        headers: &[(&str, &str)],
    ) -> Result<Self, String> {
        let nodes = urls.iter().map(|url| host_of(url)).collect::<Result<Vec<_>, _>>()?;
        if nodes.is_empty() {
            return Err("no node to connect to".to_owned());
        }
        let lines = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let mut connection = Connection {
            node: first % nodes.len(),
            nodes,
            leader: None,
            headers: lines.collect(),
            stream: None,
            output: Vec::with_capacity(BUFFER),
            input: Vec::with_capacity(BUFFER),
        };
        connection.connect_to_any().await?;
        Ok(connection)
    }

    async fn connect_to_any(&mut self) -> Result<(), String> {
        let mut result = Ok(());
        for _ in 0..self.nodes.len() {
            match connect(self.target()).await {
                Ok(stream) => {
                    self.stream = Some(stream);
                    return Ok(());
                }
                Err(why) => result = Err(why),
            }
            self.move_on();
        }
        result
    }

    /// Sends a request, follows its redirects, and reads the answer.
    ///
    /// # Errors
    /// When there is no connection, it breaks, or what comes is no answer. The next call connects again.
    pub async fn call(&mut self, request: &Request) -> Result<Answer<'_>, String> {
        let mut moved: Option<String> = None;
        for _ in 0..=HOPS_MAX {
            let path = moved.as_deref().unwrap_or(&request.path);
            let head = match self.exchange(request, path).await {
                Ok(head) => head,
                Err(why) => {
                    let what = format!("{} {}: {why}", request.method, self.target());
                    self.move_on();
                    return Err(what);
                }
            };
            if head.status != 307 {
                return Ok(self.answer(head));
            }
            let location = self.answer(head).header("location").unwrap_or_default();
            let (host, path) = split(location)?;
            (self.leader, moved) = (Some(host.to_owned()), Some(path.to_owned()));
            self.stream = None;
        }
        self.move_on();
        Err(format!("redirected {HOPS_MAX} times and more"))
    }

    fn answer(&self, head: Head) -> Answer<'_> {
        Answer {
            status: head.status,
            head: self.input.get(..head.body).unwrap_or_default(),
            body: self.input.get(head.body..head.end).unwrap_or_default(),
        }
    }

    /// Who is asked.
    fn target(&self) -> &str {
        let node = || self.nodes.get(self.node).map(String::as_str);
        self.leader.as_deref().or_else(node).unwrap_or_default()
    }

    /// Forgets the leader, or, where a node of ours did not answer, asks the next.
    fn move_on(&mut self) {
        self.stream = None;
        if self.leader.take().is_none() {
            self.node = (self.node + 1) % self.nodes.len();
        }
    }

    async fn exchange(&mut self, request: &Request, path: &str) -> Result<Head, String> {
        let mut stream = match self.stream.take() {
            Some(stream) if still_open(&stream) => stream,
            _ => connect(self.target()).await?,
        };
        self.write_out(request, path);
        let broken = |error: std::io::Error| error.to_string();
        stream.write_all(&self.output).await.map_err(broken)?;
        let head = read_answer(&mut stream, &mut self.input).await?;
        if !head.close {
            self.stream = Some(stream);
        }
        Ok(head)
    }

    fn write_out(&mut self, request: &Request, path: &str) {
        let mut output = std::mem::take(&mut self.output);
        output.clear();
        let host = self.target().as_bytes();
        for part in [
            request.method.as_bytes(),
            b" ",
            path.as_bytes(),
            b" HTTP/1.1\r\nhost: ",
            host,
            b"\r\n",
            self.headers.as_bytes(),
            b"content-length: ",
        ] {
            output.extend_from_slice(part);
        }
        // Cannot fail: it is memory.
        let _ = write!(output, "{}\r\n\r\n", request.body.len());
        output.extend_from_slice(&request.body);
        self.output = output;
    }
}

async fn connect(host: &str) -> Result<TcpStream, String> {
    let connected = tokio::time::timeout(CONNECT_MAX, TcpStream::connect(host)).await;
    let stream = connected
        .map_err(|_| format!("cannot connect to {host}: no answer"))?
        .map_err(|error| format!("cannot connect to {host}: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    Ok(stream)
}

/// Whether the node has not hung up while the connection was idle. Costs no system call where nothing came.
fn still_open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    let read = stream.try_read(&mut byte);
    matches!(read, Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

/// Reads one whole answer, and nothing else may come before the next request.
async fn read_answer(stream: &mut TcpStream, input: &mut Vec<u8>) -> Result<Head, String> {
    input.clear();
    let head = loop {
        read_some(stream, input).await?;
        if let Some(head) = parse_head(input)? {
            break head;
        }
        if input.len() > HEAD_MAX {
            return Err("an answer with an endless head".to_owned());
        }
    };
    input.reserve(head.end.saturating_sub(input.len()));
    while input.len() < head.end {
        read_some(stream, input).await?;
    }
    if input.len() > head.end {
        return Err("more came than was asked for".to_owned());
    }
    Ok(head)
}

async fn read_some(stream: &mut TcpStream, input: &mut Vec<u8>) -> Result<(), String> {
    match stream.read_buf(input).await {
        Ok(0) => Err("the connection was closed before the answer ended".to_owned()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// The head of an answer, where it is whole.
fn parse_head(input: &[u8]) -> Result<Option<Head>, String> {
    let (mut status, mut length, mut close) = (None, None, false);
    let mut at = 0;
    loop {
        let rest = input.get(at..).unwrap_or_default();
        let Some(end) = memchr(b'\n', rest) else { return Ok(None) };
        let line = rest.get(..end).unwrap_or_default();
        at += end + 1;
        if status.is_none() {
            status = Some(status_of(line)?);
        } else if line.trim_ascii().is_empty() {
            break;
        } else if let Some(value) = value(line, b"content-length") {
            length = Some(value.parse().map_err(|_| format!("a content-length of `{value}`"))?);
        } else if let Some(value) = value(line, b"connection") {
            close = value.eq_ignore_ascii_case("close");
        } else if value(line, b"transfer-encoding").is_some() {
            return Err("a chunked answer, which this client does not read".to_owned());
        }
    }
    let status = status.unwrap_or_default();
    let length: usize = match (status, length) {
        (204 | 304, _) => 0,
        (_, Some(length)) => length,
        (_, None) => return Err("an answer without a content-length".to_owned()),
    };
    if length > BODY_MAX {
        return Err(format!("an answer of {length} bytes; at most {BODY_MAX} are read"));
    }
    Ok(Some(Head { status, body: at, end: at + length, close }))
}

fn status_of(line: &[u8]) -> Result<u16, String> {
    let status = line.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
    let status = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    status.ok_or_else(|| "what answers does not speak HTTP/1.1".to_owned())
}

/// A node's URL as `HOST:PORT`.
fn host_of(url: &str) -> Result<String, String> {
    let host = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    let host = host.filter(|host| !host.is_empty() && !host.contains(['/', '?', '@', ' ']));
    let host = host.ok_or_else(|| format!("`{url}`: write http://HOST:PORT"))?;
    let port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    Ok(if port { host.to_owned() } else { format!("{host}:80") })
}

/// Where a redirect goes, as `HOST:PORT` and path with query.
fn split(location: &str) -> Result<(&str, &str), String> {
    let rest = location.strip_prefix("http://");
    let slash = rest.and_then(|rest| Some((rest, memchr(b'/', rest.as_bytes())?)));
    let parts = slash.and_then(|(rest, slash)| rest.split_at_checked(slash));
    parts.ok_or_else(|| format!("a redirect to `{location}`"))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::net::TcpListener;

    use super::*;

    /// A server that gives these answers in turn, and what it was asked. After an answer that says so, and
    /// after one that is empty, it hangs up.
    struct Server {
        url: String,
        seen: Arc<Mutex<Vec<String>>>,
    }

    async fn serve(answers: Vec<String>) -> Server {
        serve_at("http://127.0.0.1:0", answers).await
    }

    async fn serve_at(url: &str, answers: Vec<String>) -> Server {
        let listener = TcpListener::bind(&url["http://".len()..]).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let remembered = seen.clone();
        tokio::spawn(async move {
            let mut answers = answers.into_iter();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                while let Some(asked) = read_request(&mut stream).await {
                    remembered.lock().unwrap().push(asked);
                    let answer = answers.next().unwrap();
                    stream.write_all(answer.as_bytes()).await.unwrap();
                    if answer.is_empty() || answer.contains("connection: close") {
                        break;
                    }
                }
            }
        });
        Server { url, seen }
    }

    /// A request whose body is as long as it says.
    async fn read_request(stream: &mut TcpStream) -> Option<String> {
        let mut bytes = Vec::new();
        loop {
            if stream.read_buf(&mut bytes).await.ok()? == 0 {
                return None;
            }
            let text = String::from_utf8(bytes.clone()).unwrap();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.rsplit_once("content-length: ").unwrap().1;
            if body.len() == length.parse::<usize>().unwrap() {
                return Some(text);
            }
        }
    }

    fn ok(body: &str) -> String {
        format!("HTTP/1.1 200 OK\r\nX-Any: 1\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }

    fn redirect(url: &str, path: &str) -> String {
        format!("HTTP/1.1 307 Moved\r\nlocation: {url}{path}\r\ncontent-length: 2\r\n\r\nno")
    }

    type Puts = (fn(u64, &mut Request), fn(&Answer<'_>) -> Result<(), String>);

    async fn client(servers: &[&Server]) -> HttpClient<Puts> {
        fn ask(serial: u64, request: &mut Request) {
            request.method = "PUT";
            request.path.push_str("/b/key");
            write!(request.body, "v{serial}").unwrap();
        }
        let urls: Vec<_> = servers.iter().map(|server| server.url.clone()).collect();
        let connection = Connection::new(&urls, 0, &[("x-own", "k")]).await.unwrap();
        HttpClient::new(connection, (ask, |answer| answer.expect(200)))
    }

    #[tokio::test]
    async fn calls_share_a_connection_and_look_as_they_should() {
        let server = serve(vec![ok("a"), ok("")]).await;
        let mut client = client(&[&server]).await;
        client.call(7).await.unwrap();
        client.call(8).await.unwrap();
        let host = &server.url["http://".len()..];
        let seen = server.seen.lock().unwrap();
        let expected = format!(
            "PUT /b/key HTTP/1.1\r\nhost: {host}\r\nx-own: k\r\ncontent-length: 2\r\n\r\nv7"
        );
        assert_eq!(seen[0], expected);
        assert!(seen[1].ends_with("\r\n\r\nv8"), "{}", seen[1]);
    }

    #[tokio::test]
    async fn a_redirect_is_followed_and_remembered() {
        let leader = serve(vec![ok("a"), ok("b"), String::new()]).await;
        let follower = serve(vec![redirect(&leader.url, "/b/key?ticket=1"), ok("home")]).await;
        let mut client = client(&[&follower]).await;
        client.call(1).await.unwrap();
        client.call(2).await.unwrap();
        assert!(leader.seen.lock().unwrap()[0].starts_with("PUT /b/key?ticket=1 HTTP/1.1\r\n"));
        assert!(leader.seen.lock().unwrap()[1].starts_with("PUT /b/key HTTP/1.1\r\n"));
        assert_eq!(follower.seen.lock().unwrap().len(), 1);
        // The leader hangs up without an answer: that call failed, the next goes home.
        client.call(3).await.unwrap_err();
        client.call(4).await.unwrap();
        assert_eq!(follower.seen.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn redirects_to_nowhere_and_in_a_circle_fail() {
        let nowhere = serve(vec![redirect("http://127.0.0.1:1", "/")]).await;
        let why = client(&[&nowhere]).await.call(1).await.unwrap_err();
        assert!(why.contains("cannot connect to 127.0.0.1:1"), "{why}");
        // To itself, again and again: it is asked once for each hop.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let circle = serve_at(&url, vec![redirect(&url, "/"); HOPS_MAX + 1]).await;
        let why = client(&[&circle]).await.call(1).await.unwrap_err();
        assert!(why.contains("redirected 3 times"), "{why}");
        assert_eq!(circle.seen.lock().unwrap().len(), HOPS_MAX + 1);
    }

    #[tokio::test]
    async fn connects_again_where_the_server_hung_up() {
        let bye = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned();
        let server = serve(vec![bye, ok("again")]).await;
        let mut client = client(&[&server]).await;
        client.call(1).await.unwrap();
        client.call(2).await.unwrap();
        assert_eq!(server.seen.lock().unwrap().len(), 2);
    }

    #[tokio::test]
    async fn what_fails_is_not_sent_again_and_the_next_node_is_asked() {
        let (first, second) = (serve(vec![String::new()]).await, serve(vec![ok("b")]).await);
        let mut client = client(&[&first, &second]).await;
        let why = client.call(1).await.unwrap_err();
        assert!(why.contains("closed before the answer"), "{why}");
        client.call(2).await.unwrap();
        assert_eq!(first.seen.lock().unwrap().len(), 1);
        assert!(second.seen.lock().unwrap()[0].ends_with("v2"));
    }

    #[tokio::test]
    async fn a_wrong_status_is_a_failure_that_quotes_the_answer() {
        let refused = "HTTP/1.1 503 No\r\ncontent-length: 10\r\n\r\nno leader\n";
        let server = serve(vec![refused.to_owned(), ok("b")]).await;
        let mut client = client(&[&server]).await;
        assert_eq!(client.call(1).await.unwrap_err(), "503: no leader");
        client.call(2).await.unwrap();
    }

    #[tokio::test]
    async fn a_call_that_was_dropped_leaves_no_answer_to_the_next() {
        let server = serve(vec![ok("late"), ok("b")]).await;
        let mut client = client(&[&server]).await;
        {
            let mut call = std::pin::pin!(client.call(1));
            // Sent, and not answered yet: this thread has not let the server run.
            assert!(futures::poll!(&mut call).is_pending());
        }
        assert!(client.connection.stream.is_none());
    }

    #[test]
    fn reads_heads() {
        let head = |text: &str| parse_head(text.as_bytes());
        let whole = "HTTP/1.1 503 No\r\nCONTENT-LENGTH:  12\r\nconnection: Close\r\n\r\n";
        let end = whole.len();
        let expected = Head { status: 503, body: end, end: end + 12, close: true };
        assert_eq!(head(whole), Ok(Some(expected)));
        for cut in 0..end {
            assert_eq!(head(&whole[..cut]), Ok(None), "{cut}");
        }
        let empty =
            head("HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n").unwrap().unwrap();
        assert_eq!(empty.body, empty.end);
        for wrong in [
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            assert!(head(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_urls() {
        assert_eq!(host_of("http://127.0.0.1:7400/").as_deref(), Ok("127.0.0.1:7400"));
        assert_eq!(host_of("http://db").as_deref(), Ok("db:80"));
        for wrong in ["https://db", "db:80", "http://", "http://db/x", "http://a@b"] {
            assert!(host_of(wrong).is_err(), "{wrong}");
        }
        assert_eq!(split("http://h:1/b/k?a=http://x/"), Ok(("h:1", "/b/k?a=http://x/")));
        assert!(split("/b/k").is_err());
    }
}
