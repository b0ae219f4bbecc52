//! The key table: where each row lies in the one ordered key space, and how rows are encoded.
//!
//! | kind | key | value |
//! |---|---|---|
//! | 1 applied | `01` | the last applied log id and the membership, owned by `raft` |
//! | 2 bucket | `02 ‖ bucket (8, BE)` | [`BucketMeta`] |
//! | 3 row | `03 ‖ bucket (8, BE) ‖ table (1) ‖ name` | what the table says |
//!
//! Ordinals are on disk and in peers' snapshots: never change one. Encoding keeps order: rows of a
//! table sort by the bytes of their names, tables by ordinal, buckets by number.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::command::{BucketId, CommandId};
use super::name::{BucketName, Key, ScriptName};
use crate::encoding;
use crate::error::{Error, Result};

/// The key of the applied state.
pub const APPLIED: &[u8] = &[1];
const BUCKET: u8 = 2;
const ROW: u8 = 3;
/// Bytes before the name in an expiry row's name: time, table.
const EXPIRY_PREFIX_BYTES: usize = 9;
/// Bytes before a row's name: kind, bucket, table.
const ROW_PREFIX_BYTES: usize = 10;
/// Bytes of a meta row's key: kind, bucket.
const META_KEY_BYTES: usize = 9;

/// A bucket's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Table {
    /// Key to [`Record`].
    Key = 1,
    /// Script name to [`Script`].
    Script = 2,
    /// The one row `""` to `Policy`.
    Policy = 3,
    /// Of the directory: bucket name to bucket number.
    Bucket = 4,
    /// Of the directory: node id ever used to the data directory that used it.
    Node = 5,
    /// When a row dies, its table and its name to nothing: what is to be swept, in the order of time.
    Expiry = 6,
    /// Token id to `Token`.
    Token = 7,
    /// `Idempotency-Key` to the answer that was given under it.
    Recorded = 8,
    /// Script name and version to [`Script`]: every upload that is kept.
    ScriptVersion = 9,
    /// Name of a read-only script to nothing: a node looks here before it sends a call to the leader.
    Readonly = 10,
}

impl Table {
    fn from_ordinal(ordinal: u8) -> Result<Self> {
        Ok(match ordinal {
            1 => Table::Key,
            2 => Table::Script,
            3 => Table::Policy,
            4 => Table::Bucket,
            5 => Table::Node,
            6 => Table::Expiry,
            7 => Table::Token,
            8 => Table::Recorded,
            9 => Table::ScriptVersion,
            10 => Table::Readonly,
            other => return Err(Error::corrupt("row key", format!("table {other}"))),
        })
    }
}

/// A row's place within its bucket.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Row {
    /// The table.
    pub table: Table,
    /// The name within the table.
    pub name: Bytes,
}

impl Row {
    /// The row of a key.
    #[must_use]
    pub fn key(key: &Key) -> Self {
        Row { table: Table::Key, name: key.bytes().clone() }
    }

    /// The row of a script.
    #[must_use]
    pub fn script(name: &ScriptName) -> Self {
        Row { table: Table::Script, name: Bytes::copy_from_slice(name.as_str().as_bytes()) }
    }

    /// The row of the policy.
    #[must_use]
    pub fn policy() -> Self {
        Row { table: Table::Policy, name: Bytes::new() }
    }

    /// The directory's row of a bucket.
    #[must_use]
    pub fn bucket(name: &BucketName) -> Self {
        Row { table: Table::Bucket, name: Bytes::copy_from_slice(name.as_str().as_bytes()) }
    }

    /// The directory's row of a node id.
    #[must_use]
    pub fn node(id: u64) -> Self {
        Row { table: Table::Node, name: Bytes::copy_from_slice(&id.to_be_bytes()) }
    }

    /// The row that says when another dies. Ordered by time.
    #[must_use]
    pub fn expiry(expires_at: u64, of: &Row) -> Self {
        let mut name = Vec::with_capacity(EXPIRY_PREFIX_BYTES + of.name.len());
        name.extend_from_slice(&expires_at.to_be_bytes());
        name.push(of.table as u8);
        name.extend_from_slice(&of.name);
        Row { table: Table::Expiry, name: name.into() }
    }

