//! A cluster of child processes on loopback, and the faults done to it.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::http::{Http, Reply};
use crate::lab::Place;
use crate::launch::{ADMIN_KEY, CLUSTER_SECRET, Launch};
use crate::process::{self, Process};
use crate::status::{Digest, Status};
use crate::wait::{self, holds};

/// How long a probe of one node may take.
const PROBE: Duration = Duration::from_secs(2);
/// How long a graceful stop may take.
const STOP: Duration = Duration::from_secs(15);

/// One node of a cluster.
pub struct Node {
    id: u64,
    url: String,
    peer: String,
    data: PathBuf,
    process: Process,
}

/// The cluster. Dropping it kills every node.
pub struct Cluster {
    /// A client that follows nothing by itself.
    pub http: Http,
    nodes: Vec<Node>,
    dir: PathBuf,
    flags: Vec<String>,
}

/// What a command of the binary said.
pub struct CliOutput {
    /// Whether it exited with 0.
    pub success: bool,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Cluster {
    /// Starts the processes and waits for nothing.
    ///
    /// # Panics
    /// When the directory cannot be made.
    #[must_use]
    pub fn launch(launch: &Launch, dir: PathBuf) -> Self {
        let places = (1..=launch.nodes)
            .map(|id| Place::on_loopback(id, dir.join(format!("node-{id}"))))
            .collect();
        Cluster::launch_at(launch, dir, places)
    }

    /// The same, with a node at each of these places; logs go to the directory.
    ///
    /// # Panics
    /// When the directory cannot be made.
    #[must_use]
    pub fn launch_at(launch: &Launch, dir: PathBuf, places: Vec<Place>) -> Self {
        std::fs::create_dir_all(&dir).expect("the cluster's directory can be made");
        let mut flags = launch.flags.clone();
        flags.extend(["--admin-key".to_owned(), ADMIN_KEY.to_owned()]);
        let mut cluster = Cluster { http: Http::default(), nodes: Vec::new(), dir, flags };
        let peers: Vec<String> = if launch.nodes == 1 {
            Vec::new()
        } else {
            places.iter().map(|place| format!("{}:{}", place.host, place.peer_port)).collect()
        };
        for place in places {
            cluster.put_node(place, &peers, CLUSTER_SECRET);
        }
        for node in &mut cluster.nodes {
            node.process.start();
        }
        cluster
    }

    fn put_node(&mut self, place: Place, join: &[String], secret: &str) {
        let (host, port, peer_port) = (&place.host, place.port, place.peer_port);
        let mut args = vec!["start".to_owned()];
        let mut flag = |name: &str, value: String| args.extend([name.to_owned(), value]);
        flag("--node-id", place.id.to_string());
        flag("--data", place.data.display().to_string());
        flag("--listen", format!("{host}:{port}"));
        flag("--peer-listen", format!("{host}:{peer_port}"));
        if !join.is_empty() {
            flag("--cluster-secret", secret.to_owned());
            flag("--join", join.join(","));
        }
        args.extend(self.flags.clone());
        let log = self.dir.join(format!("node-{}.log", place.id));
        self.nodes.push(Node {
            id: place.id,
            url: format!("http://{host}:{port}"),
            peer: format!("{host}:{peer_port}"),
            process: Process::new(&place, args, log),
            data: place.data,
        });
    }

    /// Starts one more node that asks those there to let it join, with this secret.
    pub fn add_node(&mut self, id: u64, secret: &str) {
        let place = Place::on_loopback(id, self.dir.join(format!("node-{id}")));
        self.add_node_at(place, secret);
    }

    /// The same, at a place.
    pub fn add_node_at(&mut self, place: Place, secret: &str) {
        let id = place.id;
        let mut join: Vec<String> = self.nodes.iter().map(|node| node.peer.clone()).collect();
        join.push(format!("{}:{}", place.host, place.peer_port));
        self.put_node(place, &join, secret);
        self.node_mut(id).process.start();
    }

    /// Forgets a node: kills it and deletes its data, as if its machine were gone.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn destroy(&mut self, id: u64) {
        let index = self.nodes.iter().position(|node| node.id == id).expect("the node exists");
        let mut node = self.nodes.remove(index);
        if node.process.is_running() {
            node.process.signal(Signal::SIGKILL);
        }
        node.process.reap();
        // A node that was never let in may have made no directory.
        let _ = std::fs::remove_dir_all(&node.data);
    }

    /// Kills a node and deletes its data, as if its disk were new; its place and flags stay.
    ///
    /// # Panics
    /// When the data cannot be deleted.
    pub fn wipe(&mut self, id: u64) {
        if self.process(id).is_running() {
            self.kill(id);
        }
        std::fs::remove_dir_all(&self.node(id).data).expect("the node's data can be deleted");
    }

    fn node(&self, id: u64) -> &Node {
        let node = self.nodes.iter().find(|node| node.id == id);
        node.unwrap_or_else(|| panic!("no node {id}"))
    }

