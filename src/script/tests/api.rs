//! What `kvdb` promises.

use super::*;
use crate::kv::Permission;

const PLAIN: &str = "200\ncontent-type: text/plain\n> ";

#[test]
fn print_and_say_join_their_arguments() {
    let source = "kvdb.print('a', 1, nil, true, false, 0.5, 1e21, -0.0, 2^53, 1/0) kvdb.say() kvdb.say('x', 'y')";
    assert_eq!(world().prints(source), "a1niltruefalse0.51e+21-09007199254740992inf\nxy\n");
    assert_eq!(
        world().prints("kvdb.print(0.1 + 0.2, ' ', 100, ' ', 1e15, ' ', 1e-7)"),
        "0.30000000000000004 100 1000000000000000 1e-07"
    );
    let source = "for e = 0, 53 do for _, n in {2^e, -2^e, 2^e - 1, 1 - 2^e, 10^(e % 16)} do
        kvdb.print(n, '\\n', tostring(n) .. '\\n') end end";
    let printed = world().prints(source);
    let lines: Vec<&str> = printed.lines().collect();
    assert!(lines.len() == 540 && lines.chunks(2).all(|pair| pair[0] == pair[1]), "{printed}");
    let message = world().fails("kvdb.print('a', {})");
    assert!(message.contains("#2 to `kvdb.print`"), "{message}");
    assert_eq!(world().prints("pcall(kvdb.print, 'a', {}) kvdb.print('b')"), "b");
}

#[test]
fn status_counts_until_something_was_printed() {
    expect(
        &world().run("kvdb.status = 201 kvdb.print(kvdb.status)"),
        "201\ncontent-type: text/plain\n> 201",
    );
    expect(
        &world().run("kvdb.print('a') kvdb.status = 500 kvdb.print(kvdb.status)"),
        &format!("{PLAIN}a200"),
    );
    expect(&world().run("kvdb.print('') kvdb.status = 202"), "202\ncontent-type: text/plain\n>");
    for bad in ["'x'", "99", "600", "200.5", "nil", "{}", "100"] {
        world().fails(&format!("kvdb.status = {bad}"));
    }
}

#[test]
fn headers_count_until_something_was_printed() {
    let ran = world().run(
        "kvdb.header['Content-Type'] = 'text/html'
        kvdb.header['X-Total'] = 5
        kvdb.header['x-gone'] = 'a' kvdb.header['x-gone'] = nil
        kvdb.header.etag = '\"1\"'
        kvdb.print(kvdb.header['x-total'])
        kvdb.header['x-late'] = 'a'",
    );
    expect(&ran, "200\ncontent-type: text/html\nx-total: 5\netag: \"1\"\n> 5");
    assert_eq!(world().prints("kvdb.print(kvdb.header['content-type'])"), "text/plain");
    for bad in [
        "'set-cookie'",
        "'content-length'",
        "'x-kvdb-applied'",
        "'x-'",
        "'x-a b'",
        "'x-a:'",
        "1",
        "''",
        "'x-a\\r\\n'",
    ] {
        world().fails(&format!("kvdb.header[{bad}] = 'a'"));
    }
    for bad in ["'a\\r\\nb: c'", "'a\\nb'", "'a\\0b'", "'\\200'", "{}", "('x'):rep(9000)"] {
        world().fails(&format!("kvdb.header['x-a'] = {bad}"));
    }
    world().fails("for i = 1, 100 do kvdb.header['x-' .. i] = 'a' end");
}

#[test]
fn exit_stops_and_sets_the_status() {
    expect(&world().run("kvdb.exit(204) kvdb.print('a')"), "204\ncontent-type: text/plain\n>");
    expect(&world().run("kvdb.status = 202 kvdb.exit()"), "202\ncontent-type: text/plain\n>");
    expect(&world().run("kvdb.exit()"), "200\ncontent-type: text/plain\n>");
    expect(&world().run("kvdb.print('a') kvdb.exit(403)"), &format!("{PLAIN}a"));
    world().fails("kvdb.exit(1000)");
    world().fails("kvdb.exit('x')");
}