    /// Which row dies by an expiry row of this name, and when.
    pub fn expiring(name: &Bytes) -> Result<(u64, Self)> {
        let (prefix, own) = name
            .split_first_chunk::<EXPIRY_PREFIX_BYTES>()
            .ok_or_else(|| Error::corrupt("expiry row", "too short"))?;
        let [a, b, c, d, e, f, g, h, table] = *prefix;
        let expires_at = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        Ok((expires_at, Row { table: Table::from_ordinal(table)?, name: name.slice_ref(own) }))
    }

    /// The row of a token.
    #[must_use]
    pub fn token(id: &str) -> Self {
        Row { table: Table::Token, name: Bytes::copy_from_slice(id.as_bytes()) }
    }

    /// The row of an answer that was recorded under a name.
    #[must_use]
    pub fn recorded(name: impl Into<Bytes>) -> Self {
        Row { table: Table::Recorded, name: name.into() }
    }

    /// The row that marks a script as read-only.
    #[must_use]
    pub fn readonly(name: &ScriptName) -> Self {
        Row { table: Table::Readonly, name: Bytes::copy_from_slice(name.as_str().as_bytes()) }
    }

    /// The row of one version of a script. A script's name holds no zero byte.
    #[must_use]
    pub fn script_version(name: &ScriptName, version: u64) -> Self {
        let mut bytes = script_versions_start(name);
        bytes.extend_from_slice(&version.to_be_bytes());
        Row { table: Table::ScriptVersion, name: bytes.into() }
    }

    /// Its place in the key space.
    #[must_use]
    pub fn encode(&self, bucket: BucketId) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ROW_PREFIX_BYTES + self.name.len());
        bytes.push(ROW);
        bytes.extend_from_slice(&bucket.0.to_be_bytes());
        bytes.push(self.table as u8);
        bytes.extend_from_slice(&self.name);
        bytes
    }

    /// The inverse of [`Row::encode`].
    pub fn decode(bytes: &Bytes) -> Result<(BucketId, Self)> {
        let (prefix, name) = bytes
            .split_first_chunk::<ROW_PREFIX_BYTES>()
            .ok_or_else(|| Error::corrupt("row key", "too short"))?;
        let [kind, b0, b1, b2, b3, b4, b5, b6, b7, table] = *prefix;
        if kind != ROW {
            return Err(Error::corrupt("row key", format!("kind {kind}")));
        }
        let bucket = BucketId(u64::from_be_bytes([b0, b1, b2, b3, b4, b5, b6, b7]));
        Ok((bucket, Row { table: Table::from_ordinal(table)?, name: bytes.slice_ref(name) }))
    }
}

/// What the names of all versions of a script begin with.
#[must_use]
pub fn script_versions_start(name: &ScriptName) -> Vec<u8> {
    [name.as_str().as_bytes(), &[0]].concat()
}

/// Where a table of a bucket begins.
#[must_use]
pub fn table_start(bucket: BucketId, table: Table) -> Vec<u8> {
    let mut bytes = rows_start(bucket);
    bytes.push(table as u8);
    bytes
}

/// Where the rows of a bucket begin.
#[must_use]
pub fn rows_start(bucket: BucketId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(ROW_PREFIX_BYTES + 32);
    bytes.push(ROW);
    bytes.extend_from_slice(&bucket.0.to_be_bytes());
    bytes
}

/// Where the rows of a bucket end (exclusive).
#[must_use]
pub fn rows_end(bucket: BucketId) -> Vec<u8> {
    match bucket.0.checked_add(1) {
        Some(next) => rows_start(BucketId(next)),
        None => vec![ROW + 1],
    }
}

/// The key of a bucket's meta row.
#[must_use]
pub fn meta_key(bucket: BucketId) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(META_KEY_BYTES);
    bytes.push(BUCKET);
    bytes.extend_from_slice(&bucket.0.to_be_bytes());
    bytes
}

/// Whether a key is one of a bucket's meta row.
#[must_use]
pub fn is_meta(key: &[u8]) -> bool {
    key.first() == Some(&BUCKET)
}

/// The range of all meta rows, end exclusive.
#[must_use]
pub fn meta_range() -> (Vec<u8>, Vec<u8>) {
    (vec![BUCKET], vec![BUCKET + 1])
}

/// The bucket of a meta row's key.
pub fn meta_bucket(key: &[u8]) -> Result<BucketId> {
    match key.split_first_chunk::<1>() {
        Some(([BUCKET], rest)) => <[u8; 8]>::try_from(rest)
            .map(|number| BucketId(u64::from_be_bytes(number)))
            .map_err(|_| Error::corrupt("bucket key", "not nine bytes")),
        _ => Err(Error::corrupt("bucket key", "kind")),
    }
}

