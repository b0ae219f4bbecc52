//! `Idempotency-Key`: however often a call is asked, and whoever dies meanwhile, it is done once, and everybody
//! who asks is told the same.

#![expect(clippy::unwrap_used, reason = "a test that meets a surprise panics")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cluster_tests::cluster::Cluster;
use cluster_tests::http::{Call, Reply};
use cluster_tests::launch::Launch;
use cluster_tests::scenario::Scenario;
use cluster_tests::wait::{self, holds};
use cluster_tests::wire::{Request, Wire};
use tokio::sync::watch;
use tokio::task::JoinSet;

const KEYS: &str = "secret_key=owner&write_key=writer&read_key=reader";
const ADD: &str = r#"
local err, value = kvdb.incr("count", 1)
if err then
  kvdb.abort(400, err)
end
kvdb.print(value)
"#;

const CALLS: u64 = 1_000;
const CLIENTS: usize = 32;
const KILLS: usize = 10;
/// What moments, nodes and pauses are drawn from, unless `SEED` is in the environment.
const SEED: u64 = 20_261_124;
/// Calls that may be begun beyond a moment before its leader is dead and back, and how far moments are
/// apart: each kill shall meet clients at work.
const AHEAD: u64 = 48;
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(4);
const CONNECT: Duration = Duration::from_secs(1);
/// How long a call may stay without a definite answer.
const DEFINITE: Duration = Duration::from_secs(60);
/// Pause of a client that was told nothing.
const PAUSE_MS: std::ops::Range<u64> = 10..60;

/// A call by its number: half of them are `PATCH`, half are a script's.
fn request(serial: u64) -> Request {
    let (method, path, body) = match serial % 2 {
        0 => ("PATCH", "/once/count".to_owned(), "+1"),
        _ => ("POST", format!("/once/scripts/add?call={serial}"), ""),
    };
    let headers = vec![
        ("authorization", "Bearer owner".to_owned()),
        ("idempotency-key", format!("call-{serial}")),
    ];
    Request { method, path, headers, body: body.to_owned() }
}

/// What must be the same whenever it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    status: u16,
    body: Vec<u8>,
    revision: Option<String>,
    etag: Option<String>,
}

impl Told {
    fn of(reply: &Reply) -> Self {
        let header = |name| reply.header(name).map(str::to_owned);
        let (revision, etag) = (header("x-kvdb-revision"), header("etag"));
        Told { status: reply.status, body: reply.body.clone(), revision, etag }
    }
}

/// A call's definite answer.
struct Answered {
    serial: u64,
    told: Told,
    replayed: bool,
    /// Attempts before it that told nothing.
    silent: u64,
    /// Which node told it, as an index.
    node: usize,
}

fn is_replayed(reply: &Reply) -> bool {
    reply.header("idempotency-replayed") == Some("true")
}

/// What all clients share.
struct Shared {
    urls: Vec<String>,
    next: AtomicU64,
    /// Calls that may be begun so far.
    gate: watch::Receiver<u64>,
    answered: watch::Sender<u64>,
}

impl Shared {
    async fn client(self: Arc<Self>, mut luck: fastrand::Rng) -> Vec<Answered> {
        let (mut wire, mut all) = (Wire::within(CONNECT, ATTEMPT), Vec::new());
        let mut gate = self.gate.clone();
        loop {
            let serial = self.next.fetch_add(1, Ordering::Relaxed);
            if serial >= CALLS {
                return all;
            }
            gate.wait_for(|open| serial < *open).await.unwrap();
            all.push(self.until_definite(&mut wire, serial, &mut luck).await);
            self.answered.send_modify(|answered| *answered += 1);
        }
    }

