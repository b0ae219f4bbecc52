//! `require`.

use super::*;

#[test]
fn a_module_is_what_its_script_returns() {
    let mut world = world()
        .script("lib/math", "local m = {} function m.double(n) return 2 * n end return m")
        .script("text", "return 'text', 'and no more'")
        .script("no", "return false")
        .script("nothing", "kvdb.print('ran ')");
    let double = "kvdb.print(require('lib/math').double(21))";
    assert_eq!(world.prints(double), "42");
    let source = "kvdb.print(require('text'), ' ', require('no'), ' ', require('nothing'))";
    assert_eq!(world.prints(source), "ran text false true");
}

#[test]
fn a_module_runs_once_a_call() {
    let mut world = world()
        .script("count", "n = (n or 0) + 1 kvdb.print(n) return {n = n}")
        .script("other", "return require('count')");
    let source = "local a, b = require('count'), require('other')
        a.n = 5 kvdb.print(' ', a == b, b.n)";
    assert_eq!(world.prints(source), "1 true5");
    // What one call made of it is gone in the next.
    assert_eq!(world.prints(source), "1 true5");
    assert_eq!(world.vm.machines_made(), 1);
}

#[test]
fn a_module_has_globals_of_its_own_and_the_calls_kvdb() {
    let mut world = world()
        .var("name", "ann")
        .script("sets", "x = 1 _G.y = 2 string = nil kvdb.scope.prefix = 'a:' return {get = function() return x end}")
        .script("writes", "kvdb.set('a:1', kvdb.var.name) kvdb.status = 201 return kvdb.now()");
    let source = "x = 5 local sets = require('sets')
        kvdb.print(x, y, sets.get(), type(string), kvdb.scope.prefix)";
    assert_eq!(world.prints(source), "5nil1tablea:");
    let ran = world.run("assert(require('writes') == kvdb.now()) kvdb.print(kvdb.get('a:1'))");
    expect(&ran, "201\ncontent-type: text/plain\n> ann\na:1 = ann");
}

#[test]
fn a_modules_functions_live_as_long_as_the_call() {
    let mut world = world().script("m", "v = 'own' return function() return v, kvdb.var.a end");
    let source = "local f = require('m') for i = 1, 3 do kvdb.print(f()) end";
    assert_eq!(world.prints(source), "ownnil".repeat(3));
    assert_eq!(world.var("a", "1").prints(source), "own1".repeat(3));
}

#[test]
fn what_cannot_be_required_is_named() {
    let mut world = world()
        .script("a", "return require('b')")
        .script("b", "return require('c')")
        .script("c", "return require('a')")
        .script("self", "return require('self')")
        .script("back", "return require('test')");
    for (name, message) in [
        ("'a'", "script `c` line 1: modules that require each other: a → b → c → a"),
        ("'self'", "script `self` line 1: modules that require each other: self → self"),
        ("'back'", "script `back` line 1: modules that require each other: test → back → test"),
        ("'none'", "script `test` line 1: no such script: none"),
        (
            "{}",
            "script `test` line 1: `require` takes the name of a script of this bucket, not a table",
        ),
        (
            "",
            "script `test` line 1: `require` takes the name of a script of this bucket, not a nil",
        ),
    ] {
        assert_eq!(world.fails(&format!("require({name})")), message);
    }
    for name in ["../x", "/etc/passwd", "@self/x", "./x", "a//b", ""] {
        let message = world.fails(&format!("require('{name}')"));
        let named = ["a script name is 1 to 128", "no such script: "];
        assert!(named.iter().any(|text| message.contains(text)), "{name}: {message}");
    }
    // A failure is an error as any other: it can be caught, and the script goes on.
    let source = "kvdb.print(pcall(require, 'none')) kvdb.print(pcall(require, 'self'))
        kvdb.print(require('ok'))";
    let caught = world.script("ok", "return 1").prints(source);
    assert!(caught.starts_with("falseno such script: nonefalse"), "{caught}");
    assert!(caught.ends_with("self → self1"), "{caught}");
}

#[test]
fn depth_and_number_of_modules_are_bounded() {
    let mut deep = world();
    for level in 1..=17 {
        let source = format!("return 1 + require('m{}')", level + 1);
        deep = deep.script(&format!("m{level}"), &source);
    }
    deep = deep.script("m18", "return 0");
    assert_eq!(deep.prints("kvdb.print(require('m3'))"), "15");
    assert_eq!(
        deep.fails("require('m1')"),
        "script `m16` line 1: `m17` is more than 16 modules deep"
    );

    let mut wide = world();
    for number in 1..=65 {
        wide = wide.script(&format!("m{number}"), "return 1");
    }
    let all = "for i = 1, 64 do require('m' .. i) end kvdb.print(require('m1'))";
    assert_eq!(wide.prints(all), "1");
    assert_eq!(
        wide.fails(&format!("{all} require('m65')")),
        "script `test` line 1: `m65` is one more than 64 modules"
    );
}