#[test]
fn exit_cannot_be_caught() {
    for source in [
        "pcall(kvdb.exit, 202) kvdb.set('a', 'b')",
        "pcall(kvdb.exit, 202) kvdb.exit(500)",
        "pcall(kvdb.exit, 202) error('x')",
        "pcall(kvdb.exit, 202) kvdb.status = 500",
        "pcall(kvdb.exit, 202) kvdb.print('x')",
        "pcall(kvdb.exit, 202) while true do end",
        "xpcall(kvdb.exit, function() kvdb.print('x') end, 202) kvdb.print('x')",
        "coroutine.wrap(function() kvdb.exit(202) end)() kvdb.print('x')",
        "local co = coroutine.create(function() kvdb.exit(202) end) coroutine.resume(co) kvdb.print('x')",
        "local t = setmetatable({}, {__index = function() kvdb.exit(202) end}) pcall(function() return t.x end) kvdb.print('x')",
    ] {
        expect(&world().run(source), "202\ncontent-type: text/plain\n>");
    }
}

#[test]
fn redirects() {
    let to = |code: u16| format!("{code}\nlocation: /a?b=c\ncontent-type: text/plain\n>");
    expect(&world().run("kvdb.redirect('/a?b=c') kvdb.print('x')"), &to(302));
    for code in [301, 302, 303, 307, 308] {
        expect(&world().run(&format!("kvdb.redirect('/a?b=c', {code})")), &to(code));
    }
    expect(&world().run("kvdb.print('x') kvdb.redirect('/a')"), &format!("{PLAIN}x"));
    for bad in ["'/a', 200", "'/a', 304", "'/a\\r\\nx: y'", "nil", "{}", "'/a', 'x'"] {
        world().fails(&format!("kvdb.redirect({bad})"));
    }
}

#[test]
fn writes_stay_below_400_or_with_commit() {
    let set = "kvdb.set('a', 'b') ";
    for (end, kept) in [
        ("", true),
        ("kvdb.exit()", true),
        ("kvdb.exit(399)", true),
        ("kvdb.redirect('/')", true),
        ("kvdb.status = 399", true),
        ("kvdb.exit(400)", false),
        ("kvdb.status = 500", false),
        ("kvdb.status = 404 kvdb.print('x')", false),
        ("kvdb.print('x') kvdb.exit(403)", true),
        ("kvdb.commit() kvdb.exit(403)", true),
        ("kvdb.commit() kvdb.status = 500", true),
        ("kvdb.exit(403) kvdb.commit()", false),
        ("kvdb.commit() error('x')", false),
        ("kvdb.commit() kvdb.abort()", false),
        ("error('x')", false),
        ("pcall(error, 'x')", true),
        ("kvdb.abort()", false),
        ("kvdb.commit() while true do end", false),
    ] {
        let ran = world().run(&format!("{set}{end}"));
        assert_eq!(!ran.writes.is_empty(), kept, "{end}");
    }
}

#[test]
fn abort_answers_its_own() {
    let plain = |status: u16, body: &str| format!("{status}\ncontent-type: text/plain\n> {body}");
    let run = |source: &str| {
        world().run(&format!("kvdb.header['x-a'] = 'b' kvdb.print('gone') {source}"))
    };
    expect(&run("kvdb.abort()"), &plain(400, ""));
    expect(&run("kvdb.abort(409, 'no')"), &plain(409, "no"));
    expect(&run("kvdb.abort('no')"), &plain(400, "no"));
    expect(&run("pcall(kvdb.abort, 409, 'no') kvdb.print('x')"), &plain(409, "no"));
    for bad in ["200", "399", "600", "409, {}"] {
        world().fails(&format!("kvdb.abort({bad})"));
    }
}

