//! What the jobs of a turn run on, beneath their overlay.

use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::lock;
use crate::error::Result;
use crate::kv::store::Pair;
use crate::kv::{BucketId, BucketMeta, Get, SharedView, View, store};

/// Rows that a turn remembers: the policy, a few scripts, what all of its jobs ask for.
const REMEMBERED_MAX: usize = 16;

/// The state that a turn's jobs run on.
pub(super) struct Ground {
    pub(super) view: SharedView,
    pub(super) meta: BucketMeta,
}

impl Ground {
    /// The ground of a bucket, if there is one, in a view.
    pub(super) fn of(bucket: BucketId, view: SharedView) -> Result<Option<Self>> {
        let meta = store::meta(&*view, bucket)?;
        let view: SharedView = Arc::new(Remembering { view, rows: Mutex::default() });
        Ok(meta.map(|meta| Ground { view, meta }))
    }
}

/// A view that asks for the same row only once: it cannot have changed, and every job of a turn reads the
/// policy and most of them the same script.
struct Remembering {
    view: SharedView,
    /// Few, so that looking through them costs less than asking.
    rows: Mutex<Vec<(Vec<u8>, Option<Bytes>)>>,
}

impl Get for Remembering {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let known =
            |(known, value): &(Vec<u8>, Option<Bytes>)| (known == key).then(|| value.clone());
        let found = lock(&self.rows).iter().find_map(known);
        if let Some(value) = found {
            return Ok(value);
        }
        let value = self.view.get(key)?;
        let mut rows = lock(&self.rows);
        if rows.len() < REMEMBERED_MAX {
            rows.push((key.to_vec(), value.clone()));
        }
        Ok(value)
    }
}

impl View for Remembering {
    fn scan(&self, start: &[u8], end: &[u8], reverse: bool) -> Box<dyn Iterator<Item = Pair> + '_> {
        self.view.scan(start, end, reverse)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Counting(Arc<AtomicUsize>);

    impl Get for Counting {
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok((key != b"none").then(|| Bytes::copy_from_slice(key)))
        }
    }

    impl View for Counting {
        fn scan(&self, _: &[u8], _: &[u8], _: bool) -> Box<dyn Iterator<Item = Pair> + '_> {
            Box::new(std::iter::empty())
        }
    }

    #[test]
    fn asks_once_for_the_first_rows_and_each_time_for_the_rest() {
        let asked = Arc::new(AtomicUsize::new(0));
        let view = Arc::new(Counting(Arc::clone(&asked)));
        let view = Remembering { view, rows: Mutex::default() };
        for _ in 0..2 {
            assert_eq!(view.get(b"a").unwrap().unwrap(), "a");
            assert_eq!(view.get(b"none").unwrap(), None);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        for number in 0..2 * REMEMBERED_MAX {
            view.get(&number.to_le_bytes()).unwrap();
        }
        assert_eq!(lock(&view.rows).len(), REMEMBERED_MAX);
    }
}
