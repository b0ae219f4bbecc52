//! Where a list that a limit cut goes on: opaque to clients, and refused where it does not fit.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::encoding;
use crate::error::{Error, Result};
use crate::kv::ListRange;

/// The place behind a key, in the list of a prefix and a direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// The last key that was answered; it begins with the prefix.
    key: Vec<u8>,
    prefix_bytes: usize,
    reverse: bool,
    /// The revision that the first page was of, for whoever looks into it.
    revision: u64,
}

impl Cursor {
    /// Behind a key of a list.
    pub(super) fn behind(key: &[u8], range: &ListRange, revision: u64) -> Self {
        let (prefix_bytes, reverse) = (range.prefix.len(), range.reverse);
        Cursor { key: key.to_vec(), prefix_bytes, reverse, revision }
    }

    /// The same place, of a list that began at another page.
    pub(super) fn since(self, first: Option<&Cursor>) -> Self {
        let revision = first.map_or(self.revision, |first| first.revision);
        Cursor { revision, ..self }
    }

    /// As clients are given it.
    pub(super) fn text(&self) -> Result<String> {
        Ok(BASE64_URL_SAFE_NO_PAD.encode(encoding::encode(self)?))
    }

    /// The inverse of [`Cursor::text`].
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let broken = || {
            Error::invalid("the cursor is broken: send X-Kvdb-Cursor of the page before, as it was")
        };
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| broken())?;
        encoding::decode("cursor", &bytes).map_err(|_| broken())
    }

    /// What is left of a range behind the cursor, which must be of the same list.
    pub(super) fn narrow(&self, range: &mut ListRange) -> Result<()> {
        let prefix = self.key.get(..self.prefix_bytes);
        if prefix != Some(&range.prefix) || self.reverse != range.reverse {
            return Err(Error::invalid(
                "the cursor is of another list: send it with the `prefix` and `reverse` that its \
                 page was asked with",
            ));
        }
        go_on_behind(range, &self.key);
        Ok(())
    }
}

/// Moves a range behind a key; never back.
pub(super) fn go_on_behind(range: &mut ListRange, key: &[u8]) {
    if range.reverse {
        let key = Bytes::copy_from_slice(key);
        range.end = Some(range.end.take().map_or(key.clone(), |end| end.min(key)));
    } else {
        let next = Bytes::from([key, b"\0"].concat());
        range.start = Some(range.start.take().map_or(next.clone(), |start| start.max(next)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{damage, fuzz, resealed, sealed};

    fn range(prefix: &'static str, reverse: bool) -> ListRange {
        ListRange { prefix: prefix.into(), reverse, ..ListRange::default() }
    }

    #[test]
    fn it_goes_on_behind_its_key() {
        for (reverse, start, end) in [(false, Some("p:5\0"), None), (true, None, Some("p:5"))] {
            let mut range = range("p:", reverse);
            let cursor = Cursor::behind(b"p:5", &range, 7);
            let cursor = Cursor::parse(cursor.text().unwrap().as_bytes()).unwrap();
            cursor.narrow(&mut range).unwrap();
            assert_eq!((range.start, range.end), (start.map(Into::into), end.map(Into::into)));
        }
        let mut bounded = ListRange { start: Some("p:9".into()), ..range("p:", false) };
        Cursor::behind(b"p:5", &bounded, 7).narrow(&mut bounded).unwrap();
        assert_eq!(bounded.start, Some("p:9".into()), "never back");
    }

    #[test]
    fn it_tells_the_first_pages_revision() {
        let first = Cursor::behind(b"a", &range("", false), 7);
        let next = Cursor::behind(b"b", &range("", false), 9).since(Some(&first));
        assert_eq!(next.revision, 7);
        assert_eq!(first.clone().since(None), first);
    }

    #[test]
    fn another_lists_is_refused() {
        let cursor = Cursor::behind(b"p:5", &range("p:", false), 7);
        for (prefix, reverse) in [("p:", true), ("p", false), ("p:5", false), ("q:", false)] {
            let refused = cursor.narrow(&mut range(prefix, reverse));
            assert!(matches!(refused, Err(Error::Invalid(_))), "{prefix} {reverse}");
        }
    }

    #[test]
    fn a_broken_one_is_refused() {
        let good = Cursor::behind(b"some:key", &range("some:", false), 7).text().unwrap();
        assert!(good.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        let mut flipped = good.clone().into_bytes();
        flipped[8] ^= 1;
        for broken in [b"".as_slice(), b"x", b"***", &flipped, &good.as_bytes()[1..]] {
            assert!(matches!(Cursor::parse(broken), Err(Error::Invalid(_))), "{broken:?}");
        }
    }

    /// A client can make up a cursor whose checksum fits.
    #[test]
    fn no_cursor_harms() {
        let cursors = (vec(any::<u8>(), 0..40), damage(4), any::<bool>());
        fuzz(300, cursors, |(bytes, damage, made_up)| {
            let good = Cursor::behind(b"p:5", &range("p:", false), 7);
            let bytes = if made_up { sealed(&bytes) } else { resealed(&good, &damage) };
            for text in [BASE64_URL_SAFE_NO_PAD.encode(&bytes).into_bytes(), bytes] {
                match Cursor::parse(&text) {
                    Ok(cursor) => {
                        let again = Cursor::parse(cursor.text().unwrap().as_bytes());
                        prop_assert_eq!(again.as_ref(), Ok(&cursor));
                        let mut range = range("p:", false);
                        if cursor.narrow(&mut range).is_ok() {
                            prop_assert!(range.start.is_some_and(|start| start.starts_with(b"p:")));
                        }
                    }
                    Err(error) => prop_assert!(matches!(error, Error::Invalid(_)), "{error:?}"),
                }
            }
            Ok(())
        });
    }
}
