//! Times to live, tokens, words of permissions, and scripts that only read.

use super::*;
use crate::kv::{Credential, Execute, Permission, grant};

const DAY_MS: u64 = 86_400_000;

fn signing() -> World {
    world().policy(PolicyPatch { signing_key: Some("sign".to_owned()), ..PolicyPatch::default() })
}

#[test]
fn a_key_lives_as_long_as_it_was_set_to() {
    let show = "local v, info = kvdb.get('k')
        kvdb.print(v, ' ', info and info.ttl, ' ', info and info.expires_at)";
    for (options, shown) in [
        ("{ttl = 60}", format!("v 60 {}", NOW + 60_000)),
        ("{ttl = 0}", "v nil nil".to_owned()),
        ("{}", "v nil nil".to_owned()),
        ("nil", "v nil nil".to_owned()),
        ("{ttl = 315360000, if_absent = true}", format!("v 315360000 {}", NOW + 3650 * DAY_MS)),
    ] {
        let source = format!("assert(kvdb.set('k', 'v', {options}) == nil) {show}");
        assert_eq!(world().prints(&source), shown, "{options}");
    }
    let mut defaulted =
        world().policy(PolicyPatch { default_ttl: Some(10), ..PolicyPatch::default() });
    let source = |options: &str| format!("kvdb.set('k', 'v', {options}) {show}");
    assert_eq!(defaulted.prints(&source("nil")), format!("v 10 {}", NOW + 10_000));
    assert_eq!(defaulted.prints(&source("{ttl = 0}")), "v nil nil");
    assert_eq!(defaulted.prints(&source("{ttl = 20}")), format!("v 20 {}", NOW + 20_000));
}

#[test]
fn what_is_dead_is_absent() {
    let mut world = world();
    let ran = world.run("kvdb.set('k', 'v', {ttl = 60}) kvdb.set('n', 1, {ttl = 60})");
    world.commit(&ran);
    // An increment leaves the expiry as it is.
    world.now = NOW + 59_999;
    let source = "kvdb.incr('n', 1) local v, info = kvdb.get('n')
        kvdb.print(v, ' ', info.ttl, ' ', #kvdb.list(''))";
    assert_eq!(world.prints(source), "2 1 2");
    world.now = NOW + 60_000;
    let source =
        "kvdb.print(kvdb.get('k'), #kvdb.list(''), kvdb.set('k', 'w', {if_absent = true}))";
    assert_eq!(world.prints(source), "nil0nil");
    assert_eq!(world.prints("kvdb.print(kvdb.incr('n', 5))"), "nil5");
}

#[test]
fn a_ttl_is_whole_seconds_within_ten_years() {
    for (ttl, error) in [
        ("-1", "a ttl is not negative: 0 is for ever"),
        ("315360001", "a ttl is at most 315360000 seconds"),
    ] {
        let ran = world().run(&format!("kvdb.print(kvdb.set('k', 'v', {{ttl = {ttl}}}))"));
        assert_eq!(ran.result.unwrap().body, error, "{ttl}");
        assert!(ran.rows.is_empty());
    }
    for bad in ["'60'", "1.5", "1/0", "true", "{}"] {
        let message = world().fails(&format!("kvdb.set('k', 'v', {{ttl = {bad}}})"));
        assert!(message.contains("`ttl` is no option"), "{bad}: {message}");
    }
}

#[test]
fn a_token_permits_what_was_asked_for() {
    let mut world = signing();
    let source = "local t, e = kvdb.access_token{
            prefix = 'a:', permissions = {'read', 'execute:lib/x'}, ttl = 60}
        assert(e == nil) kvdb.print(t)";
    let ran = world.run(source);
    let text = String::from_utf8(ran.result.clone().unwrap().body.to_vec()).unwrap();
    let credential = Credential::new(text);
    // Not before the script has committed.
    assert!(grant(&mut world.transaction(), &credential).is_err());
    world.commit(&ran);
    let granted = grant(&mut world.transaction(), &credential).unwrap();
    assert_eq!(
        granted,
        Grant {
            owner: false,
            prefix: Bytes::from_static(b"a:"),
            permissions: vec![Permission::Read],
            execute: Execute::Only(vec![ScriptName::parse("lib/x").unwrap()]),
        }
    );
    world.now = NOW + 60_000;
    assert!(grant(&mut world.transaction(), &credential).is_err());
}

#[test]
fn a_token_is_as_the_scope_where_nothing_is_named() {
    let mut world = signing();
    world.grant.prefix = Bytes::from_static(b"a:");
    let source = "kvdb.scope.permissions = {'write', 'read'} kvdb.print(kvdb.access_token{})";
    let ran = world.run(source);
    world.commit(&ran);
    let text = String::from_utf8(ran.result.unwrap().body.to_vec()).unwrap();
    world.now = NOW + DAY_MS - 1;
    let granted = grant(&mut world.transaction(), &Credential::new(text.clone())).unwrap();
    assert_eq!(granted.prefix, "a:");
    assert_eq!(granted.permissions, [Permission::Read, Permission::Write]);
    assert!(!granted.owner);
    world.now = NOW + DAY_MS;
    assert!(grant(&mut world.transaction(), &Credential::new(text)).is_err());
}

