//! Limits that a script cannot catch, and the operations that could run long or grow without them.

use super::*;

/// Small fuel and memory, and time enough.
fn tight() -> World {
    World::new(Limits { fuel: 200_000, time_ms: 60_000, memory_bytes: 8 << 20, ..limits() })
}

/// Fuel without end, so that only the clock can stop it.
fn timed() -> World {
    World::new(Limits { fuel: u64::MAX, time_ms: 200, ..limits() })
}

#[test]
fn loops_end_by_fuel() {
    for source in [
        "while true do end",
        "repeat until false",
        "for i = 1, math.huge do end",
        "local function f() return f() end while true do pcall(f) end",
        "local t = setmetatable({}, {__index = function(t, k) return t[k + 1] end}) while true do pcall(function() return t[1] end) end",
        "for _ in function() return 1 end do end",
        "while true do pcall(function() end) end",
        "while true do pcall(error) end",
        "while true do xpcall(error, function() error() end) end",
        "while true do coroutine.wrap(function() coroutine.yield() end)() end",
        "local function f() coroutine.wrap(f)() end while true do pcall(f) end",
        "local s = ('a'):rep(30) s:find(('a?'):rep(30) .. s .. 'b')",
        "(('x'):rep(50000)):find('.-.-.-b')",
        "while true do kvdb.get('a') end",
        "while true do kvdb.json.encode({1,2,3}) end",
        "while true do math.random() end",
    ] {
        let ran = World::new(Limits { fuel: 200_000, time_ms: 60_000, ..limits() }).run(source);
        assert!(
            matches!(ran.result, Err(Error::ScriptLimit { limit: "fuel", .. })),
            "{source}: {:?}",
            ran.result
        );
    }
}

#[test]
fn the_limit_cannot_be_caught() {
    for source in [
        "kvdb.set('a', 'b') pcall(function() while true do end end) kvdb.print('out')",
        "pcall(pcall, function() while true do end end) kvdb.set('a', 'b') kvdb.exit(200)",
        "xpcall(function() while true do end end, function() kvdb.set('a', 'b') return 1 end)",
        "local co = coroutine.create(function() while true do end end) coroutine.resume(co) kvdb.set('a', 'b')",
        "pcall(coroutine.wrap(function() while true do end end)) kvdb.commit() kvdb.set('a', 'b')",
        "local ok, e = pcall(function() while true do end end) kvdb.redirect('/x')",
        "local ok, e = pcall(function() while true do end end) kvdb.abort(400, 'x')",
        "while true do pcall(function() while true do end end) end",
        "setmetatable(_G, nil)",
        "local t = setmetatable({}, {__newindex = function() while true do end end}) pcall(function() t.x = 1 end)",
        "table.sort({1,2,3}, function() while true do end end)",
        "(('x'):rep(9)):gsub('x', function() pcall(function() while true do end end) end)",
    ] {
        if source.starts_with("setmetatable") {
            tight().fails(source);
        } else {
            assert_eq!(tight().limited(source), "fuel", "{source}");
        }
    }
}

#[test]
fn the_clock_ends_what_fuel_does_not() {
    for source in [
        "while true do end",
        "pcall(function() while true do end end) while true do end",
        "local s = ('a'):rep(1e6) while true do local t = s .. s end",
        "local s = ('a'):rep(1e6) while true do s:reverse() end",
        "local s = ('a'):rep(1e6) while true do s:upper() end",
        "local s = ('a'):rep(1e6) while true do s:gsub('b', 'c') end",
        "local s = ('a'):rep(1e6) while true do s:find('^(a*)*b') end",
        "local s = ('a'):rep(60000) while true do s:find('[' .. ('b'):rep(1000) .. 'a]*[' .. ('b'):rep(1000) .. 'a]*c') end",
        "local t = table.create(100000, 'x') while true do table.concat(t) end",
        "local t = table.create(100000, 1) while true do table.insert(t, 1, 0) table.remove(t, 1) end",
        "local t = table.create(100000, 1) while true do table.sort(t) end",
        "local t = table.create(100000, 1) while true do table.move(t, 1, 100000, 2) end",
        "local t = table.create(100000, 1) while true do table.clone(t) end",
        "local s = ('a,'):rep(100000) while true do s:split(',') end",
        "while true do ('x'):rep(1e6) end",
        "local s = kvdb.json.encode(table.create(10000, 1)) while true do kvdb.json.decode(s) end",
        "local t = table.create(10000, 1) while true do kvdb.json.encode(t) end",
        "while true do string.format('%99d', 1) end",
        "local s = ('a'):rep(1e6) while true do utf8.len(s) end",
        "while true do kvdb.list('') end",
    ] {
        let ran = timed().run(source);
        assert!(ran.took < Duration::from_millis(1500), "{source}: {:?}", ran.took);
        assert!(
            matches!(
                ran.result,
                Err(Error::ScriptLimit {
                    limit: "time" | "memory" | "the reads of a transaction",
                    ..
                } | Error::Script { .. })
            ),
            "{source}: {:?}",
            ran.result
        );
    }
}