    /// Asks one node or another, until one tells.
    async fn until_definite(
        &self,
        wire: &mut Wire,
        serial: u64,
        luck: &mut fastrand::Rng,
    ) -> Answered {
        let (began, mut silent) = (Instant::now(), 0);
        loop {
            let node = luck.usize(..self.urls.len());
            let url = self.urls.get(node).unwrap();
            let reason = match wire.send(url, request(serial)).await {
                Ok(reply) if reply.status == 200 => {
                    let (told, replayed) = (Told::of(&reply), is_replayed(&reply));
                    return Answered { serial, told, replayed, silent, node };
                }
                Ok(reply) if reply.status == 503 => reply.to_string(),
                Ok(reply) => panic!("call {serial} is answered {reply}"),
                Err(failure) => failure.reason,
            };
            silent += 1;
            let open = began.elapsed();
            assert!(open < DEFINITE, "call {serial}: nothing definite in {open:?}; last: {reason}");
            tokio::time::sleep(Duration::from_millis(luck.u64(PAUSE_MS))).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_increments_are_a_thousand_whoever_dies() {
    let scenario = Scenario::begin("exactly-once");
    let seed = std::env::var("SEED").map_or(SEED, |seed| seed.parse().unwrap());
    let mut rng = fastrand::Rng::with_seed(seed);
    scenario.phase("start three nodes");
    let mut cluster = Launch::of(3).start(&scenario).await;
    let leader = cluster.leader().await;
    cluster.create_bucket(leader, "once", KEYS).await;
    cluster.put_script_as(leader, "once", "add", ADD, Some("owner")).await;

    let moments = moments(&mut rng);
    scenario.phase(&format!("1,000 increments; seed {seed}, leaders are killed after {moments:?}"));
    let answered = run(&scenario, &mut cluster, &moments, &mut rng).await;
    check_sums(&scenario, &cluster, &answered).await;

    scenario.phase("every call once more, by another node");
    for call in &answered {
        let node = (call.node + 1) % cluster.ids().len();
        ask_again(&cluster, *cluster.ids().get(node).unwrap(), call).await;
    }
    check_count(&cluster, CALLS).await;

    scenario.phase("another request and another caller under the same key");
    let follower = *cluster.followers().await.first().unwrap();
    check_strangers(&cluster, follower).await;
    check_count(&cluster, CALLS + 1).await;

    scenario.phase("kill -9 of all nodes; the answers are still there");
    let all = cluster.ids();
    cluster.kill_all(&all);
    all.iter().for_each(|id| cluster.restart(*id));
    cluster.ready().await;
    for call in answered.iter().step_by(7) {
        let id = rng.choice(&all).unwrap();
        ask_again(&cluster, *id, call).await;
    }
    check_count(&cluster, CALLS + 1).await;
    cluster.agree().await;
}

/// After how many answers the leaders are killed.
fn moments(rng: &mut fastrand::Rng) -> Vec<u64> {
    let mut moments = BTreeSet::new();
    while moments.len() < KILLS {
        let moment = rng.u64(10..CALLS - AHEAD);
        if moments.iter().all(|other: &u64| other.abs_diff(moment) >= AHEAD) {
            moments.insert(moment);
        }
    }
    moments.into_iter().collect()
}

/// Lets all clients work while leaders die, and returns every answer in the calls' order.
async fn run(
    scenario: &Scenario,
    cluster: &mut Cluster,
    moments: &[u64],
    rng: &mut fastrand::Rng,
) -> Vec<Answered> {
    let (open, gate) = watch::channel(0);
    let (answered, mut seen) = watch::channel(0);
    let urls = cluster.urls(&cluster.ids());
    let shared = Arc::new(Shared { urls, next: AtomicU64::new(0), gate, answered });
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(Arc::clone(&shared).client(rng.fork()));
    }
    let mut all = Vec::new();
    for moment in moments {
        let leader = cluster.leader().await;
        open.send_modify(|open| *open = (*open).max(moment + AHEAD));
        tokio::select! {
            met = tokio::time::timeout(DEFINITE, seen.wait_for(|seen| seen >= moment)) => {
                met.unwrap_or_else(|_| panic!("{moment} calls were not answered")).unwrap();
            }
            // None is done before all moments are over, unless it has panicked.
            Some(done) = clients.join_next() => all.extend(done.unwrap()),
        }
        cluster.kill(leader);
        // It is back before the others have missed it, or when one of them leads.
        let next = if rng.bool() { Some(another_leads(cluster, leader).await) } else { None };
        let then = next.map_or("back at once".to_owned(), |next| format!("{next} leads"));
        scenario.say(&format!("   after {moment} answers: kill -9 of {leader}, {then}"));
        cluster.restart(leader);
        cluster.ready().await;
    }
    open.send_modify(|open| *open = CALLS);
    while let Some(done) = clients.join_next().await {
        all.extend(done.unwrap());
    }
    all.sort_by_key(|call| call.serial);
    all
}

async fn another_leads(cluster: &mut Cluster, old: u64) -> u64 {
    wait::until("another leader", Duration::from_secs(15), async || {
        let leader = cluster.try_leader().await?;
        holds(leader != old, || format!("the nodes still name {old}")).map(|()| leader)
    })
    .await
}

/// Each call has its own number and its own revision, and the counter is their count.
async fn check_sums(scenario: &Scenario, cluster: &Cluster, answered: &[Answered]) {
    scenario.phase("exact, and every answer distinct");
    let (silent, replayed) =
        (answered.iter().filter(|c| c.silent > 0), answered.iter().filter(|c| c.replayed));
    scenario.figure("calls that were asked more than once", silent.count());
    scenario.figure("calls whose first answer was lost", replayed.clone().count());
    assert!(
        answered.iter().any(|call| call.silent > 0),
        "no call was ever without an answer: the kills met nobody"
    );
    let number = |call: &Answered| {
        let text = String::from_utf8_lossy(&call.told.body).into_owned();
        text.trim().parse::<u64>().unwrap_or_else(|_| panic!("no number: {text:?}"))
    };
    let numbers: BTreeSet<u64> = answered.iter().map(number).collect();
    assert!(numbers == (1..=CALLS).collect(), "the answers are not 1 to {CALLS}, each once");
    let revisions: BTreeSet<_> = answered.iter().map(|call| call.told.revision.clone()).collect();
    assert_eq!(revisions.len(), answered.len(), "two calls have one revision");
    check_count(cluster, CALLS).await;
}

async fn check_count(cluster: &Cluster, expected: u64) {
    for id in cluster.ids() {
        let call = cluster.http.get(cluster.at(id, "/once/count")).bearer("owner");
        assert_eq!(call.expect(200).await.text(), expected.to_string(), "read on node {id}");
    }
}

/// Asks a node what was answered: it says the same, and that it is the same.
async fn ask_again(cluster: &Cluster, id: u64, call: &Answered) {
    let url = cluster.url(id);
    let reply = Wire::within(CONNECT, ATTEMPT).send(url, request(call.serial)).await;
    let reply = reply.unwrap_or_else(|failure| panic!("{}", failure.reason));
    assert_eq!(Told::of(&reply), call.told, "call {} once more, on node {id}", call.serial);
    assert!(is_replayed(&reply), "call {} once more, on node {id}: {reply}", call.serial);
}

/// Who asks something else under a key is told so; who may not ask at all is told that.
async fn check_strangers(cluster: &Cluster, id: u64) {
    let keyed = |method: &str, path: &str, body: &str, key: &str, who: &str| -> Call {
        let call = cluster.http.call(method, cluster.at(id, path)).body(body).bearer(who);
        call.header("idempotency-key", key).header("accept", "application/json")
    };
    let code = async |call: Call, status: u16| {
        let reply = call.expect(status).await;
        let applied = reply.header("x-kvdb-applied").map(str::to_owned);
        let body = reply.json();
        let code = body.pointer("/error/code").and_then(|code| code.as_str());
        (code.unwrap_or("none").to_owned(), applied)
    };
    let mismatch = ("idempotency_mismatch".to_owned(), Some("no".to_owned()));
    for (method, path, body, who) in [
        ("PATCH", "/once/count", "+2", "owner"),
        ("PATCH", "/once/other", "+1", "owner"),
        ("PUT", "/once/count", "+1", "owner"),
        ("PATCH", "/once/count?ttl=60", "+1", "owner"),
        ("PATCH", "/once/count", "+1", "writer"),
    ] {
        let told = code(keyed(method, path, body, "call-0", who), 422).await;
        assert_eq!(told, mismatch, "{method} {path} {body} by {who}");
    }
    keyed("PATCH", "/once/count", "+1", "call-0", "reader").expect(403).await;
    keyed("PATCH", "/once/count", "+1", "call-0", "nobody").expect(401).await;

    // What was answered `no` was not recorded, and may be tried again, also as something else.
    keyed("PATCH", "/once/count", "much", "second-try", "owner").expect(400).await;
    let reply = keyed("PATCH", "/once/count", "+1", "second-try", "owner").expect(200).await;
    assert_eq!(reply.text(), (CALLS + 1).to_string());
    assert!(!is_replayed(&reply), "{reply}");
    let long = "k".repeat(256);
    keyed("PATCH", "/once/count", "+1", &long, "owner").expect(400).await;
}
