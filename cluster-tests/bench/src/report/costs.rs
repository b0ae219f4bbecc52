//! What a command costs, as a table: a column for each load.

use crate::costs::{Cost, Usage};
use crate::stats::short;

/// Where there is nothing to show.
const NOTHING: &str =
    "Not in this run: `make bench ROWS=costs` measures it, and a whole run shows it here.";

/// A line of the table.
type Line = (&'static str, fn(&Cost) -> String);

const LINES: [Line; 9] = [
    ("commands a second", |cost| short(cost.commands / cost.seconds)),
    ("commits a second: syncs of the leader's log", |cost| {
        short(cost.leader().syncs / cost.seconds)
    }),
    ("commands a commit", |cost| short(cost.commands / cost.leader().syncs)),
    ("messages between peers a command; those of the leader alone", |cost| {
        let all = cost.over_nodes(|node| node.messages) / cost.commands;
        format!("{}; {}", short(all), short(cost.leader().messages / cost.commands))
    }),
    ("bytes between peers for each byte of keys and values", |cost| {
        short(cost.over_nodes(|node| node.message_bytes) / cost.user_bytes)
    }),
    ("bytes written to disk for each byte, by each node", |cost| {
        let nodes = cost.nodes.len() as f64;
        short(cost.over_nodes(|node| node.disk_bytes) / cost.user_bytes / nodes)
    }),
    ("processor time a command: the leader", |cost| micros(cost, cost.leader().cpu)),
    ("each follower", |cost| {
        let followers = cost.nodes.iter().skip(1).map(|node: &Usage| micros(cost, node.cpu));
        followers.collect::<Vec<_>>().join(", ")
    }),
    ("the generator", |cost| micros(cost, cost.generator_cpu)),
];

fn micros(cost: &Cost, cpu: f64) -> String {
    format!("{} µs", short(cost.micros(cpu)))
}

/// The table.
pub(super) fn table(costs: &[Cost]) -> String {
    if costs.is_empty() {
        return NOTHING.to_owned();
    }
    let names: Vec<&str> = costs.iter().map(|cost| cost.name.as_str()).collect();
    let mut text = format!("| | {} |\n|---|{}\n", names.join(" | "), "---|".repeat(names.len()));
    for (what, figure) in LINES {
        let figures: Vec<String> = costs.iter().map(figure).collect();
        text += &format!("| {what} | {} |\n", figures.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_per_command_per_byte_and_per_node() {
        let usage = |syncs, messages, cpu| Usage {
            syncs,
            messages,
            message_bytes: 100_000.0,
            disk_bytes: 1_000_000.0,
            cpu,
        };
        let cost = Cost {
            name: "PUT, 64 clients".to_owned(),
            commands: 10_000.0,
            seconds: 2.0,
            user_bytes: 500_000.0,
            nodes: vec![
                usage(250.0, 600.0, 0.5),
                usage(260.0, 200.0, 0.2),
                usage(270.0, 200.0, 0.3),
            ],
            generator_cpu: 0.1,
            other_cores: 0.0,
        };
        let text = table(&[cost]);
        for line in [
            "| | PUT, 64 clients |",
            "| commands a second | 5,000 |",
            "log | 125 |",
            "| commands a commit | 40.0 |",
            "alone | 0.10; 0.0600 |",
            "values | 0.60 |",
            "node | 2.00 |",
            "leader | 50.0 µs |",
            "| each follower | 20.0 µs, 30.0 µs |",
            "| the generator | 10.0 µs |",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }

    #[test]
    fn a_run_without_it_says_how_to_get_it() {
        assert!(table(&[]).contains("make bench ROWS=costs"));
    }
}
