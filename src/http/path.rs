//! From a raw path to what it names.
//!
//! The path is taken as it was sent: axum would merge nothing, but its matcher decodes, and a key is
//! everything after the bucket's slash as percent-decoded *bytes*, slashes and all. Decoding happens
//! once, before the reserved names are looked for, so `scripts%2Fa` and `scripts/a` are one thing.

use bytes::Bytes;

use crate::api::paths;
use crate::error::{Error, Missing, Result};
use crate::kv::{BucketName, Key, ScriptName};

/// What a path names.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Target {
    Root,
    Livez,
    Readyz,
    Metrics,
    Cluster,
    Digest,
    Members,
    Member(u64),
    Promote(u64),
    Leader,
    Snapshot,
    OpenApi,
    Bucket(BucketName),
    Keys(BucketName),
    Tokens(BucketName),
    Token(BucketName, String),
    Key(BucketName, Key),
    Scripts(BucketName),
    Script(BucketName, ScriptName),
}

impl Target {
    /// Parses the path of a request, which begins with a slash.
    pub(super) fn parse(path: &str) -> Result<Self> {
        match path {
            "/" => return Ok(Target::Root),
            paths::LIVEZ => return Ok(Target::Livez),
            paths::READYZ => return Ok(Target::Readyz),
            paths::METRICS => return Ok(Target::Metrics),
            _ => {}
        }
        if path.starts_with("/-/") {
            return Self::parse_own(path);
        }
        let rest = path.strip_prefix('/').ok_or_else(|| no_path(path))?;
        let (bucket, rest) = match rest.split_once('/') {
            Some((bucket, rest)) => (bucket, Some(rest)),
            None => (rest, None),
        };
        let bucket = percent_decode(bucket)?;
        let bucket = BucketName::parse(&String::from_utf8_lossy(&bucket))?;
        match rest {
            Some(rest) => Self::parse_in(bucket, percent_decode(rest)?),
            None => Ok(Target::Bucket(bucket)),
        }
    }

    fn parse_own(path: &str) -> Result<Self> {
        match path {
            paths::CLUSTER => return Ok(Target::Cluster),
            paths::DIGEST => return Ok(Target::Digest),
            paths::MEMBERS => return Ok(Target::Members),
            paths::LEADER => return Ok(Target::Leader),
            paths::SNAPSHOT => return Ok(Target::Snapshot),
            paths::OPENAPI => return Ok(Target::OpenApi),
            _ => {}
        }
        let member = path.strip_prefix(paths::MEMBERS).and_then(|rest| rest.strip_prefix('/'));
        let member = member.ok_or_else(|| no_path(path))?;
        let (id, action) = member.split_once('/').unwrap_or((member, ""));
        let id = id.parse().map_err(|_| Error::not_found(Missing::Member, id))?;
        match action {
            "" if !member.contains('/') => Ok(Target::Member(id)),
            "promote" => Ok(Target::Promote(id)),
            _ => Err(no_path(path)),
        }
    }

    fn parse_in(bucket: BucketName, rest: Bytes) -> Result<Self> {
        if rest.is_empty() {
            return Ok(Target::Keys(bucket));
        }
        if let Some(name) = rest.strip_prefix(paths::SCRIPTS.as_bytes()) {
            if name.is_empty() {
                return Ok(Target::Scripts(bucket));
            }
            let name = ScriptName::parse(&String::from_utf8_lossy(name))?;
            return Ok(Target::Script(bucket, name));
        }
        if let Some(id) = rest.strip_prefix(paths::TOKENS.as_bytes()) {
            return Ok(match String::from_utf8_lossy(id) {
                id if id.is_empty() => Target::Tokens(bucket),
                id => Target::Token(bucket, id.into_owned()),
            });
        }
        Ok(Target::Key(bucket, Key::parse(rest)?))
    }

    /// The bucket that it is of.
    pub(super) fn bucket(&self) -> Option<&BucketName> {
        match self {
            Target::Bucket(bucket)
            | Target::Keys(bucket)
            | Target::Key(bucket, _)
            | Target::Scripts(bucket)
            | Target::Script(bucket, _)
            | Target::Tokens(bucket)
            | Target::Token(bucket, _) => Some(bucket),
            Target::Root
            | Target::Livez
            | Target::Readyz
            | Target::Metrics
            | Target::Cluster
            | Target::Digest
            | Target::Members
            | Target::Member(_)
            | Target::Promote(_)
            | Target::Leader
            | Target::Snapshot
            | Target::OpenApi => None,
        }
    }

