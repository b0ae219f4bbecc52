//! Every limit of the data model, with its unit and its reason. What a deployment may change is in
//! `Config`; these are part of what the database is.

/// Longest key, in bytes: a key is an index entry, not a document (the hosted service: 128).
pub const KEY_BYTES_MAX: usize = 1024;
/// Longest bucket name, in characters.
pub const BUCKET_NAME_MAX: usize = 64;
/// Longest script name, in bytes.
pub const SCRIPT_NAME_MAX: usize = 128;
/// Largest script source, in bytes.
pub const SCRIPT_SOURCE_BYTES_MAX: usize = 256 << 10;
/// Largest value by default, in bytes (the hosted service: 16 KB).
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Longest content type that is kept with a value, in bytes.
pub const CONTENT_TYPE_BYTES_MAX: usize = 256;
/// Most bytes one transaction may write: it is one log entry and one RPC.
pub const TRANSACTION_BYTES_MAX: usize = 8 << 20;
/// Most rows one transaction may write.
pub const TRANSACTION_WRITES_MAX: usize = 50_000;
/// Most keys one transaction may step over while reading.
pub const TRANSACTION_READS_MAX: usize = 200_000;
/// Keys a list answers when the caller names no limit.
pub const LIST_LIMIT_DEFAULT: usize = 10_000;
/// Longest secret, write, read or signing key, in bytes.
pub const POLICY_KEY_BYTES_MAX: usize = 256;
/// Longest email of a policy, in bytes.
pub const POLICY_EMAIL_BYTES_MAX: usize = 256;
/// Longest time to live, in seconds: ten years. What is to live longer is to live for ever.
pub const TTL_SECONDS_MAX: u64 = 10 * 365 * 86_400;
/// Rows that one sweep removes: it is a command like others, and others wait for it.
pub const SWEEP_ROWS_MAX: usize = 500;
/// Operations of one `POST /BUCKET`.
pub const BATCH_OPERATIONS_MAX: usize = 1000;
/// Bytes of the results of one `POST /BUCKET`.
pub const BATCH_ANSWER_BYTES_MAX: usize = 8 << 20;
/// Scripts of a bucket.
pub const SCRIPTS_MAX: u64 = 1000;
/// Bytes of a bucket's scripts, with all the versions that are kept.
pub const SCRIPTS_BYTES_MAX: u64 = 64 << 20;
/// Versions of a script that are kept; the oldest goes when another comes.
pub const SCRIPT_VERSIONS_MAX: usize = 32;
/// Tokens of a bucket: as many as one command can take away when the signing key changes.
pub const TOKENS_MAX: u64 = 20_000;
/// How long a token is valid where nobody says, in seconds: a day.
pub const TOKEN_TTL_DEFAULT: u64 = 86_400;
/// Words in a token's permissions.
pub const TOKEN_PERMISSIONS_MAX: usize = 32;
/// Longest `Idempotency-Key`, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Recorded answers of a bucket.
pub const RECORDED_MAX: u64 = 1_000_000;
/// Bytes of a bucket's recorded answers.
pub const RECORDED_BYTES_MAX: u64 = 256 << 20;
