//! What the core asks of a place to keep bytes in: a point-in-time view, and a batch of changes.

use std::sync::Arc;

use bytes::Bytes;

use super::command::BucketId;
use super::keyspace::{self, BucketMeta, Counts, Row, Table};
use crate::encoding;
use crate::error::{Error, Result};

/// A key and its value, or why the bytes could not be read.
pub type Pair = Result<(Bytes, Bytes)>;

/// Bytes by their key.
pub trait Get {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>>;
}

/// Ordered bytes that do not change while they are looked at.
pub trait View: Get {
    /// The pairs with `start <= key < end`, in byte order or against it. An iterator that meets
    /// damage yields the error; it never ends early as if the range were shorter.
    fn scan(&self, start: &[u8], end: &[u8], reverse: bool) -> Box<dyn Iterator<Item = Pair> + '_>;
}

/// A view that threads may share and keep.
pub type SharedView = Arc<dyn View + Send + Sync>;

/// Takes changes, which later reads through it see.
pub trait Store: Get {
    /// Sets a key.
    fn put(&mut self, key: Vec<u8>, value: Bytes);
    /// Removes a key, present or not.
    fn delete(&mut self, key: Vec<u8>);
    /// Removes the keys with `start <= key < end`, which nobody reads again.
    fn delete_range(&mut self, start: Vec<u8>, end: Vec<u8>);

    /// Sets a row of a bucket, or removes it where there is no value; what it held.
    fn replace(&mut self, key: Vec<u8>, value: Option<Bytes>) -> Result<Option<Bytes>> {
        let old = self.get(&key)?;
        match value {
            Some(value) => self.put(key, value),
            None => self.delete(key),
        }
        Ok(old)
    }

    /// A bucket's meta row. Each command reads and sets its bucket's: a store may keep it decoded meanwhile.
    fn meta(&self, bucket: BucketId) -> Result<Option<BucketMeta>> {
        meta(self, bucket)
    }

    /// Sets a bucket's meta row.
    fn put_meta(&mut self, bucket: BucketId, meta: BucketMeta) -> Result<()> {
        self.put(keyspace::meta_key(bucket), encoding::encode(&meta)?.into());
        Ok(())
    }
}

/// A bucket's meta row.
pub fn meta(view: &(impl Get + ?Sized), bucket: BucketId) -> Result<Option<BucketMeta>> {
    match view.get(&keyspace::meta_key(bucket))? {
        Some(bytes) => encoding::decode("bucket meta", &bytes).map(Some),
        // The directory always exists.
        None if bucket == super::DIRECTORY => Ok(Some(BucketMeta::default())),
        None => Ok(None),
    }
}

/// All buckets, the directory first.
pub fn buckets(view: &(impl View + ?Sized)) -> Result<Vec<(BucketId, BucketMeta)>> {
    buckets_from(view, super::DIRECTORY, usize::MAX)
}

/// When the first row of a bucket dies, in milliseconds since 1970.
pub fn first_expiry(view: &(impl View + ?Sized), bucket: BucketId) -> Result<Option<u64>> {
    match rows(view, bucket, Table::Expiry, b"", None, false).next() {
        Some(pair) => Row::expiring(&pair?.0).map(|(at, _)| Some(at)),
        None => Ok(None),
    }
}

/// The buckets from a number on, so many at most.
pub fn buckets_from(
    view: &(impl View + ?Sized),
    from: BucketId,
    limit: usize,
) -> Result<Vec<(BucketId, BucketMeta)>> {
    let (_, end) = keyspace::meta_range();
    view.scan(&keyspace::meta_key(from), &end, false)
        .take(limit)
        .map(|pair| {
            let (key, value) = pair?;
            Ok((keyspace::meta_bucket(&key)?, encoding::decode("bucket meta", &value)?))
        })
        .collect()
}

/// A row of a bucket.
pub fn row(view: &(impl Get + ?Sized), bucket: BucketId, row: &Row) -> Result<Option<Bytes>> {
    view.get(&row.encode(bucket))
}

/// The number of a bucket, from the directory.
pub fn bucket_id(
    view: &(impl Get + ?Sized),
    name: &super::name::BucketName,
) -> Result<Option<BucketId>> {
    match row(view, super::DIRECTORY, &Row::bucket(name))? {
        Some(bytes) => encoding::decode("directory row", &bytes).map(Some),
        None => Ok(None),
    }
}

/// The rows of one table with `start <= name < end`; `end` of `None` is the table's end.
pub fn rows<'v, V: View + ?Sized>(
    view: &'v V,
    bucket: BucketId,
    table: Table,
    start: &[u8],
    end: Option<&[u8]>,
    reverse: bool,
) -> impl Iterator<Item = Pair> + use<'v, V> {
    let mut from = keyspace::table_start(bucket, table);
    let to = match end {
        Some(end) => [&from, end].concat(),
        // The next table's ordinal: tables are few, so the byte has a successor.
        None => keyspace::prefix_end(&from).unwrap_or_else(|| keyspace::rows_end(bucket)),
    };
    from.extend_from_slice(start);
    view.scan(&from, &to, reverse).map(|pair| {
        let (key, value) = pair?;
        Ok((Row::decode(&key)?.1.name, value))
    })
}

/// Recomputes a bucket's counts and digest from its rows, to compare with its meta row.
pub fn recount(view: &(impl View + ?Sized), bucket: BucketId) -> Result<(Counts, u128)> {
    let (start, end) = (keyspace::rows_start(bucket), keyspace::rows_end(bucket));
    let (mut counts, mut digest) = (Counts::default(), 0u128);
    for pair in view.scan(&start, &end, false) {
        let (key, value) = pair?;
        let (_, row) = Row::decode(&key)?;
        counts.add(&row, value.len());
        digest = digest.wrapping_add(super::apply::row_digest(&row, &value));
    }
    Ok((counts, digest))
}

/// Fails where a bucket's rows are not those that its meta row was kept for.
pub fn verify(view: &(impl View + ?Sized)) -> Result<()> {
    for (bucket, meta) in buckets(view)? {
        if recount(view, bucket)? != (meta.counts, meta.digest) {
            let detail =
                format!("bucket {} ({}): rows do not match its digest", bucket.0, meta.name);
            return Err(Error::corrupt("state", detail));
        }
    }
    Ok(())
}
