//! What the rows say that nearly every command of a bucket reads: decoded once, found again by the row's bytes.
//!
//! Each transaction still reads the row, in the state that it runs on. Only what the bytes mean is remembered,
//! which never changes: nothing here can be out of date.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::encoding;
use crate::error::Result;

/// A row that is longer is decoded each time.
const ROW_BYTES_MAX: usize = 32 << 10;

/// Up to `MAX` values of one type with their rows, the oldest first.
#[derive(Debug)]
pub(super) struct Decoded<T, const MAX: usize>(Vec<(Bytes, Arc<T>)>);

impl<T, const MAX: usize> Default for Decoded<T, MAX> {
    fn default() -> Self {
        Decoded(Vec::new())
    }
}

impl<T: DeserializeOwned, const MAX: usize> Decoded<T, MAX> {
    /// What a row says; `what` names it in the error.
    pub(super) fn decode(&mut self, what: &'static str, row: Bytes) -> Result<Arc<T>> {
        if let Some((_, value)) = self.0.iter().find(|(known, _)| is_same(known, &row)) {
            return Ok(Arc::clone(value));
        }
        let value = Arc::new(encoding::decode(what, &row)?);
        if row.len() <= ROW_BYTES_MAX {
            if self.0.len() >= MAX {
                self.0.remove(0);
            }
            self.0.push((row, Arc::clone(&value)));
        }
        Ok(value)
    }
}

/// Mostly it is the very same piece of memory, which need not be compared.
fn is_same(a: &Bytes, b: &Bytes) -> bool {
    (a.as_ptr() == b.as_ptr() && a.len() == b.len()) || a == b
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(text: &str) -> Bytes {
        encoding::encode(&text).unwrap().into()
    }

    #[test]
    fn the_same_bytes_are_decoded_once_and_others_for_themselves() {
        let mut decoded = Decoded::<String, 2>::default();
        let first = decoded.decode("test", row("a")).unwrap();
        assert!(Arc::ptr_eq(&first, &decoded.decode("test", row("a")).unwrap()));
        assert_eq!(*decoded.decode("test", row("b")).unwrap(), "b");
        assert!(Arc::ptr_eq(&first, &decoded.decode("test", row("a")).unwrap()));
        // The third takes the oldest one's place.
        assert_eq!(*decoded.decode("test", row("c")).unwrap(), "c");
        let again = decoded.decode("test", row("a")).unwrap();
        assert!(!Arc::ptr_eq(&first, &again) && *again == "a");
        assert_eq!(decoded.0.len(), 2);
    }

    #[test]
    fn damage_and_what_is_large_are_not_kept() {
        let mut decoded = Decoded::<String, 2>::default();
        assert!(decoded.decode("test", Bytes::from_static(b"damaged")).is_err());
        let large = "a".repeat(ROW_BYTES_MAX);
        assert_eq!(*decoded.decode("test", row(&large)).unwrap(), large);
        assert!(decoded.0.is_empty());
    }
}