/// The smallest byte string after every string that begins with `prefix`; `None` where there is
/// none (a prefix of only `ff`).
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

/// What the database knows of a bucket beside its rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BucketMeta {
    /// The name; empty for the directory.
    pub name: String,
    /// The last applied command.
    pub head: CommandId,
    /// Raised by one with each applied command; begins at the log index of the creation.
    pub revision: u64,
    /// The bucket's time, in milliseconds since 1970; never goes back.
    pub now: u64,
    /// How much is in it.
    pub counts: Counts,
    /// The sum over all rows of a hash of row and value: equal on replicas whose rows are equal.
    pub digest: u128,
}

/// How much a bucket holds. Differences of two are counts as well, and wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Keys, those included whose time is over and that are not swept yet.
    pub keys: u64,
    /// Bytes of the keys' names and rows.
    pub bytes: u64,
    /// Rows that die some day.
    pub expiring: u64,
    /// Scripts.
    pub scripts: u64,
    /// Bytes of the scripts' rows, with those of all versions that are kept.
    pub scripts_bytes: u64,
    /// Tokens.
    pub tokens: u64,
    /// Recorded answers.
    pub recorded: u64,
    /// Bytes of the recorded answers' names and rows.
    pub recorded_bytes: u64,
}

impl Counts {
    /// Counts a row with a value of so many bytes.
    pub fn add(&mut self, row: &Row, value_bytes: usize) {
        self.count(row, value_bytes, u64::wrapping_add);
    }

    /// The inverse of [`Counts::add`].
    pub fn remove(&mut self, row: &Row, value_bytes: usize) {
        self.count(row, value_bytes, u64::wrapping_sub);
    }

    fn count(&mut self, row: &Row, value_bytes: usize, op: fn(u64, u64) -> u64) {
        let bytes = (row.name.len() + value_bytes) as u64;
        let (count, sum) = match row.table {
            Table::Key => (&mut self.keys, Some(&mut self.bytes)),
            Table::Expiry => (&mut self.expiring, None),
            Table::Script => (&mut self.scripts, Some(&mut self.scripts_bytes)),
            Table::ScriptVersion => {
                self.scripts_bytes = op(self.scripts_bytes, bytes);
                return;
            }
            Table::Token => (&mut self.tokens, None),
            Table::Recorded => (&mut self.recorded, Some(&mut self.recorded_bytes)),
            Table::Policy | Table::Bucket | Table::Node | Table::Readonly => return,
        };
        *count = op(*count, 1);
        if let Some(sum) = sum {
            *sum = op(*sum, bytes);
        }
    }

    /// These and those.
    #[must_use]
    pub fn plus(self, other: Counts) -> Counts {
        self.combine(other, u64::wrapping_add)
    }

    /// These without those.
    #[must_use]
    pub fn minus(self, other: Counts) -> Counts {
        self.combine(other, u64::wrapping_sub)
    }

    fn combine(self, other: Counts, op: fn(u64, u64) -> u64) -> Counts {
        Counts {
            keys: op(self.keys, other.keys),
            bytes: op(self.bytes, other.bytes),
            expiring: op(self.expiring, other.expiring),
            scripts: op(self.scripts, other.scripts),
            scripts_bytes: op(self.scripts_bytes, other.scripts_bytes),
            tokens: op(self.tokens, other.tokens),
            recorded: op(self.recorded, other.recorded),
            recorded_bytes: op(self.recorded_bytes, other.recorded_bytes),
        }
    }
}

/// What is stored for a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The bucket's revision of the last write.
    pub version: u64,
    /// When the key dies, in milliseconds since 1970.
    pub expires_at: Option<u64>,
    /// The content type it was written with; `text/plain` where none.
    pub content_type: Option<String>,
    /// The value.
    pub value: Bytes,
}

/// A record as its row has it.
#[derive(Deserialize)]
struct Stored<'r> {
    version: u64,
    expires_at: Option<u64>,
    #[serde(borrow)]
    content_type: Option<&'r str>,
    value: &'r [u8],
}

impl<'r> Stored<'r> {
    fn decode(row: &'r [u8]) -> Result<Self> {
        encoding::decode_borrowed("record", row)
    }
}