#[test]
fn memory_cannot_be_exceeded_nor_the_error_caught() {
    for source in [
        "local t = {} while true do t[#t + 1] = {} end",
        "local s = 'x' while true do s = s .. s end",
        "('x'):rep(1e8)",
        "('x'):rep(2^31)",
        "('x'):rep(1e300)",
        "table.create(1e7, 1)",
        "local t = {} while true do t[#t + 1] = ('x'):rep(1000) .. #t end",
        "local t = table.create(1000, ('x'):rep(100000)) table.concat(t)",
        "(('x'):rep(1e6)):gsub('x', ('y'):rep(1000))",
        "string.rep(('x'):rep(1e6), 100)",
        "pcall(string.rep, 'x', 1e8) kvdb.set('a', 'b')",
        "pcall(table.create, 1e7, 1) kvdb.set('a', 'b')",
        "xpcall(table.create, function() end, 1e7, 1) kvdb.set('a', 'b')",
        "xpcall(error, function() table.create(1e7, 1) end) kvdb.set('a', 'b')",
        "local co = coroutine.create(function() table.create(1e7, 1) end) coroutine.resume(co) kvdb.set('a', 'b')",
        "pcall(coroutine.wrap(function() table.create(1e7, 1) end)) kvdb.set('a', 'b')",
        "pcall(function() local s = 'x' while true do s = s .. s end end) kvdb.set('a', 'b') kvdb.exit()",
        "while true do pcall(table.create, 1e7, 1) end",
        "local t = {} local function f() t[#t+1] = coroutine.create(f) coroutine.resume(t[#t]) end while true do f() end",
    ] {
        assert_eq!(
            World::new(Limits { memory_bytes: 8 << 20, ..limits() }).limited(source),
            "memory",
            "{source}"
        );
    }
}

#[test]
fn a_machine_that_ran_out_of_memory_is_replaced() {
    let mut world = tight();
    world.limited("('x'):rep(1e8)");
    assert_eq!(world.prints("kvdb.print(1)"), "1");
    assert_eq!(world.vm.machines_made(), 2);
}

#[test]
fn work_without_interrupts_is_bounded() {
    for source in [
        "table.move({}, 1, 2^31 - 2, 1)",
        "local s = ('a'):rep(1e6) s:split(('a'):rep(1000))",
        "local s = ('a'):rep(1e6) s:gsub('[' .. ('b'):rep(1000) .. 'a]*', '')",
        "string.format('%99999d', 1)",
        "table.unpack({}, 1, 1e7)",
        "string.byte(('x'):rep(1e6), 1, -1)",
        "local function f() return f() + 1 end f()",
        "local t = setmetatable({}, {}) getmetatable(t).__index = function(_, k) return t[k] end return t.x",
        "local function f() pcall(f) error('x') end f()",
        "string.rep('x', 1, {}) error('end')",
    ] {
        let ran = timed().run(source);
        assert!(ran.took < Duration::from_millis(800), "{source}: {:?}", ran.took);
        assert!(ran.result.is_err(), "{source}");
    }
    // Linear where Luau's own search is quadratic.
    let plain = "local s = ('a'):rep(2e6) kvdb.print(s:find(('a'):rep(1e6) .. 'b', 1, true))";
    let ran = timed().run(plain);
    assert!(ran.took < Duration::from_millis(800), "{:?}", ran.took);
    ran.result.unwrap();
}

