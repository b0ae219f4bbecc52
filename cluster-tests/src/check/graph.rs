//! Directed graphs: their cycles.
//!
//! A node is a transaction, or an auxiliary node that stands for many edges at once (a moment that much
//! has ended before, an end of a list that much comes after). Auxiliary edges cost nothing, so that the
//! shortest cycle is the one with the fewest transactions.

#![expect(
    clippy::indexing_slicing,
    reason = "every index is a node's, and each vector has all nodes"
)]

use std::collections::VecDeque;

/// Transactions of a component that a shortest cycle is looked for from.
const STARTS_MAX: usize = 500;

#[derive(Debug, Default)]
pub(super) struct Graph {
    edges: Vec<Vec<Edge>>,
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    to: usize,
    why: &'static str,
    cost: u32,
}

/// A step of a cycle: from a node, and why what follows comes after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub(super) from: usize,
    pub(super) why: &'static str,
}

impl Graph {
    pub(super) fn node(&mut self) -> usize {
        self.edges.push(Vec::new());
        self.edges.len() - 1
    }

    /// An edge that leaves a transaction.
    pub(super) fn link(&mut self, from: usize, to: usize, why: &'static str) {
        self.edges[from].push(Edge { to, why, cost: 1 });
    }

    /// An edge that leaves an auxiliary node.
    pub(super) fn pass(&mut self, from: usize, to: usize) {
        self.edges[from].push(Edge { to, why: "", cost: 0 });
    }

    /// A cycle of few transactions, if there is one. Only steps that leave transactions are told.
    pub(super) fn shortest_cycle(&self) -> Option<Vec<Step>> {
        let components = self.components();
        let mut size = vec![0_usize; self.edges.len()];
        for component in &components {
            size[*component] += 1;
        }
        let inside = (0..self.edges.len()).filter(|node| size[components[*node]] > 1);
        let starts = inside.filter(|node| self.edges[*node].iter().any(|edge| edge.cost > 0));
        let cycles = starts.take(STARTS_MAX).filter_map(|start| self.cycle(start, &components));
        cycles.min_by_key(Vec::len)
    }

    /// The shortest way from a node back to itself.
    fn cycle(&self, start: usize, components: &[usize]) -> Option<Vec<Step>> {
        let mut reached: Vec<Option<(u32, usize, &'static str)>> = vec![None; self.edges.len()];
        let mut queue = VecDeque::from([(start, 0_u32)]);
        while let Some((node, cost)) = queue.pop_front() {
            if node != start && reached[node].is_some_and(|(least, ..)| least < cost) {
                continue;
            }
            for edge in &self.edges[node] {
                let cost = cost + edge.cost;
                let better = reached[edge.to].is_none_or(|(least, ..)| cost < least);
                if components[edge.to] != components[start] || !better {
                    continue;
                }
                reached[edge.to] = Some((cost, node, edge.why));
                if edge.to == start {
                    continue;
                }
                if edge.cost == 0 {
                    queue.push_front((edge.to, cost));
                } else {
                    queue.push_back((edge.to, cost));
                }
            }
        }
        let mut steps = Vec::new();
        let mut node = start;
        loop {
            let (_, from, why) = reached[node]?;
            if !why.is_empty() {
                steps.push(Step { from, why });
            }
            node = from;
            if node == start {
                break;
            }
        }
        steps.reverse();
        Some(steps)
    }

    /// For each node the number of its strongly connected component (Tarjan, without recursion).
    fn components(&self) -> Vec<usize> {
        const NEW: usize = usize::MAX;
        let count = self.edges.len();
        let (mut index, mut low) = (vec![NEW; count], vec![0; count]);
        let (mut component, mut on_stack) = (vec![NEW; count], vec![false; count]);
        let (mut stack, mut next) = (Vec::new(), 0);
        for root in 0..count {
            if index[root] != NEW {
                continue;
            }
            let mut path = vec![(root, 0)];
            while let Some((node, edge)) = path.pop() {
                if edge == 0 && index[node] == NEW {
                    (index[node], low[node]) = (next, next);
                    next += 1;
                    stack.push(node);
                    on_stack[node] = true;
                }
                if let Some(Edge { to, .. }) = self.edges[node].get(edge) {
                    path.push((node, edge + 1));
                    if index[*to] == NEW {
                        path.push((*to, 0));
                    } else if on_stack[*to] {
                        low[node] = low[node].min(index[*to]);
                    }
                    continue;
                }
                if low[node] == index[node] {
                    while let Some(member) = stack.pop() {
                        on_stack[member] = false;
                        component[member] = node;
                        if member == node {
                            break;
                        }
                    }
                }
                if let Some((parent, _)) = path.last() {
                    low[*parent] = low[*parent].min(low[node]);
                }
            }
        }
        component
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_cycle_counts_transactions_only() {
        let mut graph = Graph::default();
        for _ in 0..8 {
            graph.node();
        }
        // Long: 0 1 2 3 0. Short in transactions: 0 3 0, by way of the auxiliary 5 6.
        graph.link(0, 1, "ww");
        graph.link(1, 2, "ww");
        graph.link(2, 3, "ww");
        graph.link(3, 0, "rw");
        graph.link(0, 5, "rt");
        graph.pass(5, 6);
        graph.pass(6, 3);
        graph.link(4, 0, "wr");
        let steps = graph.shortest_cycle().unwrap();
        assert_eq!(steps, [Step { from: 0, why: "rt" }, Step { from: 3, why: "rw" }]);
    }

    #[test]
    fn a_long_chain_has_no_cycle() {
        let mut graph = Graph::default();
        let nodes: Vec<usize> = (0..100_000).map(|_| graph.node()).collect();
        for pair in nodes.windows(2) {
            graph.link(pair[0], pair[1], "ww");
        }
        assert_eq!(graph.shortest_cycle(), None);
    }
}