#[test]
fn get_answers_value_and_info() {
    let mut world = world().with("a", "x\0y");
    let source = "local v, i, e = kvdb.get('a') kvdb.print(#v, ' ', i.version, ' ', i.expires_at, ' ', i.ttl, ' ', e)";
    assert_eq!(world.prints(source), "3 12 nil nil nil");
    assert_eq!(world.prints("kvdb.print(kvdb.get('none'))"), "nil");
    assert_eq!(
        world.prints("kvdb.set('n', 1) local _, i = kvdb.get('n') kvdb.print(i.version)"),
        "42"
    );
    assert_eq!(world.prints("kvdb.print(kvdb.get(''))"), "nilnila key has at least one byte");
    assert_eq!(
        world.prints("kvdb.print(select(3, kvdb.get(('k'):rep(1025))))"),
        "a key is limited to 1024 bytes"
    );
    assert_eq!(world.prints("kvdb.set('5', 'five') kvdb.print((kvdb.get(5)))"), "five");
    for bad in ["", "nil", "{}", "true", "print", "kvdb.get"] {
        world.fails(&format!("kvdb.get({bad})"));
    }
}

#[test]
fn set_stores_text_and_numbers() {
    let ran = world().run(
        "for k, v in pairs({s = 'text', i = 5, f = 0.1, whole = 3.0, big = 2^60, e = 1e300}) do
            assert(kvdb.set(k, v) == nil)
        end",
    );
    expect(
        &ran,
        &format!(
            "{PLAIN}\nbig = 1152921504606846976\ne = 1e300\nf = 0.1\ni = 5\ns = text\nwhole = 3"
        ),
    );
    assert_eq!(
        world().prints("kvdb.print(kvdb.set('a', 0/0))"),
        "the value is not a finite number"
    );
    assert_eq!(
        world().prints("kvdb.print(kvdb.set('a', ('x'):rep(2^20 + 1)))"),
        "a value is limited to 1048576 bytes"
    );
    assert_eq!(
        world().prints("kvdb.print(kvdb.set('scripts/a', 'x'))"),
        "keys may not begin with `scripts/` or `tokens/`"
    );
    for bad in [
        "'a'",
        "'a', nil",
        "'a', {}",
        "'a', true",
        "{}, 'a'",
        "'a', 'b', 5",
        "'a', 'b', {oops = 1}",
        "'a', 'b', {if_version = 'x'}",
        "'a', 'b', {if_absent = true, if_version = 1}",
    ] {
        world().fails(&format!("kvdb.set({bad})"));
    }
}

#[test]
fn what_get_returned_can_be_passed_on() {
    assert_eq!(world().with("a", "1").prints("kvdb.say(kvdb.get('a'))"), "1\n");
    assert_eq!(world().prints("kvdb.say(kvdb.get('a'))"), "nil\n");
    let ran = world().with("a", "1").run("kvdb.print(kvdb.set('b', kvdb.get('a')))");
    expect(&ran, &format!("{PLAIN}nil\nb = 1"));
}

#[test]
fn set_with_conditions() {
    let mut world = world().with("a", "1");
    for (options, error) in [
        ("if_version = 12", "nil"),
        ("if_version = 11", "the key has version 12"),
        ("if_absent = true", "the key has version 12"),
        ("if_absent = false", "nil"),
    ] {
        let ran = world.run(&format!("kvdb.print(kvdb.set('a', '2', {{{options}}}))"));
        assert_eq!(ran.result.unwrap().body, error.as_bytes(), "{options}");
        assert_eq!(ran.writes.len(), usize::from(error == "nil"), "{options}");
    }
    assert_eq!(world.prints("kvdb.print(kvdb.set('b', '2', {if_absent = true}))"), "nil");
    assert_eq!(
        world.prints("kvdb.print(kvdb.set('b', '2', {if_version = 1}))"),
        "the key does not exist"
    );
}

