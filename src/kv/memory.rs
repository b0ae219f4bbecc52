//! The reference store: an ordered map. What the others are compared to, and what the core's tests
//! run on.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::store::{Get, Pair, Store, View};
use crate::error::Result;

/// An ordered map of bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory(BTreeMap<Vec<u8>, Bytes>);

impl Get for Memory {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.0.get(key).cloned())
    }
}

impl View for Memory {
    fn scan(&self, start: &[u8], end: &[u8], reverse: bool) -> Box<dyn Iterator<Item = Pair> + '_> {
        if start >= end {
            return Box::new(std::iter::empty());
        }
        let range = self
            .0
            .range::<[u8], _>((Bound::Included(start), Bound::Excluded(end)))
            .map(|(key, value)| Ok((Bytes::copy_from_slice(key), value.clone())));
        if reverse { Box::new(range.rev()) } else { Box::new(range) }
    }
}

impl Store for Memory {
    fn put(&mut self, key: Vec<u8>, value: Bytes) {
        self.0.insert(key, value);
    }

    fn delete(&mut self, key: Vec<u8>) {
        self.0.remove(&key);
    }

    fn delete_range(&mut self, start: Vec<u8>, end: Vec<u8>) {
        self.0.retain(|key, _| *key < start || *key >= end);
    }

    fn replace(&mut self, key: Vec<u8>, value: Option<Bytes>) -> Result<Option<Bytes>> {
        Ok(match value {
            Some(value) => self.0.insert(key, value),
            None => self.0.remove(&key),
        })
    }
}
