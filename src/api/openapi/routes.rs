//! Every call that is served: one table.

use super::ErrorCode::{self, *};

/// A method that has a meaning of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Put,
    Post,
    Patch,
    Delete,
}

impl Method {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Method::Get => "get",
            Method::Put => "put",
            Method::Post => "post",
            Method::Patch => "patch",
            Method::Delete => "delete",
        }
    }
}

/// Where a parameter stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header,
}

impl Place {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Place::Path => "path",
            Place::Query => "query",
            Place::Header => "header",
        }
    }
}

/// A parameter: what the table calls it, and what it is on the wire.
pub(super) struct Parameter {
    pub(super) key: &'static str,
    pub(super) name: &'static str,
    pub(super) place: Place,
    pub(super) kind: &'static str,
    pub(super) about: &'static str,
}

/// Media types and the schema of each.
pub(super) type Content = &'static [(&'static str, &'static str)];

/// A success.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) about: &'static str,
    pub(super) headers: &'static [&'static str],
    pub(super) content: Content,
}

/// What can be done at a path.
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) needs: &'static str,
    pub(super) parameters: &'static [&'static str],
    pub(super) body: Content,
    pub(super) answers: &'static [Answer],
    pub(super) errors: &'static [&'static [ErrorCode]],
}

impl Call {
    /// Whether it may change something: a run of a script may, whatever the method.
    pub(super) fn mutates(&self) -> bool {
        self.method != Method::Get || self.id == RUN_BY_GET
    }
}

const RUN_BY_GET: &str = "runScript";

// --- Who may

pub(super) const NOTHING: &str = "nothing";
pub(super) const ADMIN: &str = "the admin key";
const OWNER: &str = "the secret key";
const READ: &str = "`read`";
const WRITE: &str = "`write`";
const DELETE: &str = "`delete`";
const LIST: &str = "`enumerate`, and `read` for values and for watching";
const RUN: &str = "`execute`, where a token restricts it; inside, the caller's permissions apply";

// --- What is sent and answered

pub(super) const ERROR: Content = &[("text/plain", "Text"), ("application/json", "Error")];
const TEXT: Content = &[("text/plain", "Text")];
const BYTES: Content = &[("*/*", "Bytes")];
const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";