#[test]
fn incr_is_exact_and_answers_the_sum() {
    let mut world = world()
        .with("n", "9007199254740992")
        .with("f", "1.5")
        .with("max", "9223372036854775807")
        .with("t", "text");
    for (args, printed) in [
        ("'new', 1", "nil1"),
        ("'new'", "nil1"),
        ("'n', 1", "nil9007199254740993"),
        ("'n', '9007199254740993'", "nil18014398509481985"),
        ("'n', -0.5", "nil9007199254740992"),
        ("'f', 1", "nil2.5"),
        ("'f', 0.5", "nil2"),
        ("'max', 1", "the sum does not fit in an int64nil"),
        ("'max', '-1'", "nil9223372036854775806"),
        ("'t', 1", "not a number: a counter is an int64 or float64 as textnil"),
        ("'n', 'x'", "not a number: a counter is an int64 or float64 as textnil"),
        ("'n', 1/0", "the increment is not a finite numbernil"),
        ("'', 1", "a key has at least one bytenil"),
    ] {
        assert_eq!(world.prints(&format!("kvdb.print(kvdb.incr({args}))")), printed, "{args}");
    }
    let ran = world.run("for i = 1, 3 do kvdb.incr('n', '1') end");
    assert_eq!(ran.writes, [("n".to_owned(), Some("9007199254740995".to_owned()))]);
    for bad in ["'n', {}", "'n', true", "{}, 1"] {
        world.fails(&format!("kvdb.incr({bad})"));
    }
}

#[test]
fn lists() {
    let mut world = world();
    for key in ["a:1", "a:2", "a:3", "b:1"] {
        world = world.with(key, &key.to_uppercase());
    }
    for (args, printed) in [
        ("'a:'", "a:1,a:2,a:3"),
        ("", "a:1,a:2,a:3,b:1"),
        ("'', {limit = 2}", "a:1,a:2"),
        ("'', {limit = 0}", ""),
        ("'a:', {after = 'a:1'}", "a:2,a:3"),
        ("'a:', {reverse = true}", "a:3,a:2,a:1"),
        ("'a:', {reverse = true, after = 'a:3', limit = 1}", "a:2"),
        ("'none'", ""),
    ] {
        let source = format!("kvdb.print(table.concat(kvdb.list({args}), ','))");
        assert_eq!(world.prints(&source), printed, "{args}");
    }
    let values = "for _, p in ipairs(kvdb.list('a:', {values = true})) do kvdb.print(p[1], '=', p[2], ' ') end";
    assert_eq!(world.prints(values), "a:1=A:1 a:2=A:2 a:3=A:3 ");
    let own =
        "kvdb.set('a:0', 'x') kvdb.delete('a:2') kvdb.print(table.concat(kvdb.list('a:'), ','))";
    assert_eq!(world.prints(own), "a:0,a:1,a:3");
    for bad in [
        "{}",
        "'a', 5",
        "'a', {limit = -1}",
        "'a', {limit = 'x'}",
        "'a', {what = 1}",
        "'a', {values = 1}",
    ] {
        world.fails(&format!("kvdb.list({bad})"));
    }
}

#[test]
fn lists_cross_batches() {
    let mut world = world();
    for i in 0..2500 {
        world = world.with(&format!("k{i:05}"), "v");
    }
    let check = "local keys = kvdb.list('k') for i, k in ipairs(keys) do assert(k == string.format('k%05d', i - 1)) end kvdb.print(#keys)";
    assert_eq!(world.prints(check), "2500");
    let back = "local keys = kvdb.list('k', {reverse = true, limit = 2000}) kvdb.print(#keys, keys[1], keys[2000])";
    assert_eq!(world.prints(back), "2000k02499k00500");
}

#[test]
fn the_grant_holds_inside() {
    let mut world = world().with("a:1", "x").with("b:1", "y");
    world.grant = Grant {
        owner: false,
        prefix: Bytes::from_static(b"a:"),
        permissions: vec![Permission::Read, Permission::Enumerate],
        execute: Default::default(),
    };
    assert_eq!(
        world.prints("kvdb.print(kvdb.scope.prefix, table.concat(kvdb.scope.permissions, ','))"),
        "a:read,enumerate"
    );
    assert_eq!(
        world.prints("kvdb.print((kvdb.get('a:1')), select(3, kvdb.get('b:1')))"),
        "xthe permission covers only keys that begin with `a:`"
    );
    for (call, result) in [
        ("kvdb.set('a:1', 'z')", "the permission `write` is missing"),
        ("kvdb.incr('a:1', 1)", "the permission `write` is missingnil"),
        ("kvdb.delete('a:1')", "the permission `delete` is missing"),
        ("kvdb.list('b:')", "nilthe permission covers only keys that begin with `a:`"),
        ("#kvdb.list('')", "1"),
        ("kvdb.list('', {values = true})[1][2]", "x"),
    ] {
        let ran = world.run(&format!("kvdb.print({call})"));
        assert_eq!(ran.result.unwrap().body, result.as_bytes(), "{call}");
        assert!(ran.writes.is_empty(), "{call}");
    }
    world.grant.permissions = vec![Permission::Enumerate];
    assert_eq!(
        world.prints("kvdb.print(kvdb.list('', {values = true}))"),
        "nilthe permission `read` is missing"
    );
}