    /// The methods that it takes, for `Allow`.
    pub(super) fn allow(&self) -> &'static str {
        match self {
            Target::Root | Target::Members | Target::Promote(_) => "POST, OPTIONS",
            Target::Leader | Target::Snapshot => "POST, OPTIONS",
            Target::Livez | Target::Readyz | Target::Metrics => "GET, HEAD, OPTIONS",
            Target::Cluster | Target::Digest | Target::OpenApi => "GET, HEAD, OPTIONS",
            Target::Bucket(_) => "GET, HEAD, POST, PATCH, OPTIONS",
            Target::Keys(_) => "GET, HEAD, DELETE, OPTIONS",
            Target::Scripts(_) | Target::Tokens(_) => "GET, HEAD, POST, OPTIONS",
            Target::Member(_) | Target::Token(..) => "DELETE, OPTIONS",
            Target::Key(..) => "GET, HEAD, PUT, POST, PATCH, DELETE, OPTIONS",
            Target::Script(..) => "GET, HEAD, PUT, POST, DELETE, OPTIONS",
        }
    }

    /// What metrics and logs call it: never a name that a caller chose.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Target::Root | Target::Bucket(_) => "bucket",
            Target::Tokens(_) | Target::Token(..) => "token",
            Target::Livez | Target::Readyz => "health",
            Target::Metrics => "metrics",
            Target::Cluster => "cluster",
            Target::Digest => "digest",
            Target::Members | Target::Member(_) | Target::Promote(_) => "members",
            Target::Leader => "leader",
            Target::Snapshot => "snapshot",
            Target::OpenApi => "openapi",
            Target::Keys(_) => "list",
            Target::Key(..) => "key",
            Target::Scripts(_) => "scripts",
            Target::Script(..) => "script",
        }
    }
}

fn no_path(path: &str) -> Error {
    Error::not_found(Missing::Path, path)
}

/// Decodes `%XX`; a stray `%` is refused, or one key would have two spellings.
pub(super) fn percent_decode(text: &str) -> Result<Bytes> {
    if !text.contains('%') {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (value, after) = hex_pair(rest).ok_or_else(|| {
            Error::invalid("in a path, `%` is followed by two hex digits: write `%25` for `%`")
        })?;
        decoded.push(value);
        rest = after;
    }
    Ok(decoded.into())
}

