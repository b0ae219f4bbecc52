//! Rate limits: how many requests a node takes in a second of one client address, and for one bucket.
//!
//! Each node counts what it is sent itself; what a peer handed on was counted there. A client that
//! was silent for a second may send a second's worth at once. Probes, scrapes and preflights are never
//! limited: they tell whether the node lives, also to whoever is over the limit.
//!
//! Who is counted is bounded: beyond [`TRACKED_MAX`] at a time, newcomers share one count, and who has
//! been idle is forgotten. The counting is `governor`'s (GCRA): a number and a subtraction each.

use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};

use governor::clock::{Clock, MonotonicClock};
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::{HashMapStateStore, ShrinkableKeyedStateStore};
use governor::{Quota, RateLimiter};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::call::Call;
use super::path::Target;
use crate::api::paths::{RATE_LIMIT, RATE_REMAINING, RATE_RESET};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::kv::BucketName;

/// Most clients, and most buckets, that are counted each for itself.
const TRACKED_MAX: usize = 65_536;

/// The limits of a node; none where none is configured.
pub(super) struct Rates {
    client: Option<Limiter<String>>,
    bucket: Option<Limiter<BucketName>>,
}

impl Rates {
    /// As configured.
    pub(super) fn new(config: &Config) -> Self {
        Rates {
            client: Limiter::new("of this client", config.client_requests_per_second),
            bucket: Limiter::new("for this bucket", config.bucket_requests_per_second),
        }
    }

    /// Counts a request; where it stands then, if it is limited at all.
    pub(super) fn count(&self, call: &Call, target: Option<&Target>) -> Option<Standing> {
        let exempt = matches!(target, Some(Target::Livez | Target::Readyz | Target::Metrics));
        if exempt || call.method == Method::OPTIONS || call.origin.hops > 0 {
            return None;
        }
        let client = self.client.as_ref().map(|limiter| limiter.count(&call.origin.remote_addr));
        if client.as_ref().is_some_and(|standing| standing.remaining.is_none()) {
            return client;
        }
        let bucket = target.and_then(Target::bucket);
        let bucket = self.bucket.as_ref().zip(bucket).map(|(limiter, name)| limiter.count(name));
        [client, bucket].into_iter().flatten().min_by_key(|standing| standing.remaining)
    }
}

/// Where a request stands with the tighter of its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    whose: &'static str,
    per_second: u32,
    /// How many more would be taken at once; none where this one is not.
    remaining: Option<u32>,
}

impl Standing {
    /// Fails where the request is one too many.
    pub(super) fn check(&self) -> Result<()> {
        match self.remaining {
            Some(_) => Ok(()),
            None => Err(Error::RateLimited { whose: self.whose, per_second: self.per_second }),
        }
    }

    /// Tells the client.
    pub(super) fn show(&self, headers: &mut HeaderMap) {
        let remaining = self.remaining.unwrap_or(0);
        // A second's worth at most is gone, so it is back within a second.
        let reset = u32::from(remaining < self.per_second);
        for (name, value) in
            [(RATE_LIMIT, self.per_second), (RATE_REMAINING, remaining), (RATE_RESET, reset)]
        {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        }
    }
}

type Keyed<K, C> = RateLimiter<Option<K>, Bounded<K>, C, StateInformationMiddleware>;

/// One limit, with a count for each key.
struct Limiter<K: Hash + Eq + Clone, C: Clock = MonotonicClock> {
    whose: &'static str,
    per_second: u32,
    keyed: Keyed<K, C>,
    max: usize,
    /// Requests since the idle were forgotten.
    counted: AtomicUsize,
}

impl<K: Hash + Eq + Clone> Limiter<K> {
    fn new(whose: &'static str, per_second: u32) -> Option<Self> {
        Self::with(whose, per_second, TRACKED_MAX, MonotonicClock)
    }
}

impl<K: Hash + Eq + Clone, C: Clock> Limiter<K, C> {
    fn with(whose: &'static str, per_second: u32, max: usize, clock: C) -> Option<Self> {
        let quota = Quota::per_second(NonZeroU32::new(per_second)?);
        let store = Bounded { counts: HashMapStateStore::default(), max };
        let keyed = Keyed::new(quota, store, clock);
        Some(Limiter { whose, per_second, keyed, max, counted: AtomicUsize::new(0) })
    }

    fn count(&self, key: &K) -> Standing {
        // To look at all who are counted after as many requests costs each request the same.
        if self.counted.fetch_add(1, Ordering::Relaxed) % self.max == self.max - 1 {
            self.keyed.retain_recent();
        }
        let counted = self.keyed.check_key(&Some(key.clone()));
        let remaining = counted.ok().map(|state| state.remaining_burst_capacity());
        Standing { whose: self.whose, per_second: self.per_second, remaining }
    }
}

/// Counts of at most so many keys; who comes later is counted under `None`.
struct Bounded<K> {
    counts: HashMapStateStore<Option<K>>,
    max: usize,
}

impl<K: Hash + Eq + Clone> StateStore for Bounded<K> {
    type Key = Option<K>;

