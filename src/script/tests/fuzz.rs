//! Generated programs: every function that a script can call, with values that nobody passes.
//!
//! Whatever a program does, it ends in time with an answer or an error that an author understands, it
//! leaves nothing behind where it failed, the machine goes on, and a second run is the same.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{TestCaseError, TestCaseResult};

use super::*;
use crate::testing::fuzz;

/// What a program may take beyond its time: a debug build's, on a machine that is busy.
const MARGIN: Duration = Duration::from_secs(4);

const TIGHT: Limits = Limits {
    fuel: 100_000,
    time_ms: 500,
    memory_bytes: 8 << 20,
    output_bytes: 64 << 10,
    value_bytes: 64 << 10,
};

/// Values that are built by more than an expression.
const PREAMBLE: &str = "\
local a, b, n = {1, 2, 3, x = 'y'}, {}, 1
local deep = {} do local t = deep for i = 1, 3000 do t.t = {} t = t.t end end
local nested = ('['):rep(5000)
local cyclic = {1} cyclic[2] = cyclic cyclic.c = cyclic
local kind = setmetatable({}, {
  __index = function(_, k) return k end, __newindex = function(t, k, v) rawset(t, 1, v) end,
  __tostring = function() return 'kind' end, __len = function() return 3 end,
  __call = function(_, ...) return ... end, __concat = function() return 'c' end,
  __eq = function() return true end, __lt = function() return false end,
  __add = function(l, r) return r end, __unm = function(l) return l end,
})
local odd = setmetatable({}, {
  __index = kvdb, __tostring = function() return {} end, __len = function() return 0/0 end,
  __iter = function() return function() return nil, 1 end end, __metatable = 'locked',
  __call = pcall, __concat = error, __lt = coroutine.yield, __name = {},
})
local angry
angry = setmetatable({}, {
  __index = function(t, k) return t[k] end, __newindex = function(t, k, v) t[k] = v end,
  __tostring = function(t) return tostring(t) end, __len = function(t) return #t end,
  __call = function(t, ...) return t(...) end, __concat = function(l, r) return l .. r end,
  __eq = function() error(angry) end, __lt = function() while true do end end,
  __iter = function(t) for _ in t do end end,
})
";

const SCALARS: &[&str] = &[
    "nil",
    "true",
    "false",
    "0",
    "1",
    "-1",
    "3",
    "0.5",
    "-0",
    "0/0",
    "1/0",
    "-1/0",
    "2^31",
    "2^53",
    "2^53 + 1",
    "-2^63",
    "2^63",
    "2^64",
    "1e308",
    "1e9",
    "''",
    "'k'",
    "'n'",
    "'m'",
    "'a/x'",
    "'1'",
    "'9223372036854775807'",
    "'nan'",
    "'\\0\\255'",
    "'\u{e9}'",
    "('x'):rep(2000)",
    "('x'):rep(70000)",
    "('x'):rep(1e6)",
    "nested",
    "('a?'):rep(30)",
    "('('):rep(40)",
    "'(.-)*%1'",
    "'%'",
    "'%s %d %q'",
    "'%99.99f'",
    "'%b()'",
    "'[^%w'",
    "'content-type'",
    "'x-a'",
    "'read'",
    "'a\\r\\nb'",
    "'{\"a\":[1]}'",
    "'!*t'",
    "'%Y-%j'",
    "'<i16>s8'",
    "'*'",
];

const VALUES: &[&str] = &[
    "kvdb.json.decode('9223372036854775807')",
    "kvdb.json.decode('-9223372036854775808')",
    "kvdb.json.null",
    "kvdb.json.empty_array",
    "kvdb",
    "kvdb.var",
    "kvdb.req",
    "kvdb.header",
    "kvdb.scope",
    "_G",
    "string",
    "a",
    "b",
    "n",
    "deep",
    "cyclic",
    "kind",
    "odd",
    "angry",
    "{}",
    "{1, nil, 3}",
    "{ttl = 1e300}",
    "{ttl = -1, if_version = 'x'}",
    "{if_absent = true, ttl = 60}",
    "{limit = 0/0, after = 1}",
    "{limit = 2, reverse = true, values = true}",
    "{prefix = 'a', permissions = 'read'}",
    "{prefix = {}, permissions = {1}, ttl = 2^60}",
    "{[1e15] = 1, [-1] = 2}",
    "table.create(20000, 'x')",
    "function() error({}) end",
    "function(...) return ... end",
    "function() return coroutine.yield(1) end",
    "function() while true do end end",
    "function(x) return x, x end",
    "print",
    "error",
    "pcall",
    "coroutine.create(function() error(kind) end)",
    "coroutine.running()",
    "...",
];