impl Record {
    /// What a key's row says. The value is a piece of the row: it is not copied.
    pub fn decode(row: &Bytes) -> Result<Self> {
        let Stored { version, expires_at, content_type, value } = Stored::decode(row)?;
        let content_type = content_type.map(str::to_owned);
        Ok(Record { version, expires_at, content_type, value: row.slice_ref(value) })
    }

    /// When a key dies by its row.
    pub fn expires_at(row: &[u8]) -> Result<Option<u64>> {
        Ok(Stored::decode(row)?.expires_at)
    }
}

/// What is stored for a script.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// The bucket's revision of the upload.
    pub version: u64,
    /// SHA-256 of the source: names it in the cache of compiled scripts.
    pub sha256: [u8; 32],
    /// Luau source.
    pub source: String,
    /// How it is run.
    pub mode: ScriptMode,
}

/// How a script is run; part of each version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptMode {
    /// It may not write, and every node runs it.
    pub readonly: bool,
    /// Its scope begins as the whole bucket, whoever calls it: it *is* the access control. Else it
    /// begins as what its caller may do.
    pub as_owner: bool,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_row() -> impl Strategy<Value = (BucketId, Row)> {
        let table = prop_oneof![
            Just(Table::Key),
            Just(Table::Script),
            Just(Table::Policy),
            Just(Table::Bucket),
            Just(Table::Node),
            Just(Table::Expiry),
            Just(Table::Token),
            Just(Table::Recorded),
            Just(Table::ScriptVersion),
            Just(Table::Readonly)
        ];
        (any::<u64>(), table, prop::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(bucket, table, name)| (BucketId(bucket), Row { table, name: name.into() }))
    }

    proptest! {
        #[test]
        fn records_are_read_in_place(
            version: u64, expires_at: Option<u64>, content_type: Option<String>, value: Vec<u8>, bit: usize,
        ) {
            let record = Record { version, expires_at, content_type, value: value.into() };
            let mut row = encoding::encode(&record).unwrap();
            let read = Record::decode(&row.clone().into()).unwrap();
            prop_assert_eq!(&read, &encoding::decode::<Record>("record", &row).unwrap());
            prop_assert_eq!(read, record);
            prop_assert_eq!(Record::expires_at(&row).unwrap(), expires_at);
            let bit = bit % (row.len() * 8);
            row[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(Record::expires_at(&row).is_err());
            prop_assert!(Record::decode(&row.into()).is_err());
        }

        #[test]
        fn rows_round_trip((bucket, row) in any_row()) {
            let decoded = Row::decode(&row.encode(bucket).into()).unwrap();
            prop_assert_eq!(decoded, (bucket, row));
        }

        #[test]
        fn expiry_rows_round_trip((_, row) in any_row(), expires_at: u64) {
            let expiry = Row::expiry(expires_at, &row);
            prop_assert_eq!(Row::expiring(&expiry.name).unwrap(), (expires_at, row));
        }

        #[test]
        fn rows_keep_their_order(a in any_row(), b in any_row()) {
            let encoded = a.1.encode(a.0).cmp(&b.1.encode(b.0));
            prop_assert_eq!(encoded, a.cmp(&b));
        }

        #[test]
        fn rows_lie_within_their_bucket((bucket, row) in any_row()) {
            let key = row.encode(bucket);
            prop_assert!(rows_start(bucket) <= key && key < rows_end(bucket));
        }

        #[test]
        fn prefix_end_bounds_the_prefix(prefix: Vec<u8>, tail: Vec<u8>, other: Vec<u8>) {
            if let Some(end) = prefix_end(&prefix) {
                prop_assert!([prefix.clone(), tail].concat() < end);
                let inside = prefix <= other && other < end;
                prop_assert_eq!(inside, other.starts_with(&prefix));
            }
        }
    }

    /// The bytes on disk, spelled out: a change here is a change of format.
    #[test]
    fn golden_keys() {
        let row = Row { table: Table::Key, name: Bytes::from_static(b"ab") };
        assert_eq!(row.encode(BucketId(0x0102)), [3, 0, 0, 0, 0, 0, 0, 1, 2, 1, b'a', b'b']);
        assert_eq!(meta_key(BucketId(7)), [2, 0, 0, 0, 0, 0, 0, 0, 7]);
        assert_eq!(meta_bucket(&meta_key(BucketId(7))).unwrap(), BucketId(7));
        assert_eq!(Row::node(1).name.as_ref(), [0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
