//! Rules that meet a node's packets by their port, or by chance.

use std::fmt;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::probe::{self, End};
use crate::lab::{CLIENT_PORT, Filter, HARNESS, PEER_PORT};
use crate::nemesis::{Arena, Evidence, Fault, Task, pick};

/// How long it may take until chance has met a packet.
const MET: Duration = Duration::from_secs(10);

/// What happens to packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// None of the clients' arrives; they are told so or not.
    CutClients { reset: bool },
    /// So many of a hundred that arrive are lost: of peers, or of all.
    Loss { percent: u8, clients_too: bool },
    /// So many of a hundred between peers are answered by a reset.
    Reset { percent: u8 },
}

impl Trouble {
    fn put(self, filter: &mut Filter, id: u64) {
        match self {
            Trouble::CutClients { reset } => {
                let verdict = if reset { "reject with tcp reset" } else { "drop" };
                let port = format!("tcp dport {CLIENT_PORT}");
                filter.input(id, format!("ip saddr {HARNESS} {port} counter {verdict}"));
            }
            Trouble::Loss { percent, clients_too } => {
                let who =
                    if clients_too { String::new() } else { format!("ip saddr != {HARNESS} ") };
                let chance = format!("numgen random mod 100 < {percent}");
                filter.input(id, format!("{who}{chance} counter drop"));
            }
            Trouble::Reset { percent } => {
                let chance = match percent {
                    // nft refuses a comparison that is always true.
                    100.. => String::new(),
                    _ => format!("numgen random mod 100 < {percent} "),
                };
                let rule = format!("tcp dport {PEER_PORT} {chance}counter reject with tcp reset");
                // Those of others to it, and its own to others.
                filter.input(id, rule.clone());
                filter.output(id, rule);
            }
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Trouble::CutClients { reset: false } => f.write_str("drop clients' packets"),
            Trouble::CutClients { reset: true } => f.write_str("reset clients' connections"),
            Trouble::Loss { percent, clients_too: false } => {
                write!(f, "lose {percent} % of peers' packets")
            }
            Trouble::Loss { percent, clients_too: true } => {
                write!(f, "lose {percent} % of all packets")
            }
            Trouble::Reset { percent } => {
                write!(f, "answer {percent} % of peers' packets by a reset")
            }
        }
    }
}

/// A trouble of some nodes.
pub(super) struct Rules {
    trouble: Trouble,
    ids: Vec<u64>,
    filter: Filter,
}

impl Rules {
    pub(super) fn new(trouble: Trouble, ids: Vec<u64>) -> Self {
        let mut filter = Filter::default();
        for id in &ids {
            trouble.put(&mut filter, *id);
        }
        Rules { trouble, ids, filter }
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.trouble, pick::list(&self.ids))
    }
}

impl Fault for Rules {
    fn install<'a>(&'a mut self, arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(async move {
            self.filter.install()?;
            let mut seen = Vec::new();
            for id in self.ids.clone() {
                let others = arena.cluster.others(id);
                let met = match self.trouble {
                    Trouble::CutClients { reset } => self.cut_clients(id, &others, reset).await?,
                    Trouble::Loss { .. } => self.meets(id, &others, false).await?,
                    Trouble::Reset { .. } => self.meets(id, &others, true).await?,
                };
                seen.push(format!("{id}: {met}"));
            }
            Ok(seen.join(", "))
        })
    }

    fn undo<'a>(&'a mut self, _arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move { self.filter.remove() })
    }
}

impl Rules {
    async fn cut_clients(&self, id: u64, others: &[u64], reset: bool) -> Result<String, String> {
        let answer = probe::connect(End::Harness, id, CLIENT_PORT).await?;
        let met = self.filter.counted(id)?;
        let refused = answer == Err(ErrorKind::ConnectionRefused);
        if answer.is_ok() || refused != reset || met == 0 {
            return Err(format!("clients of node {id} got {answer:?}, {met} packets met"));
        }
        let pairs: Vec<(u64, u64)> = others.iter().map(|other| (*other, id)).collect();
        let silent = probe::silent(&pairs).await?;
        let peers = pairs.len() - silent.len();
        Ok(format!("a client got {answer:?}, {met} packets met, {peers} peers pass"))
    }

    /// Sends packets until chance has met some; from every peer, for another fault may be between two.
    async fn meets(&self, id: u64, others: &[u64], connections: bool) -> Result<String, String> {
        let deadline = Instant::now() + MET;
        for other in others.iter().cycle() {
            let (from, to) = (End::Node(*other), End::Node(id));
            if connections {
                probe::connect(from, id, PEER_PORT).await?.ok();
            } else {
                probe::ping(from, to, "-c 40 -i 0.005 -W 0.2").await?;
            }
            let met = self.filter.counted(id)?;
            if met > 0 {
                return Ok(format!("{met} packets met"));
            }
            if Instant::now() > deadline {
                return Err(format!("node {id}: no packet was met within {MET:?}"));
            }
        }
        Err(format!("node {id} has no peer"))
    }
}