#[test]
fn a_token_is_at_most_the_scope() {
    let mut world = signing();
    world.grant.prefix = Bytes::from_static(b"a:");
    world.grant.permissions = vec![Permission::Read, Permission::Write];
    world.grant.execute = Execute::Only(vec![ScriptName::parse("test").unwrap()]);
    let covers = "the permission covers only keys that begin with `a:`";
    for (asked, error) in [
        ("prefix = 'b:'", covers),
        ("prefix = ''", covers),
        ("prefix = 'a'", covers),
        ("permissions = {'read', 'delete'}", "the permission `delete` is missing"),
        ("permissions = {'execute'}", "the permission `execute` is missing"),
        ("permissions = {'execute:x'}", "the permission `execute:x` is missing"),
        ("ttl = 0", "a token's ttl is 1 to 315360000 seconds"),
        ("ttl = -5", "a token's ttl is 1 to 315360000 seconds"),
        ("ttl = 315360001", "a token's ttl is 1 to 315360000 seconds"),
        ("prefix = 'a:' .. ('x'):rep(1023)", "a prefix is at most 1024 bytes"),
    ] {
        let ran = world.run(&format!("kvdb.print(kvdb.access_token{{{asked}}})"));
        assert_eq!(ran.result.unwrap().body, format!("nil{error}"), "{asked}");
        assert!(ran.rows.is_empty(), "{asked}");
    }
    let narrowed = "kvdb.scope.permissions = {'read'}
        kvdb.print(kvdb.access_token{permissions = {'read', 'write'}})";
    assert_eq!(world.prints(narrowed), "nilthe permission `write` is missing");
    // A token that says nothing of scripts may run no more of them than its maker.
    let ran = world.run("kvdb.print(kvdb.access_token{permissions = {'read'}})");
    world.commit(&ran);
    let text = String::from_utf8(ran.result.unwrap().body.to_vec()).unwrap();
    let granted = grant(&mut world.transaction(), &Credential::new(text)).unwrap();
    assert_eq!(granted.execute, world.grant.execute);
}

#[test]
fn tokens_differ_and_need_a_signing_key() {
    let two = "local a, b = kvdb.access_token{}, kvdb.access_token{} kvdb.print(a ~= b)";
    let ran = signing().run(two);
    assert_eq!(ran.result.unwrap().body, "true");
    assert_eq!(ran.rows.iter().filter(|write| write.row.table == Table::Token).count(), 2);
    // The same call again makes the same ones; a call with another seed does not.
    let one = "kvdb.print((kvdb.access_token{}))";
    let first = signing().prints(one);
    let mut other = signing();
    assert_eq!(other.prints(one), first);
    other.seed = 2;
    assert_ne!(other.prints(one), first);

    let missing = "kvdb.print(kvdb.access_token{})";
    let error = "nilthe bucket has no signing_key: set one, tokens need it";
    assert_eq!(world().prints(missing), error);
    assert!(signing().run("kvdb.access_token{} kvdb.exit(403)").rows.is_empty());
    for bad in [
        "",
        "nil",
        "'a'",
        "{prefix = 5}",
        "{permissions = 'read'}",
        "{permissions = {'fly'}}",
        "{permissions = {1}}",
        "{permissions = table.create(33, 'read')}",
        "{ttl = '60'}",
        "{what = 1}",
    ] {
        signing().fails(&format!("kvdb.access_token({bad})"));
    }
}

#[test]
fn the_number_of_tokens_is_an_error_that_is_told() {
    use crate::kv::limits::TOKENS_MAX;
    let mut world = signing();
    let mut meta = BucketMeta { now: NOW, revision: 41, ..BucketMeta::default() };
    meta.counts.tokens = TOKENS_MAX - 1;
    world.store.put(keyspace::meta_key(BUCKET), encoding::encode(&meta).unwrap().into());
    let source = "assert(kvdb.access_token{}) kvdb.print(kvdb.access_token{}) kvdb.set('a', 'b')";
    let ran = world.run(source);
    assert_eq!(ran.result.unwrap().body, "nilthe bucket is limited to 20000 tokens");
    assert_eq!(ran.writes.len(), 1);
}

#[test]
fn scope_has_the_words_for_scripts() {
    let mut world = signing();
    let show = "kvdb.print(table.concat(kvdb.scope.permissions, ' '))";
    assert_eq!(world.prints(show), "read write enumerate delete");
    world.grant.execute = Execute::All;
    assert_eq!(world.prints(show), "read write enumerate delete execute");
    let narrow = |words: &str| format!("kvdb.scope.permissions = {{{words}}} {show}");
    assert_eq!(
        world.prints(&narrow("'execute:b', 'read', 'execute:a'")),
        "read execute:a execute:b"
    );
    world.grant.execute = Execute::Only(vec![ScriptName::parse("a").unwrap()]);
    assert_eq!(world.prints(&narrow("'execute', 'read'")), "read execute:a");
    assert_eq!(world.prints(&narrow("'read', 'execute:b'")), "read");
    for bad in ["'execute:'", "'execute:a b'", "'executes'", "5"] {
        world.fails(&narrow(bad));
    }
}

#[test]
fn a_script_that_only_reads_writes_nothing() {
    let mut world = signing().with("a", "1").script("m", "return kvdb.set('m', 'x')");
    world.readonly = true;
    for call in [
        "kvdb.set('a', '2')",
        "kvdb.set('a', '2', {if_version = 1})",
        "kvdb.set('a', '2', {ttl = 5})",
        "(kvdb.incr('a', 1))",
        "kvdb.delete('a')",
        "kvdb.delete('none')",
        "select(2, kvdb.access_token{})",
        "require('m')",
    ] {
        let ran = world.run(&format!("kvdb.commit() kvdb.print({call})"));
        assert_eq!(ran.result.unwrap().body, "the script is read-only", "{call}");
        assert!(ran.rows.is_empty(), "{call}");
    }
    let reads = "kvdb.print(kvdb.get('a')) kvdb.print(#kvdb.list('')) kvdb.status = 201";
    assert_eq!(world.prints(reads), "11");
    world.grant.permissions = vec![];
    let first = "kvdb.print(kvdb.set('a', '2'))";
    assert_eq!(world.prints(first), "the permission `write` is missing");
}
