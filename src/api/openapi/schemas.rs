//! The bodies of requests and answers, and who may ask, as JSON Schema.

use serde_json::{Value, json};

use super::{ErrorCode, routes, with};

/// How a credential is brought. `{}` in a call's list: none is needed where the bucket has no such key.
pub(super) fn security() -> Value {
    json!({
        "bearer": { "type": "http", "scheme": "bearer" },
        "basic": { "type": "http", "scheme": "basic", "description": "the key as user, no password" },
        "accessToken": { "type": "apiKey", "in": "query", "name": "access_token" },
        "key": { "type": "apiKey", "in": "query", "name": "key" },
    })
}

/// The ways that are open to whoever needs this.
pub(super) fn who(needs: &str) -> Value {
    match needs {
        routes::NOTHING => json!([]),
        routes::ADMIN => json!([{ "bearer": [] }, { "basic": [] }]),
        _ => json!([{}, { "bearer": [] }, { "basic": [] }, { "accessToken": [] }, { "key": [] }]),
    }
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn whole() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}

fn list(of: &Value) -> Value {
    json!({ "type": "array", "items": of })
}

/// An object: the fields that it has, and those that it must have.
fn fields(properties: &Value, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required })
}

/// All schemas by name.
pub(super) fn all() -> Value {
    let mut all = json!({
        "Bytes": { "description": "any bytes, as they are" },
        "Text": text(),
        "Number": { "type": "string", "description": "`+5`, `-2`, `0.5`: an int64 or a float64" },
        "Events": { "type": "string", "description": "server-sent events" },
        "Error": error(),
    });
    for part in [buckets(), keys(), transactions(), tokens(), scripts(), cluster()] {
        if let (Some(all), Value::Object(part)) = (all.as_object_mut(), part) {
            all.extend(part);
        }
    }
    all
}

fn error() -> Value {
    let codes = ErrorCode::ALL.iter();
    let codes = codes.map(|code| json!({ "const": code.as_str(), "description": code.meaning() }));
    let detail = fields(
        &json!({
            "code": { "oneOf": codes.collect::<Vec<_>>() },
            "message": text(),
            "retryable": { "type": "boolean" },
            "applied": { "enum": ["yes", "no", "unknown"] },
            "traceback": text(),
        }),
        &["code", "message", "retryable", "applied"],
    );
    fields(&json!({ "error": detail }), &["error"])
}

fn buckets() -> Value {
    let policy = || {
        json!({
            "email": text(), "secret_key": text(), "write_key": text(), "read_key": text(),
            "signing_key": text(), "default_ttl": whole(), "max_keys": whole(),
            "max_bytes": whole(),
        })
    };
    let name = json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$" });
    let new = with(policy(), "id", Some(name));
    let change = with(policy(), "keep_signing_key", Some(json!({ "type": "boolean" })));
    let change = with(change, "previous_signing_key", Some(json!({ "const": "" })));
    let shown = json!({
        "id": text(), "revision": whole(), "keys": whole(), "bytes": whole(),
        "default_ttl": whole(), "max_keys": whole(), "max_bytes": whole(), "email": text(),
        "has_secret_key": { "type": "boolean" }, "has_write_key": { "type": "boolean" },
        "has_read_key": { "type": "boolean" }, "signing_keys": whole(), "scripts": whole(),
        "tokens": whole(),
    });
    json!({
        "NewBucket": fields(&new, &[]),
        "PolicyChange": fields(&change, &[]),
        "Policy": fields(&shown, &["id", "revision"]),
        "BucketCreated": fields(&json!({ "id": text() }), &["id"]),
    })
}

fn keys() -> Value {
    let pair =
        json!({ "type": "array", "prefixItems": [text(), { "type": ["string", "number"] }] });
    json!({ "Keys": list(&json!({ "anyOf": [text(), pair] })) })
}

