//! Every target, as one table: what is measured, against what, and how.
//!
//! A row is a name, words for readers, a target and a function that measures rounds of two figures, ours and the
//! peer's. Where a row compares ours with ours, under another load or before a fault, the second figure takes the
//! peer's place.

mod disk;
mod latency;
mod outage;
mod rates;
mod rejoin;
mod scripts;
mod sizes;

pub use rates::by_clients;

use crate::lab::Lab;
use crate::stats::{Direction, Round};

/// What a row measured.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Its rounds.
    pub rounds: Vec<Round>,
    /// What a reader must know of how it was measured this time.
    pub note: String,
}

impl From<Vec<Round>> for Measured {
    fn from(rounds: Vec<Round>) -> Self {
        Measured { rounds, note: String::new() }
    }
}

/// One row of the table.
pub struct Row {
    /// Its name, for the command line and for plots.
    pub name: &'static str,
    /// What is measured.
    pub what: &'static str,
    /// Against what.
    pub peer: &'static str,
    /// What the figures count.
    pub unit: &'static str,
    /// On which side of the target a ratio must be.
    pub direction: Direction,
    /// The target of ours ÷ peer.
    pub target: f64,
    /// Measures it.
    pub measure: fn(&mut Lab) -> Result<Measured, String>,
}

use Direction::{AtLeast, AtMost, Reported};

const fn row(
    name: &'static str,
    what: &'static str,
    peer: &'static str,
    unit: &'static str,
    (direction, target): (Direction, f64),
    measure: fn(&mut Lab) -> Result<Measured, String>,
) -> Row {
    Row { name, what, peer, unit, direction, target, measure }
}

/// All rows, in the order in which they are measured: those that share databases follow each other.
pub const ROWS: &[Row] = &[
    row(
        "transfer-etcd",
        "bank transfer by one script: two reads, two writes, all or nothing; 64 clients",
        "etcd gRPC: read both, then compare-and-swap, until it succeeds",
        "1/s",
        (AtLeast, 12.0),
        rates::transfer_etcd,
    ),
    row(
        "transfer-redis",
        "the same transfer",
        "Redis EVALSHA, appendfsync always, one replica, WAIT 1",
        "1/s",
        (AtLeast, 1.0),
        rates::transfer_redis,
    ),
    row(
        "transfer-tarantool",
        "the same transfer",
        "Tarantool's stored procedure: one node, wal_mode fsync, nothing replicated",
        "1/s",
        (Reported, 0.0),
        rates::transfer_tarantool,
    ),
    row(
        "put-grpc",
        "PUT of 256 bytes, 64 clients",
        "etcd gRPC",
        "1/s",
        (AtLeast, 4.0),
        rates::put_grpc,
    ),
    row(
        "put-gateway",
        "PUT of 256 bytes, 64 clients",
        "etcd's HTTP gateway",
        "1/s",
        (AtLeast, 5.0),
        rates::put_gateway,
    ),
    row(
        "get-leader",
        "linearizable GET, 64 clients, on the leader",
        "etcd gRPC, on its leader",
        "1/s",
        (AtLeast, 5.0),
        rates::get_leader,
    ),
    row(
        "get-spread",
        "linearizable GET, 64 clients, spread over three nodes",
        "etcd gRPC, on its leader or spread, whichever is faster",
        "1/s",
        (AtLeast, 5.0),
        rates::get_spread,
    ),
    row(
        "hot-counter",
        "a script that counts, 64 clients, all on one key",
        "ours: the same script over 10,000 keys",
        "1/s",
        (AtLeast, 0.9),
        rates::hot_counter,
    ),
    row(
        "put-p50",
        "PUT, 1 client, median latency",
        "etcd gRPC",
        "ms",
        (AtMost, 0.7),
        latency::put_p50,
    ),
    row(
        "put-p99",
        "PUT at half of our peak rate, 99th percentile, open loop",
        "etcd gRPC at the same rate, or at its own peak where that is below",
        "ms",
        (AtMost, 0.5),
        latency::put_p99,
    ),
    row(
        "slow-script",
        "PUT at a quarter of our peak, 99th percentile, while a script of 50 ms runs in another bucket again and again",
        "ours: the same without the script",
        "ms",
        (AtMost, 1.5),
        scripts::slow_script,
    ),
    row(
        "outage",
        "longest time without a write after kill -9 of the leader: 16 writers over all nodes, 300 ms a try",
        "etcd, its defaults, over its HTTP gateway",
        "s",
        (AtMost, 0.7),
        outage::outage,
    ),
    row(
        "memory",
        "memory per node with 1 million keys of 256 bytes",
        "etcd",
        "MiB",
        (AtMost, 0.25),
        sizes::memory,
    ),
    row(
        "restart",
        "all nodes killed and started with 1 million keys, until a write is taken",
        "etcd",
        "s",
        (AtMost, 0.25),
        sizes::restart,
    ),
    row(
        "disk-bytes",
        "bytes written to disk per byte of key and value and node, over a million PUTs of 256 bytes",
        "etcd",
        "ratio",
        (AtMost, 1.0),
        disk::disk_bytes,
    ),
    row(
        "five-million",
        "PUT with 5 million keys, uniform, 64 clients",
        "ours: with 50,000 keys",
        "1/s",
        (AtLeast, 0.8),
        sizes::five_million,
    ),
    row(
        "rejoin",
        "PUT on the leader while a follower comes back by a snapshot of 1 GiB, 64 clients",
        "ours: just before, without that follower",
        "1/s",
        (AtLeast, 0.7),
        rejoin::rejoin,
    ),
];