fn hex_pair(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (&[high, low], rest) = bytes.split_first_chunk()?;
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let value = digit(high)? * 16 + digit(low)?;
    Some((u8::try_from(value).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(path: &str) -> Vec<u8> {
        match Target::parse(path) {
            Ok(Target::Key(_, key)) => key.bytes().to_vec(),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn a_key_is_everything_after_the_slash_as_bytes() {
        for (path, expected) in [
            ("/b/k", &b"k"[..]),
            ("/b/a/b:c", b"a/b:c"),
            ("/b//", b"/"),
            ("/b//a//", b"/a//"),
            ("/b/%00%ff", b"\0\xff"),
            ("/b/a%2Fb", b"a/b"),
            ("/b/a+b", b"a+b"),
            ("/b/../x", b"../x"),
            ("/b/scripts", b"scripts"),
            ("/b/%25", b"%"),
            ("/b/é", "é".as_bytes()),
        ] {
            assert_eq!(key(path), expected, "{path}");
        }
    }

    #[test]
    fn names() {
        let bucket = |name| BucketName::parse(name).unwrap();
        let script = |name| ScriptName::parse(name).unwrap();
        for (path, expected) in [
            ("/", Target::Root),
            ("/livez", Target::Livez),
            ("/b/", Target::Keys(bucket("b"))),
            ("/%62/", Target::Keys(bucket("b"))),
            ("/b/scripts/", Target::Scripts(bucket("b"))),
            ("/b/scripts/a/b.lua", Target::Script(bucket("b"), script("a/b.lua"))),
            ("/b/scripts%2Fa", Target::Script(bucket("b"), script("a"))),
            ("/-/cluster", Target::Cluster),
            ("/-/digest", Target::Digest),
            ("/-/cluster/members", Target::Members),
            ("/-/cluster/members/3", Target::Member(3)),
            ("/-/cluster/members/3/promote", Target::Promote(3)),
            ("/-/cluster/leader", Target::Leader),
            ("/-/cluster/snapshot", Target::Snapshot),
            ("/-/openapi.json", Target::OpenApi),
        ] {
            assert_eq!(Target::parse(path).unwrap(), expected, "{path}");
        }
    }

    #[test]
    fn what_names_nothing() {
        for (path, status) in [
            ("*", 404),
            ("/-/", 404),
            ("/-/x", 404),
            ("/-/cluster/", 404),
            ("/-/cluster/members/", 404),
            ("/-/cluster/members/x", 404),
            ("/-/cluster/members/3/", 404),
            ("/-/cluster/members/3/demote", 404),
            ("/-/cluster/members/3/promote/", 404),
            ("//k", 400),
            ("/a%2Fb/k", 400),
            ("/%ff/k", 400),
            ("/metrics/k", 400),
            ("/b/%", 400),
            ("/b/%2", 400),
            ("/b/%zz", 400),
            ("/b/%+1", 400),
            ("/b/scripts/a//b", 400),
            ("/b/scripts/%ff", 400),
        ] {
            let error = Target::parse(path).unwrap_err();
            let code = crate::api::ErrorCode::of(&error);
            assert_eq!(code.status().as_u16(), status, "{path}: {error}");
        }
        let long = format!("/b/{}", "x".repeat(1025));
        assert!(matches!(Target::parse(&long), Err(Error::TooLarge { .. })));
    }

    /// Each target's path in the description of the API; a target without one does not compile.
    macro_rules! templates {
        ($($target:pat => $path:literal,)*) => {
            const TEMPLATES: &[&str] = &[$($path),*];
            fn template(target: &Target) -> &'static str {
                match target {
                    $($target => $path,)*
                }
            }
        };
    }

    templates! {
        Target::Root => "/",
        Target::Livez => "/livez",
        Target::Readyz => "/readyz",
        Target::Metrics => "/metrics",
        Target::Cluster => "/-/cluster",
        Target::Digest => "/-/digest",
        Target::Members => "/-/cluster/members",
        Target::Member(_) => "/-/cluster/members/{node}",
        Target::Promote(_) => "/-/cluster/members/{node}/promote",
        Target::Leader => "/-/cluster/leader",
        Target::Snapshot => "/-/cluster/snapshot",
        Target::OpenApi => "/-/openapi.json",
        Target::Bucket(_) => "/{bucket}",
        Target::Keys(_) => "/{bucket}/",
        Target::Tokens(_) => "/{bucket}/tokens/",
        Target::Token(..) => "/{bucket}/tokens/{token}",
        Target::Key(..) => "/{bucket}/{key}",
        Target::Scripts(_) => "/{bucket}/scripts/",
        Target::Script(..) => "/{bucket}/scripts/{script}",
    }

    /// A path with something in each place.
    fn filled(template: &str) -> String {
        let names = ["{bucket}", "{key}", "{script}", "{token}"];
        let filled = names.iter().fold(template.to_owned(), |path, name| path.replace(name, "x"));
        filled.replace("{node}", "3")
    }

    /// What is served is described, and what is described is served.
    #[test]
    fn the_description_has_each_target_with_its_methods() {
        let document: serde_json::Value =
            serde_json::from_str(crate::api::openapi::document()).unwrap();
        let described = document["paths"].as_object().unwrap();
        let paths: Vec<_> = described.keys().map(String::as_str).collect();
        for path in TEMPLATES {
            assert!(paths.contains(path), "{path} is not described");
        }
        for (path, calls) in described {
            let target = Target::parse(&filled(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
            assert_eq!(template(&target), path);
            let served: std::collections::BTreeSet<_> = target
                .allow()
                .split(", ")
                .filter(|method| !["HEAD", "OPTIONS"].contains(method))
                .map(str::to_ascii_lowercase)
                .collect();
            let methods = calls.as_object().unwrap().keys().cloned().collect();
            assert_eq!(served, methods, "{path}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(path: String) {
            let _ = Target::parse(&path);
            let _ = Target::parse(&format!("/b/{path}"));
            let _ = Target::parse(&format!("/-/cluster/members/{path}"));
        }

        #[test]
        fn any_key_survives_the_clients_encoding(key_bytes in proptest::collection::vec(any::<u8>(), 1..64)) {
            let path = paths::key("b", &key_bytes);
            match Target::parse(&path) {
                Ok(Target::Key(_, key)) => prop_assert_eq!(key.bytes(), &key_bytes),
                _ => prop_assert!(key_bytes.starts_with(b"scripts/") || key_bytes.starts_with(b"tokens/")),
            }
        }
    }
}