/// Functions that each call the one before many times: inlining would multiply them.
fn calls_within_calls() -> String {
    let mut source = "local function a() q.f() q.f() q.f() q.f() q.f() end\n".to_owned();
    for (name, before) in [('b', 'a'), ('c', 'b'), ('d', 'c'), ('e', 'd')] {
        let calls = format!("{before}() ").repeat(9);
        writeln!(source, "local function {name}() {calls}end").unwrap();
    }
    source + &"e() ".repeat(80)
}

#[test]
fn compiling_is_bounded_by_the_source() {
    let constants = (1..60).fold("local s0 = ('x') .. 'yyyyyyyy'\n".to_owned(), |text, i| {
        text + &format!("local s{i} = s{0} .. s{0} .. 'z'\n", i - 1)
    });
    for (what, source) in [
        ("inlining", calls_within_calls()),
        ("constant strings", constants),
        ("unrolling", "for i=1,9 do for i=1,9 do for i=1,9 do f() g() h() end end end ".repeat(50)),
        ("tables", format!("return {}{}", "{{},".repeat(60), "}".repeat(60))),
        (
            "closures",
            format!("local a = 1 {} a = a {}", "f(function() ".repeat(60), "end) ".repeat(60)),
        ),
        ("parentheses", format!("return {}1{}", "(".repeat(150), ")".repeat(150))),
        ("interpolation", format!("local a = 'x' {}", "local a = `{a}{a}{a}` ".repeat(60))),
        ("conditions", format!("return {}1", "if a and b or c then 2 else ".repeat(100))),
    ] {
        let begun = Instant::now();
        let bytecode = crate::script::cache::compile(&source).unwrap();
        let took = begun.elapsed();
        assert!(bytecode.len() <= 64 * source.len() + (64 << 10), "{what}: {}", bytecode.len());
        assert!(took < Duration::from_millis(500), "{what}: {took:?}");
    }
}

#[test]
fn bytecode_is_limited_and_the_cache_bounded_by_it() {
    use crate::script::cache::{BYTECODE_BYTES_MAX, CACHE_BYTES_MAX, bounded};
    assert!(bounded(vec![0; BYTECODE_BYTES_MAX]).is_ok());
    let refused = bounded(vec![0; BYTECODE_BYTES_MAX + 1]);
    assert!(matches!(refused, Err(Error::TooLarge { limit: "a compiled script", .. })));
    let mut world = world();
    for i in 0..80 {
        world
            .run(&format!("local v = {i} if x then {} end", "f(v) ".repeat(12_000)))
            .result
            .unwrap();
    }
    assert!(world.vm.cached() < 80, "{}", world.vm.cached());
    assert!(world.vm.cached_bytes() <= CACHE_BYTES_MAX);
}

#[test]
fn output_is_bounded() {
    assert_eq!(
        tight().limited("pcall(function() while true do kvdb.print(('x'):rep(1e5)) end end)"),
        "output of a script"
    );
    assert_eq!(tight().limited("kvdb.abort(400, ('x'):rep(2e6))"), "output of a script");
}

#[test]
fn the_transactions_limits_cannot_be_caught() {
    let many = "pcall(function() for i = 1, 60000 do kvdb.set('k' .. i, '') end end)";
    assert_eq!(world().limited(many), "the writes of a transaction");
    let large = "local v = ('x'):rep(1e6) for i = 1, 20 do pcall(kvdb.set, 'k' .. i, v) end";
    assert_eq!(world().limited(large), "the writes of a transaction");
    let reads = "pcall(function() for i = 1, 300000 do kvdb.get('k') end end)";
    assert_eq!(world().limited(reads), "the reads of a transaction");
}

#[test]
fn json_is_bounded_in_depth_and_size() {
    let deep = "local v, e = kvdb.json.decode(('['):rep(100000)) kvdb.print(v, e)";
    assert_eq!(world().prints(deep), "nilmore than 100 levels at line 1 column 101");
    let cyclic = "local t = {} t.t = t kvdb.print(kvdb.json.encode(t))";
    assert_eq!(world().prints(cyclic), "nilmore than 100 levels");
    let wide = "local t = {1} for i = 1, 60 do t = {t, t} end kvdb.print(kvdb.json.encode(t))";
    let ran = timed().run(wide);
    assert!(ran.took < Duration::from_millis(1500), "{:?}", ran.took);
    match ran.result {
        Ok(answer) => assert!(answer.body.starts_with(b"nil")),
        Err(error) => assert!(matches!(error, Error::ScriptLimit { .. })),
    }
    assert_eq!(tight().limited("kvdb.json.decode('[' .. ('[],'):rep(200000) .. '1]')"), "memory");
}