const fn ok(about: &'static str, headers: &'static [&'static str], content: Content) -> Answer {
    Answer { status: 200, about, headers, content }
}

const fn answer(status: u16, about: &'static str, headers: &'static [&'static str]) -> Answer {
    Answer { status, about, headers, content: &[] }
}

const REVISION: &[&str] = &["X-Kvdb-Revision"];
const VERSION: &[&str] = &["ETag", "X-Kvdb-Revision"];
const VALUE: &[&str] = &["ETag", "X-Kvdb-Revision", "X-Kvdb-Expires-At", "X-Kvdb-Age-Ms"];
const LISTED: &[&str] = &["X-Kvdb-Revision", "X-Kvdb-Cursor", "X-Kvdb-Truncated", "X-Kvdb-Age-Ms"];

/// The headers of answers that are no standard's, or say more here: name, meaning, type.
pub(super) const HEADERS: &[(&str, &str, &str)] = &[
    ("ETag", "the version of the key, in quotes", "string"),
    ("Location", "where to go on", "string"),
    ("Retry-After", "seconds to wait before asking again", "integer"),
    (
        "X-Kvdb-Age-Ms",
        "of a stale read: milliseconds since the last word from the leader",
        "integer",
    ),
    ("X-Kvdb-Applied", "`yes`, `no` or `unknown`: what became of this attempt", "string"),
    ("X-Kvdb-Cursor", "there are more keys: send it as `cursor`", "string"),
    ("X-Kvdb-Expires-At", "when the key ends, in ms since 1970", "integer"),
    ("X-Kvdb-Revision", "the revision of the bucket that the answer stands on", "integer"),
    ("X-Kvdb-Truncated", "`true`: cut at the default limit", "string"),
];

const fn parameter(
    key: &'static str,
    place: Place,
    kind: &'static str,
    about: &'static str,
) -> Parameter {
    Parameter { key, name: key, place, kind, about }
}

/// Every parameter.
pub(super) const PARAMETERS: &[Parameter] = &[
    parameter("bucket", Place::Path, "string", "1 to 64 of A-Z a-z 0-9 _ -"),
    parameter(
        "key",
        Place::Path,
        "string",
        "1 to 1024 bytes, percent-encoded; slashes are part of it",
    ),
    parameter("script", Place::Path, "string", "1 to 128 bytes; may have slashes"),
    parameter("token", Place::Path, "string", "the id of a token, 22 characters"),
    parameter("node", Place::Path, "integer", "a node id"),
    parameter(
        "ttl",
        Place::Query,
        "integer",
        "seconds to live; 0: for ever; absent: `default_ttl`",
    ),
    parameter("consistency", Place::Query, "string", "`linearizable` (default) or `stale`"),
    parameter("min_revision", Place::Query, "integer", "wait up to 2 s until the bucket has it"),
    parameter("prefix", Place::Query, "string", "keys that begin with this"),
    parameter("start", Place::Query, "string", "the first key"),
    parameter("end", Place::Query, "string", "the key before which to end"),
    parameter("cursor", Place::Query, "string", "where the last list ended: `X-Kvdb-Cursor`"),
    parameter("limit", Place::Query, "integer", "most keys; default 10000"),
    parameter("skip", Place::Query, "integer", "keys to step over; default 0"),
    parameter("reverse", Place::Query, "boolean", "from the last key"),
    parameter("values", Place::Query, "boolean", "values, too"),
    parameter("format", Place::Query, "string", "`text` (default), `json`, `jsonl`; else `Accept`"),
    parameter("watch", Place::Query, "boolean", "stream changes instead of listing"),
    parameter("since", Place::Query, "integer", "watch: changes after this revision"),
    parameter("policy", Place::Query, "boolean", "show the policy"),
    parameter("source", Place::Query, "boolean", "show the source, do not run"),
    parameter("versions", Place::Query, "boolean", "list the versions, do not run"),
    parameter("metrics", Place::Query, "boolean", "what runs on this node cost, do not run"),
    parameter("readonly", Place::Query, "boolean", "the script may not write; every node runs it"),
    parameter("run_as", Place::Query, "string", "`caller` (default) or `owner`"),
    parameter("rollback", Place::Query, "integer", "make this version the current one, do not run"),
    parameter("dry_run", Place::Query, "boolean", "required: run the body, keep nothing"),
    Parameter {
        key: "IfMatch",
        name: "If-Match",
        place: Place::Header,
        kind: "string",
        about: "write only over this version, `\"12\"`, or over any, `*`",
    },
    Parameter {
        key: "IfNoneMatch",
        name: "If-None-Match",
        place: Place::Header,
        kind: "string",
        about: "read: 304 for this version; write: `*`, only where there is no key",
    },
    Parameter {
        key: "IdempotencyKey",
        name: "Idempotency-Key",
        place: Place::Header,
        kind: "string",
        about: "1 to 255 visible ASCII; a repeat gets the recorded answer",
    },
    Parameter {
        key: "LastEventId",
        name: "Last-Event-ID",
        place: Place::Header,
        kind: "string",
        about: "watch: go on after this revision",
    },
];

// --- What can go wrong

/// Any request.
const ANY: &[ErrorCode] =
    &[Invalid, PathNotFound, MethodNotAllowed, RateLimited, Overloaded, Internal];
/// In a bucket.
const BUCKET: &[ErrorCode] = &[BucketNotFound, Unauthorized, Forbidden, Corrupt, NoLeader];
/// Whatever is written.
const WRITTEN: &[ErrorCode] =
    &[TooLarge, Conflict, IdempotencyMismatch, IdempotencyFull, OutcomeUnknown];
/// For whoever changes the cluster.
const CHANGED: &[ErrorCode] = &[Unauthorized, Forbidden, Conflict, NoLeader, OutcomeUnknown];

/// All calls by path, as a reader would want them.
pub(super) const ROUTES: &[(&str, &[Call])] = &[
    ("/", &[CREATE_BUCKET]),
    ("/{bucket}", &[SHOW_POLICY, TRANSACT, CHANGE_POLICY]),
    ("/{bucket}/", &[LIST_KEYS, DELETE_BUCKET]),
    ("/{bucket}/{key}", &[GET_KEY, PUT_KEY, POST_KEY, COUNT, DELETE_KEY]),
    ("/{bucket}/tokens/", &[LIST_TOKENS, CREATE_TOKEN]),
    ("/{bucket}/tokens/{token}", &[REVOKE_TOKEN]),
    ("/{bucket}/scripts/", &[LIST_SCRIPTS, TRY_SCRIPT]),
    ("/{bucket}/scripts/{script}", &[RUN_SCRIPT, RUN_SCRIPT_BY_POST, PUT_SCRIPT, DELETE_SCRIPT]),
    ("/livez", &[LIVEZ]),
    ("/readyz", &[READYZ]),
    ("/metrics", &[METRICS]),
    ("/-/openapi.json", &[OPENAPI]),
    ("/-/cluster", &[CLUSTER]),
    ("/-/digest", &[DIGEST]),
    ("/-/cluster/members", &[ADD_MEMBER]),
    ("/-/cluster/members/{node}", &[REMOVE_MEMBER]),
    ("/-/cluster/members/{node}/promote", &[PROMOTE]),
    ("/-/cluster/leader", &[TRANSFER]),
    ("/-/cluster/snapshot", &[SNAPSHOT]),
];

// --- Buckets

const CREATE_BUCKET: Call = Call {
    method: Method::Post,
    id: "createBucket",
    summary: "Create a bucket",
    needs: "nothing, or the admin key where --create-buckets says so",
    parameters: &["IdempotencyKey"],
    body: &[(FORM, "NewBucket"), (JSON, "NewBucket")],
    answers: &[Answer {
        status: 201,
        about: "the bucket's id",
        headers: REVISION,
        content: &[("text/plain", "Text"), (JSON, "BucketCreated")],
    }],
    errors: &[ANY, WRITTEN, &[Unauthorized, Forbidden, NoLeader]],
};
const SHOW_POLICY: Call = Call {
    method: Method::Get,
    id: "showPolicy",
    summary: "Show the policy, without secrets",
    needs: OWNER,
    parameters: &["policy"],
    body: &[],
    answers: &[ok("the policy and counts", REVISION, &[(JSON, "Policy")])],
    errors: &[ANY, BUCKET],
};
const TRANSACT: Call = Call {
    method: Method::Post,
    id: "transact",
    summary: "Run up to 1000 operations, all or nothing",
    needs: "what each operation needs",
    parameters: &["IdempotencyKey"],
    body: &[(JSON, "Transaction")],
    answers: &[ok("a result for each operation", REVISION, &[(JSON, "Results")])],
    errors: &[ANY, BUCKET, WRITTEN],
};
const CHANGE_POLICY: Call = Call {
    method: Method::Patch,
    id: "changePolicy",
    summary: "Change the policy: the fields that are sent",
    needs: OWNER,
    parameters: &["IdempotencyKey"],
    body: &[(FORM, "PolicyChange"), (JSON, "PolicyChange")],
    answers: &[ok("changed", REVISION, &[])],
    errors: &[ANY, BUCKET, WRITTEN],
};
const LIST_KEYS: Call = Call {
    method: Method::Get,
    id: "listKeys",
    summary: "List keys in byte order, or watch them change",
    needs: LIST,
    parameters: &[
        "prefix",
        "start",
        "end",
        "cursor",
        "limit",
        "skip",
        "reverse",
        "values",
        "format",
        "watch",
        "since",
        "LastEventId",
        "consistency",
        "min_revision",
    ],
    body: &[],
    answers: &[ok(
        "the keys",
        LISTED,
        &[
            ("text/plain", "Text"),
            (JSON, "Keys"),
            ("application/jsonl", "Text"),
            ("text/event-stream", "Events"),
        ],
    )],
    errors: &[ANY, BUCKET, &[Format, Behind, RevisionGone]],
};
const DELETE_BUCKET: Call = Call {
    method: Method::Delete,
    id: "deleteBucket",
    summary: "Delete the bucket with all that is in it",
    needs: OWNER,
    parameters: &["IdempotencyKey"],
    body: &[],
    answers: &[ok("deleted", &[], &[])],
    errors: &[ANY, BUCKET, WRITTEN],
};

// --- Keys

const GET_KEY: Call = Call {
    method: Method::Get,
    id: "getKey",
    summary: "Get a value",
    needs: READ,
    parameters: &["IfNoneMatch", "consistency", "min_revision"],
    body: &[],
    answers: &[
        ok("the bytes, with the Content-Type that they were stored with", VALUE, BYTES),
        answer(304, "the version in If-None-Match is the current one", VERSION),
    ],
    errors: &[ANY, BUCKET, &[KeyNotFound, Behind]],
};
const PUT_KEY: Call = Call {
    method: Method::Put,
    id: "setKey",
    summary: "Set a key to the body, whatever its type",
    needs: WRITE,
    parameters: &["ttl", "IfMatch", "IfNoneMatch", "IdempotencyKey"],
    body: BYTES,
    answers: &[ok("set", VERSION, &[])],
    errors: &[ANY, BUCKET, WRITTEN, &[PreconditionFailed]],
};
const POST_KEY: Call = Call { method: Method::Post, id: "setKeyByPost", ..PUT_KEY };
const COUNT: Call = Call {
    method: Method::Patch,
    id: "count",
    summary: "Add to a number; an absent key counts as 0",
    body: &[("text/plain", "Number")],
    answers: &[ok("the sum", VERSION, TEXT)],
    ..PUT_KEY
};
const DELETE_KEY: Call = Call {
    method: Method::Delete,
    id: "deleteKey",
    summary: "Delete a key, where there is one",
    needs: DELETE,
    parameters: &["IfMatch", "IdempotencyKey"],
    body: &[],
    answers: &[ok("it is not there", REVISION, &[])],
    ..PUT_KEY
};

// --- Tokens

const LIST_TOKENS: Call = Call {
    method: Method::Get,
    id: "listTokens",
    summary: "List the tokens that are valid",
    needs: OWNER,
    parameters: &["format"],
    body: &[],
    answers: &[ok("the tokens", REVISION, &[("text/plain", "Text"), (JSON, "Tokens")])],
    errors: &[ANY, BUCKET, &[Format]],
};
const CREATE_TOKEN: Call = Call {
    method: Method::Post,
    id: "createToken",
    summary: "Create an access token",
    needs: OWNER,
    parameters: &["IdempotencyKey"],
    body: &[(FORM, "NewToken"), (JSON, "NewToken")],
    answers: &[ok("the token", REVISION, &[(FORM, "Text"), (JSON, "TokenCreated")])],
    errors: &[ANY, BUCKET, WRITTEN],
};
const REVOKE_TOKEN: Call = Call {
    method: Method::Delete,
    id: "revokeToken",
    summary: "Revoke a token",
    needs: OWNER,
    parameters: &["IdempotencyKey"],
    body: &[],
    answers: &[ok("revoked", REVISION, &[])],
    errors: &[ANY, BUCKET, WRITTEN, &[TokenNotFound]],
};

// --- Scripts

const LIST_SCRIPTS: Call = Call {
    method: Method::Get,
    id: "listScripts",
    summary: "List the scripts",
    needs: OWNER,
    parameters: &["format"],
    body: &[],
    answers: &[ok("the scripts", REVISION, &[("text/plain", "Text"), (JSON, "Scripts")])],
    errors: &[ANY, BUCKET, &[Format]],
};
const TRY_SCRIPT: Call = Call {
    method: Method::Post,
    id: "tryScript",
    summary: "Run the source in the body and keep nothing",
    needs: OWNER,
    parameters: &["dry_run"],
    body: TEXT,
    answers: &[ok("what it did", REVISION, &[(JSON, "DryRun")])],
    errors: &[ANY, BUCKET, &[TooLarge, ScriptError, ScriptLimit]],
};
const RUN_SCRIPT: Call = Call {
    method: Method::Get,
    id: RUN_BY_GET,
    summary: "Run a script; the query is `kvdb.var`",
    needs: RUN,
    parameters: &["source", "versions", "metrics", "consistency", "min_revision", "IdempotencyKey"],
    body: &[],
    answers: &[
        ok(
            "what the script printed, with the status and headers that it chose",
            REVISION,
            &[("*/*", "Bytes"), (JSON, "ScriptMetrics")],
        ),
        answer(307, "the leader runs scripts: go on there", &["Location"]),
    ],
    errors: &[
        ANY,
        BUCKET,
        WRITTEN,
        &[ScriptNotFound, ScriptVersionNotFound, ScriptError, ScriptLimit, Behind],
    ],
};
const RUN_SCRIPT_BY_POST: Call = Call {
    method: Method::Post,
    id: "runScriptByPost",
    summary: "Run a script; the query, then the form, is `kvdb.var`",
    parameters: &["rollback", "consistency", "min_revision", "IdempotencyKey"],
    body: BYTES,
    ..RUN_SCRIPT
};
const PUT_SCRIPT: Call = Call {
    method: Method::Put,
    id: "putScript",
    summary: "Upload a script",
    needs: OWNER,
    parameters: &["readonly", "run_as", "IdempotencyKey"],
    body: TEXT,
    answers: &[ok("the version", VERSION, TEXT)],
    errors: &[ANY, BUCKET, WRITTEN],
};
const DELETE_SCRIPT: Call = Call {
    method: Method::Delete,
    id: "deleteScript",
    summary: "Remove a script",
    needs: OWNER,
    parameters: &["IdempotencyKey"],
    body: &[],
    answers: &[ok("it is not there", REVISION, &[])],
    errors: &[ANY, BUCKET, WRITTEN],
};

// --- The node and the cluster

const LIVEZ: Call = Call {
    method: Method::Get,
    id: "live",
    summary: "The process serves",
    needs: NOTHING,
    parameters: &[],
    body: &[],
    answers: &[ok("it does", &[], TEXT)],
    errors: &[],
};
const READYZ: Call = Call {
    id: "ready",
    summary: "The node may be sent requests; 503 while not",
    errors: &[&[NoLeader]],
    ..LIVEZ
};
const METRICS: Call =
    Call { id: "metrics", summary: "Metrics, in Prometheus' text format", ..LIVEZ };
const OPENAPI: Call = Call {
    id: "openapi",
    summary: "This document",
    answers: &[ok("OpenAPI 3.1", &[], &[(JSON, "Bytes")])],
    ..LIVEZ
};
const CLUSTER: Call = Call {
    id: "clusterStatus",
    summary: "Members, leader and indexes, as this node sees them",
    answers: &[ok("the status", &[], &[(JSON, "Status")])],
    ..LIVEZ
};
const DIGEST: Call = Call {
    id: "digest",
    summary: "Digests of this node's state; names of buckets for the admin key",
    answers: &[ok("the digests", &[], &[(JSON, "Digest")])],
    errors: &[&[Corrupt, Internal]],
    ..LIVEZ
};
const ADD_MEMBER: Call = Call {
    method: Method::Post,
    id: "addMember",
    summary: "Add a node, as a learner",
    needs: ADMIN,
    parameters: &[],
    body: &[(JSON, "AddMember")],
    answers: &[ok("the cluster then", &[], &[(JSON, "Status")])],
    errors: &[ANY, CHANGED],
};
const REMOVE_MEMBER: Call = Call {
    method: Method::Delete,
    id: "removeMember",
    summary: "Remove a node for ever",
    body: &[],
    errors: &[ANY, CHANGED, &[MemberNotFound]],
    ..ADD_MEMBER
};
const PROMOTE: Call = Call {
    method: Method::Post,
    id: "promote",
    summary: "Make a learner a voter",
    ..REMOVE_MEMBER
};
const TRANSFER: Call = Call {
    id: "transferLeader",
    summary: "Hand leadership to a voter",
    body: &[(JSON, "TransferLeader")],
    errors: &[ANY, CHANGED, &[MemberNotFound]],
    ..ADD_MEMBER
};
const SNAPSHOT: Call =
    Call { id: "snapshot", summary: "Take a snapshot on this node", body: &[], ..ADD_MEMBER };
