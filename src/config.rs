//! What a deployment may choose: one table, each entry with its meaning, unit and default.
//!
//! A value comes from the first of: the flag, the environment (`KVDB_` and the flag's name), the file
//! named by `--config` (TOML, the same names), the default. The table below makes all of it: the
//! flags and the file's entries ([`Options`]), the settled values ([`Config`]) and the reference
//! that `--print-config` writes. [`Config::settle`] reports every mistake at once.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::kv::limits::{TRANSACTION_BYTES_MAX, TTL_SECONDS_MAX, VALUE_BYTES_MAX};

/// Who may create buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum CreateBuckets {
    /// Everybody.
    Open,
    /// Who holds the admin key.
    Admin,
}

/// How a follower gets a script call to the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum ScriptRouting {
    /// The client is told to ask the leader: 307.
    Redirect,
    /// The follower asks the leader and hands on the answer.
    Forward,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: an object a line.
    Json,
}

/// Addresses separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses(pub Vec<String>);

impl FromStr for Addresses {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let trimmed = text.split(',').map(str::trim).filter(|address| !address.is_empty());
        Ok(Addresses(trimmed.map(str::to_owned).collect()))
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl Serialize for Addresses {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A secret from the configuration; never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        Ok(Secret(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.serialize_str("(set, not shown)")
    }
}

/// Makes [`Options`], [`Config`] and the reference from one table. A field is `kept` where an absent
/// value means something by itself, else `settled` to its default.
macro_rules! table {
    (
        $( kept { $( $(#[doc = $kept_doc:literal])+ $kept:ident: $kept_type:ty, $kept_env:literal, $kept_value:literal; )* } )?
        settled { $( $(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr, $env:literal, $value:literal; )* }
    ) => {
        /// What a file or the flags and environment say; nothing where they are silent.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        pub struct Options {
            $($(
                $(#[doc = $kept_doc])+
                #[arg(long, env = $kept_env, value_name = $kept_value, hide_env_values = true)]
                pub $kept: Option<$kept_type>,
            )*)?
            $(
                $(#[doc = $doc])+
                #[arg(long, env = $env, value_name = $value, hide_env_values = true)]
                pub $field: Option<$type>,
            )*
        }

        impl Options {
            /// These, and the other's where these are silent.
            #[must_use]
            pub fn over(self, other: Options) -> Options {
                Options {
                    $($( $kept: self.$kept.or(other.$kept), )*)?
                    $( $field: self.$field.or(other.$field), )*
                }
            }
        }

        /// The settled configuration of a node.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(rename_all = "kebab-case")]
        pub struct Config {
            $($( $(#[doc = $kept_doc])+ pub $kept: Option<$kept_type>, )*)?
            $( $(#[doc = $doc])+ pub $field: $type, )*
        }

        impl From<Options> for Config {
            fn from(options: Options) -> Self {
                Config {
                    $($( $kept: options.$kept, )*)?
                    $( $field: options.$field.unwrap_or_else(|| $default), )*
                }
            }
        }

        /// Each entry's name, environment variable and meaning, in the order they are shown.
        const ENTRIES: &[(&str, &str, &str)] = &[
            $($( (stringify!($kept), $kept_env, concat!($($kept_doc, "\n"),+)), )*)?
            $( (stringify!($field), $env, concat!($($doc, "\n"),+)), )*
        ];
    };
}

table! {
    kept {
        /// Directory of the log, the state and the snapshots. Required.
        data: PathBuf, "KVDB_DATA", "DIR";
        /// Base URL at which clients reach this node, without a slash at the end; followers
        /// redirect to it. Default: http:// and `listen`.
        advertise: String, "KVDB_ADVERTISE", "URL";
        /// Address at which peers reach this node. Default: `peer-listen`.
        peer_advertise: String, "KVDB_PEER_ADVERTISE", "ADDR";
        /// Peer addresses of all first nodes, this one included, separated by commas. Default: none,
        /// the node is a cluster by itself.
        join: Addresses, "KVDB_JOIN", "ADDR,ADDR,…";
        /// What the members of a cluster prove to each other; the same on all. Required with `join`.
        cluster_secret: Secret, "KVDB_CLUSTER_SECRET", "SECRET";
        /// What whoever changes the cluster proves. Default: none, nobody may.
        admin_key: Secret, "KVDB_ADMIN_KEY", "KEY";
    }
    settled {
        /// This node's number in the cluster: 1 or more, never used again. Default: 1.
        node_id: u64 = 1, "KVDB_NODE_ID", "N";
        /// Address on which clients are served. Default: 127.0.0.1:7400.
        listen: String = "127.0.0.1:7400".to_owned(), "KVDB_LISTEN", "ADDR";
        /// Address on which peers are served. Default: 127.0.0.1:7401.
        peer_listen: String = "127.0.0.1:7401".to_owned(), "KVDB_PEER_LISTEN", "ADDR";
        /// Who may create buckets. Default: open.
        create_buckets: CreateBuckets = CreateBuckets::Open, "KVDB_CREATE_BUCKETS", "WHO";
        /// Seconds that the keys of a new bucket live, where its creator does not say; 0 is for ever.
        /// Default: 0.
        default_ttl: u64 = 0, "KVDB_DEFAULT_TTL", "SECONDS";
        /// Keys that a bucket may hold; 0 is any number. Default: 0.
        bucket_keys_max: u64 = 0, "KVDB_BUCKET_KEYS_MAX", "N";
        /// Bytes of keys and values that a bucket may hold; 0 is any number. Default: 0.
        bucket_bytes_max: u64 = 0, "KVDB_BUCKET_BYTES_MAX", "N";
        /// Seconds that an answer is kept for repeats under its Idempotency-Key. Default: 86400 (a day).
        idempotency_seconds: u64 = 86_400, "KVDB_IDEMPOTENCY_SECONDS", "SECONDS";
        /// How a follower gets a script call to the leader. Default: redirect.
        script_routing: ScriptRouting = ScriptRouting::Redirect, "KVDB_SCRIPT_ROUTING", "HOW";
        /// Largest value, and body of a request, in bytes. Default: 1048576 (1 MiB).
        value_bytes_max: usize = VALUE_BYTES_MAX, "KVDB_VALUE_BYTES_MAX", "N";
        /// Requests that this node takes of one client address in a second; 0: no limit. Default: 0.
        client_requests_per_second: u32 = 0, "KVDB_CLIENT_REQUESTS_PER_SECOND", "N";
        /// Requests that this node takes for one bucket in a second; 0: no limit. Default: 0.
        bucket_requests_per_second: u32 = 0, "KVDB_BUCKET_REQUESTS_PER_SECOND", "N";
        /// Steps a script may take: calls, loop turns, pattern steps. Default: 100000000.
        script_fuel: u64 = 100_000_000, "KVDB_SCRIPT_FUEL", "N";
        /// Time a script may take, in milliseconds. Default: 1000.
        script_time_ms: u64 = 1000, "KVDB_SCRIPT_TIME_MS", "MS";
        /// A script that takes this long is logged, in milliseconds. Default: 100.
        script_slow_ms: u64 = 100, "KVDB_SCRIPT_SLOW_MS", "MS";
        /// Memory a script may take, in bytes. Default: 33554432 (32 MiB).
        script_memory_bytes: usize = 32 << 20, "KVDB_SCRIPT_MEMORY_BYTES", "N";
        /// What a script may print, in bytes. Default: 8388608 (8 MiB).
        script_output_bytes: usize = 8 << 20, "KVDB_SCRIPT_OUTPUT_BYTES", "N";
        /// Threads that run scripts and writes. Scripts that compute for long have their own, of a lower
        /// priority. Default: the number of processors.
        executor_threads: usize = processors(), "KVDB_EXECUTOR_THREADS", "N";
        /// How often a leader shows that it lives, in milliseconds. Default: 100.
        heartbeat_ms: u64 = 100, "KVDB_HEARTBEAT_MS", "MS";
        /// How long a silent leader is respected, in milliseconds. A node stands for election after
        /// one and a half times to twice this, each at its own moment; at once where the leader's process is
        /// gone. Default: 800.
        election_ms: u64 = 800, "KVDB_ELECTION_MS", "MS";
        /// How far a leader's clock may be from the median of the voters', in milliseconds, before it stamps
        /// nothing and hands leadership over. Default: 5000.
        clock_skew_max_ms: u64 = 5000, "KVDB_CLOCK_SKEW_MAX_MS", "MS";
        /// Applied entries after which a snapshot is taken; the nodes take theirs at different ones. Default: 200000.
        snapshot_entries: u64 = 200_000, "KVDB_SNAPSHOT_ENTRIES", "N";
        /// Entries kept in the log behind a snapshot, for followers that were away and for watches that
        /// resume. Default: 200000.
        keep_entries: u64 = 200_000, "KVDB_KEEP_ENTRIES", "N";
        /// Bytes that the log may take. Beyond them, a snapshot is taken and the log is purged to half of them, even where
        /// `keep-entries` would keep more; 0: any number. Default: 1073741824 (1 GiB).
        log_bytes_max: u64 = 1 << 30, "KVDB_LOG_BYTES_MAX", "N";
        /// Bytes of changes that the state keeps in memory before it writes a file; some such tables
        /// exist at a time. Default: 33554432 (32 MiB).
        write_buffer_bytes: usize = 32 << 20, "KVDB_WRITE_BUFFER_BYTES", "N";
        /// Memory for the state, in bytes: what was read, indexes, and changes not yet written out, which are
        /// written out before they take more than half of it. More makes reads of a large state cheaper. Default: 67108864 (64 MiB).
        state_memory_bytes: usize = 64 << 20, "KVDB_STATE_MEMORY_BYTES", "N";
        /// Bytes a second at which a snapshot is sent, and checked by who receives it; 0: as fast as they
        /// can be. A pace spares the leader's work, but who receives it must be done before the log that it then needs
        /// is purged. Default: 0.
        snapshot_bytes_per_second: u64 = 0, "KVDB_SNAPSHOT_BYTES_PER_SECOND", "N";
        /// How log lines look. Default: text.
        log_format: LogFormat = LogFormat::Text, "KVDB_LOG_FORMAT", "HOW";
        /// Which log lines are written: error, warn, info, debug, trace, or `module=level` separated
        /// by commas. Default: error,kvdb=info.
        log: String = "error,kvdb=info".to_owned(), "KVDB_LOG", "FILTER";
    }
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Shortest election timeout in heartbeats: one lost heartbeat must not depose a leader.
const HEARTBEATS_PER_ELECTION: u64 = 3;
/// Least skew of clocks: what an answer on its way may make of equal ones.
const CLOCK_SKEW_MIN: u64 = 500;
/// Most executor threads.
const THREADS_MAX: usize = 1024;
/// Least write buffer: RocksDB takes no smaller one.
const WRITE_BUFFER_MIN: u64 = 64 << 10;
/// Least memory of the state: below it, what is read is thrown away at once.
const STATE_MEMORY_MIN: u64 = 8 << 20;
/// Slowest pace of a snapshot: a receiver takes a sender for gone that rests for long.
const SNAPSHOT_PACE_MIN: u64 = 1 << 20;
/// Least bound on the log: it is deleted by whole files, and a follower that lacks more needs a snapshot.
const LOG_BYTES_MIN: u64 = 1 << 20;
/// Least memory in which a script can start, in bytes.
const SCRIPT_MEMORY_MIN: usize = 1 << 20;

impl Options {
    /// Reads a file's entries.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|e| Error::invalid(format!("the configuration file: {e}")))
    }
}

impl Config {
    /// Settles what flags (with the environment) and file say, or lists every mistake, a line each.
    pub fn settle(flags: Options, file: Options) -> Result<Self> {
        let config = Config::from(flags.over(file));
        let mistakes = config.mistakes();
        if mistakes.is_empty() {
            return Ok(config);
        }
        Err(Error::Invalid(mistakes.join("\n")))
    }

    /// The data directory.
    #[must_use]
    pub fn data(&self) -> &std::path::Path {
        self.data.as_deref().unwrap_or(std::path::Path::new(""))
    }

    /// Where clients reach this node: a base URL without a slash at the end.
    #[must_use]
    pub fn advertise(&self) -> String {
        self.advertise.clone().unwrap_or_else(|| format!("http://{}", self.listen))
    }

    /// Where peers reach this node.
    #[must_use]
    pub fn peer_advertise(&self) -> &str {
        self.peer_advertise.as_deref().unwrap_or(&self.peer_listen)
    }

    /// The peer addresses of all first nodes; empty for a cluster of one.
    #[must_use]
    pub fn join(&self) -> &[String] {
        self.join.as_ref().map_or(&[], |addresses| &addresses.0)
    }

    /// The configuration with each entry's meaning, as a file that `--config` reads. Secrets are not
    /// in it.
    #[must_use]
    pub fn reference(&self) -> String {
        let table = toml::Table::try_from(self).unwrap_or_default();
        let mut text = String::new();
        for (field, env, meaning) in ENTRIES {
            let name = field.replace('_', "-");
            for line in meaning.lines() {
                text += &format!("#{line}\n");
            }
            text += &format!("# Environment: {env}\n");
            text += &match table.get(&name) {
                Some(_) if self.is_secret(field) => format!("# {name} is set, and not shown\n\n"),
                Some(value) => format!("{name} = {value}\n\n"),
                None => format!("# {name} is not set\n\n"),
            };
        }
        text
    }

    fn is_secret(&self, field: &str) -> bool {
        ["cluster_secret", "admin_key"].contains(&field)
    }

    /// Everything that is wrong, each with what to do.
    fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        self.check_addresses(&mut mistakes);
        self.check_membership(&mut mistakes);
        self.check_limits(&mut mistakes);
        if self.data.as_ref().is_none_or(|data| data.as_os_str().is_empty()) {
            mistakes.push("--data is missing: name the directory to keep data in".to_owned());
        }
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log) {
            mistakes.push(format!("--log `{}`: {error}", self.log));
        }
        mistakes
    }

    fn check_addresses(&self, mistakes: &mut Vec<String>) {
        let mut listens = vec![("--listen", &self.listen), ("--peer-listen", &self.peer_listen)];
        listens.extend(self.peer_advertise.as_ref().map(|a| ("--peer-advertise", a)));
        listens.extend(self.join().iter().map(|address| ("--join", address)));
        for (flag, address) in listens {
            if !is_address(address) {
                mistakes.push(format!("{flag} `{address}`: write HOST:PORT"));
            }
        }
        if self.listen == self.peer_listen && !self.listen.ends_with(":0") {
            mistakes.push("--listen and --peer-listen are the same: choose two ports".to_owned());
        }
        if let Some(url) = self.advertise.as_ref().filter(|url| !is_base_url(url)) {
            mistakes.push(format!(
                "--advertise `{url}`: write http://HOST:PORT, without a path or slash at the end"
            ));
        }
    }

    fn check_membership(&self, mistakes: &mut Vec<String>) {
        if self.node_id == 0 {
            mistakes.push("--node-id 0: node ids begin with 1".to_owned());
        }
        if self.create_buckets == CreateBuckets::Admin && self.admin_key.is_none() {
            mistakes.push("--create-buckets admin needs --admin-key".to_owned());
        }
        for (flag, secret) in
            [("--cluster-secret", &self.cluster_secret), ("--admin-key", &self.admin_key)]
        {
            if secret.as_ref().is_some_and(|secret| secret.0.is_empty()) {
                mistakes.push(format!("{flag} is empty: leave it out, or give it a value"));
            }
        }
        if !self.join().is_empty() {
            self.check_join(mistakes);
        }
    }

    fn check_join(&self, mistakes: &mut Vec<String>) {
        if self.cluster_secret.is_none() {
            mistakes.push("--join needs --cluster-secret, the same on every node".to_owned());
        }
        let own = self.peer_advertise();
        if !self.join().iter().any(|address| address == own) {
            mistakes.push(format!(
                "--join does not name this node: add its own peer address `{own}`, or set \
                 --peer-advertise to how the others reach it"
            ));
        }
        if is_unspecified(own) {
            mistakes.push(format!("peers cannot reach `{own}`: set --peer-advertise"));
        }
        if self.advertise.is_none() && is_unspecified(&self.listen) {
            mistakes.push(format!(
                "clients cannot be redirected to `{}`: set --advertise",
                self.listen
            ));
        }
    }

    fn check_limits(&self, mistakes: &mut Vec<String>) {
        let mut check = |flag: &str, value: u64, min: u64, max: u64| {
            if value < min || value > max {
                mistakes.push(format!("{flag} {value}: choose from {min} to {max}"));
            }
        };
        check("--default-ttl", self.default_ttl, 0, TTL_SECONDS_MAX);
        check("--idempotency-seconds", self.idempotency_seconds, 1, TTL_SECONDS_MAX);
        // A value travels in one transaction, with its key and frame.
        check(
            "--value-bytes-max",
            self.value_bytes_max as u64,
            1,
            (TRANSACTION_BYTES_MAX / 2) as u64,
        );
        check("--script-fuel", self.script_fuel, 1, u64::MAX);
        check("--script-time-ms", self.script_time_ms, 1, 60_000);
        let memory = self.script_memory_bytes as u64;
        check("--script-memory-bytes", memory, SCRIPT_MEMORY_MIN as u64, 1 << 40);
        check("--script-output-bytes", self.script_output_bytes as u64, 1, 1 << 30);
        check("--executor-threads", self.executor_threads as u64, 1, THREADS_MAX as u64);
        check("--heartbeat-ms", self.heartbeat_ms, 1, 60_000);
        let shortest = self.heartbeat_ms.saturating_mul(HEARTBEATS_PER_ELECTION);
        check("--election-ms", self.election_ms, shortest, 600_000);
        check("--clock-skew-max-ms", self.clock_skew_max_ms, CLOCK_SKEW_MIN, 86_400_000);
        check("--snapshot-entries", self.snapshot_entries, 1, u64::MAX);
        if self.log_bytes_max > 0 {
            check("--log-bytes-max", self.log_bytes_max, LOG_BYTES_MIN, u64::MAX);
        }
        let write_buffer = self.write_buffer_bytes as u64;
        check("--write-buffer-bytes", write_buffer, WRITE_BUFFER_MIN, 1 << 40);
        check("--state-memory-bytes", self.state_memory_bytes as u64, STATE_MEMORY_MIN, 1 << 40);
        let pace = self.snapshot_bytes_per_second;
        if pace > 0 {
            check("--snapshot-bytes-per-second", pace, SNAPSHOT_PACE_MIN, u64::MAX);
        }
    }
}

fn is_address(address: &str) -> bool {
    match address.rsplit_once(':') {
        Some((host, port)) => !host.is_empty() && port.parse::<u16>().is_ok(),
        None => false,
    }
}

fn is_unspecified(address: &str) -> bool {
    address.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_unspecified())
}

fn is_base_url(url: &str) -> bool {
    let Ok(uri) = url.parse::<http::Uri>() else { return false };
    let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
    let authority = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    // An absent path parses as `/`: look at the text.
    scheme && authority && uri.path() == "/" && uri.query().is_none() && !url.ends_with(['/', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_data() -> Options {
        Options { data: Some("/d".into()), ..Options::default() }
    }

    fn mistakes(options: Options) -> Vec<String> {
        match Config::settle(options, Options::default()) {
            Ok(_) => vec![],
            Err(error) => error.to_string().lines().map(str::to_owned).collect(),
        }
    }

    #[test]
    fn a_data_directory_is_all_it_needs() {
        let config = Config::settle(with_data(), Options::default()).unwrap();
        assert_eq!(config.node_id, 1);
        assert_eq!(config.advertise(), "http://127.0.0.1:7400");
        assert_eq!(config.peer_advertise(), "127.0.0.1:7401");
        assert_eq!(config.value_bytes_max, 1_048_576);
        assert!(config.join().is_empty());
    }

    #[test]
    fn flags_come_before_the_file_and_the_file_before_defaults() {
        let file = Options::parse("node-id = 7\nlisten = \"127.0.0.1:1\"\njoin = \"a:1, b:2\"\n");
        let flags = Options { node_id: Some(9), ..Options::default() };
        let options = flags.over(file.unwrap());
        assert_eq!(options.node_id, Some(9));
        assert_eq!(options.listen.as_deref(), Some("127.0.0.1:1"));
        assert_eq!(options.join, Some(Addresses(vec!["a:1".into(), "b:2".into()])));
        assert_eq!(Config::from(options).heartbeat_ms, 100);
    }

    #[test]
    fn a_file_with_an_unknown_entry_is_refused_by_name() {
        let error = Options::parse("node-ids = 7").unwrap_err().to_string();
        assert!(error.contains("node-ids"), "{error}");
        assert!(Options::parse("create-buckets = \"nobody\"").is_err());
    }

    #[test]
    fn all_mistakes_are_named_at_once() {
        let options = Options {
            node_id: Some(0),
            listen: Some("here".into()),
            advertise: Some("http://x:1/".into()),
            heartbeat_ms: Some(500),
            value_bytes_max: Some(0),
            join: Some(Addresses(vec!["a:1".into()])),
            create_buckets: Some(CreateBuckets::Admin),
            log: Some("kvdb=loud".into()),
            ..Options::default()
        };
        let found = mistakes(options);
        for flag in [
            "--data",
            "--node-id 0",
            "--listen `here`",
            "--advertise",
            "--election-ms 800: choose from 1500",
            "--value-bytes-max 0",
            "--join needs --cluster-secret",
            "--join does not name this node",
            "--create-buckets admin",
            "--log `kvdb=loud`",
        ] {
            assert!(found.iter().any(|line| line.starts_with(flag)), "{flag} in {found:#?}");
        }
        assert_eq!(found.len(), 10, "{found:#?}");
    }

    #[test]
    fn what_others_cannot_reach_is_not_advertised() {
        let options = Options {
            listen: Some("0.0.0.0:7400".into()),
            peer_listen: Some("[::]:7401".into()),
            join: Some(Addresses(vec!["[::]:7401".into()])),
            cluster_secret: Some("s".parse().unwrap()),
            ..with_data()
        };
        assert_eq!(mistakes(options.clone()).len(), 2);
        let alone = Options { join: None, ..options };
        assert!(mistakes(alone).is_empty());
    }

    #[test]
    fn base_urls() {
        for good in ["http://a:1", "https://kv.example.com", "http://[::1]:7400"] {
            assert!(is_base_url(good), "{good}");
        }
        for bad in ["a:1", "ftp://a", "http://a/", "http://a/b", "http://a?x", "http://u@a", ""] {
            assert!(!is_base_url(bad), "{bad}");
        }
    }

    #[test]
    fn the_reference_reads_back_and_keeps_secrets() {
        let options = Options { admin_key: Some("hunter2".parse().unwrap()), ..with_data() };
        let config = Config::settle(options, Options::default()).unwrap();
        let text = config.reference();
        assert!(!text.contains("hunter2") && !format!("{config:?}").contains("hunter2"));
        let back = Config::from(Options::parse(&text).unwrap());
        assert_eq!(back, Config { admin_key: None, ..config });
        assert!(text.contains("# Environment: KVDB_SCRIPT_TIME_MS\nscript-time-ms = 1000\n"));
    }

    /// `deploy/reference.sh` makes the file of this; the number of threads is the machine's own.
    #[test]
    fn the_reference_in_deploy_is_this_one() {
        let options = Options {
            data: Some("/var/lib/kvdb".into()),
            executor_threads: Some(4),
            ..Options::default()
        };
        let text = Config::settle(options, Options::default()).unwrap().reference();
        let comment = |line: &str| match line.strip_suffix(" is not set") {
            Some(name) => format!("{name} = …"),
            None if line.starts_with(['#']) || line.starts_with("data = ") || line.is_empty() => {
                line.to_owned()
            }
            None => format!("# {line}"),
        };
        let expected: Vec<_> = text.trim_end().lines().map(comment).collect();
        let file = include_str!("../deploy/kvdb.toml");
        let (_, entries) = file.split_once("\n\n").unwrap();
        assert_eq!(entries.lines().collect::<Vec<_>>(), expected, "run `make reference`");
    }

    #[test]
    fn every_entry_has_its_variable_and_says_its_default() {
        for (field, env, meaning) in ENTRIES {
            assert_eq!(format!("KVDB_{}", field.to_uppercase()), *env);
            assert!(meaning.contains("Default: ") || meaning.contains("Required"), "{field}");
        }
    }
}
