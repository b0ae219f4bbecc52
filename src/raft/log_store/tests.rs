//! openraft's own suite, crashes, torn tails, damage, and how many syncs a batch costs.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use futures::StreamExt;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::type_config::alias::OneshotReceiverOf;
use tempfile::TempDir;

use super::*;
use crate::raft::testing::Machine;
use crate::raft::types::{EntryPayload, Membership, Payload, Peer, log_id};

fn dir() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn command(term: u64, index: u64, bytes: Vec<u8>) -> Entry {
    let payload = EntryPayload::Normal(Payload(Bytes::from(bytes)));
    Entry { log_id: log_id(term, index), payload }
}

/// Entries of term 1 whose commands are their indexes.
fn entries(range: std::ops::Range<u64>) -> Vec<Entry> {
    range.map(|index| command(1, index, index.to_be_bytes().to_vec())).collect()
}

async fn start(
    store: &mut LogStore,
    entries: Vec<Entry>,
) -> OneshotReceiverOf<TypeConfig, io::Result<()>> {
    let (send, done) = TypeConfig::oneshot();
    store.append(entries, IOFlushed::signal(send)).await.unwrap();
    done
}

async fn append(store: &mut LogStore, entries: Vec<Entry>) {
    start(store, entries).await.await.unwrap().unwrap();
}

/// Waits until the writer sleeps: all is synced, and what nobody needs is given up.
fn settle(store: &LogStore) {
    while !store.handle.shared.lock().idle {
        std::thread::yield_now();
    }
}

/// The files as a power cut at this moment leaves them, at worst: what is noted as synced was not
/// written back.
fn crash_image(from: &Path) -> TempDir {
    let image = dir();
    Synced::open(image.path()).unwrap();
    fs::create_dir(image.path().join(FILES)).unwrap();
    for file in segments(from) {
        fs::copy(&file, image.path().join(FILES).join(file.file_name().unwrap())).unwrap();
    }
    image
}

/// As if what was noted as synced had not been written back.
fn forget_note(dir: &Path) {
    Synced::open(dir).unwrap().0.note(0).unwrap();
}

fn files(dir: &Path, ours: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let files = fs::read_dir(dir.join(FILES)).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| ours(path.file_name().unwrap().to_str().unwrap())).collect();
    files.sort();
    files
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    files(dir, |name| name.ends_with(".log"))
}

fn spares(dir: &Path) -> Vec<PathBuf> {
    files(dir, |name| name.starts_with("spare-"))
}

/// The only segment of a small log.
fn segment(dir: &Path) -> PathBuf {
    let [segment] = segments(dir).try_into().unwrap();
    segment
}

/// A segment that takes few batches.
fn small_segments() -> Options {
    Options { segment_bytes: 700, ..Options::default() }
}

async fn all(store: &mut LogStore) -> Vec<Entry> {
    store.try_get_log_entries(..).await.unwrap()
}

fn is_corrupt(opened: Result<LogStore>) -> bool {
    matches!(opened.map(drop), Err(Error::Corrupt { what: WHAT, .. }))
}

// openraft's suite

