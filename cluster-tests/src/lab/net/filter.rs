//! Rules in the nodes' namespaces, in an nft table of their own: filters lie on top of each other, and
//! removing one leaves the others.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Network;
use crate::lab::run;

/// Rules that are put in and taken away together.
pub struct Filter {
    table: String,
    input: BTreeMap<u64, Vec<String>>,
    output: BTreeMap<u64, Vec<String>>,
}

impl Default for Filter {
    fn default() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let table = format!("f{}", COUNT.fetch_add(1, Ordering::Relaxed));
        Filter { table, input: BTreeMap::new(), output: BTreeMap::new() }
    }
}

impl Filter {
    /// Adds a rule for what a node receives.
    pub fn input(&mut self, id: u64, rule: impl Into<String>) {
        self.input.entry(id).or_default().push(rule.into());
    }

    /// Adds a rule for what a node sends.
    pub fn output(&mut self, id: u64, rule: impl Into<String>) {
        self.output.entry(id).or_default().push(rule.into());
    }

    /// Forgets the rules; they must have been removed.
    pub fn clear(&mut self) {
        self.input.clear();
        self.output.clear();
    }

    fn nodes(&self) -> Vec<u64> {
        let mut ids: Vec<u64> = self.input.keys().chain(self.output.keys()).copied().collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Puts the rules in; those of one node all at once.
    pub fn install(&self) -> Result<(), String> {
        for id in self.nodes() {
            let input = chain("input", self.input.get(&id));
            let output = chain("output", self.output.get(&id));
            nft(id, format!("table inet {} {{ {input} {output} }}", self.table))?;
        }
        Ok(())
    }

    /// Takes them away, where they are.
    pub fn remove(&self) -> Result<(), String> {
        for id in self.nodes() {
            // Adding first: to delete what is not there is an error.
            nft(id, format!("add table inet {0}; delete table inet {0}", self.table))?;
        }
        Ok(())
    }

    /// How many packets met a `counter` in a node's rules.
    pub fn counted(&self, id: u64) -> Result<u64, String> {
        let shown = nft(id, format!("list table inet {}", self.table))?;
        let mut words = shown.split_whitespace();
        let mut sum = 0;
        while words.any(|word| word == "counter") {
            // `counter packets 3 bytes 252`
            sum += words.nth(1).and_then(|count| count.parse::<u64>().ok()).unwrap_or(0);
        }
        Ok(sum)
    }

    /// The same, of all nodes.
    pub fn counted_in_all(&self) -> Result<u64, String> {
        self.nodes().into_iter().map(|id| self.counted(id)).sum()
    }
}

fn chain(hook: &str, rules: Option<&Vec<String>>) -> String {
    let Some(rules) = rules else { return String::new() };
    // A name with a prefix: `input` alone is a word of the language.
    format!("chain at_{hook} {{ type filter hook {hook} priority 0; {} ; }} ;", rules.join(" ; "))
}

fn nft(id: u64, script: String) -> Result<String, String> {
    run(Network::inside(id, "nft").arg(script))
}
