//! Redis: each call is a command and the `WAIT 1` that makes sure of the replica, sent in one write.

use kvdb::bench::Client;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use super::resp::{self, Reply};
use super::{Draw, Work, account, key};

/// The transfer, as a script of Redis. It is atomic and not all-or-nothing: a script that fails half-way keeps
/// what it wrote.
pub const TRANSFER: &str = "\
local have, there = tonumber(redis.call('GET', KEYS[1])), tonumber(redis.call('GET', KEYS[2])) \
local amount = tonumber(ARGV[1]) \
if not have or not there or have < amount then return 0 end \
redis.call('SET', KEYS[1], have - amount) \
redis.call('SET', KEYS[2], there + amount) \
return 1";

/// One caller with its connection.
pub struct Caller {
    stream: BufReader<TcpStream>,
    output: Vec<u8>,
    script: String,
    work: Work,
    draw: Draw,
}

impl Caller {
    /// Connects; `script` is the SHA1 that the server gave the transfer.
    ///
    /// # Errors
    /// When it cannot connect.
    pub async fn connect(
        address: &str,
        script: &str,
        work: Work,
        draw: Draw,
    ) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|e| format!("{address}: {e}"))?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let (stream, script) = (BufReader::new(stream), script.to_owned());
        Ok(Caller { stream, output: Vec::new(), script, work, draw })
    }

    /// What the command must be answered with.
    fn ask(&mut self) -> Result<Reply, String> {
        self.output.clear();
        let expected = match self.work {
            Work::Put(keys) => {
                let key = key(self.draw.below(keys));
                resp::command(&mut self.output, &["SET", &key, self.draw.value()]);
                Reply::Simple("OK".to_owned())
            }
            Work::Transfer(accounts) => {
                let (from, to) = self.draw.pair(accounts);
                let (from, to) = (account(from), account(to));
                let words = ["EVALSHA", &self.script, "2", &from, &to, "1"];
                resp::command(&mut self.output, &words);
                Reply::Integer(1)
            }
            Work::Get(_) | Work::Count(_) => return Err("not asked of Redis".to_owned()),
        };
        resp::command(&mut self.output, &["WAIT", "1", "0"]);
        Ok(expected)
    }
}

impl Client for Caller {
    async fn call(&mut self, _serial: u64) -> Result<(), String> {
        let expected = self.ask()?;
        let broken = |error: std::io::Error| format!("redis: {error}");
        self.stream.get_mut().write_all(&self.output).await.map_err(broken)?;
        let answer = resp::read(&mut self.stream).await.map_err(broken)?;
        let copies = resp::read(&mut self.stream).await.map_err(broken)?;
        match copies {
            _ if answer != expected => Err(format!("redis: {answer:?}")),
            Reply::Integer(1..) => Ok(()),
            other => Err(format!("redis: no replica has it: {other:?}")),
        }
    }
}
