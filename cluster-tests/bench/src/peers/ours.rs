//! KVdb: three nodes with the binary's defaults.

use std::path::Path;
use std::time::{Duration, Instant};

use cluster_tests::cluster::Cluster;
use cluster_tests::http::{Http, Reply};
use cluster_tests::lab::Place;
use cluster_tests::launch::Launch;
use cluster_tests::wait::{holds, try_until};
use tokio::runtime::Handle;

use super::load::{Content, Load, in_parts};
use super::{POLL, READY, System};
use crate::clients::ours::{BANK, COUNT, SPIN, TRANSFER, VALUES, transaction};
use crate::supervise::dies_with_us;

/// How often ports are drawn again when somebody else took one.
const ATTEMPTS: usize = 3;
/// How long one transaction of a load is tried.
const LOAD_MAX: Duration = Duration::from_secs(60);
/// Most operations of a transaction.
const OPERATIONS_MAX: usize = 1000;
/// Bytes of a transaction's body that fit in, with room: the limit is 1 MiB.
const BODY_BYTES: usize = 900 << 10;
/// Where the slow script is.
pub const SLOW: &str = "slow";

/// The cluster.
pub struct Ours {
    /// The nodes.
    pub cluster: Cluster,
    control: Handle,
}

impl Ours {
    /// Starts a cluster of three, with the buckets and scripts that rows use.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn start(control: &Handle, dir: &Path, launch: &Launch) -> Result<Self, String> {
        let cluster = control.block_on(launched(launch, dir))?;
        let mut ours = Ours { cluster, control: control.clone() };
        let leader = ours.leader_id()?;
        ours.control.clone().block_on(async {
            for bucket in [VALUES, BANK, SLOW] {
                ours.cluster.create_bucket(leader, bucket, "").await;
            }
            ours.cluster.put_script(leader, BANK, "transfer", TRANSFER).await;
            ours.cluster.put_script(leader, BANK, "count", COUNT).await;
            ours.cluster.put_script(leader, SLOW, "spin", SPIN).await;
        });
        Ok(ours)
    }

    /// The id of the leader.
    ///
    /// # Errors
    /// When there is none for long.
    pub fn leader_id(&mut self) -> Result<u64, String> {
        let control = self.control.clone();
        let cluster = &mut self.cluster;
        control.block_on(try_until(READY, async || cluster.try_leader().await))
    }

    /// A call of the API, to the leader.
    ///
    /// # Errors
    /// When it is not answered with 200.
    pub fn call(&mut self, method: &str, path: &str) -> Result<Reply, String> {
        let leader = self.leader_id()?;
        let call = self.cluster.http.call(method, self.cluster.at(leader, path));
        let reply = self.control.block_on(call.timeout(Duration::from_secs(60)).send());
        let reply = reply.map_err(|failure| failure.reason)?;
        holds(reply.status == 200, || format!("{method} {path}: {reply}"))?;
        Ok(reply)
    }

    /// What a node tells at a URL.
    ///
    /// # Errors
    /// When it is not answered with 200 in time.
    pub fn get(&self, url: &str, limit: Duration) -> Result<String, String> {
        let reply = self.control.block_on(self.cluster.http.get(url).timeout(limit).send());
        let reply = reply.map_err(|failure| failure.reason)?;
        holds(reply.status == 200, || format!("{url}: {reply}"))?;
        Ok(reply.text())
    }
}

/// On loopback, with defaults in everything.
fn place(id: u64, dir: &Path) -> Place {
    let place = Place::on_loopback(id, dir.join(format!("node-{id}")));
    Place { prefix: dies_with_us(), ..place }
}

async fn launched(launch: &Launch, dir: &Path) -> Result<Cluster, String> {
    for attempt in 1..=ATTEMPTS {
        let dir = dir.join(format!("try-{attempt}"));
        let places = (1..=launch.nodes).map(|id| place(id, &dir)).collect();
        let mut cluster = Cluster::launch_at(launch, dir, places);
        match cluster.try_ready(READY).await {
            Ok(()) => return Ok(cluster),
            Err(_) if cluster.lost_a_port() => {}
            Err(reason) => return Err(format!("our cluster is not ready: {reason}")),
        }
    }
    Err("our ports were taken by others, again and again".to_owned())
}

impl System for Ours {
    fn name(&self) -> &'static str {
        "ours"
    }

    fn urls(&self) -> Vec<String> {
        self.cluster.urls(&self.cluster.ids())
    }

    fn pids(&self) -> Vec<u32> {
        self.cluster.pids()
    }

    fn leader(&mut self) -> Result<usize, String> {
        let leader = self.leader_id()?;
        let place = self.cluster.ids().iter().position(|id| *id == leader);
        place.ok_or_else(|| format!("node {leader} leads, and is none of ours"))
    }

    fn write_once(&mut self) -> Result<(), String> {
        let mut last = "no node".to_owned();
        for url in self.urls() {
            let call = self.cluster.http.put(format!("{url}/{VALUES}/once"), "x");
            match self.control.block_on(call.timeout(crate::clients::writers::TRY).send()) {
                Ok(reply) if reply.status == 200 => return Ok(()),
                Ok(reply) => last = reply.to_string(),
                Err(failure) => last = failure.reason,
            }
        }
        Err(last)
    }

    fn load(&mut self, load: &Load) -> Result<(), String> {
        // The leader first, then who may lead after it.
        let leader = self.leader_id()?;
        let nodes = [leader].into_iter().chain(self.cluster.others(leader));
        let running = self.cluster.running();
        let nodes = nodes.filter(|id| running.contains(id));
        let urls: Vec<String> =
            nodes.map(|id| self.cluster.at(id, &format!("/{}", load.bucket))).collect();
        let operations = match load.content {
            Content::Values(bytes) => (BODY_BYTES / (bytes + 64)).clamp(1, OPERATIONS_MAX),
            Content::Balances => OPERATIONS_MAX,
        };
        let (http, load) = (self.cluster.http.clone(), load.clone());
        let keys = load.keys.clone();
        self.control.block_on(in_parts(&keys, operations as u64, move |part| {
            transact(http.clone(), urls.clone(), transaction(load.pairs(part)))
        }))
    }

    fn start(&mut self) -> Result<(), String> {
        let running = self.cluster.running();
        for id in self.cluster.ids() {
            if !running.contains(&id) {
                self.cluster.restart(id);
            }
        }
        Ok(())
    }

    fn kill_all(&mut self) {
        self.cluster.kill_all(&self.cluster.ids());
    }
}

/// Sends a transaction, and again to the next node where it is not known to be done: it only sets keys.
async fn transact(http: Http, urls: Vec<String>, body: String) -> Result<(), String> {
    let begun = Instant::now();
    let mut last = "no node".to_owned();
    for url in urls.iter().cycle() {
        let call = http.post(url, body.clone()).header("content-type", "application/json");
        match call.timeout(LOAD_MAX).send().await {
            Ok(reply) if reply.status == 200 => return Ok(()),
            Ok(reply) => {
                last = format!("a transaction: {} {}", reply.status, reply.text().trim_end())
            }
            Err(failure) => last = failure.reason,
        }
        if begun.elapsed() > LOAD_MAX {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    Err(last)
}