struct Stores;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Stores {
    async fn build(
        &self,
    ) -> std::result::Result<(TempDir, LogStore, Machine), StorageError<TypeConfig>> {
        let dir = dir();
        let store = LogStore::open(dir.path()).unwrap();
        Ok((dir, store, Machine::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn passes_the_suite_of_openraft() {
    Suite::test_all(Stores).await.unwrap();
}

// What is on disk

#[tokio::test]
async fn acknowledged_entries_and_votes_survive_a_crash() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    assert!(store.is_empty().unwrap());
    let vote = Vote::new_committed(1, 7);
    store.save_vote(&vote).await.unwrap();
    append(&mut store, entries(0..3)).await;
    append(&mut store, entries(3..5)).await;

    let image = crash_image(dir.path());
    let mut survivor = LogStore::open(image.path()).unwrap();
    assert!(!survivor.is_empty().unwrap());
    assert_eq!(survivor.read_vote().await.unwrap(), Some(vote));
    assert_eq!(all(&mut survivor).await, entries(0..5));
}

#[tokio::test]
async fn every_kind_of_entry_survives_reopening() {
    let dir = dir();
    let peer = Peer { peer_addr: "a:1".into(), url: "http://a".into(), instance: "i".into() };
    let membership = Membership::new(vec![[1].into()], BTreeMap::from([(1, peer)])).unwrap();
    let written = vec![
        Entry { log_id: log_id(1, 0), payload: EntryPayload::Membership(membership) },
        Entry { log_id: log_id(1, 1), payload: EntryPayload::Blank },
        command(2, 2, vec![]),
        command(2, 3, vec![7; 100_000]),
    ];
    let mut store = LogStore::open(dir.path()).unwrap();
    append(&mut store, written.clone()).await;
    drop(store);
    let mut store = LogStore::open(dir.path()).unwrap();
    assert_eq!(all(&mut store).await, written);
}

#[tokio::test]
async fn committed_position_rides_along_and_never_fails() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    append(&mut store, entries(0..3)).await;
    store.save_committed(Some(log_id(1, 1))).await.unwrap();
    // Beyond the end, behind what is known, and none: openraft may say any of them.
    store.save_committed(Some(log_id(1, 9))).await.unwrap();
    store.save_committed(Some(log_id(1, 0))).await.unwrap();
    store.save_committed(None).await.unwrap();
    append(&mut store, entries(3..4)).await;
    let mut survivor = LogStore::open(crash_image(dir.path()).path()).unwrap();
    assert_eq!(survivor.read_committed().await.unwrap(), Some(log_id(1, 1)));
}

#[tokio::test]
async fn truncated_entries_are_replaced_also_after_a_crash() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    append(&mut store, entries(0..5)).await;
    store.truncate_after(Some(log_id(1, 9))).await.unwrap();
    assert_eq!(all(&mut store).await, entries(0..5), "past the end");
    store.truncate_after(Some(log_id(1, 1))).await.unwrap();
    append(&mut store, vec![command(2, 2, vec![2])]).await;

    let expected = [entries(0..2), vec![command(2, 2, vec![2])]].concat();
    assert_eq!(all(&mut store).await, expected);
    let image = crash_image(dir.path());
    assert_eq!(all(&mut LogStore::open(image.path()).unwrap()).await, expected);
}

#[tokio::test]
async fn purging_gives_segments_up_and_may_go_past_the_end() {
    let dir = dir();
    let options = Options { segment_bytes: 1 << 10, ..Options::default() };
    let mut store = LogStore::open_with(dir.path(), options).unwrap();
    for index in 0..100 {
        append(&mut store, vec![command(1, index, vec![0; 100])]).await;
    }
    let (before, bytes) = (segments(dir.path()).len(), store.disk_bytes().unwrap());
    assert!(before > 10, "{before} files");
    store.purge(log_id(1, 89)).await.unwrap();
    append(&mut store, vec![command(1, 100, vec![])]).await;
    settle(&store);
    let after = segments(dir.path()).len();
    assert!(after < before / 2);
    assert!(store.disk_bytes().unwrap() < bytes / 2);
    assert_eq!(spares(dir.path()).len(), 8, "the rest is deleted");
    assert_eq!(all(&mut store).await.len(), 11);
    assert_eq!(store.limited_get_log_entries(80, 95).await.unwrap(), [], "behind a gap");

    store.purge(log_id(3, 500)).await.unwrap();
    append(&mut store, vec![command(3, 501, vec![])]).await;
    drop(store);
    let mut store = LogStore::open_with(dir.path(), options).unwrap();
    let state = store.get_log_state().await.unwrap();
    assert_eq!(state.last_purged_log_id, Some(log_id(3, 500)));
    assert_eq!(state.last_log_id, Some(log_id(3, 501)));
}

/// What a file said in an earlier life must never be taken for what it says now, wherever the log ends in it.
#[tokio::test]
async fn a_recycled_file_says_nothing_of_its_earlier_life() {
    let dir = dir();
    let mut store = LogStore::open_with(dir.path(), small_segments()).unwrap();
    for index in 0..200 {
        append(&mut store, vec![command(1, index, vec![index as u8; 60])]).await;
        settle(&store);
        if index % 10 == 9 {
            store.purge(log_id(1, index - 5)).await.unwrap();
            settle(&store);
        }
        let mut survivor =
            LogStore::open_with(crash_image(dir.path()).path(), small_segments()).unwrap();
        let left = all(&mut survivor).await;
        assert_eq!(left, all(&mut store).await, "after {index}");
    }
    assert!(!spares(dir.path()).is_empty() && segments(dir.path()).len() < 5);
    drop(store);
    spares(dir.path()).into_iter().for_each(|spare| fs::remove_file(spare).unwrap());
    let mut store = LogStore::open_with(dir.path(), small_segments()).unwrap();
    assert_eq!(all(&mut store).await.len(), 5, "spares may go");
}

/// A file grows ahead of what is written, by zeros, and what is written later does not change its size.
#[tokio::test]
async fn space_is_kept_ahead() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    append(&mut store, entries(0..1)).await;
    let size = || segment(dir.path()).metadata().unwrap().len();
    assert_eq!(size(), 256 << 10);
    append(&mut store, entries(1..1000)).await;
    assert_eq!(size(), 256 << 10);
    append(&mut store, vec![command(1, 1000, vec![7; 300_000])]).await;
    assert_eq!(size(), 512 << 10);
    append(&mut store, vec![command(1, 1001, vec![7; 17 << 20])]).await;
    settle(&store);
    let newest = segments(dir.path()).pop().unwrap();
    assert!(newest.metadata().unwrap().len() > 17 << 20, "one batch may be larger than a segment");
    drop(store);
    assert_eq!(all(&mut LogStore::open(dir.path()).unwrap()).await.len(), 1002);
}

