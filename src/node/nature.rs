//! The node's time and its randomness; there is no other in the library, but for the nonces of the log's segments.

use std::sync::{Arc, Mutex, PoisonError};

use super::clock::Clock;
use crate::executor::Nature;
use crate::kv::BucketName;

/// Letters and digits without those that look alike (base58).
const ALPHABET: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// Characters of a random name: 128 bits and a few more.
const NAME_CHARACTERS: usize = 22;

/// Bytes of randomness that are fetched at a time: a seed each call would be a system call each call.
const POOL_BYTES: usize = 4096;

/// The node's clock and the operating system's randomness.
#[derive(Default)]
pub(super) struct System {
    clock: Arc<Clock>,
    /// Randomness not used yet, taken from the end.
    pool: Mutex<Vec<u8>>,
}

impl System {
    pub(super) fn new(clock: Arc<Clock>) -> Self {
        System { clock, ..System::default() }
    }
}

impl Nature for System {
    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    fn seed(&self) -> u64 {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some((rest, seed)) = pool.split_last_chunk() {
                let (left, seed) = (rest.len(), u64::from_le_bytes(*seed));
                pool.truncate(left);
                return seed;
            }
            *pool = random_bytes::<POOL_BYTES>().to_vec();
        }
    }
}

/// Unguessable bytes.
fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system has randomness once it has booted");
    bytes
}

/// Twenty-two unguessable characters.
pub(super) fn random_name() -> String {
    let mut name = String::with_capacity(NAME_CHARACTERS);
    while name.len() < NAME_CHARACTERS {
        // Six bits a byte; those beyond the alphabet are drawn again, so that all are equally likely.
        let drawn = random_bytes::<32>();
        let characters = drawn.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 63)));
        name.extend(characters.map(|byte| char::from(*byte)).take(NAME_CHARACTERS - name.len()));
    }
    name
}

/// A name for a bucket whose creator chose none.
pub(super) fn random_bucket_name() -> BucketName {
    BucketName::parse(&random_name()).expect("the alphabet is legal in bucket names")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_differ_beyond_one_pool() {
        let nature = System::default();
        let seeds: std::collections::HashSet<_> = (0..POOL_BYTES).map(|_| nature.seed()).collect();
        assert_eq!(seeds.len(), POOL_BYTES);
    }

    #[test]
    fn names_are_long_and_differ() {
        let (a, b) = (random_name(), random_name());
        assert_eq!(a.len(), NAME_CHARACTERS);
        assert_ne!(a, b);
        assert!(a.bytes().all(|byte| ALPHABET.contains(&byte)));
    }
}
