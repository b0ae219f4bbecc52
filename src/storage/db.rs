//! One RocksDB database: its options, its errors, and its end.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, CompactOptions, DBCompressionType, ErrorKind,
    LruCacheOptions, Options, WriteBufferManager,
};

use super::recent::Recent;
use crate::error::{Error, Result};

/// Bytes of blocks kept while a database is only looked at.
const LOOK_BYTES: usize = 8 << 20;
/// What an error calls the bytes on disk. RocksDB checks each block that it reads: damage of the disk is
/// met here, before a row is decoded.
pub const DAMAGED: &str = "state";
/// Bytes of a block, of which a read takes a whole one.
const BLOCK_BYTES: usize = 8 << 10;
/// Bytes of a piece of an index or a filter.
const METADATA_BYTES: usize = 4 << 10;
/// The cache of blocks is two to the power of this many, each with a lock and a share of the memory.
const CACHE_SHARD_BITS: i32 = 2;
/// Removed ranges that are remembered.
const REMOVED_MAX: usize = 1024;
/// File descriptors that a database may hold.
const OPEN_FILES_MAX: i32 = 512;

/// What a deployment may choose of a database; it can change between two openings.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Bytes of the table of rows in memory before it is written out. Some of them exist at a time.
    pub write_buffer_bytes: usize,
    /// Bytes of memory for all of it: blocks that were read, indexes and filters, and at most half of it
    /// for rows that are not written out yet.
    pub memory_bytes: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning { write_buffer_bytes: 32 << 20, memory_bytes: 64 << 20 }
    }
}

/// The memory that the databases of a state share, while one takes the place of another too.
#[derive(Clone)]
pub(super) struct Memory {
    blocks: Cache,
    rows_bytes: usize,
}

impl Memory {
    /// Memory of this size, of which rows may take half.
    pub(super) fn new(bytes: usize) -> Self {
        let mut options = LruCacheOptions::default();
        options.set_capacity(bytes);
        options.set_num_shard_bits(CACHE_SHARD_BITS);
        Memory { blocks: Cache::new_lru_cache_opts(&options), rows_bytes: bytes / 2 }
    }

    /// What keeps a database's rows that are not written out in their bounds: they take their room from the blocks, and
    /// are written out before they take more. Nobody waits for that: where the disk is slow, they take more for a
    /// while. Each database has its own: what is left in one that was replaced, and is still read, must not
    /// have its successor write out a file after each few rows.
    fn rows(&self) -> WriteBufferManager {
        let (bytes, blocks) = (self.rows_bytes, self.blocks.clone());
        WriteBufferManager::new_write_buffer_manager_with_cache(bytes, false, blocks)
    }
}

/// An open database. Once doomed, its directory goes when its last user is gone.
pub(super) struct Db {
    rocks: Option<rocksdb::DB>,
    /// Its hot rows.
    pub(super) recent: Recent,
    path: PathBuf,
    doomed: AtomicBool,
    /// Ranges that were removed, whose space is still taken.
    removed: Mutex<Vec<Range>>,
}

/// Keys from the first on, before the second.
type Range = (Vec<u8>, Vec<u8>);

impl Db {
    /// Opens a database that is there: RocksDB would make an empty one in the place of a lost one.
    pub(super) fn open(path: &Path, tuning: Tuning, memory: &Memory) -> Result<Self> {
        if !path.join("CURRENT").exists() {
            let detail = format!("CURRENT is missing in {}", path.display());
            return Err(Error::corrupt(DAMAGED, detail));
        }
        Db::open_with(path, &options(tuning, memory))
    }

    /// Makes a database.
    pub(super) fn create(path: &Path, tuning: Tuning, memory: &Memory) -> Result<Self> {
        let mut options = options(tuning, memory);
        options.create_if_missing(true);
        options.set_error_if_exists(true);
        Db::open_with(path, &options)
    }

    fn open_with(path: &Path, options: &Options) -> Result<Self> {
        let rocks = rocksdb::DB::open(options, path).map_err(storage_error)?;
        Ok(Db {
            rocks: Some(rocks),
            recent: Recent::default(),
            path: path.to_owned(),
            doomed: AtomicBool::new(false),
            removed: Mutex::default(),
        })
    }

    /// Opens a database to look at it.
    pub(super) fn open_read_only(path: &Path) -> Result<Self> {
        let options = options(Tuning::default(), &Memory::new(LOOK_BYTES));
        let rocks =
            rocksdb::DB::open_for_read_only(&options, path, false).map_err(storage_error)?;
        Ok(Db {
            rocks: Some(rocks),
            recent: Recent::default(),
            path: path.to_owned(),
            doomed: AtomicBool::new(false),
            removed: Mutex::default(),
        })
    }

    pub(super) fn rocks(&self) -> &rocksdb::DB {
        self.rocks.as_ref().expect("taken only by drop")
    }

    /// A row as it is now.
    pub(super) fn newest(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let at = self.recent.done();
        if let Some(value) = self.recent.get(key, at) {
            return Ok(value);
        }
        let value = self.rocks().get_pinned(key).map_err(storage_error)?;
        let value = value.map(|bytes| Bytes::copy_from_slice(&bytes));
        self.recent.learn(key, value.as_ref(), at);
        Ok(value)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Remembers a range that was removed, to give its space back. Where there are too many, that of the rest
    /// comes back when RocksDB gets there by itself.
    pub(super) fn remember_removed(&self, range: Range) {
        let mut removed = self.removed.lock().unwrap_or_else(PoisonError::into_inner);
        if removed.len() < REMOVED_MAX {
            removed.push(range);
        }
    }

    /// Gives back the space of one removed range; whether there was one. May take long.
    pub(super) fn reclaim(&self) -> bool {
        let range = self.removed.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let Some((start, end)) = range else { return false };
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        self.rocks().compact_range_opt(Some(start), Some(end), &options);
        true
    }

    /// Removes the directory once nobody uses the database any more.
    pub(super) fn doom(&self) {
        self.doomed.store(true, Ordering::Relaxed);
    }
}

impl Drop for Db {
    fn drop(&mut self) {
        self.rocks = None;
        if self.doomed.load(Ordering::Relaxed)
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "old database not removed");
        }
    }
}

fn options(tuning: Tuning, memory: &Memory) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&memory.blocks);
    table.set_bloom_filter(10.0, false);
    table.set_block_size(BLOCK_BYTES);
    // Indexes and filters in pieces: whole ones are hundreds of kilobytes, and a cache that has no room for all of them
    // reads one again for each row.
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_metadata_block_size(METADATA_BYTES);
    table.set_pin_top_level_index_and_filter(true);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    // On every level. Zstandard at the bottom takes a fifth less disk, and a fifth more processor for every
    // write, as each reads its row's last value, and compactions write everything some times over.
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_write_buffer_size(tuning.write_buffer_bytes);
    options.set_max_write_buffer_number(3);
    options.set_write_buffer_manager(&memory.rows());
    options.set_level_compaction_dynamic_level_bytes(true);
    // A compaction of these rewrites most of a state of some hundred megabytes: the more at a time, the fewer.
    options.set_level_zero_file_num_compaction_trigger(8);
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1 << 20);
    options.set_max_open_files(OPEN_FILES_MAX);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(8 << 20);
    options
}

/// What a RocksDB error means to us: damage is named, the rest is the operating system's.
pub(super) fn storage_error(error: rocksdb::Error) -> Error {
    match error.kind() {
        ErrorKind::Corruption => Error::corrupt(DAMAGED, error),
        _ => Error::Io(format!("state: {error}")),
    }
}
