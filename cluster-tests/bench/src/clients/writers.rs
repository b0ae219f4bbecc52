//! Writers that go on when a node dies: a short try, then the next node.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use kvdb::bench::Client;
use kvdb::bench::http::{Answer, Connection, Request, Work as Asks};

/// How long one try may take.
pub const TRY: Duration = Duration::from_millis(300);

/// When calls were done, of all writers of a run.
pub type Log = Rc<RefCell<Vec<Instant>>>;

/// One writer.
pub struct Writer<W> {
    urls: Vec<String>,
    node: usize,
    connection: Option<Connection>,
    request: Request,
    work: W,
    log: Log,
}

impl<W: Asks> Writer<W> {
    /// A writer that begins with the node of this number, modulo how many there are.
    #[must_use]
    pub fn new(urls: Vec<String>, node: usize, work: W, log: Log) -> Self {
        Writer { urls, node, connection: None, request: Request::default(), work, log }
    }

    async fn attempt(&mut self) -> Result<(), String> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            empty => {
                let one = self.urls.get(self.node % self.urls.len()).cloned();
                empty.insert(Connection::new(&Vec::from_iter(one), 0, &[]).await?)
            }
        };
        let answer: Answer<'_> = connection.call(&self.request).await?;
        self.work.check(&answer)
    }
}

impl<W: Asks> Client for Writer<W> {
    async fn call(&mut self, serial: u64) -> Result<(), String> {
        self.request.clear();
        self.work.ask(serial, &mut self.request);
        let tried = tokio::time::timeout(TRY, self.attempt()).await;
        let result = tried.unwrap_or_else(|_| Err(format!("no answer within {TRY:?}")));
        if result.is_ok() {
            self.log.borrow_mut().push(Instant::now());
        } else {
            self.connection = None;
            self.node += 1;
        }
        result
    }
}
