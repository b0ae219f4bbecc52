//! base64, hashes, UUIDs, the log, and what a call reports of itself.

use super::*;

#[test]
fn base64_there_and_back() {
    for (plain, encoded) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("\\0\\255\\251\\239", "AP/77w=="),
    ] {
        let source = format!("kvdb.print(kvdb.base64.encode('{plain}'))");
        assert_eq!(world().prints(&source), encoded);
        let source = format!("kvdb.print(kvdb.base64.decode('{encoded}') == '{plain}')");
        assert_eq!(world().prints(&source), "true", "{encoded}");
    }
    // The other alphabet, and padding that is missing.
    for encoded in ["AP_77w==", "AP_77w", "AP/77w", "AP/77w="] {
        let source = format!("kvdb.print(kvdb.base64.decode('{encoded}') == '\\0\\255\\251\\239')");
        assert_eq!(world().prints(&source), "true", "{encoded}");
    }
    for bad in ["Z", "Zg===", "Z=g=", "AP_/", "Zm9v Zm9v", "Zm9v\\n", "Zh==", "ä"] {
        let source = format!(
            "local v, e = kvdb.base64.decode('{bad}') kvdb.print(v, ' ', (e:find('not base64', 1, true)))"
        );
        assert_eq!(world().prints(&source), "nil 1", "{bad}");
    }
    assert_eq!(world().prints("kvdb.print(kvdb.base64.encode(12))"), "MTI=");
    let message = world().fails("kvdb.base64.decode({})");
    assert!(message.contains("bad argument #1 to `kvdb.base64.decode`"), "{message}");
}

/// The values are those of FIPS 180-4 and RFC 4231.
#[test]
fn hashes_are_those_of_the_standards() {
    for (source, hash) in [
        ("kvdb.sha256('')", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("kvdb.sha256('abc')", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            "kvdb.sha256(('a'):rep(1000000))",
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
        ),
        (
            "kvdb.hmac('Jefe', 'what do ya want for nothing?')",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            "kvdb.hmac(('\\170'):rep(131), 'Test Using Larger Than Block-Size Key - Hash Key First')",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        ),
    ] {
        assert_eq!(world().prints(&format!("kvdb.print({source})")), hash, "{source}");
    }
    let piped = world().with("a", "abc").prints("kvdb.print(kvdb.sha256(kvdb.get('a')))");
    assert!(piped.starts_with("ba7816bf"), "{piped}");
    for bad in ["sha256()", "sha256({})", "hmac('k')", "hmac(nil, 'v')"] {
        world().fails(&format!("kvdb.{bad}"));
    }
}

#[test]
fn uuids_are_of_the_call_and_differ() {
    let source = "local seen = {}
        for i = 1, 100 do
            math.randomseed(1)
            local id = kvdb.uuid()
            assert(id:match('^%x%x%x%x%x%x%x%x%-%x%x%x%x%-4%x%x%x%-[89ab]%x%x%x%-%x%x%x%x%x%x%x%x%x%x%x%x$'), id)
            assert(not seen[id])
            seen[id] = true
        end
        kvdb.print(kvdb.uuid())";
    let first = world().prints(source);
    let mut world = world();
    assert_eq!(world.prints(source), first);
    world.seed = 2;
    assert_ne!(world.prints(source), first);
}

#[test]
fn work_on_bytes_is_paid_for() {
    let kib = |call: &str, kib: usize| {
        let source = format!("local s = ('x'):rep({kib} * 1024) local f = {call} f(s)");
        let ran = world().run(&source);
        ran.result.unwrap();
        ran.cost.fuel
    };
    for call in [
        "kvdb.sha256",
        "kvdb.base64.encode",
        "kvdb.base64.decode",
        "function(s) kvdb.hmac('k', s) end",
        "function(s) kvdb.hmac(s, 'k') end",
        "kvdb.log",
    ] {
        // Beside what `rep` costs.
        let plain = kib("function() end", 1000) - kib("function() end", 100);
        let paid = kib(call, 1000) - kib(call, 100) - plain;
        assert!((890..=1000).contains(&paid), "{call}: {paid}");
    }
    for source in [
        "local s = ('x'):rep(1e7) while true do kvdb.sha256(s) end",
        "local s = ('x'):rep(1e7) while true do kvdb.hmac('k', s) end",
        "local s = ('x'):rep(1e6) while true do kvdb.base64.encode(s) end",
        "local s = ('x'):rep(1e6) while true do kvdb.base64.decode(s) end",
        "local s = ('x'):rep(1e6) while true do kvdb.log(s) end",
        "while true do kvdb.uuid() end",
    ] {
        let ran = World::new(Limits { fuel: u64::MAX, time_ms: 200, ..limits() }).run(source);
        assert!(ran.took < Duration::from_millis(1500), "{source}: {:?}", ran.took);
        let time = matches!(ran.result, Err(Error::ScriptLimit { limit: "time", .. }));
        assert!(time, "{source}: {:?}", ran.result);
    }
}

#[test]
fn the_log_is_kept_beside_the_answer() {
    let mut world = world().with("a", "1");
    let ran =
        world.run("kvdb.log('a', 1, nil, true) kvdb.log() kvdb.log('x\\ny') kvdb.print('out')");
    assert_eq!(ran.log, ["a1niltrue", "", "x\\ny"]);
    assert_eq!(ran.result.unwrap().body, "out");
    assert_eq!(world.run("kvdb.log(kvdb.get('a'))").log, ["1"]);
    assert_eq!(world.run("").log, [""; 0]);
    for (ending, kept) in [("error('x')", 1), ("kvdb.abort()", 1), ("while true do end", 1)] {
        let ran = world.run(&format!("kvdb.log('before') {ending}"));
        assert_eq!(ran.log.len(), kept, "{ending}");
    }
    let ran = world.run("for i = 1, 100 do kvdb.log(('x'):rep(i * 100)) end");
    assert_eq!(ran.log.len(), 33);
    assert!(ran.log.iter().all(|line| line.len() <= 1024));
    assert_eq!(ran.log[32], "… and 68 more lines");
    let message = world.fails("kvdb.log('a', {})");
    assert!(message.contains("#2 to `kvdb.log`"), "{message}");
}

#[test]
fn a_call_reports_what_it_used() {
    let mut world = World::new(Limits { fuel: 50_000, memory_bytes: 8 << 20, ..limits() });
    let ran = world.run("");
    assert!(ran.cost.fuel <= 3, "{:?}", ran.cost);
    let loops = world.run("for i = 1, 10000 do end").cost.fuel;
    assert!((10_000..10_010).contains(&loops), "{loops}");
    assert_eq!(world.run("while true do end").cost.fuel, 50_000);
    let source = "local s = ('x'):rep(3e6) s = nil for i = 1, 2000 do local t = {} end";
    let memory = world.run(source).cost.memory_bytes;
    assert!((3_000_000..5_000_000).contains(&memory), "{memory}");
    assert_eq!(world.run("x = = 1").cost, Cost::default());
}
