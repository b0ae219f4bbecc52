//! `Idempotency-Key`: which call it is, so that another one under the same key is noticed.

use bytes::Bytes;
use http::HeaderName;
use http::header::{ACCEPT, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use sha2::{Digest, Sha256};

use super::call::Call;
use crate::api::paths::{CREDENTIALS, IDEMPOTENCY_KEY};
use crate::error::{Error, Result};
use crate::kv::Once;

/// The headers that change what a call does, or how it is answered.
const HEADERS: [HeaderName; 4] = [ACCEPT, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH];

/// The call as one that happens once, where it brings a key.
pub(super) fn once(call: &Call, body: &Bytes) -> Result<Option<Once>> {
    let name = HeaderName::from_static(IDEMPOTENCY_KEY);
    let mut keys = call.headers.get_all(&name).iter();
    match (keys.next(), keys.next()) {
        (None, _) => Ok(None),
        (Some(_), Some(_)) => Err(Error::invalid("send one Idempotency-Key only")),
        (Some(key), None) => {
            Once::new(key.as_bytes(), digest(call, body), &call.credential()?).map(Some)
        }
    }
}

/// A digest of all that the call asks for. Each part comes with its length: no two calls are spelled alike.
fn digest(call: &Call, body: &Bytes) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    };
    part(call.method.as_str().as_bytes());
    part(call.path.as_bytes());
    // Who asks is told apart elsewhere, and may bring the same key in another way.
    for (name, value) in call.query.texts().filter(|(name, _)| !CREDENTIALS.contains(name)) {
        part(name.as_bytes());
        part(value.as_bytes());
    }
    for name in &HEADERS {
        part(call.headers.get(name).map_or(&[], |value| value.as_bytes()));
    }
    part(body);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::call::Origin;

    fn of(
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        body: &'static str,
    ) -> Result<Option<Once>> {
        let mut request = http::Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let call = Call::new(request.body(()).unwrap().into_parts().0, Origin::default());
        once(&call, &Bytes::from_static(body.as_bytes()))
    }

    const KEY: (&str, &str) = ("idempotency-key", "k");

    #[test]
    fn the_same_call_is_known_however_its_credential_travels() {
        let first = of("PUT", "/b/k?ttl=1", &[KEY, ("authorization", "Bearer s")], "v").unwrap();
        let again = of("PUT", "/b/k?key=s&ttl=1", &[KEY], "v").unwrap();
        assert!(first.is_some() && first == again);
        assert_eq!(of("PUT", "/b/k", &[], "v").unwrap(), None);
    }

    #[test]
    fn another_call_is_told_apart() {
        let first = of("PUT", "/b/k", &[KEY], "v").unwrap();
        for other in [
            of("POST", "/b/k", &[KEY], "v"),
            of("PUT", "/b/l", &[KEY], "v"),
            of("PUT", "/b/k?ttl=1", &[KEY], "v"),
            of("PUT", "/b/k", &[KEY], "w"),
            of("PUT", "/b/k", &[KEY, ("if-match", "\"1\"")], "v"),
            of("PUT", "/b/k", &[KEY, ("content-type", "a/b")], "v"),
            of("PUT", "/b/k", &[KEY, ("authorization", "Bearer s")], "v"),
        ] {
            assert_ne!(first, other.unwrap());
        }
    }

    #[test]
    fn a_key_is_one_and_short_and_visible() {
        let long = "x".repeat(256);
        for bad in [&[("idempotency-key", "")][..], &[("idempotency-key", "a b")], &[KEY, KEY]] {
            assert!(matches!(of("PUT", "/b/k", bad, ""), Err(Error::Invalid(_))), "{bad:?}");
        }
        assert!(of("PUT", "/b/k", &[("idempotency-key", &long)], "").is_err());
    }
}