#[test]
fn scope_only_narrows() {
    let mut world = world().with("a:1", "x").with("b:1", "y");
    world.grant.prefix = Bytes::from_static(b"a:");
    let widen = "kvdb.scope.prefix = '' kvdb.print(kvdb.scope.prefix, (kvdb.get('b:1')))";
    assert_eq!(world.prints(widen), "a:nil");
    let other = "kvdb.scope.prefix = 'b:' kvdb.print(#kvdb.scope.permissions, (kvdb.get('b:1')), (kvdb.get('a:1')))";
    assert_eq!(world.prints(other), "0nilnil");
    world.grant.permissions = vec![Permission::Read];
    let more = "kvdb.scope.permissions = {'read', 'write'} kvdb.print(table.concat(kvdb.scope.permissions, ','), kvdb.set('a:1', 'z'))";
    assert_eq!(world.prints(more), "readthe permission `write` is missing");
    let insert = "table.insert(kvdb.scope.permissions, 'write') kvdb.print(kvdb.set('a:1', 'z'))";
    assert_eq!(world.prints(insert), "the permission `write` is missing");
    for bad in [
        "kvdb.scope = {}",
        "kvdb.scope.prefix = {}",
        "kvdb.scope.permissions = 'read'",
        "kvdb.scope.permissions = {'fly'}",
        "kvdb.scope.owner = true",
    ] {
        world.fails(bad);
    }
}

#[test]
fn var_and_req() {
    let mut world = world().var("name", "ä").var("remote_addr", "10.0.0.1");
    world.request = Request {
        method: "POST".to_owned(),
        path: "/b/scripts/test".to_owned(),
        headers: vec![("x-a".to_owned(), "1".to_owned()), ("x-a".to_owned(), "2".to_owned())],
        body: Bytes::from_static(b"a\0b"),
    };
    assert_eq!(
        world.prints("kvdb.print(kvdb.var.name, kvdb.var.remote_addr, kvdb.var.none)"),
        "ä10.0.0.1nil"
    );
    assert_eq!(
        world.prints("local r = kvdb.req kvdb.print(r.method, r.path, r.headers['x-a'], #r.body)"),
        "POST/b/scripts/test1, 23"
    );
    for bad in ["kvdb.var = {}", "kvdb.req = {}", "kvdb.anything = 1"] {
        world.fails(bad);
    }
}

#[test]
fn json_keeps_integers_nulls_and_empty_arrays() {
    for text in [
        "9007199254740993",
        "-9223372036854775808",
        "9223372036854775807",
        "[9007199254740993,1,-5]",
        "null",
        "[]",
        "{}",
        "[[],{},null]",
        "\"\\u0001ä\\\"\"",
        "0.1",
        "0.000035689",
        "123456789.12345679",
        "5e-324",
        "2.2250738585072014e-308",
        "1.7976931348623157e308",
        "1e300",
        "true",
        "{\"a\":{\"b\":[1,2,{\"c\":null}]}}",
    ] {
        let source = format!("kvdb.print(kvdb.json.encode(kvdb.json.decode([=[{text}]=])))");
        assert_eq!(world().prints(&source), text, "{text}");
    }
    for (value, text) in [
        ("{}", "{}"),
        ("kvdb.json.empty_array", "[]"),
        ("setmetatable({}, kvdb.json.array_mt)", "[]"),
        ("{1, 2, 'x'}", "[1,2,\"x\"]"),
        ("{a = 1}", "{\"a\":1}"),
        ("{[1] = 1, [3] = 3}", "{\"1\":1,\"3\":3}"),
        ("2^53", "9007199254740992"),
        ("1.0", "1"),
        ("nil", "null"),
    ] {
        assert_eq!(
            world().prints(&format!("kvdb.print((kvdb.json.encode({value})))")),
            text,
            "{value}"
        );
    }
    let float = "kvdb.print(kvdb.json.decode('18446744073709551616'))";
    assert_eq!(world().prints(float), "18446744073709552000");
}

