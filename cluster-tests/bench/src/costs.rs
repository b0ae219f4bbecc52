//! What a command costs ours: commits, messages, bytes and processor time, over one load.
//!
//! There is no peer and no target: it says where a command's time goes, and what batching gains. Counts are
//! those that each node tells under `/metrics`; bytes on disk and processor time are the kernel's, of each process.
//!
//! Invariants:
//! - The same node leads from the first look to the last, or it counts for nothing.
//! - A load that is looked at has no warm-up of its own: every call in the counters is one of the report's.

use std::time::Duration;

use kvdb::bench::Plan;
use serde::{Deserialize, Serialize};

use crate::clients::{KEY_BYTES, VALUE_BYTES, Work};
use crate::lab::{At, CLIENTS, KEYS, Lab};
use crate::machine;
use crate::peers::System;
use crate::peers::ours::Ours;
use crate::say::say;
use crate::stats::short;

/// Bytes of an account's key and of its balance, which begins with seven digits.
const ACCOUNT_BYTES: usize = KEY_BYTES + 7;
/// How long a node may take to tell its metrics.
const METRICS: Duration = Duration::from_secs(5);
/// How often a load is tried.
const ATTEMPTS: usize = 3;

/// A load that is looked at.
struct Load {
    name: &'static str,
    clients: usize,
    work: Work,
    /// Bytes of keys and values that one command writes.
    user_bytes: usize,
}

const LOADS: [Load; 3] = [
    put("PUT, 1 client", 1),
    put("PUT, 64 clients", CLIENTS),
    Load {
        name: "transfer, 64 clients",
        clients: CLIENTS,
        work: Work::Transfer(KEYS),
        user_bytes: 2 * ACCOUNT_BYTES,
    },
];

const fn put(name: &'static str, clients: usize) -> Load {
    Load { name, clients, work: Work::Put(KEYS), user_bytes: KEY_BYTES + VALUE_BYTES }
}

/// What a load used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// The load.
    pub name: String,
    /// Commands that were answered.
    pub commands: f64,
    /// Seconds that it took.
    pub seconds: f64,
    /// Bytes of keys and values that all of them wrote.
    pub user_bytes: f64,
    /// What each node used, the leader first.
    pub nodes: Vec<Usage>,
    /// Seconds of processor time of the generator.
    pub generator_cpu: f64,
    /// Cores that other processes used meanwhile.
    pub other_cores: f64,
}

/// What a node has used, or used meanwhile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Syncs of its log.
    pub syncs: f64,
    /// Messages to peers.
    pub messages: f64,
    /// Bytes of them.
    pub message_bytes: f64,
    /// Bytes that it had written to disk.
    pub disk_bytes: f64,
    /// Seconds of processor time.
    pub cpu: f64,
}

impl Usage {
    fn since(self, before: Usage) -> Usage {
        Usage {
            syncs: self.syncs - before.syncs,
            messages: self.messages - before.messages,
            message_bytes: self.message_bytes - before.message_bytes,
            disk_bytes: self.disk_bytes - before.disk_bytes,
            cpu: self.cpu - before.cpu,
        }
    }
}

impl Cost {
    /// What the leader used.
    #[must_use]
    pub fn leader(&self) -> Usage {
        self.nodes.first().copied().unwrap_or_default()
    }

    /// The sum over all nodes.
    #[must_use]
    pub fn over_nodes(&self, part: impl Fn(&Usage) -> f64) -> f64 {
        self.nodes.iter().map(part).sum()
    }

    /// Microseconds of processor time for each command.
    #[must_use]
    pub fn micros(&self, cpu: f64) -> f64 {
        cpu * 1e6 / self.commands
    }

    fn line(&self) -> String {
        let all = self.over_nodes(|node| node.cpu) + self.generator_cpu;
        format!(
            "{}: {} commands/s, {} a commit, {} messages and {} µs a command",
            self.name,
            short(self.commands / self.seconds),
            short(self.commands / self.leader().syncs),
            short(self.over_nodes(|node| node.messages) / self.commands),
            short(self.micros(all))
        )
    }
}

/// Looks at each load.
///
/// # Errors
/// When one cannot be looked at, again and again.
pub fn costs(lab: &mut Lab) -> Result<Vec<Cost>, String> {
    LOADS.iter().map(|load| again(|| cost(lab, load))).collect()
}