#[tokio::test]
async fn entries_out_of_order_are_refused() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    append(&mut store, vec![command(3, 7, vec![])]).await;
    for wrong in [command(3, 7, vec![]), command(3, 9, vec![]), command(2, 8, vec![])] {
        assert!(store.append(vec![wrong], IOFlushed::noop()).await.is_err());
    }
    append(&mut store, vec![command(4, 8, vec![])]).await;
}

#[test]
fn a_log_of_an_earlier_version_is_refused() {
    let dir = dir();
    fs::create_dir(dir.path().join("wal")).unwrap();
    let opened = LogStore::open(dir.path()).map(drop).unwrap_err();
    assert!(opened.to_string().contains("earlier version"), "{opened}");
}

#[tokio::test]
async fn open_log_is_locked_and_closes_with_its_last_handle() {
    let dir = dir();
    let store = LogStore::open(dir.path()).unwrap();
    let clone = store.clone();
    drop(store);
    let second = LogStore::open(dir.path()).map(drop);
    assert!(matches!(&second, Err(Error::Io(message)) if message.contains("locked")), "{second:?}");
    drop(clone);
    LogStore::open(dir.path()).unwrap();
}

// Reading

#[tokio::test]
async fn reads_are_bounded_in_bytes_and_never_empty() {
    let dir = dir();
    let options = Options { read_bytes: 1 << 10, segment_bytes: 4 << 10, cache_bytes: 2 << 10 };
    let mut store = LogStore::open_with(dir.path(), options).unwrap();
    let written: Vec<_> = (0..50).map(|index| command(1, index, vec![index as u8; 400])).collect();
    append(&mut store, written.clone()).await;
    append(&mut store, vec![command(1, 50, vec![1; 5_000])]).await;
    // A read of entries long out of the cache, so from the files.
    let read = store.limited_get_log_entries(3, 50).await.unwrap();
    assert_eq!(read.as_slice(), written.get(3..5).unwrap());
    assert_eq!(store.limited_get_log_entries(50, 51).await.unwrap().len(), 1, "over the bound");
    let stream = store.entries_stream(2..=49).await;
    let read: Vec<_> = stream.map(std::result::Result::unwrap).collect().await;
    assert_eq!(read.as_slice(), written.get(2..).unwrap());
}

// Group commit

#[tokio::test]
async fn concurrent_appends_share_syncs() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    let before = store.fsyncs();
    let mut waiting = Vec::new();
    for index in 0..2_000 {
        waiting.push(start(&mut store, entries(index..index + 1)).await);
    }
    for done in waiting {
        done.await.unwrap().unwrap();
    }
    let fsyncs = store.fsyncs() - before;
    assert!(fsyncs <= 500, "{fsyncs} syncs for 2000 appends");
    assert_eq!(store.appended_entries(), 2_000);
    let image = crash_image(dir.path());
    assert_eq!(all(&mut LogStore::open(image.path()).unwrap()).await, entries(0..2_000));
}