/// What is chosen like a row and is none: it has no peer and no ratio. See [`crate::costs`].
pub const COSTS: &str = "costs";

/// What was chosen.
pub struct Chosen {
    /// Rows, in the table's order.
    pub rows: Vec<&'static Row>,
    /// Whether it is looked what a command costs.
    pub costs: bool,
}

/// What has these names; everything for none.
///
/// # Errors
/// When there is nothing of a name.
pub fn chosen(names: &[String]) -> Result<Chosen, String> {
    let known = || ROWS.iter().map(|row| row.name).chain([COSTS]);
    if let Some(name) = names.iter().find(|name| known().all(|known| known != *name)) {
        let known: Vec<_> = known().collect();
        return Err(format!("no row `{name}`; there are: {}", known.join(", ")));
    }
    let wanted = |wanted: &str| names.is_empty() || names.iter().any(|name| name == wanted);
    let rows = ROWS.iter().filter(|row| wanted(row.name)).collect();
    Ok(Chosen { rows, costs: wanted(COSTS) })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_target_has_its_row() {
        let targets: Vec<_> =
            ROWS.iter().map(|row| (row.name, row.direction.sign(), row.target)).collect();
        let expected = [
            ("transfer-etcd", '≥', 12.0),
            ("transfer-redis", '≥', 1.0),
            ("transfer-tarantool", '-', 0.0),
            ("put-grpc", '≥', 4.0),
            ("put-gateway", '≥', 5.0),
            ("get-leader", '≥', 5.0),
            ("get-spread", '≥', 5.0),
            ("hot-counter", '≥', 0.9),
            ("put-p50", '≤', 0.7),
            ("put-p99", '≤', 0.5),
            ("slow-script", '≤', 1.5),
            ("outage", '≤', 0.7),
            ("memory", '≤', 0.25),
            ("restart", '≤', 0.25),
            ("disk-bytes", '≤', 1.0),
            ("five-million", '≥', 0.8),
            ("rejoin", '≥', 0.7),
        ];
        assert_eq!(targets, expected);
    }

    #[test]
    fn names_are_words_for_a_command_line() {
        let names: BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
        let plain = |name: &str| {
            name.chars().all(|c| c.is_ascii_lowercase() || c == '-' || c.is_ascii_digit())
        };
        assert!(names.iter().all(|name| plain(name)));
    }

    #[test]
    fn rows_are_chosen_by_name_in_the_order_of_the_table() {
        let names = ["restart".to_owned(), "put-grpc".to_owned()];
        let some = chosen(&names).unwrap();
        let chosen_names: Vec<_> = some.rows.iter().map(|row| row.name).collect();
        assert_eq!((chosen_names, some.costs), (vec!["put-grpc", "restart"], false));
        let all = chosen(&[]).unwrap();
        assert_eq!((all.rows.len(), all.costs), (ROWS.len(), true));
        let costs = chosen(&[COSTS.to_owned()]).unwrap();
        assert_eq!((costs.rows.len(), costs.costs), (0, true));
        let refused = chosen(&["put".to_owned()]).err().unwrap();
        assert!(refused.contains("put-gateway"), "{refused}");
    }
}
