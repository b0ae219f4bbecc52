//! The one binary encoding, for disk and for peers, behind two functions.
//!
//! `format version (1 byte) ‖ bincode 2 standard configuration ‖ CRC-32 (4 bytes, little endian)`.
//! The checksum covers version and payload. A decoder takes exactly one value and refuses bytes
//! that follow it: trailing bytes mean that writer and reader disagree about the type. Lengths inside
//! are bounded by [`MAX_BYTES`], so that hostile input cannot reserve memory it does not bring.
//!
//! bincode is unmaintained (RUSTSEC-2025-0141) and is named nowhere else, so that leaving it stays
//! a change to one file. Enum variants are numbered by position: never reorder them.

use std::cell::Cell;

use bincode::config::{Configuration, Limit, LittleEndian, Varint, standard};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::error::{Error, Result};

/// The version of every encoded value.
pub const FORMAT: u8 = 2;
/// The largest value that can be decoded: a transaction's bytes and some room for its frame.
pub const MAX_BYTES: usize = 64 << 20;

const CONFIG: Configuration<LittleEndian, Varint, Limit<MAX_BYTES>> =
    standard().with_limit::<MAX_BYTES>();
const CHECKSUM_BYTES: usize = 4;
/// Largest buffer that a thread keeps to encode into.
const SCRATCH_BYTES_MAX: usize = 64 << 10;

thread_local! {
    /// Values grow here, and leave as long as they are: most are small, and growing is most of what they cost.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Encodes a value; fails only where it is larger than [`MAX_BYTES`].
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    // Taken, not borrowed: encoding a value may encode another.
    let mut bytes = SCRATCH.take();
    bytes.clear();
    bytes.push(FORMAT);
    bincode::serde::encode_into_std_write(value, &mut bytes, CONFIG)
        .map_err(|e| Error::Internal(format!("encoding: {e}")))?;
    if bytes.len() > MAX_BYTES {
        return Err(Error::TooLarge { limit: "encoded value", max: MAX_BYTES as u64 });
    }
    let checksum = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    if bytes.capacity() > SCRATCH_BYTES_MAX {
        return Ok(bytes);
    }
    let encoded = bytes.as_slice().to_vec();
    SCRATCH.set(bytes);
    Ok(encoded)
}

/// Decodes exactly one value; `what` names it in the error.
pub fn decode<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T> {
    decode_borrowed(what, bytes)
}

/// The same for a value whose texts and bytes are pieces of those that it is decoded from.
pub fn decode_borrowed<'b, T: Deserialize<'b>>(what: &'static str, bytes: &'b [u8]) -> Result<T> {
    let body = verify(what, bytes)?;
    let (value, read) = bincode::serde::borrow_decode_from_slice(body, CONFIG)
        .map_err(|e| Error::corrupt(what, e))?;
    if read != body.len() {
        return Err(Error::corrupt(what, format!("{} bytes after the value", body.len() - read)));
    }
    Ok(value)
}

/// Checks version and checksum; returns the payload between them.
fn verify<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a [u8]> {
    let (content, checksum) = bytes
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or_else(|| Error::corrupt(what, format!("{} bytes are too few", bytes.len())))?;
    if crc32fast::hash(content) != u32::from_le_bytes(*checksum) {
        return Err(Error::corrupt(what, "checksum does not match"));
    }
    match content.split_first() {
        Some((&FORMAT, body)) => Ok(body),
        Some((version, _)) => {
            Err(Error::corrupt(what, format!("format {version}, this binary reads {FORMAT}")))
        }
        None => Err(Error::corrupt(what, "no format version")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(value: (u64, String, Option<Vec<u8>>)) {
            let bytes = encode(&value).unwrap();
            prop_assert_eq!(decode::<(u64, String, Option<Vec<u8>>)>("test", &bytes).unwrap(), value);
        }

        #[test]
        fn refuses_any_flipped_bit(value: Vec<u8>, bit: usize) {
            let mut bytes = encode(&value).unwrap();
            let bit = bit % (bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode::<Vec<u8>>("test", &bytes).is_err());
        }

        #[test]
        fn never_panics_on_garbage(bytes: Vec<u8>) {
            let _ = decode::<Vec<String>>("test", &bytes);
        }
    }

    #[test]
    fn refuses_trailing_bytes_and_other_versions() {
        let mut inner = vec![FORMAT, 7, 7];
        inner.extend(crc32fast::hash(&inner).to_le_bytes());
        assert!(decode::<u8>("test", &inner).unwrap_err().to_string().contains("1 bytes after"));
        let mut other = vec![FORMAT + 1, 7];
        other.extend(crc32fast::hash(&other).to_le_bytes());
        assert!(decode::<u8>("test", &other).unwrap_err().to_string().contains("format 3"));
    }
}
