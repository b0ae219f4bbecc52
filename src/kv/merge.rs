//! The rows of a range, merged from ordered layers: where several hold a name, the first layer wins.

use std::collections::{BTreeMap, btree_map};
use std::iter::Peekable;

use bytes::Bytes;

use super::keyspace::{Row, Table};
use crate::error::Result;

/// A layer's rows in order; a removed one is `None`.
pub(super) type Source<'t> = Box<dyn Iterator<Item = Result<(Bytes, Option<Bytes>)>> + 't>;

/// A layer made of rows that are all there.
pub(super) fn boxed<'t>(
    rows: impl Iterator<Item = Result<(Bytes, Option<Bytes>)>> + 't,
) -> Source<'t> {
    Box::new(rows)
}

/// A range of one table's rows within a map of rows.
pub(super) struct RowBounds {
    start: Row,
    end: Option<Row>,
    table: Table,
}

impl RowBounds {
    pub(super) fn new(table: Table, start: &[u8], end: Option<&[u8]>) -> Self {
        let row = |name: &[u8]| Row { table, name: Bytes::copy_from_slice(name) };
        RowBounds { start: row(start), end: end.map(row), table }
    }

    pub(super) fn select<'t, V>(
        &self,
        map: &'t BTreeMap<Row, V>,
        reverse: bool,
        value: fn(&V) -> Option<Bytes>,
    ) -> Source<'t> {
        if self.end.as_ref().is_some_and(|end| *end <= self.start) {
            return Box::new(std::iter::empty());
        }
        let range: btree_map::Range<'t, Row, V> = match &self.end {
            Some(end) => map.range(self.start.clone()..end.clone()),
            None => map.range(self.start.clone()..),
        };
        let table = self.table;
        let rows = range
            .filter(move |(row, _)| row.table == table)
            .map(move |(row, v)| Ok((row.name.clone(), value(v))));
        if reverse { Box::new(rows.rev()) } else { Box::new(rows) }
    }
}

/// Merges ordered sources; where several hold a name, the first source wins.
pub(super) struct Merge<'t> {
    sources: [Peekable<Source<'t>>; 3],
    reverse: bool,
}

impl<'t> Merge<'t> {
    pub(super) fn new(sources: [Source<'t>; 3], reverse: bool) -> Self {
        Merge { sources: sources.map(Iterator::peekable), reverse }
    }
}

impl Iterator for Merge<'_> {
    type Item = Result<(Bytes, Option<Bytes>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut next: Option<Bytes> = None;
        for source in &mut self.sources {
            match source.peek() {
                Some(Err(error)) => return Some(Err(error.clone())),
                Some(Ok((name, _))) => {
                    let nearer = next
                        .as_ref()
                        .is_none_or(|best| if self.reverse { name > best } else { name < best });
                    if nearer {
                        next = Some(name.clone());
                    }
                }
                None => {}
            }
        }
        let next = next?;
        let mut winner = None;
        for source in &mut self.sources {
            let has_it = matches!(source.peek(), Some(Ok((name, _))) if *name == next);
            if has_it {
                winner = winner.or(source.next());
                // A later source's row of the same name is older: step over it.
                if let Some(Ok((name, _))) = source.peek() {
                    debug_assert!(*name != next, "a source yields a name once");
                }
            }
        }
        winner
    }
}