    fn node_mut(&mut self, id: u64) -> &mut Node {
        let node = self.nodes.iter_mut().find(|node| node.id == id);
        node.unwrap_or_else(|| panic!("no node {id}"))
    }

    /// All node ids.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.id).collect()
    }

    /// All node ids but one.
    #[must_use]
    pub fn others(&self, id: u64) -> Vec<u64> {
        self.ids().into_iter().filter(|other| *other != id).collect()
    }

    /// The client URL of a node.
    #[must_use]
    pub fn url(&self, id: u64) -> &str {
        &self.node(id).url
    }

    /// A node's data directory.
    #[must_use]
    pub fn data(&self, id: u64) -> &Path {
        &self.node(id).data
    }

    /// A node's log.
    #[must_use]
    pub fn log(&self, id: u64) -> &Path {
        self.node(id).process.log()
    }

    /// The last lines of a node's log.
    #[must_use]
    pub fn log_tail(&self, id: u64) -> String {
        self.node(id).process.log_tail()
    }

    /// A path on a node.
    #[must_use]
    pub fn at(&self, id: u64, path: &str) -> String {
        format!("{}{path}", self.node(id).url)
    }

    /// The client URLs of some nodes.
    #[must_use]
    pub fn urls(&self, ids: &[u64]) -> Vec<String> {
        ids.iter().map(|id| self.node(*id).url.clone()).collect()
    }

    /// The process ids of all nodes.
    ///
    /// # Panics
    /// When one does not run.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node.process.pid()).collect()
    }

    /// A node's process.
    pub fn process(&mut self, id: u64) -> &mut Process {
        &mut self.node_mut(id).process
    }

    // What the nodes say.

    /// What a node says of the cluster.
    pub async fn try_status(&self, id: u64) -> Result<Status, String> {
        self.try_json(id, "/-/cluster").await
    }

    /// What a node says of the cluster.
    ///
    /// # Panics
    /// When it says nothing.
    pub async fn status(&self, id: u64) -> Status {
        let status = self.try_status(id).await;
        status.unwrap_or_else(|reason| panic!("status of node {id}: {reason}"))
    }

    /// A node's digest of its own state.
    pub async fn try_digest(&self, id: u64) -> Result<Digest, String> {
        self.try_json(id, &format!("/-/digest?access_token={ADMIN_KEY}")).await
    }

    async fn try_json<T: serde::de::DeserializeOwned>(
        &self,
        id: u64,
        path: &str,
    ) -> Result<T, String> {
        let reply = self.http.get(self.at(id, path)).timeout(PROBE).send().await;
        let reply = reply.map_err(|failure| failure.reason)?;
        holds(reply.status == 200, || format!("node {id}: {path}: {reply}"))?;
        serde_json::from_slice(&reply.body).map_err(|e| format!("node {id}: {path}: {e}: {reply}"))
    }

    /// Whether a node answers `/readyz` with 200.
    pub async fn try_node_ready(&self, id: u64) -> Result<(), String> {
        let reply = self.http.get(self.at(id, "/readyz")).timeout(PROBE).send().await;
        let reply = reply.map_err(|failure| failure.reason)?;
        holds(reply.status == 200, || format!("node {id} is not ready: {reply}"))
    }

    /// Who leads, where all nodes that run say the same and the leader agrees.
    pub async fn try_leader(&mut self) -> Result<u64, String> {
        let mut leader = None;
        for id in self.running() {
            let status = self.try_status(id).await?;
            let named = status.leader.ok_or_else(|| format!("node {id} knows no leader"))?;
            let same = leader.is_none_or(|leader| leader == named);
            holds(same, || format!("node {id} names {named}, another {leader:?}"))?;
            let honest = (status.state == "leader") == (named == id);
            holds(honest, || format!("node {id} is {} and names {named}", status.state))?;
            leader = Some(named);
        }
        leader.ok_or_else(|| "no node runs".to_owned())
    }

    /// Waits until all nodes that run agree on a leader that runs.
    pub async fn leader(&mut self) -> u64 {
        wait::until("one leader", Duration::from_secs(15), async || self.try_leader().await).await
    }

    /// The nodes that run and do not lead.
    pub async fn followers(&mut self) -> Vec<u64> {
        let leader = self.leader().await;
        self.running().into_iter().filter(|id| *id != leader).collect()
    }

    /// The nodes whose processes run.
    pub fn running(&mut self) -> Vec<u64> {
        let running = self.nodes.iter_mut().filter_map(|node| {
            let id = node.id;
            node.process.is_running().then_some(id)
        });
        running.collect()
    }

    /// Waits until every node runs, is ready and agrees on the leader.
    pub async fn try_ready(&mut self, limit: Duration) -> Result<(), String> {
        wait::try_until(limit, async || {
            for node in &mut self.nodes {
                holds(node.process.is_running(), || format!("node {} has exited", node.id))?;
            }
            for id in self.ids() {
                self.try_node_ready(id).await?;
            }
            self.try_leader().await.map(drop)
        })
        .await
    }

    /// Waits until every node runs, is ready and agrees on the leader.
    ///
    /// # Panics
    /// When that takes longer than half a minute.
    pub async fn ready(&mut self) {
        let ready = self.try_ready(Duration::from_secs(30)).await;
        ready.unwrap_or_else(|reason| panic!("the cluster is not ready: {reason}"));
    }

    /// Whether a node has exited because another process has its port.
    pub fn lost_a_port(&mut self) -> bool {
        self.nodes.iter_mut().any(|node| {
            let log = node.process.log_tail().to_lowercase();
            !node.process.is_running() && log.contains("in use")
        })
    }

    /// Waits until all nodes stand at the same applied index, and compares their digests there.
    ///
    /// # Panics
    /// When they differ, or never meet.
    pub async fn agree(&self) -> Digest {
        let limit = Duration::from_secs(30);
        wait::until("all nodes at one applied index", limit, async || {
            let mut first: Option<Digest> = None;
            for id in self.ids() {
                let digest = self.try_digest(id).await?;
                let Some(first) = &first else {
                    first = Some(digest);
                    continue;
                };
                let (a, b) = (first.applied_index, digest.applied_index);
                holds(a == b, || format!("node {id} is at {b}, another at {a}"))?;
                assert_eq!(*first, digest, "node {id} differs at the same applied index");
            }
            first.ok_or_else(|| "no nodes".to_owned())
        })
        .await
    }

    // Faults and their undoing.

    /// `kill -9`.
    pub fn kill(&mut self, id: u64) {
        self.kill_all(&[id]);
    }

    /// `kill -9` of several at once.
    pub fn kill_all(&mut self, ids: &[u64]) {
        for id in ids {
            self.process(*id).signal(Signal::SIGKILL);
        }
        for id in ids {
            self.process(*id).reap();
        }
    }

    /// Freezes a node.
    pub fn pause(&mut self, id: u64) {
        self.process(id).signal(Signal::SIGSTOP);
    }

    /// Lets a frozen node go on.
    pub fn resume(&mut self, id: u64) {
        self.process(id).signal(Signal::SIGCONT);
    }

    /// Starts a node again, on its data and ports.
    pub fn restart(&mut self, id: u64) {
        self.process(id).start();
    }

    /// SIGTERM, and its exit.
    pub async fn stop(&mut self, id: u64) -> ExitStatus {
        self.process(id).signal(Signal::SIGTERM);
        self.process(id).exited(STOP).await
    }

    // What tests do first.

    /// Creates a bucket; `policy` is a form such as `secret_key=s&read_key=r`.
    ///
    /// # Panics
    /// When it is not created.
    pub async fn create_bucket(&self, id: u64, name: &str, policy: &str) {
        let form = format!("id={name}&{policy}");
        let call = self.http.post(self.at(id, "/"), form.trim_end_matches('&'));
        let reply = call.header("content-type", "application/x-www-form-urlencoded").expect(201);
        assert_eq!(reply.await.text(), name);
    }

    /// Uploads a script to a bucket.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn put_script(&self, id: u64, bucket: &str, name: &str, source: &str) {
        self.put_script_as(id, bucket, name, source, None).await;
    }

    /// Uploads a script to a bucket with its secret key.
    ///
    /// # Panics
    /// When it is refused.
    pub async fn put_script_as(
        &self,
        id: u64,
        bucket: &str,
        name: &str,
        source: &str,
        secret: Option<&str>,
    ) {
        let call = self.http.put(self.at(id, &format!("/{bucket}/scripts/{name}")), source);
        let call = call.header("content-type", "text/plain");
        let call = if let Some(secret) = secret { call.bearer(secret) } else { call };
        let reply = call.send().await.unwrap_or_else(|failure| panic!("{}", failure.reason));
        assert!(matches!(reply.status, 200 | 201), "uploading `{name}`: {reply}");
    }

    /// Calls an admin path on a node with the admin key.
    ///
    /// # Panics
    /// When it does not succeed.
    pub async fn admin(&self, method: &str, id: u64, path: &str, body: &str) -> Reply {
        let call = self.http.call(method, self.at(id, path)).body(body).bearer(ADMIN_KEY);
        let call = call.header("content-type", "application/json");
        let reply = call.timeout(Duration::from_secs(60)).send().await;
        let reply = reply.unwrap_or_else(|failure| panic!("{}", failure.reason));
        assert!(reply.status < 300, "{method} {path}: {reply}");
        reply
    }

    /// Runs a client command of the binary against a node, with the admin key.
    ///
    /// # Panics
    /// When the binary cannot be run.
    #[must_use]
    pub fn cli(&self, id: u64, args: &[&str]) -> CliOutput {
        let output = process::command()
            .args(args)
            .env("KVDB_URL", self.url(id))
            .env("KVDB_ADMIN_KEY", ADMIN_KEY)
            .output()
            .expect("the binary can be run");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        CliOutput { success: output.status.success(), stdout, stderr }
    }
}