#[test]
fn errors_of_a_module_carry_its_name_and_line() {
    let mut world = world()
        .script("lib/bad", "\nlocal x\nx.y = 1")
        .script("thrower", "return function()\n error('late') end")
        .script("bare", "\n\nerror('no position', 0)")
        .script("object", "error({code = 7})")
        .script("syntax", "x = = 1");
    assert_eq!(
        world.fails("\n\nrequire('lib/bad')"),
        "script `lib/bad` line 3: attempt to index nil with 'y'"
    );
    assert_eq!(world.fails("require('thrower')()"), "script `thrower` line 2: late");
    assert_eq!(world.fails("require('bare')"), "script `bare` line 3: no position");
    assert_eq!(
        world.fails("require('object')"),
        "script `object` line 1: the error is a table, not a message"
    );
    let message = world.fails("require('syntax')");
    assert!(message.contains("script `syntax` line 1: Expected identifier"), "{message}");

    let ran = world.run("local function f()\nrequire('lib/bad') end\nf()");
    let Err(Error::Script { traceback: Some(traceback), .. }) = ran.result else { panic!() };
    let at: Vec<_> = ["lib/bad:3", "test:2", "test:3"].iter().map(|l| traceback.find(l)).collect();
    assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{traceback}");

    let caught = world.prints("kvdb.print(pcall(require, 'lib/bad'))");
    assert_eq!(caught, "falselib/bad:3: attempt to index nil with 'y'");
    let caught = world.prints("kvdb.print(pcall(require, 'object'))");
    assert_eq!(caught, "falsethe error is a table, not a message");
}

#[test]
fn a_module_that_failed_can_be_tried_again() {
    let mut world = world().script("m", "if not kvdb.get('ready') then error('not yet') end");
    let source = "kvdb.print((pcall(require, 'm'))) kvdb.set('ready', 1) kvdb.print(require('m'))";
    assert_eq!(world.prints(source), "falsetrue");
}

#[test]
fn limits_hold_through_modules() {
    for (source, limit) in [
        ("while true do end", "fuel"),
        ("pcall(function() while true do end end) kvdb.set('a', 'b')", "fuel"),
        ("('x'):rep(1e8)", "memory"),
        ("pcall(string.rep, 'x', 1e8) return 1", "memory"),
        ("local t = {} while true do t[#t + 1] = {} end", "memory"),
        ("while true do kvdb.print(('x'):rep(1e5)) end", "output of a script"),
        ("while true do pcall(require, 'none') end", "the reads of a transaction"),
        ("for i = 1, 60000 do kvdb.set('k' .. i, '') end", "the writes of a transaction"),
    ] {
        let caught = "kvdb.set('a', 'b') pcall(require, 'm') kvdb.set('b', 'c')";
        let within = Limits { memory_bytes: 8 << 20, ..limits() };
        let mut world = World::new(within).script("m", source);
        assert_eq!(world.limited(caught), limit, "{source}");
        assert_eq!(world.prints("kvdb.print(1)"), "1", "{source}");
    }
    let mut timed = World::new(Limits { fuel: u64::MAX, time_ms: 200, ..limits() })
        .script("m", "while true do end");
    assert_eq!(timed.limited("pcall(require, 'm')"), "time");
}

#[test]
fn a_module_can_end_the_call() {
    let mut world =
        world().script("exit", "kvdb.exit(202)").script("abort", "kvdb.abort(409, 'no')");
    for caught in ["require('exit')", "pcall(require, 'exit')"] {
        let ran = world.run(&format!("{caught} kvdb.print('x')"));
        expect(&ran, "202\ncontent-type: text/plain\n>");
    }
    let ran = world.run("kvdb.set('a', 'b') pcall(require, 'abort') kvdb.print('x')");
    expect(&ran, "409\ncontent-type: text/plain\n> no");
}

#[test]
fn coroutines_and_modules() {
    let mut world = world()
        .script("m", "return coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end)")
        .script("yields", "coroutine.yield(1) return 2");
    assert_eq!(world.prints("for i in require('m') do kvdb.print(i) end"), "123");
    let within = "kvdb.print(coroutine.wrap(function() return require('m')() end)())";
    assert_eq!(world.prints(within), "1");
    // A module cannot be left half done.
    let message = world.fails("coroutine.wrap(function() require('yields') end)()");
    assert!(message.contains("attempt to yield across"), "{message}");
}

#[test]
fn a_module_costs_the_same_whether_or_not_it_is_compiled() {
    let long = format!("{}return 1", "x = 1\n".repeat(4000));
    let mut world = world().script("m", &long).script("short", "return 1");
    let source = "require('m') require('m')";
    let mut fuel = |source| {
        let ran = world.run(source);
        ran.result.unwrap();
        ran.cost.fuel
    };
    let first = fuel(source);
    assert_eq!(fuel(source), first);
    let short = fuel("require('short') require('short')");
    assert!(first >= short + long.len() as u64 / 16, "{first} {short}");
    assert_eq!(world.vm.cached(), 4);
}

#[test]
fn a_module_is_of_the_transactions_state() {
    let mut world = world().script("m", "return 'old'");
    assert_eq!(world.prints("kvdb.print(require('m'))"), "old");
    let mut world = world.script("m", "return 'new'");
    assert_eq!(world.prints("kvdb.print(require('m'))"), "new");
}