#[tokio::test]
async fn vote_behind_many_appends_is_on_disk_when_saved() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    for index in 0..100 {
        drop(start(&mut store, entries(index..index + 1)).await);
    }
    store.save_vote(&Vote::new(9, 1)).await.unwrap();
    let mut survivor = LogStore::open(crash_image(dir.path()).path()).unwrap();
    assert_eq!(survivor.read_vote().await.unwrap(), Some(Vote::new(9, 1)));
    assert_eq!(all(&mut survivor).await, entries(0..100), "nothing overtakes");
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_completes_what_waits() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    let mut waiting = Vec::new();
    for index in 0..50 {
        waiting.push(start(&mut store, entries(index..index + 1)).await);
    }
    drop(store);
    for done in waiting {
        done.await.unwrap().unwrap();
    }
    assert_eq!(all(&mut LogStore::open(dir.path()).unwrap()).await, entries(0..50));
}

/// After a failure nobody knows what is on disk: who waits hears of it, and so does who comes.
#[tokio::test]
async fn a_failure_is_told_to_all_and_lasts() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    append(&mut store, entries(0..1)).await;
    settle(&store);
    let waiting = {
        // The writer cannot take it before it is told of the failure.
        let mut state = store.handle.shared.lock();
        let (send, waiting) = TypeConfig::oneshot();
        state.log.wait(IOFlushed::signal(send));
        drop(state);
        store.handle.shared.fail(&Error::Io("the disk is gone".into()));
        waiting
    };
    assert!(waiting.await.unwrap().is_err());
    let refused = store.append(entries(1..2), IOFlushed::noop()).await.unwrap_err();
    assert!(refused.to_string().contains("the disk is gone"), "{refused}");
    assert!(store.save_vote(&Vote::new(9, 1)).await.is_err());
    assert!(store.close().is_err());
}

#[tokio::test]
async fn a_segment_that_cannot_be_begun_fails_the_log() {
    let dir = dir();
    let mut store = LogStore::open_with(dir.path(), small_segments()).unwrap();
    append(&mut store, entries(0..1)).await;
    settle(&store);
    let files = dir.path().join(FILES);
    fs::rename(&files, dir.path().join("elsewhere")).unwrap();
    let mut failed = false;
    for index in 1..40 {
        let (send, told) = TypeConfig::oneshot();
        let entry = entries(index..index + 1);
        failed |= store.append(entry, IOFlushed::signal(send)).await.is_err()
            || told.await.unwrap().is_err();
    }
    assert!(failed);
}

// Torn tails and damage

/// A log of three batches, idle, as a crash leaves it; and its bytes, up to its end.
async fn small_log() -> (TempDir, Vec<u8>) {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    for batch in [0..2, 2..4, 4..5] {
        append(&mut store, entries(batch)).await;
    }
    settle(&store);
    let image = crash_image(dir.path());
    let mut bytes = fs::read(segment(image.path())).unwrap();
    bytes.truncate(store.disk_bytes().unwrap() as usize);
    (image, bytes)
}

/// Where the frames of a segment begin, and where the last ends.
fn frames(bytes: &[u8]) -> Vec<usize> {
    let nonce = u64::from_be_bytes(bytes.get(16..24).unwrap().try_into().unwrap());
    let start = u64::from_be_bytes(bytes.get(8..16).unwrap().try_into().unwrap());
    let (mut at, mut found) = (32, vec![32]);
    while let Some(records) = frame::open(bytes.get(at..).unwrap(), nonce, start + at as u64) {
        at += frame::FRAME_HEAD_BYTES + records.len();
        found.push(at);
    }
    found
}

/// Where the last frame of the small log begins.
fn last_frame(bytes: &[u8]) -> usize {
    let frames = frames(bytes);
    assert_eq!((frames.len(), frames.last()), (5, Some(&bytes.len())), "head, three, end");
    *frames.get(3).unwrap()
}

