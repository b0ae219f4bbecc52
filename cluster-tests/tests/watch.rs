//! Watches under a load of writes while leaders are killed: what each follower was told, over all its
//! connections to all nodes, is the bucket's history.

#![expect(clippy::unwrap_used, reason = "a test that meets a surprise panics")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cluster_tests::cluster::Cluster;
use cluster_tests::follow::{self, Follower, Told};
use cluster_tests::launch::Launch;
use cluster_tests::load::{Account, Load, Request};
use cluster_tests::scenario::Scenario;

/// Two keys in one command, and now and then a third removed.
const SCRIPT: &str = r#"
local n = tonumber(kvdb.var.n)
kvdb.set("mark/" .. n, n)
kvdb.set("pair/" .. n % 20, n)
if n % 5 == 0 then
  kvdb.delete("single/" .. n % 20)
end
"#;

const CLIENTS: usize = 16;
const FOLLOWERS: usize = 6;
const LIMIT: Duration = Duration::from_secs(60);

/// A write whose number is in what it sets.
fn write(number: u64) -> Request {
    if number.is_multiple_of(3) {
        let path = format!("/watch/scripts/pair?n={number}");
        return Request { method: "POST", path, body: String::new() };
    }
    let path = format!("/watch/single/{}", number % 20);
    Request { method: "PUT", path, body: number.to_string() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_are_told_the_history_while_leaders_die() {
    let scenario = Scenario::begin("watch");
    scenario.phase("start three nodes");
    let mut cluster = Launch::of(3).start(&scenario).await;
    let leader = cluster.leader().await;
    cluster.create_bucket(leader, "watch", "").await;
    cluster.put_script(leader, "watch", "pair", SCRIPT).await;
    let (since, _) = listed(&cluster, leader).await;
    let urls = cluster.urls(&cluster.ids());
    let follow = || Follower::start(urls.clone(), "watch", since);

    scenario.phase("writers, and followers that break off and resume at any node");
    let mut followers: Vec<_> = (0..FOLLOWERS).map(|_| follow()).collect();
    let load = Load::start(urls.clone(), CLIENTS, i64::MAX, write);
    for _ in 0..2 {
        load.more_acked(1_000, LIMIT).await;
        let leader = cluster.leader().await;
        scenario.phase("kill -9 of the leader, which comes back");
        cluster.kill(leader);
        load.more_acked(500, LIMIT).await;
        cluster.restart(leader);
        cluster.ready().await;
    }
    followers.push(follow());
    load.more_acked(500, LIMIT).await;
    let account = load.stop().await;
    cluster.ready().await;

    scenario.phase("what they were told");
    let leader = cluster.leader().await;
    let (last, keys) = listed(&cluster, leader).await;
    let mut first: Option<Told> = None;
    for follower in followers {
        let told = follower.finish(last, LIMIT).await;
        scenario.figure("connections of a follower", told.connections);
        assert_eq!(told.check_whole(since, last), Ok(()));
        let folded = told.folded();
        let folded: BTreeMap<_, _> =
            folded.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        assert_eq!(folded, keys, "what it makes of it is what the bucket holds");
        match &first {
            None => {
                check_account(&told, &account);
                first = Some(told);
            }
            Some(first) => assert_eq!(told.commits, first.commits, "the same to all"),
        }
    }
    scenario.figure("commands", last - since);
    cluster.agree().await;
}

/// The bucket's revision, and what its keys hold.
async fn listed(cluster: &Cluster, id: u64) -> (u64, BTreeMap<String, String>) {
    let list = cluster.at(id, "/watch/?values&format=json&limit=100000");
    let list = cluster.http.get(list).expect(200).await;
    let revision = list.header("x-kvdb-revision").unwrap().parse().unwrap();
    let pairs: Vec<(String, serde_json::Value)> = serde_json::from_slice(&list.body).unwrap();
    (revision, pairs.into_iter().map(|(key, value)| (key, follow::text(&value))).collect())
}

/// Each acknowledged write is told once, each unknown one at most once, and nothing else.
fn check_account(told: &Told, account: &Account) {
    let mut numbers = BTreeSet::new();
    for commit in &told.commits {
        let values: BTreeSet<u64> =
            commit.changes.iter().filter_map(|(_, value)| value.as_ref()?.parse().ok()).collect();
        assert_eq!(values.len(), 1, "one write: {commit:?}");
        let number = *values.first().unwrap();
        assert!(numbers.insert(number), "write {number} is told twice");
        let pair = number.is_multiple_of(3);
        let whole = if pair { 2..=3 } else { 1..=1 };
        assert!(whole.contains(&commit.changes.len()), "a write is told whole: {commit:?}");
    }
    let acked: BTreeSet<u64> = account.acked.iter().map(|(number, _)| *number).collect();
    let unknown: BTreeSet<u64> = account.unknown.iter().copied().collect();
    assert!(acked.is_subset(&numbers), "told: {:?}", acked.difference(&numbers));
    let others: Vec<_> =
        numbers.iter().filter(|n| !acked.contains(n) && !unknown.contains(n)).collect();
    assert!(others.is_empty(), "nobody wrote {others:?}");
}