    fn measure_and_replace<T, F, E>(&self, key: &Self::Key, count: F) -> std::result::Result<T, E>
    where
        F: Fn(Option<Nanos>) -> std::result::Result<(T, Nanos), E>,
    {
        let is_own = {
            let counts = self.counts.lock();
            counts.len() < self.max || counts.contains_key(key)
        };
        self.counts.measure_and_replace(if is_own { key } else { &None }, count)
    }
}

impl<K: Hash + Eq + Clone> ShrinkableKeyedStateStore<Option<K>> for Bounded<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        self.counts.retain_recent(drop_below);
    }

    fn len(&self) -> usize {
        self.counts.len()
    }

    fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use governor::clock::FakeRelativeClock;

    use super::*;
    use crate::http::call::Origin;

    fn limiter(
        per_second: u32,
        max: usize,
    ) -> (Limiter<String, FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        let limiter = Limiter::with("of this client", per_second, max, clock.clone());
        (limiter.unwrap(), clock)
    }

    fn remaining(limiter: &Limiter<String, FakeRelativeClock>, key: &str) -> Option<u32> {
        limiter.count(&key.to_owned()).remaining
    }

    #[test]
    fn a_seconds_worth_then_none_then_one_at_a_time() {
        let (limiter, clock) = limiter(4, 10);
        let taken: Vec<_> = (0..5).map(|_| remaining(&limiter, "a")).collect();
        assert_eq!(taken, [Some(3), Some(2), Some(1), Some(0), None]);
        assert_eq!(remaining(&limiter, "b"), Some(3), "another is another's");
        clock.advance(Duration::from_millis(250));
        assert_eq!(remaining(&limiter, "a"), Some(0));
        assert_eq!(remaining(&limiter, "a"), None);
        clock.advance(Duration::from_secs(1));
        assert_eq!(remaining(&limiter, "a"), Some(3));
        assert!(Limiter::<String>::new("of nobody", 0).is_none(), "0 is no limit");
    }

    #[test]
    fn who_comes_too_late_shares_and_the_idle_are_forgotten() {
        let (limiter, clock) = limiter(2, 3);
        for key in ["a", "b", "c"] {
            assert_eq!(remaining(&limiter, key), Some(1));
        }
        assert_eq!(remaining(&limiter, "d"), Some(1));
        assert_eq!(remaining(&limiter, "e"), Some(0), "one count for all newcomers");
        assert_eq!(remaining(&limiter, "f"), None);
        assert_eq!(remaining(&limiter, "a"), Some(0), "who was there has a count of its own");
        assert_eq!(limiter.keyed.len(), 4);
        clock.advance(Duration::from_secs(2));
        for _ in 0..3 {
            remaining(&limiter, "g");
        }
        assert_eq!(limiter.keyed.len(), 2, "the last one, and the count that it shared before");
    }

    fn call(line: &str, hops: u8) -> Call {
        let (method, uri) = line.split_once(' ').unwrap();
        let request = http::Request::builder().method(method).uri(uri).body(()).unwrap();
        let origin = Origin { remote_addr: "192.0.2.7".to_owned(), hops };
        Call::new(request.into_parts().0, origin)
    }

    #[test]
    fn what_is_counted() {
        let rates = |client, bucket| Rates {
            client: Limiter::new("of this client", client),
            bucket: Limiter::new("for this bucket", bucket),
        };
        let count = |rates: &Rates, line: &str, hops| {
            let call = call(line, hops);
            let target = Target::parse(&call.path);
            rates.count(&call, target.as_ref().ok())
        };
        let both = rates(3, 2);
        for line in ["GET /livez", "GET /readyz", "GET /metrics", "OPTIONS /b/k"] {
            assert_eq!(count(&both, line, 0), None, "{line}");
        }
        assert_eq!(count(&both, "PUT /b/k", 1), None, "counted where it came from");
        let first = count(&both, "PUT /b/k", 0).unwrap();
        assert_eq!((first.per_second, first.remaining), (2, Some(1)), "the tighter one");
        let other = count(&both, "GET /c/", 0).unwrap();
        assert_eq!((other.per_second, other.remaining), (3, Some(1)), "now the client's is");
        let root = count(&both, "POST /", 0).unwrap();
        assert_eq!((root.per_second, root.remaining), (3, Some(0)));
        let refused = count(&both, "GET /b/", 0).unwrap();
        assert_eq!(
            refused.check(),
            Err(Error::RateLimited { whose: "of this client", per_second: 3 })
        );
        assert_eq!(count(&rates(0, 0), "GET /b/k", 0), None);
        assert_eq!(count(&rates(0, 1), "POST /", 0), None, "no bucket, no limit");
        assert!(count(&rates(1, 0), "GET /no%zz", 0).is_some(), "nonsense counts, too");
    }

    #[test]
    fn the_client_is_told() {
        let shown = |remaining| {
            let mut headers = HeaderMap::new();
            Standing { whose: "x", per_second: 5, remaining }.show(&mut headers);
            [RATE_LIMIT, RATE_REMAINING, RATE_RESET]
                .map(|name| headers[name].to_str().unwrap().to_owned())
        };
        assert_eq!(shown(Some(4)), ["5", "4", "1"]);
        assert_eq!(shown(Some(5)), ["5", "5", "0"]);
        assert_eq!(shown(None), ["5", "0", "1"]);
    }
}