#[tokio::test]
async fn torn_tail_of_any_bytes_is_cut() {
    let (image, bytes) = small_log().await;
    let path = segment(image.path());
    let noise: Vec<u8> =
        (0..5_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    // Nothing, zeros, noise, a frame that promises more than there is, the log's own frames elsewhere.
    let position = (bytes.len() as u64).to_be_bytes();
    let short = [[9; 8].as_slice(), &position, &[0, 0, 1, 0], &[1; 50]].concat();
    let own = bytes.get(32..).unwrap();
    for tail in [&[], [0; 4_096].as_slice(), &noise, &short, own] {
        fs::write(&path, [&bytes, tail].concat()).unwrap();
        forget_note(image.path());
        let mut store = LogStore::open(image.path()).unwrap();
        assert_eq!(all(&mut store).await, entries(0..5));
        append(&mut store, entries(5..6)).await;
        drop(store);
        let mut store = LogStore::open(image.path()).unwrap();
        assert_eq!(all(&mut store).await, entries(0..6), "the log goes on behind the cut");
    }
}

/// Blocks of one write reach the disk in any order: any part of the last frame may be missing. It was never
/// synced, so the log must open.
#[tokio::test]
async fn torn_frame_with_holes_is_cut() {
    let (image, before) = small_log().await;
    let mut store = LogStore::open(image.path()).unwrap();
    append(&mut store, entries(5..9)).await;
    let end = store.disk_bytes().unwrap() as usize;
    let last = crash_image(image.path());
    drop(store);
    let path = segment(last.path());
    let whole = fs::read(&path).unwrap();
    for hole in before.len()..end - 4 {
        let mut torn = whole.clone();
        torn.get_mut(hole..hole + 4).unwrap().iter_mut().for_each(|byte| *byte ^= 0x5a);
        fs::write(&path, &torn).unwrap();
        forget_note(last.path());
        let mut store = LogStore::open(last.path()).unwrap();
        assert_eq!(all(&mut store).await, entries(0..5), "at {hole}");
    }
}

/// Flips each bit of a log in which all is acknowledged and noted: it refuses to open, and is left alone.
#[tokio::test]
async fn flipped_bit_is_refused() {
    let (image, bytes) = small_log().await;
    let path = segment(image.path());
    for bit in (0..bytes.len() * 8).step_by(5) {
        let mut damaged = bytes.clone();
        *damaged.get_mut(bit / 8).unwrap() ^= 1 << (bit % 8);
        fs::write(&path, &damaged).unwrap();
        Synced::open(image.path()).unwrap().0.note(bytes.len() as u64).unwrap();
        assert!(is_corrupt(LogStore::open(image.path())), "bit {bit}");
        assert_eq!(fs::read(&path).unwrap(), damaged, "bit {bit}: refused and left alone");
    }
}

/// The same where the note was lost with the power: all but the last frame is held by the frame behind it.
#[tokio::test]
async fn flipped_bit_is_refused_without_the_note_but_in_the_last_frame() {
    let (image, bytes) = small_log().await;
    let path = segment(image.path());
    let last = last_frame(&bytes);
    for bit in (0..bytes.len() * 8).step_by(3) {
        let mut damaged = bytes.clone();
        *damaged.get_mut(bit / 8).unwrap() ^= 1 << (bit % 8);
        fs::write(&path, &damaged).unwrap();
        forget_note(image.path());
        let opened = LogStore::open(image.path());
        if bit / 8 < last {
            assert!(is_corrupt(opened), "bit {bit}");
        } else {
            assert_eq!(all(&mut opened.unwrap()).await, entries(0..4), "bit {bit}");
        }
    }
}

#[tokio::test]
async fn file_cut_at_any_length_holds_the_first_entries() {
    let (image, bytes) = small_log().await;
    let path = segment(image.path());
    let head = *frames(&bytes).get(1).unwrap();
    for length in (0..bytes.len()).step_by(7) {
        fs::write(&path, bytes.get(..length).unwrap()).unwrap();
        forget_note(image.path());
        let opened = LogStore::open(image.path());
        if length < head {
            assert!(is_corrupt(opened), "length {length}: no segment has less");
            continue;
        }
        let left = all(&mut opened.unwrap()).await;
        assert_eq!(left, entries(0..left.len() as u64), "length {length}");
    }
}

#[tokio::test]
async fn damage_in_an_older_file_and_a_missing_file_are_refused() {
    let dir = dir();
    let mut store = LogStore::open_with(dir.path(), small_segments()).unwrap();
    for index in 0..40 {
        append(&mut store, entries(index..index + 1)).await;
    }
    drop(store);
    forget_note(dir.path());
    let files = segments(dir.path());
    let middle = files.get(files.len() / 2).unwrap();
    let bytes = fs::read(middle).unwrap();
    let end = *frames(&bytes).last().unwrap();
    let mut damaged = bytes.clone();
    *damaged.get_mut(end - 1).unwrap() ^= 1;
    fs::write(middle, &damaged).unwrap();
    assert!(is_corrupt(LogStore::open_with(dir.path(), small_segments())));
    fs::write(middle, bytes.get(..end - 3).unwrap()).unwrap();
    assert!(is_corrupt(LogStore::open_with(dir.path(), small_segments())));
    for missing in [middle, files.first().unwrap()] {
        let aside = dir.path().join("aside");
        fs::rename(missing, &aside).unwrap();
        assert!(is_corrupt(LogStore::open_with(dir.path(), small_segments())));
        fs::rename(&aside, missing).unwrap();
    }
    fs::write(middle, bytes).unwrap();
    let mut store = LogStore::open_with(dir.path(), small_segments()).unwrap();
    assert_eq!(all(&mut store).await, entries(0..40));
}

/// Where no entry follows, only the newest segment's head says that there were some.
#[tokio::test]
async fn missing_entries_are_missed_where_none_follows() {
    let dir = dir();
    let mut store = LogStore::open_with(dir.path(), small_segments()).unwrap();
    append(&mut store, entries(0..1)).await;
    let mut term = 1;
    while segments(dir.path()).len() < 2 {
        term += 1;
        store.save_vote(&Vote::new(term, 1)).await.unwrap();
    }
    drop(store);
    let oldest = segments(dir.path()).into_iter().next().unwrap();
    let aside = dir.path().join("aside");
    fs::rename(&oldest, &aside).unwrap();
    assert!(is_corrupt(LogStore::open_with(dir.path(), small_segments())));
    fs::rename(&aside, &oldest).unwrap();
    let mut store = LogStore::open_with(dir.path(), small_segments()).unwrap();
    assert_eq!(all(&mut store).await, entries(0..1));
}

/// What the log itself cannot tell: its end is missing, cut between two frames or anywhere else.
#[tokio::test]
async fn log_that_ends_before_what_was_synced_is_refused() {
    let (image, bytes) = small_log().await;
    let path = segment(image.path());
    let (synced, _) = Synced::open(image.path()).unwrap();
    for length in 0..=bytes.len() {
        synced.note(bytes.len() as u64).unwrap();
        let cut = bytes.get(..length).unwrap();
        fs::write(&path, cut).unwrap();
        let opened = LogStore::open(image.path());
        if length < bytes.len() {
            assert!(is_corrupt(opened), "length {length}");
            assert_eq!(fs::read(&path).unwrap(), cut, "length {length}: refused and left alone");
        } else {
            assert_eq!(all(&mut opened.unwrap()).await, entries(0..5));
        }
    }
    fs::remove_file(&path).unwrap();
    assert!(is_corrupt(LogStore::open(image.path())), "no file at all");
}

/// What is acknowledged is noted before: the note is the end of the log.
#[tokio::test]
async fn synced_position_is_noted_before_it_is_told() {
    let dir = dir();
    let options = small_segments();
    let mut store = LogStore::open_with(dir.path(), options).unwrap();
    for index in 0..40 {
        append(&mut store, entries(index..index + 1)).await;
        let (_, noted) = Synced::open(dir.path()).unwrap();
        assert_eq!(noted, store.read(|log| Ok(log.end())).unwrap());
        let image = crash_image(dir.path());
        Synced::open(image.path()).unwrap().0.note(noted).unwrap();
        let mut survivor = LogStore::open_with(image.path(), options).unwrap();
        assert_eq!(all(&mut survivor).await, entries(0..index + 1));
    }
    store.save_vote(&Vote::new_committed(1, 7)).await.unwrap();
    drop(store);
    fs::remove_file(segments(dir.path()).last().unwrap()).unwrap();
    assert!(is_corrupt(LogStore::open_with(dir.path(), options)), "the newest file is gone");
}

#[tokio::test]
async fn lost_or_damaged_note_is_refused() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    append(&mut store, entries(0..5)).await;
    drop(store);
    let path = dir.path().join("SYNCED");
    let note = fs::read(&path).unwrap();
    for bit in 0..note.len() * 8 {
        let mut damaged = note.clone();
        *damaged.get_mut(bit / 8).unwrap() ^= 1 << (bit % 8);
        fs::write(&path, damaged).unwrap();
        assert!(is_corrupt(LogStore::open(dir.path())), "bit {bit}");
    }
    fs::remove_file(&path).unwrap();
    assert!(is_corrupt(LogStore::open(dir.path())));
    assert!(!path.exists(), "not made anew");
    fs::write(&path, note).unwrap();
    assert_eq!(all(&mut LogStore::open(dir.path()).unwrap()).await, entries(0..5));
}