fn transactions() -> Value {
    let value =
        json!({ "description": "text as it is, a number as its text, all else as JSON text" });
    let version = json!({ "type": ["integer", "null"] });
    let operations = json!({ "anyOf": [
        fields(
            &json!({ "set": text(), "value": value, "value_base64": text(), "ttl": whole() }),
            &["set"],
        ),
        fields(&json!({ "delete": text() }), &["delete"]),
        fields(&json!({ "incr": text(), "by": { "type": "number" } }), &["incr"]),
        fields(&json!({ "get": text() }), &["get"]),
        fields(&json!({ "check": text(), "version": version }), &["check", "version"]),
    ]});
    let result = fields(
        &json!({
            "version": whole(), "value": value, "value_base64": text(),
            "deleted": { "type": "boolean" }, "ok": { "type": "boolean" },
        }),
        &[],
    );
    json!({
        "Transaction": fields(&json!({ "txn": list(&operations) }), &["txn"]),
        "Results": fields(
            &json!({ "revision": whole(), "results": list(&result) }),
            &["revision", "results"],
        ),
    })
}

fn tokens() -> Value {
    let wanted = json!({ "prefix": text(), "permissions": text(), "ttl": whole() });
    let token = json!({
        "id": text(), "prefix": text(), "permissions": list(&text()), "expires_at": whole(),
    });
    json!({
        "NewToken": fields(&wanted, &[]),
        "TokenCreated": fields(&json!({ "access_token": text() }), &["access_token"]),
        "Tokens": list(&fields(&token, &["id", "prefix", "permissions", "expires_at"])),
    })
}

fn scripts() -> Value {
    let script = fields(
        &json!({
            "name": text(), "version": whole(), "bytes": whole(), "sha256": text(),
            "readonly": { "type": "boolean" }, "run_as": { "enum": ["caller", "owner"] },
        }),
        &["name", "version", "bytes", "sha256"],
    );
    let write = fields(
        &json!({ "key": text(), "value": { "type": ["string", "null"] }, "truncated": { "type": "boolean" } }),
        &["key"],
    );
    let cost = json!({ "fuel": whole(), "micros": whole(), "memory": whole() });
    let dry_run = json!({
        "status": whole(), "headers": {}, "output": text(), "reads": list(&text()),
        "writes": list(&write), "logs": list(&text()), "cost": fields(&cost, &[]),
        "truncated": { "type": "boolean" },
    });
    let metrics = json!({
        "calls": whole(), "errors": whole(), "conflicts": whole(), "fuel": whole(),
        "seconds_total": { "type": "number" }, "seconds_max": { "type": "number" },
    });
    json!({
        "Scripts": list(&script),
        "DryRun": fields(&dry_run, &["status", "output", "writes", "cost"]),
        "ScriptMetrics": fields(&metrics, &["calls", "errors"]),
    })
}

fn cluster() -> Value {
    let member = fields(
        &json!({ "id": whole(), "role": text(), "peer_addr": text(), "url": text() }),
        &["id", "role", "peer_addr", "url"],
    );
    let optional = |kind: &str| json!({ "type": [kind, "null"] });
    let status = json!({
        "cluster_id": text(), "node_id": whole(), "state": text(), "leader": optional("integer"),
        "leader_url": optional("string"), "term": whole(), "last_log_index": whole(),
        "committed_index": whole(), "applied_index": whole(), "snapshot_index": whole(),
        "purged_index": whole(), "members": list(&member),
    });
    let bucket = json!({
        "name": text(), "id": whole(), "revision": whole(), "keys": whole(), "bytes": whole(),
        "digest": text(),
    });
    let digest = json!({
        "applied_index": whole(), "digest": text(), "buckets": list(&fields(&bucket, &[])),
    });
    json!({
        "Status": fields(&status, &["cluster_id", "node_id", "state", "members"]),
        "Digest": fields(&digest, &["applied_index", "digest", "buckets"]),
        "AddMember": fields(&json!({ "peer_addr": text() }), &["peer_addr"]),
        "TransferLeader": fields(&json!({ "to": whole() }), &["to"]),
    })
}
