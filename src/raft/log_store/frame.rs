//! Frames: what is written and synced at a time.
//!
//! ```text
//! checksum u64 ‖ position u64 ‖ length u32 ‖ records, `length` bytes          numbers big endian
//! ```
//!
//! The checksum is XXH3-64 of all that follows it, seeded by the segment's nonce. A frame names its own position in
//! the log, and is only a frame there: what an earlier life of a recycled file left behind is none, and neither is
//! what a client put into a value, who cannot know the nonce.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::error::{Error, Result};

/// What every frame begins with.
pub(super) const FRAME_HEAD_BYTES: usize = CHECKSUM_BYTES + POSITION_BYTES + LENGTH_BYTES;
const CHECKSUM_BYTES: usize = 8;
const POSITION_BYTES: usize = 8;
const LENGTH_BYTES: usize = 4;

/// An empty frame, to put records behind.
pub(super) fn begin(mut buffer: Vec<u8>) -> Vec<u8> {
    buffer.clear();
    buffer.resize(FRAME_HEAD_BYTES, 0);
    buffer
}

/// Whether there is any record in it.
pub(super) fn is_empty(frame: &[u8]) -> bool {
    frame.len() <= FRAME_HEAD_BYTES
}

/// Writes the head of a frame that is complete.
pub(super) fn seal(frame: &mut [u8], nonce: u64, position: u64) -> Result<()> {
    let too_large = || Error::TooLarge { limit: "batch of log entries", max: u64::from(u32::MAX) };
    let length = u32::try_from(frame.len() - FRAME_HEAD_BYTES).map_err(|_| too_large())?;
    let (checksum, content) =
        frame.split_first_chunk_mut::<CHECKSUM_BYTES>().ok_or_else(too_large)?;
    let (place, rest) = content.split_first_chunk_mut::<POSITION_BYTES>().ok_or_else(too_large)?;
    *place = position.to_be_bytes();
    *rest.first_chunk_mut::<LENGTH_BYTES>().ok_or_else(too_large)? = length.to_be_bytes();
    *checksum = xxh3_64_with_seed(content, nonce).to_be_bytes();
    Ok(())
}

/// The records of the frame at the beginning of some bytes, which are at a position of the log; nothing where
/// there is none, or a broken one.
pub(super) fn open(bytes: &[u8], nonce: u64, position: u64) -> Option<&[u8]> {
    if !is_begun(bytes, position) {
        return None;
    }
    let (checksum, content) = bytes.split_first_chunk::<CHECKSUM_BYTES>()?;
    let length = content.get(POSITION_BYTES..)?.first_chunk::<LENGTH_BYTES>()?;
    let length = u32::from_be_bytes(*length) as usize;
    let content = content.get(..(POSITION_BYTES + LENGTH_BYTES).checked_add(length)?)?;
    let sound = xxh3_64_with_seed(content, nonce) == u64::from_be_bytes(*checksum);
    content.get(POSITION_BYTES + LENGTH_BYTES..).filter(|records| sound && !records.is_empty())
}

/// Whether a frame was begun here, whole or not.
pub(super) fn is_begun(bytes: &[u8], position: u64) -> bool {
    bytes.get(CHECKSUM_BYTES..CHECKSUM_BYTES + POSITION_BYTES) == Some(&position.to_be_bytes())
}

/// The position of a whole frame anywhere in some bytes, which begin at a position of the log.
pub(super) fn find(bytes: &[u8], nonce: u64, position: u64) -> Option<u64> {
    (0..bytes.len()).find_map(|at| {
        let here = position + at as u64;
        let (_, rest) = bytes.split_at(at);
        open(rest, nonce, here).map(|_| here)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: u64 = 7;

    fn frame(records: &[u8], position: u64) -> Vec<u8> {
        let mut frame = begin(Vec::new());
        frame.extend_from_slice(records);
        seal(&mut frame, NONCE, position).unwrap();
        frame
    }

    #[test]
    fn bytes_of_frames_do_not_change() {
        let expected = [
            &xxh3_64_with_seed(&[0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 2, b'a', b'b'], NONCE)
                .to_be_bytes()[..],
            &[0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 2, b'a', b'b'],
        ];
        assert_eq!(frame(b"ab", 0x0102), expected.concat());
    }

    #[test]
    fn a_frame_is_one_only_where_it_says_and_under_its_nonce() {
        let bytes = [frame(b"records", 100), vec![9; 50]].concat();
        assert_eq!(open(&bytes, NONCE, 100).unwrap(), b"records");
        assert!(open(&bytes, NONCE, 101).is_none());
        assert!(open(&bytes, NONCE + 1, 100).is_none());
        assert!(open(&frame(b"", 100), NONCE, 100).is_none(), "nobody writes an empty one");
        for bit in 0..(FRAME_HEAD_BYTES + 7) * 8 {
            let mut harmed = bytes.clone();
            *harmed.get_mut(bit / 8).unwrap() ^= 1 << (bit % 8);
            assert!(open(&harmed, NONCE, 100).is_none(), "bit {bit}");
        }
        for length in 0..FRAME_HEAD_BYTES + 7 {
            assert!(open(bytes.get(..length).unwrap(), NONCE, 100).is_none(), "length {length}");
        }
    }

    #[test]
    fn a_whole_frame_is_found_behind_anything() {
        let bytes = [vec![1; 33], frame(b"records", 133), vec![2; 9]].concat();
        assert_eq!(find(&bytes, NONCE, 100), Some(133));
        assert_eq!(find(&bytes, NONCE, 101), None, "it says that it belongs elsewhere");
        assert_eq!(find(bytes.get(34..).unwrap(), NONCE, 134), None);
    }
}