const FUNCTIONS: &[&str] = &[
    "kvdb.get",
    "kvdb.set",
    "kvdb.set",
    "kvdb.incr",
    "kvdb.delete",
    "kvdb.list",
    "kvdb.print",
    "kvdb.say",
    "kvdb.log",
    "kvdb.exit",
    "kvdb.abort",
    "kvdb.redirect",
    "kvdb.commit",
    "kvdb.access_token",
    "kvdb.json.encode",
    "kvdb.json.encode",
    "kvdb.json.decode",
    "kvdb.base64.encode",
    "kvdb.base64.decode",
    "kvdb.sha256",
    "kvdb.hmac",
    "kvdb.uuid",
    "kvdb.now",
    "require",
    "print",
    "string.rep",
    "string.format",
    "string.find",
    "string.match",
    "string.gmatch",
    "string.gsub",
    "string.byte",
    "string.char",
    "string.sub",
    "string.split",
    "string.reverse",
    "string.upper",
    "string.len",
    "string.pack",
    "string.unpack",
    "string.packsize",
    "table.concat",
    "table.insert",
    "table.remove",
    "table.sort",
    "table.move",
    "table.create",
    "table.clone",
    "table.freeze",
    "table.pack",
    "table.unpack",
    "table.find",
    "table.clear",
    "table.maxn",
    "math.random",
    "math.randomseed",
    "math.floor",
    "math.min",
    "math.ldexp",
    "math.noise",
    "math.clamp",
    "tostring",
    "tonumber",
    "setmetatable",
    "getmetatable",
    "rawget",
    "rawlen",
    "rawequal",
    "select",
    "unpack",
    "pcall",
    "pcall",
    "xpcall",
    "error",
    "assert",
    "next",
    "pairs",
    "ipairs",
    "type",
    "typeof",
    "coroutine.wrap",
    "coroutine.create",
    "coroutine.resume",
    "coroutine.status",
    "coroutine.close",
    "coroutine.yield",
    "utf8.char",
    "utf8.codepoint",
    "utf8.len",
    "utf8.offset",
    "utf8.codes",
    "bit32.lshift",
    "bit32.extract",
    "buffer.create",
    "buffer.fromstring",
    "buffer.readf64",
    "buffer.copy",
    "os.time",
    "os.date",
    "os.clock",
    "os.difftime",
    "kind",
    "odd",
    "angry",
    "loadstring",
    "newproxy",
    "getfenv",
    "collectgarbage",
    "kvdb.nothing",
];

fn one_of(words: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    select(words).prop_map(str::to_owned)
}

fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![3 => one_of(SCALARS), 4 => one_of(VALUES)];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let arguments = vec(inner.clone(), 0..5).prop_map(|arguments| arguments.join(", "));
        let call =
            (one_of(FUNCTIONS), arguments).prop_map(|(name, with)| format!("{name}({with})"));
        let operators =
            one_of(&["+", "-", "*", "/", "//", "%", "^", "..", "==", "~=", "<", "<=", "and", "or"]);
        let binary = (inner.clone(), operators, inner.clone())
            .prop_map(|(left, operator, right)| format!("(({left}) {operator} ({right}))"));
        let unary = (one_of(&["-", "not ", "#"]), inner.clone())
            .prop_map(|(operator, of)| format!("{operator}({of})"));
        let field = (inner.clone(), one_of(SCALARS)).prop_map(|(of, at)| format!("({of})[{at}]"));
        let caught =
            inner.prop_map(|of| format!("select(2, pcall(function(...) return {of} end))"));
        prop_oneof![6 => call, 2 => binary, 1 => unary, 1 => field, 2 => caught]
    })
}

fn statement() -> impl Strategy<Value = String> {
    // A table or a function as a key has no order that is the same in every run, so none is one.
    let at = one_of(SCALARS);
    let own = one_of(&[
        "kvdb.status",
        "kvdb.scope.prefix",
        "kvdb.scope.permissions",
        "kvdb.x",
        "n",
        "a.x",
    ]);
    let simple = prop_oneof![
        4 => expression().prop_map(|value| format!("local _ = {value}")),
        2 => expression().prop_map(|value| format!("kvdb.print(tostring({value}))")),
        1 => (at.clone(), expression()).prop_map(|(at, value)| format!("b[{at}] = {value}")),
        1 => (at, expression()).prop_map(|(at, value)| format!("kvdb.header[{at}] = {value}")),
        2 => (own, expression()).prop_map(|(name, value)| format!("{name} = {value}")),
        1 => expression().prop_map(|value| format!("if n == 1 then error({value}) end")),
    ];
    simple.prop_recursive(3, 16, 4, |inner| {
        let block = vec(inner, 1..4).prop_map(|statements| statements.join("\n"));
        let around = |before: &'static str, after: &'static str| {
            move |block: String| format!("{before}\n{block}\n{after}")
        };
        prop_oneof![
            4 => block.clone().prop_map(around("pcall(function(...)", "end, 1)")),
            1 => block.clone().prop_map(around("xpcall(function(...)", "end, kvdb.say)")),
            1 => block.clone().prop_map(around("coroutine.wrap(function(...)", "end)(a)")),
            1 => block.clone().prop_map(around("for i = 1, 3 do", "end")),
            1 => (expression(), block.clone())
                .prop_map(|(over, block)| format!("for k, v in {over} do\n{block}\nend")),
            1 => block.prop_map(around("while true do", "end")),
        ]
    })
}

