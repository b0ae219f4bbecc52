//! What generated tests share: how much they run (a little beside the other tests, as much as is asked
//! for by `make fuzz`), and how bytes are damaged.

use std::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestCaseError, TestCaseResult, TestRunner};
use serde::{Serialize, de::DeserializeOwned};

use crate::encoding;
use crate::error::Error;

/// The environment variable that says how many cases each of them runs.
const CASES: &str = "KVDB_FUZZ_CASES";
/// How long a failing case is made smaller, in milliseconds.
const SHRINK_MS: u32 = 60_000;

/// Runs a test on so many values, or on as many as are asked for; fails with the smallest that fails.
///
/// `PROPTEST_RNG_SEED` draws the same values again. Nothing is written beside the source: a value that
/// failed is printed, and becomes a plain test.
pub(crate) fn fuzz<S: Strategy>(cases: u32, values: S, test: impl Fn(S::Value) -> TestCaseResult) {
    let asked = std::env::var(CASES).ok();
    let cases = asked.map_or(cases, |text| text.parse().expect("KVDB_FUZZ_CASES is a number"));
    let config = Config {
        cases,
        failure_persistence: None,
        max_shrink_time: SHRINK_MS,
        ..Config::default()
    };
    if let Err(error) = TestRunner::new(config).run(&values, test) {
        panic!("{error}");
    }
}

/// Where bytes are damaged, with what, and how.
pub(crate) type Damage = Vec<(Index, u8, u8)>;

/// Up to so many damages.
pub(crate) fn damage(most: usize) -> impl Strategy<Value = Damage> {
    vec((any::<Index>(), any::<u8>(), 0..4u8), 0..=most)
}

/// Flips, adds and drops bytes, or cuts off what follows.
pub(crate) fn damaged(mut bytes: Vec<u8>, damage: &Damage) -> Vec<u8> {
    for (at, byte, how) in damage {
        if bytes.is_empty() {
            break;
        }
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] ^= byte,
            1 => bytes.insert(at, *byte),
            2 => drop(bytes.remove(at)),
            _ => bytes.truncate(at),
        }
    }
    bytes
}

/// Bytes as an encoded value whose checksum fits, whatever they say: what is hostile, not merely broken.
pub(crate) fn sealed(body: &[u8]) -> Vec<u8> {
    let mut bytes = [&[encoding::FORMAT], body].concat();
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// The same value with its bytes damaged, under a checksum that fits.
pub(crate) fn resealed<T: Serialize>(value: &T, damage: &Damage) -> Vec<u8> {
    let bytes = encoding::encode(value).unwrap();
    sealed(&damaged(bytes[1..bytes.len() - 4].to_vec(), damage))
}

/// Decodes bytes, or refuses them; what was decoded survives another time.
pub(crate) fn decodes<T>(bytes: &[u8]) -> Result<Option<T>, TestCaseError>
where
    T: Serialize + DeserializeOwned + PartialEq + Debug,
{
    match encoding::decode::<T>("test", bytes) {
        Ok(value) => {
            let again = encoding::encode(&value).and_then(|bytes| encoding::decode("test", &bytes));
            prop_assert_eq!(again.as_ref(), Ok(&value));
            Ok(Some(value))
        }
        Err(Error::Corrupt { .. }) => Ok(None),
        Err(other) => Err(TestCaseError::fail(format!("{other:?}"))),
    }
}
