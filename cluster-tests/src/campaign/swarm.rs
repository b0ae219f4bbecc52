//! What each history of a campaign is: nodes, workloads, faults and knobs, drawn from the campaign's seed.

use super::history::Plan;
use super::{Knobs, Orders};
use crate::launch::Launch;

/// Workloads that one history has at a time.
const WORKLOADS: usize = 4;
/// Clients of each workload.
const CLIENTS: usize = 5;
/// Sizes of clusters, as often as they are drawn.
const NODES: [u64; 8] = [3, 3, 3, 3, 3, 5, 5, 1];

/// The plan of a campaign's history: a function of the orders and its number.
pub(super) fn plan(orders: &Orders, number: u64) -> Plan {
    let seed = orders.seed.wrapping_add(number);
    // Another stream than the schedule's, which begins with the same seed.
    let mut rng = fastrand::Rng::with_seed(seed ^ 0x5eed);
    // These first: they are the same whatever workloads there are to choose from.
    let (drawn, flags) = (rng.choice(NODES).unwrap_or(3), flags(orders.knobs, &mut rng));
    let mut workloads = orders.workloads.clone();
    if workloads.len() > WORKLOADS {
        rng.shuffle(&mut workloads);
        workloads.truncate(WORKLOADS);
    }
    Plan {
        name: format!("{:03}-seed-{seed}", number + 1),
        seed,
        nodes: orders.nodes.unwrap_or(drawn),
        time: orders.history,
        workloads,
        clients: CLIENTS,
        rate: orders.rate,
        kinds: orders.kinds.clone(),
        knobs: orders.knobs,
        flags,
        mutant: None,
    }
}

fn flags(kind: Knobs, rng: &mut fastrand::Rng) -> Vec<String> {
    match kind {
        Knobs::Tiny => knobs(rng),
        Knobs::Bench => {
            rng.choice(Launch::benchmarks()).map(|launch| launch.flags).unwrap_or_default()
        }
    }
}

/// Small numbers, so that what is rare in production happens here all the time.
pub(super) fn knobs(rng: &mut fastrand::Rng) -> Vec<String> {
    let mut flags = Vec::new();
    let mut flag = |name: &str, choices: &[&str]| {
        let value = rng.choice(choices).unwrap_or(&"");
        flags.extend([name.to_owned(), (*value).to_owned()]);
    };
    flag("--snapshot-entries", &["50", "100", "400"]);
    flag("--keep-entries", &["10", "50", "200"]);
    flag("--write-buffer-bytes", &["65536", "1048576"]);
    flag("--script-routing", &["redirect", "redirect", "forward"]);
    flag("--script-time-ms", &["200"]);
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knobs_are_tiny_or_those_of_the_benchmark() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut drawn = |knobs| -> Vec<Vec<String>> {
            let mut all: Vec<_> = (0..50).map(|_| flags(knobs, &mut rng)).collect();
            all.sort();
            all.dedup();
            all
        };
        let none: Vec<String> = Vec::new();
        assert_eq!(drawn(Knobs::Bench), [none, vec!["--keep-entries".into(), "100".into()]]);
        let tiny = drawn(Knobs::Tiny);
        assert!(tiny.len() > 10 && tiny.iter().all(|flags| flags.len() == 10), "{tiny:?}");
    }
}
