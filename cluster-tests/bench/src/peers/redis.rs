//! Redis: a primary that syncs each write, and one replica; no snapshots.

use std::io::{BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use cluster_tests::launch::free_port;

use super::child::Child;
use super::load::Load;
use super::{READY, needed, until};
use crate::clients::redis::TRANSFER;
use crate::clients::resp::{self, Reply};

/// Commands that are sent before their replies are read.
const PIPELINE: u64 = 500;
/// How long a reply may take.
const REPLY: Duration = Duration::from_secs(10);

/// Both servers.
pub struct Redis {
    address: String,
    script: String,
    _primary: Child,
    _replica: Child,
}

impl Redis {
    /// Starts both and waits until the replica follows.
    ///
    /// # Errors
    /// When it is not installed, or they do not become ready.
    pub fn start(dir: &Path) -> Result<Self, String> {
        let (port, other) = (free_port(), free_port());
        let primary = server(dir, port, None)?;
        let replica = server(dir, other, Some(port))?;
        let address = format!("127.0.0.1:{port}");
        until("Redis and its replica", READY, || {
            let info = ask(&address, &["INFO", "replication"])?;
            match info {
                Reply::Bulk(Some(text)) if text.windows(12).any(|part| part == b"state=online") => {
                    Ok(())
                }
                other => {
                    Err(format!("{other:?}; {}; {}", primary.last_words(), replica.last_words()))
                }
            }
        })?;
        let script = match ask(&address, &["SCRIPT", "LOAD", TRANSFER])? {
            Reply::Bulk(Some(sha)) => String::from_utf8_lossy(&sha).into_owned(),
            other => return Err(format!("redis: the script was not loaded: {other:?}")),
        };
        Ok(Redis { address, script, _primary: primary, _replica: replica })
    }

    /// Where the primary is.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The SHA1 of the transfer.
    #[must_use]
    pub fn script(&self) -> &str {
        &self.script
    }

    /// Sets keys.
    ///
    /// # Errors
    /// When it fails.
    pub fn load(&self, load: &Load) -> Result<(), String> {
        let mut stream = connect(&self.address)?;
        let mut first = load.keys.start;
        while first < load.keys.end {
            let end = load.keys.end.min(first + PIPELINE);
            let mut output = Vec::new();
            for (key, value) in load.pairs(first..end) {
                resp::command(&mut output, &["SET", &key, &value]);
            }
            stream.get_mut().write_all(&output).map_err(|e| format!("redis: {e}"))?;
            for _ in first..end {
                let reply = resp::read_blocking(&mut stream).map_err(|e| format!("redis: {e}"))?;
                if reply != Reply::Simple("OK".to_owned()) {
                    return Err(format!("redis: {reply:?}"));
                }
            }
            first = end;
        }
        Ok(())
    }
}

fn server(dir: &Path, port: u16, primary: Option<u16>) -> Result<Child, String> {
    let data = dir.join(port.to_string());
    std::fs::create_dir_all(&data).map_err(|e| format!("{}: {e}", data.display()))?;
    let (port, data_dir) = (port.to_string(), data.display().to_string());
    let mut args: Vec<&str> = vec!["--port", &port, "--bind", "127.0.0.1", "--dir", &data_dir];
    args.extend([
        "--daemonize",
        "no",
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
    ]);
    // A replica that connects is served at once, not after five seconds: there is only one.
    args.extend(["--repl-diskless-sync-delay", "0"]);
    let primary = primary.map(|port| port.to_string());
    if let Some(primary) = &primary {
        args.extend(["--replicaof", "127.0.0.1", primary]);
    }
    let args = args.into_iter().map(str::to_owned).collect();
    Child::start(&needed("redis-server")?, args, data.join("log"))
}

fn connect(address: &str) -> Result<BufReader<TcpStream>, String> {
    let stream = TcpStream::connect(address).map_err(|e| format!("redis: {e}"))?;
    stream.set_read_timeout(Some(REPLY)).map_err(|e| format!("redis: {e}"))?;
    Ok(BufReader::new(stream))
}

fn ask(address: &str, words: &[&str]) -> Result<Reply, String> {
    let mut stream = connect(address)?;
    let mut output = Vec::new();
    resp::command(&mut output, words);
    stream.get_mut().write_all(&output).map_err(|e| format!("redis: {e}"))?;
    resp::read_blocking(&mut stream).map_err(|e| format!("redis: {e}"))
}
