//! Tarantool: one node that syncs each write. Nothing is replicated: what a stored procedure costs without that.

use std::net::TcpStream;
use std::path::Path;

use cluster_tests::launch::free_port;

use super::child::Child;
use super::{READY, needed, until};
use crate::clients::BALANCE;

/// What it runs.
const SERVER: &str = include_str!("tarantool.lua");

/// The server.
pub struct Tarantool {
    address: String,
    _server: Child,
}

impl Tarantool {
    /// Starts it with so many accounts and waits until it serves.
    ///
    /// # Errors
    /// When it is not installed, or does not become ready.
    pub fn start(dir: &Path, accounts: u64) -> Result<Self, String> {
        let program = needed("tarantool")?;
        let address = format!("127.0.0.1:{}", free_port());
        let script = dir.join("server.lua");
        std::fs::write(&script, SERVER).map_err(|e| format!("{}: {e}", script.display()))?;
        let args = vec![
            script.display().to_string(),
            address.clone(),
            dir.display().to_string(),
            accounts.to_string(),
            BALANCE.to_string(),
        ];
        let server = Child::start(&program, args, dir.join("log"))?;
        until("Tarantool", READY, || {
            let failed = |e| format!("{e}; {}", server.last_words());
            TcpStream::connect(&address).map(drop).map_err(failed)
        })?;
        Ok(Tarantool { address, _server: server })
    }

    /// Where it serves.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}
