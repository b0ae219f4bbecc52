//! Which damage: what is done to the bytes of a file while nobody has it open.
//!
//! Each says where, and what was there before. Half of the places are near the end of a file, where
//! what is newest in it stands: there damage and a torn write look alike.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;

use super::files::Found;

/// What counts as near the end.
const TAIL_BYTES: u64 = 2 << 10;
/// What a disk loses at a time.
const BLOCK_BYTES: u64 = 4 << 10;

/// Flips a bit.
pub(super) fn flip(rng: &mut fastrand::Rng, file: &Found) -> Result<String, String> {
    let (handle, at) = (open(file)?, place(rng, file.bytes));
    let mut byte = [0];
    handle.read_exact_at(&mut byte, at).map_err(|e| failed(file, &e))?;
    let [before] = byte;
    let after = before ^ (1 << rng.u8(0..8));
    handle.write_all_at(&[after], at).map_err(|e| failed(file, &e))?;
    Ok(format!("byte {at} of {}: {before:#04x} -> {after:#04x}", file.bytes))
}

/// Cuts off the end.
pub(super) fn truncate(rng: &mut fastrand::Rng, file: &Found) -> Result<String, String> {
    let length = place(rng, file.bytes);
    open(file)?.set_len(length).map_err(|e| failed(file, &e))?;
    Ok(format!("{} bytes -> {length}", file.bytes))
}

/// Deletes it.
pub(super) fn delete(file: &Found) -> Result<String, String> {
    fs::remove_file(&file.path).map_err(|e| failed(file, &e))?;
    Ok(format!("{} bytes -> no file", file.bytes))
}

/// Turns a block into zeros.
pub(super) fn zero(rng: &mut fastrand::Rng, file: &Found) -> Result<String, String> {
    let handle = open(file)?;
    let from = place(rng, file.bytes) / BLOCK_BYTES * BLOCK_BYTES;
    let length = usize::try_from(BLOCK_BYTES.min(file.bytes - from)).map_err(|e| e.to_string())?;
    let mut block = vec![0; length];
    handle.read_exact_at(&mut block, from).map_err(|e| failed(file, &e))?;
    let lost = block.iter().filter(|byte| **byte != 0).count();
    if lost == 0 {
        return Err(format!("{}: the block at {from} holds zeros already", file.name));
    }
    handle.write_all_at(&vec![0; length], from).map_err(|e| failed(file, &e))?;
    Ok(format!("bytes {from} to {} of {}: {lost} -> 0", from + length as u64, file.bytes))
}

/// Puts older bytes in its place.
pub(super) fn put_back(file: &Found, older: &[u8]) -> Result<String, String> {
    let now = fs::read(&file.path).map_err(|e| failed(file, &e))?;
    fs::write(&file.path, older).map_err(|e| failed(file, &e))?;
    let same = now.iter().zip(older).take_while(|(now, older)| now == older).count();
    Ok(format!("{} bytes -> {} older ones, the first {same} alike", now.len(), older.len()))
}

/// A byte of a file: half of the time near its end.
fn place(rng: &mut fastrand::Rng, bytes: u64) -> u64 {
    let from = if rng.bool() { bytes.saturating_sub(TAIL_BYTES) } else { 0 };
    rng.u64(from..bytes.max(from + 1))
}

fn open(file: &Found) -> Result<File, String> {
    OpenOptions::new().read(true).write(true).open(&file.path).map_err(|e| failed(file, &e))
}

fn failed(file: &Found, error: &std::io::Error) -> String {
    format!("{}: {error}", file.name)
}

#[cfg(test)]
mod tests {
    use super::super::files;
    use super::*;

    #[test]
    fn harm_changes_what_it_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("IDENTITY");
        let bytes: Vec<u8> = (0..10_000_u32).map(|n| (n % 251) as u8 + 1).collect();
        let mut rng = fastrand::Rng::with_seed(7);
        let fresh = || {
            fs::write(&path, &bytes).unwrap();
            files::list(dir.path()).into_iter().next().unwrap()
        };
        for _ in 0..100 {
            flip(&mut rng, &fresh()).unwrap();
            let found = fs::read(&path).unwrap();
            assert_eq!(found.iter().zip(&bytes).filter(|(a, b)| a != b).count(), 1);
            truncate(&mut rng, &fresh()).unwrap();
            let found = fs::read(&path).unwrap();
            assert!(found.len() < bytes.len() && bytes.starts_with(&found));
            zero(&mut rng, &fresh()).unwrap();
            let found = fs::read(&path).unwrap();
            let zeros = found.iter().filter(|byte| **byte == 0).count();
            assert!(found.len() == bytes.len() && (1..=4096).contains(&zeros), "{zeros}");
        }
        assert!(
            zero(&mut rng, &{
                fs::write(&path, [0; 100]).unwrap();
                files::list(dir.path()).into_iter().next().unwrap()
            })
            .is_err()
        );
        put_back(&fresh(), b"\x01\x02\x00").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"\x01\x02\x00");
        delete(&fresh()).unwrap();
        assert!(!path.exists());
    }
}