#[test]
fn a_list_of_large_values_stays_within_memory() {
    let mut world = tight();
    for i in 0..40 {
        world = world.with(&format!("k{i:03}"), &format!("{i}{}", "v".repeat(900_000)));
    }
    assert_eq!(world.limited("pcall(kvdb.list, '', {values = true})"), "memory");
    assert_eq!(world.prints("kvdb.print(#kvdb.list(''))"), "40");
}

/// Ends the call on its n-th look.
struct Until(Cell<u64>);

impl Watch for Until {
    fn check(&self) -> Result<()> {
        match self.0.get().checked_sub(1) {
            Some(left) => self.0.set(left),
            None => return Err(Error::NotLeader { leader: Some(3) }),
        }
        Ok(())
    }
}

#[test]
fn the_watchs_own_error_is_the_result() {
    let mut world = world();
    let source = "kvdb.set('a', 'b') pcall(function() while true do end end) kvdb.exit()";
    let (call, txn) = (world.call(source), world.transaction());
    let Report { txn, result, .. } = world.vm.run(&call, txn, Rc::new(Until(Cell::new(5))));
    assert_eq!(result, Err(Error::NotLeader { leader: Some(3) }));
    assert!(txn.finish().1.is_empty());
}

#[test]
fn the_watch_is_asked_now_and_then() {
    let mut world = world();
    let watch = Rc::new(Counting::default());
    let (call, txn) = (world.call("for i = 1, 6400 do end"), world.transaction());
    world.vm.run(&call, txn, watch.clone()).result.unwrap();
    assert!((90..=110).contains(&watch.0.get()), "{}", watch.0.get());
}

/// A view whose disk fails.
struct Broken;

impl crate::kv::Get for Broken {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        if key == keyspace::meta_key(BUCKET) {
            return encoding::encode(&BucketMeta::default()).map(|bytes| Some(bytes.into()));
        }
        Err(Error::Io("disk".to_owned()))
    }
}

impl crate::kv::View for Broken {
    fn scan(
        &self,
        _: &[u8],
        _: &[u8],
        _: bool,
    ) -> Box<dyn Iterator<Item = crate::kv::store::Pair> + '_> {
        Box::new(std::iter::once(Err(Error::corrupt("record", "x"))))
    }
}

#[test]
fn damage_ends_the_script_as_such() {
    let mut world = world();
    for (source, error) in [
        ("pcall(kvdb.get, 'a') kvdb.set('b', 'c')", Error::Io("disk".to_owned())),
        ("pcall(kvdb.incr, 'a', 1)", Error::Io("disk".to_owned())),
        ("pcall(kvdb.list, 'a')", Error::corrupt("record", "x")),
    ] {
        let txn = transaction::read_only(Arc::new(Broken), BUCKET, NOW).unwrap().unwrap();
        let call = world.call(source);
        let watch = Rc::new(Counting::default());
        let Report { txn, result, .. } = world.vm.run(&call, txn, watch);
        assert_eq!(result, Err(error));
        assert!(txn.finish().1.is_empty());
    }
}

#[test]
#[ignore = "prints a measurement"]
fn cost_of_a_call() {
    let mut world = world().with("hits", "1");
    for (name, source) in [
        ("empty", ""),
        ("print", "kvdb.print('hello')"),
        ("counter", include_str!("../../../deploy/examples/counter.lua")),
        (
            "four calls",
            "kvdb.set('a', kvdb.get('hits')) kvdb.incr('hits', 1) kvdb.print(kvdb.get('a'))",
        ),
    ] {
        let call = world.call(source);
        let watch = Rc::new(Counting::default());
        let view: crate::kv::SharedView = Arc::new(world.store.clone());
        let mut total = Duration::ZERO;
        const RUNS: u32 = 20_000;
        for _ in 0..RUNS {
            let txn = transaction::read_only(view.clone(), BUCKET, NOW).unwrap().unwrap();
            let begun = Instant::now();
            let report = world.vm.run(&call, txn, watch.clone());
            total += begun.elapsed();
            report.result.unwrap();
        }
        eprintln!("{name}: {:?}", total / RUNS);
    }
}
