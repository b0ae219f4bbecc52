//! Names, parsed once and valid ever after.

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::limits::{BUCKET_NAME_MAX, KEY_BYTES_MAX, SCRIPT_NAME_MAX};
use crate::error::{Error, Result};

/// The first path segments that name no bucket.
const RESERVED: [&str; 4] = ["-", "livez", "readyz", "metrics"];
/// The first segments of a bucket's paths that name no key.
const RESERVED_KEYS: [&[u8]; 2] = [b"scripts/", b"tokens/"];

/// A bucket's name: 1 to 64 of `A-Z a-z 0-9 _ -`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BucketName(String);

impl BucketName {
    /// Parses a name; the error says what is allowed.
    pub fn parse(name: &str) -> Result<Self> {
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if name.is_empty() || name.len() > BUCKET_NAME_MAX || !name.chars().all(legal) {
            return Err(Error::invalid(format!(
                "a bucket name is 1 to {BUCKET_NAME_MAX} characters of A-Z a-z 0-9 _ -"
            )));
        }
        if RESERVED.contains(&name) {
            return Err(Error::invalid(format!("the bucket name `{name}` is reserved")));
        }
        Ok(BucketName(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BucketName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A key: 1 to 1024 bytes of any value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes);

impl Key {
    /// Takes the bytes as a key.
    pub fn parse(bytes: impl Into<Bytes>) -> Result<Self> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(Error::invalid("a key has at least one byte"));
        }
        if bytes.len() > KEY_BYTES_MAX {
            return Err(Error::TooLarge { limit: "a key", max: KEY_BYTES_MAX as u64 });
        }
        if RESERVED_KEYS.iter().any(|reserved| bytes.starts_with(reserved)) {
            return Err(Error::invalid("keys may not begin with `scripts/` or `tokens/`"));
        }
        Ok(Key(bytes))
    }

    /// The key's bytes.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

/// A script's name: 1 to 128 of `A-Z a-z 0-9 _ - .`, slashes between parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ScriptName(String);

impl ScriptName {
    /// Parses a name; the error says what is allowed.
    pub fn parse(name: &str) -> Result<Self> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
        // Clients take `.` and `..` out of a path.
        let parts_legal = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if name.len() > SCRIPT_NAME_MAX || !parts_legal || !name.chars().all(legal) {
            return Err(Error::invalid(format!(
                "a script name is 1 to {SCRIPT_NAME_MAX} characters of A-Z a-z 0-9 _ - . \
                 with single slashes between parts, none of them `.` or `..`"
            )));
        }
        Ok(ScriptName(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ScriptName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bucket_names() {
        for good in ["a", "A-b_9", &"x".repeat(64)] {
            assert_eq!(BucketName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "a/b", "a b", "ä", "-", "metrics", &"x".repeat(65)] {
            assert!(BucketName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn keys() {
        for good in [&b"a"[..], b"a/b:c", b"\0\xff", b"scripts", &[b'x'; 1024]] {
            assert_eq!(Key::parse(good.to_vec()).unwrap().bytes(), good);
        }
        assert!(Key::parse(vec![]).is_err());
        assert!(Key::parse(b"scripts/a".to_vec()).is_err());
        assert!(Key::parse(b"tokens/".to_vec()).is_err());
        assert!(matches!(Key::parse(vec![b'x'; 1025]), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn script_names() {
        for good in ["a", "lib/a.lua", "A_b-9"] {
            assert_eq!(ScriptName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a b", "é", &"x".repeat(129)] {
            assert!(ScriptName::parse(bad).is_err(), "{bad:?}");
        }
    }
}
