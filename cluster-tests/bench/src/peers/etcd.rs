//! etcd: three members with its defaults, but for a quota that a million keys fit in.

use std::path::{Path, PathBuf};

use cluster_tests::http::{Http, Reply};
use cluster_tests::launch::free_port;
use cluster_tests::wait::holds;
use serde_json::Value;
use tokio::runtime::Handle;

use super::child::Child;
use super::load::{Load, in_parts};
use super::{READY, System, needed, until};
use crate::clients::etcd::Etcd as Connection;
use crate::clients::gateway;
use crate::clients::messages::{TxnRequest, put};
use crate::clients::writers::TRY;

/// Bytes that a member may store: the most that etcd recommends, where 2 GiB are the default.
const QUOTA_BYTES: u64 = 8 << 30;
/// Puts of a transaction: etcd's own limit.
const OPERATIONS_MAX: u64 = 128;
/// Channels of a load.
const CHANNELS: usize = 4;

/// The cluster.
pub struct Etcd {
    members: Vec<Child>,
    urls: Vec<String>,
    control: Handle,
    http: Http,
}

impl Etcd {
    /// Starts a cluster of three and waits until it takes writes.
    ///
    /// # Errors
    /// When it is not installed, or does not become ready.
    pub fn start(control: &Handle, dir: &Path) -> Result<Self, String> {
        let program = needed("etcd")?;
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let urls: Vec<String> = (0..3).map(|_| url(free_port())).collect();
        let peers: Vec<String> = (0..3).map(|_| url(free_port())).collect();
        let named = peers.iter().enumerate().map(|(n, peer)| format!("n{n}={peer}"));
        let cluster = named.collect::<Vec<_>>().join(",");
        let mut members = Vec::new();
        for (number, (url, peer)) in urls.iter().zip(&peers).enumerate() {
            let args = arguments(number, url, peer, &cluster, dir);
            members.push(Child::start(&program, args, dir.join(format!("n{number}.log")))?);
        }
        let (control, http) = (control.clone(), Http::default());
        let mut etcd = Etcd { members, urls, control, http };
        etcd.revive()?;
        Ok(etcd)
    }

    fn post(&self, url: &str, path: &str, body: &str) -> Result<Reply, String> {
        let call = self.http.post(format!("{url}{path}"), body);
        let reply = self.control.block_on(call.timeout(TRY).send());
        let reply = reply.map_err(|failure| failure.reason)?;
        holds(reply.status == 200, || format!("{path}: {reply}"))?;
        Ok(reply)
    }

    /// Which member leads, where all that run say the same.
    fn try_leader(&mut self) -> Result<usize, String> {
        let mut leader = None;
        let mut ids = Vec::new();
        for place in 0..self.urls.len() {
            if !self.members.get_mut(place).is_some_and(Child::is_running) {
                continue;
            }
            let url = self.urls.get(place).cloned().unwrap_or_default();
            let status = self.post(&url, "/v3/maintenance/status", "{}")?;
            let status: Value = serde_json::from_slice(&status.body).map_err(|e| e.to_string())?;
            let text = |pointer: &str| status.pointer(pointer)?.as_str().map(str::to_owned);
            let named = text("/leader").filter(|id| id != "0").ok_or("no leader yet")?;
            let same = leader.as_ref().is_none_or(|leader| *leader == named);
            holds(same, || "members name different leaders".to_owned())?;
            leader = Some(named);
            ids.push((place, text("/header/member_id")));
        }
        let found = ids.into_iter().find(|(_, id)| leader.is_some() && *id == leader);
        found.map(|(place, _)| place).ok_or_else(|| "the leader does not answer".to_owned())
    }
}

fn arguments(number: usize, url: &str, peer: &str, cluster: &str, dir: &Path) -> Vec<String> {
    let data: PathBuf = dir.join(format!("n{number}"));
    let pairs = [
        ("--name", format!("n{number}")),
        ("--data-dir", data.display().to_string()),
        ("--listen-client-urls", url.to_owned()),
        ("--advertise-client-urls", url.to_owned()),
        ("--listen-peer-urls", peer.to_owned()),
        ("--initial-advertise-peer-urls", peer.to_owned()),
        ("--initial-cluster", cluster.to_owned()),
        ("--initial-cluster-state", "new".to_owned()),
        ("--logger", "zap".to_owned()),
        ("--log-level", "error".to_owned()),
        ("--quota-backend-bytes", QUOTA_BYTES.to_string()),
    ];
    pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

impl System for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn urls(&self) -> Vec<String> {
        self.urls.clone()
    }

    fn pids(&self) -> Vec<u32> {
        self.members.iter().map(Child::pid).collect()
    }

    fn leader(&mut self) -> Result<usize, String> {
        until("etcd's leader", READY, || self.try_leader())
    }

    fn write_once(&mut self) -> Result<(), String> {
        let body = gateway::put("once", "x");
        let mut last = "no member".to_owned();
        for url in &self.urls {
            match self.post(url, "/v3/kv/put", &body) {
                Ok(_) => return Ok(()),
                Err(reason) => last = reason,
            }
        }
        Err(last)
    }

    fn load(&mut self, load: &Load) -> Result<(), String> {
        let url = self.leader_url()?.pop().unwrap_or_default();
        let load = load.clone();
        let keys = load.keys.clone();
        self.control.block_on(async move {
            let channels = (0..CHANNELS).map(|_| Connection::new(&url));
            let channels: Vec<Connection> = channels.collect::<Result<_, _>>()?;
            in_parts(&keys, OPERATIONS_MAX, move |part| {
                let part_number = usize::try_from(part.start / OPERATIONS_MAX).unwrap_or_default();
                let channel = channels.get(part_number % CHANNELS).cloned();
                let success = load.pairs(part).map(|(key, value)| put(&key, value)).collect();
                transact(channel, TxnRequest { compare: Vec::new(), success })
            })
            .await
        })
    }

    fn start(&mut self) -> Result<(), String> {
        self.members.iter_mut().try_for_each(Child::restart)
    }

    fn kill_all(&mut self) {
        self.members.iter().for_each(Child::kill);
        self.members.iter_mut().for_each(Child::reap);
    }
}

async fn transact(channel: Option<Connection>, request: TxnRequest) -> Result<(), String> {
    let mut channel = channel.ok_or("no channel")?;
    let answer = channel.transact(request).await?;
    if answer.succeeded { Ok(()) } else { Err("etcd: a load was refused".to_owned()) }
}