fn program() -> impl Strategy<Value = String> {
    let prefix =
        select(&["", "kvdb.set('k', 'lost')\n", "kvdb.commit()\n", "kvdb.status = 404\n"][..]);
    (prefix, vec(statement(), 1..6))
        .prop_map(|(prefix, statements)| format!("{prefix}{}", statements.join("\n")))
}

fn field() -> World {
    let mut world = World::new(TIGHT)
        .with("k", "v")
        .with("n", "9223372036854775806")
        .with("a/x", "\u{e9}")
        .script("m", "kvdb.incr('n', 1) return {kvdb.get('n')}")
        .script("self", "return require('self')")
        .var("k", "v")
        .var("\u{e9}", "\0");
    let patch = PolicyPatch { signing_key: Some("g".to_owned()), ..PolicyPatch::default() };
    world = world.policy(patch);
    world.request.body = Bytes::from_static(b"{\"a\":\xff}");
    world
}

/// What is the same in every run, unless the machine's limits ended it. Fuel is among them: where errors
/// are caught, two runs were seen to count a step more or less in 30,000.
fn shown(ran: &Ran) -> Option<String> {
    let ended = match &ran.result {
        Err(Error::ScriptLimit { limit, .. }) => ["time", "memory", "fuel"].contains(limit),
        _ => false,
    };
    (!ended).then(|| format!("{}{:?}", golden(ran), ran.log))
}

fn judge(ran: &Ran) -> TestCaseResult {
    let limit = Duration::from_millis(TIGHT.time_ms) + MARGIN;
    prop_assert!(ran.took < limit, "took {:?}", ran.took);
    let text = match &ran.result {
        Ok(answer) => {
            let kept = answer.status < 400 || answer.committed;
            prop_assert!(kept || ran.rows.is_empty(), "writes of a refused call");
            prop_assert!(answer.body.len() <= TIGHT.output_bytes);
            String::from_utf8_lossy(&answer.body).into_owned()
        }
        Err(error) => {
            prop_assert!(ran.rows.is_empty(), "writes of a failed call");
            let known = matches!(
                error,
                Error::Script { .. }
                    | Error::ScriptLimit { .. }
                    | Error::TooLarge { .. }
                    | Error::Quota { .. }
            );
            prop_assert!(known, "{error:?}");
            error.to_string()
        }
    };
    for hidden in [": 0x", "mlua", ".rs", "[kvdb]", "panic"] {
        prop_assert!(!text.contains(hidden), "shows {hidden}: {text}");
    }
    Ok(())
}

#[test]
fn no_program_harms() {
    fuzz(150, program(), |program: String| {
        let source = format!("{PREAMBLE}{program}");
        let mut world = field();
        let ran = world.run(&source);
        judge(&ran)?;
        let after = world.run("kvdb.say(kvdb.get('k'), #kvdb.list(''), n, deep)");
        prop_assert_eq!(golden(&after), "200\ncontent-type: text/plain\n> v3nilnil\\n\n");
        let again = field().run(&source);
        if let (Some(first), Some(second)) = (shown(&ran), shown(&again)) {
            prop_assert_eq!(first, second);
        }
        Ok(())
    });
}

#[test]
fn no_bytes_are_a_program_that_harms() {
    let words = one_of(&[
        "local ",
        "function ",
        "end ",
        "if ",
        "then ",
        "(",
        ")",
        "{",
        "}",
        "[[",
        "]]",
        "'",
        "\"",
        "`",
        "{`",
        "--",
        "--[[",
        "::",
        "=",
        "...",
        "\\",
        "\0",
        "\u{feff}",
        "0x",
        "1e",
        ";",
        "return ",
        "continue ",
        "type T = ",
        "export ",
        "<",
        ">",
        "?",
        "|",
        "@native ",
        "a",
        "kvdb.",
        "repeat ",
        "until ",
        "\n",
    ]);
    let repeated = (words.clone(), 1usize..20_000)
        .prop_map(|(word, times)| word.repeat(times.min(64 * 1024 / word.len().max(1))));
    let source = prop_oneof![4 => vec(words, 0..60).prop_map(|words| words.concat()), 1 => repeated, 1 => any::<String>()];
    fuzz(150, source, |source: String| {
        let begun = Instant::now();
        let checked = crate::script::check(&ScriptName::parse("test").unwrap(), &source);
        prop_assert!(begun.elapsed() < MARGIN, "compiling took {:?}", begun.elapsed());
        match checked {
            Ok(()) => judge(&field().run(&source)),
            Err(Error::Invalid(text)) => {
                prop_assert!(text.starts_with("script `test`"), "{text}");
                Ok(())
            }
            Err(Error::TooLarge { .. }) => Ok(()),
            Err(other) => Err(TestCaseError::fail(format!("{other:?}"))),
        }
    });
}