#[test]
fn json_errors_are_returned() {
    for (call, error) in [
        ("decode('{')", "EOF while parsing an object at line 1 column 1"),
        ("decode('[1] x')", "trailing characters at line 1 column 5"),
        ("decode('')", "EOF while parsing a value at line 1 column 0"),
        ("encode(0/0)", "a number is not finite"),
        ("encode({kvdb.get})", "a function has no JSON"),
        ("encode('\\255')", "a string is not UTF-8"),
        ("encode({[true] = 1})", "a boolean cannot be a key"),
    ] {
        assert_eq!(
            world().prints(&format!("kvdb.print(kvdb.json.{call})")),
            format!("nil{error}"),
            "{call}"
        );
    }
    world().fails("kvdb.json.decode({})");
}

#[test]
fn large_integers_are_exact_everywhere() {
    let mut world = world();
    let ran = world.run(
        "local n = kvdb.json.decode('9007199254740993')
        kvdb.set('set', n)
        kvdb.incr('incr', n)
        kvdb.incr('incr', kvdb.json.decode('-1'))
        kvdb.print(n, ' ', tostring(n), ' ', n .. '!', ' ', 'n' .. n, ' ', n + 1, ' ', n - 9007199254740992, ' ', typeof(n), ' ')
        local m = kvdb.json.decode('9007199254740995')
        kvdb.print(n < m, n <= m, n == m, n == kvdb.json.decode('9007199254740993'), string.format(' %s', n))",
    );
    expect(
        &ran,
        &format!(
            "{PLAIN}9007199254740993 9007199254740993 9007199254740993! n9007199254740993 9007199254740994 1 int64 truetruefalsetrue 9007199254740993
            incr = 9007199254740992
            set = 9007199254740993"
        ),
    );
    world.fails("local n = kvdb.json.decode('9223372036854775807') return n + 1");
    world.fails("local n = kvdb.json.decode('9223372036854775807') return n + 0.5");
    world.fails("local n = kvdb.json.decode('9223372036854775807') return n .. {}");
}

#[test]
fn random_numbers_follow_the_seed() {
    let source = "kvdb.print(math.random(), ' ', math.random(6), ' ', math.random(-5, 5))";
    let first = world().prints(source);
    assert_eq!(world().prints(source), first);
    let reseeded = "math.randomseed(7) local a = math.random(1e9) math.randomseed(7) kvdb.print(a == math.random(1e9))";
    assert_eq!(world().prints(reseeded), "true");
    for bad in ["math.random(0)", "math.random(2, 1)", "math.random('x')", "math.random(1.5)"] {
        world().fails(bad);
    }
}

#[test]
fn headers_are_bounded_together() {
    let header = |bytes: usize| format!("kvdb.header['x-b'] = ('v'):rep({bytes}) ");
    for source in [
        header(5000) + "pcall(function() kvdb.header['x-c'] = ('v'):rep(5000) end)",
        header(5000) + "pcall(kvdb.redirect, ('v'):rep(5000))",
        "for i = 1, 60 do pcall(function() kvdb.header['x-' .. i] = ('v'):rep(200) end) end"
            .to_owned(),
    ] {
        assert_eq!(world().limited(&source), "headers of a script", "{source}");
    }
    // Replaced and removed ones do not count.
    let replaced = header(5000).repeat(3) + "kvdb.header['x-b'] = nil " + &header(8000);
    world().run(&replaced).result.unwrap();
}