fn again(mut look: impl FnMut() -> Result<Cost, String>) -> Result<Cost, String> {
    let mut last = String::new();
    for _ in 0..ATTEMPTS {
        match look() {
            Ok(cost) => return Ok(cost),
            Err(reason) => {
                say(&format!("   a look counts for nothing: {reason}"));
                last = reason;
            }
        }
    }
    Err(last)
}

fn cost(lab: &mut Lab, load: &Load) -> Result<Cost, String> {
    let plan = lab.settings.closed(load.clients);
    lab.drive_ours(&Plan { duration: plan.warmup, ..plan }, load.work, At::Leader)?;
    let mut cost = Cost::default();
    let (_, noise) = lab.watched(&mut |lab| {
        cost = watched(lab, load, &Plan { warmup: Duration::ZERO, ..plan })?;
        Ok(cost.seconds)
    })?;
    cost.other_cores = noise.other_cores;
    say(&format!("   {}", cost.line()));
    Ok(cost)
}

fn watched(lab: &mut Lab, load: &Load, plan: &Plan) -> Result<Cost, String> {
    let own = std::process::id();
    let (leader, before) = look(lab.ours()?)?;
    let generator = machine::cpu_seconds(own);
    let report = lab.drive_ours(plan, load.work, At::Leader)?;
    let generator_cpu = machine::cpu_seconds(own) - generator;
    let (now_leads, after) = look(lab.ours()?)?;
    if now_leads != leader {
        return Err("another node leads now".to_owned());
    }
    let mut nodes: Vec<Usage> = after.iter().zip(before).map(|(a, b)| a.since(b)).collect();
    nodes.rotate_left(leader);
    Ok(Cost {
        name: load.name.to_owned(),
        commands: report.done as f64,
        seconds: report.elapsed.as_secs_f64(),
        user_bytes: report.done as f64 * load.user_bytes as f64,
        nodes,
        generator_cpu,
        other_cores: 0.0,
    })
}

/// Which node leads, by its place, and what each has used so far.
fn look(ours: &mut Ours) -> Result<(usize, Vec<Usage>), String> {
    let leader = ours.leader()?;
    let nodes = ours.urls().into_iter().zip(ours.pids());
    let used = nodes.map(|(url, pid)| {
        let metrics = ours.get(&format!("{url}/metrics"), METRICS)?;
        let of = |name| counter(&metrics, name);
        Ok(Usage {
            syncs: of("kvdb_raft_log_syncs")?,
            messages: of("kvdb_raft_peer_messages")?,
            message_bytes: of("kvdb_raft_peer_bytes")?,
            disk_bytes: machine::written_bytes(pid),
            cpu: machine::cpu_seconds(pid),
        })
    });
    Ok((leader, used.collect::<Result<_, String>>()?))
}

/// A counter without labels, of Prometheus' text.
fn counter(metrics: &str, name: &str) -> Result<f64, String> {
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok()).ok_or_else(|| format!("no metric `{name}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_found_by_its_whole_name() {
        let text = "# TYPE a_b counter\na_bytes 7\na_b{x=\"1\"} 3\na_b 12\n";
        assert_eq!(counter(text, "a_b"), Ok(12.0));
        assert_eq!(counter(text, "a_bytes"), Ok(7.0));
        assert!(counter(text, "a_by").unwrap_err().contains("a_by"));
    }

    #[test]
    fn what_was_used_before_does_not_count() {
        let usage = |x: f64| Usage {
            syncs: x,
            messages: 2.0 * x,
            message_bytes: 3.0 * x,
            disk_bytes: 4.0 * x,
            cpu: 5.0 * x,
        };
        assert_eq!(usage(7.0).since(usage(4.0)), usage(3.0));
    }

    #[test]
    fn a_look_that_failed_is_taken_again_but_not_for_ever() {
        let mut looks = 0;
        let once = again(|| {
            looks += 1;
            if looks == 1 { Err("an election".to_owned()) } else { Ok(Cost::default()) }
        });
        assert_eq!((once, looks), (Ok(Cost::default()), 2));
        assert_eq!(again(|| Err("no".to_owned())), Err("no".to_owned()));
    }
}