/// A crash while a new segment is begun leaves it under the name of a spare, whatever is in it.
#[tokio::test]
async fn a_segment_that_was_being_begun_is_a_spare() {
    let dir = dir();
    let mut store = LogStore::open_with(dir.path(), small_segments()).unwrap();
    append(&mut store, entries(0..3)).await;
    drop(store);
    let files = dir.path().join(FILES);
    fs::copy(segment(dir.path()), files.join("spare-new")).unwrap();
    fs::write(files.join("spare-00000000000000000007"), [7; 2000]).unwrap();
    fs::create_dir(files.join("spare-directory")).unwrap();
    let mut store = LogStore::open_with(dir.path(), small_segments()).unwrap();
    for index in 3..40 {
        append(&mut store, entries(index..index + 1)).await;
    }
    assert_eq!(spares(dir.path()), [files.join("spare-directory")], "both files were used");
    drop(store);
    let mut store = LogStore::open_with(dir.path(), small_segments()).unwrap();
    assert_eq!(all(&mut store).await, entries(0..40));
}

/// Damage that happens while the log is open is found where it is read.
#[tokio::test]
async fn an_entry_damaged_since_is_not_served() {
    let dir = dir();
    let options = Options { cache_bytes: 0, ..Options::default() };
    let mut store = LogStore::open_with(dir.path(), options).unwrap();
    append(&mut store, entries(0..3)).await;
    append(&mut store, entries(3..4)).await;
    settle(&store);
    assert_eq!(all(&mut store).await, entries(0..4));
    let path = segment(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let second = *frames(&bytes).get(1).unwrap();
    *bytes.get_mut(second + frame::FRAME_HEAD_BYTES + 25).unwrap() ^= 1;
    fs::write(&path, bytes).unwrap();
    let refused = store.try_get_log_entries(..).await.unwrap_err().to_string();
    assert!(refused.contains("checksum"), "{refused}");
    assert_eq!(store.try_get_log_entries(3..).await.unwrap(), entries(3..4));
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_see_entries_before_they_are_synced() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (mut reader, flag) = (store.clone(), Arc::clone(&stop));
    let reading = tokio::spawn(async move {
        while !flag.load(Ordering::Relaxed) {
            let read = reader.try_get_log_entries(..).await.unwrap();
            assert_eq!(read, entries(0..read.len() as u64));
            tokio::task::yield_now().await;
        }
    });
    for index in 0..300 {
        drop(start(&mut store, entries(index..index + 1)).await);
        let read = store.try_get_log_entries(index..=index).await.unwrap();
        assert_eq!(read.len(), 1, "readable at once");
    }
    stop.store(true, Ordering::Relaxed);
    reading.await.unwrap();
}

/// A newer leader's entry was applied, since others had synced it, and its truncation here was lost with the
/// power: what the log holds from there on was never committed.
#[tokio::test]
async fn end_that_was_overwritten_is_dropped() {
    let dir = dir();
    let mut store = LogStore::open(dir.path()).unwrap();
    append(&mut store, entries(0..8)).await;
    let held = all(&mut store).await;
    let at = |index: usize| held.get(index).unwrap().log_id;
    store.drop_overwritten(at(5)).unwrap();
    assert_eq!(all(&mut store).await, entries(0..8), "it holds what was applied");
    let newer = log_id(at(5).committed_leader_id().term + 1, 5);
    store.drop_overwritten(log_id(9, 100)).unwrap();
    assert_eq!(all(&mut store).await, entries(0..8), "a log that is merely behind stays");
    store.drop_overwritten(newer).unwrap();
    assert_eq!(all(&mut store).await, entries(0..5));
    drop(store);
    let mut store = LogStore::open(dir.path()).unwrap();
    assert_eq!(all(&mut store).await, entries(0..5), "on disk, too");
    store.purge(at(4)).await.unwrap();
    store.drop_overwritten(at(3)).unwrap();
}
