//! The examples of the reference, as they are shipped.

use super::*;

#[test]
fn hello() {
    let ran = world().var("name", "foo").run(include_str!("../../../deploy/examples/hello.lua"));
    expect(&ran, "200\ncontent-type: text/plain\n> Hello foo\\n");
}

#[test]
fn print() {
    let ran = world().run(include_str!("../../../deploy/examples/print.lua"));
    expect(&ran, "200\ncontent-type: text/plain\n> Hello, world!\\nHello, world!\\n");
}

#[test]
fn redirect() {
    let ran = world().run(include_str!("../../../deploy/examples/redirect.lua"));
    expect(&ran, "302\nlocation: https://example.com/\ncontent-type: text/plain\n>");
}

#[test]
fn status() {
    let ran = world().run(include_str!("../../../deploy/examples/status.lua"));
    expect(&ran, "500\ncontent-type: text/plain\n>");
}

#[test]
fn header() {
    let ran = world().run(include_str!("../../../deploy/examples/header.lua"));
    expect(&ran, "200\ncontent-type: text/html\n> <h1>Hello, world!</h1>\\n");
}

#[test]
fn exit() {
    let ran = world().run(include_str!("../../../deploy/examples/exit.lua"));
    expect(&ran, "403\ncontent-type: text/plain\n>");
}

#[test]
fn get() {
    let source = include_str!("../../../deploy/examples/get.lua");
    expect(
        &world().with("key", "my value").run(source),
        "200\ncontent-type: text/plain\n> value: my value\\n",
    );
    expect(&world().run(source), "200\ncontent-type: text/plain\n> no value\\n");
}

#[test]
fn set() {
    let ran = world().run(include_str!("../../../deploy/examples/set.lua"));
    expect(&ran, "200\ncontent-type: text/plain\n>\nkey = my value");
}

#[test]
fn incr() {
    let ran = world().run(include_str!("../../../deploy/examples/incr.lua"));
    expect(&ran, "200\ncontent-type: text/plain\n> visitors today: 1\\n\nvisitors:2026-11-22 = 1");
}

#[test]
fn delete() {
    let source = include_str!("../../../deploy/examples/delete.lua");
    let ran = world().with("key", "v").run(source);
    expect(&ran, "200\ncontent-type: text/plain\n>\nkey = (deleted)");
    expect(&world().run(source), "200\ncontent-type: text/plain\n>");
}

#[test]
fn list() {
    let mut world = world().with("msg:2", "b").with("msg:1", "a").with("other", "c");
    let ran = world.run(include_str!("../../../deploy/examples/list.lua"));
    expect(&ran, "200\ncontent-type: text/plain\n> msg:1=a\\nmsg:2=b\\n");
}

#[test]
fn scope() {
    let ran = world().run(include_str!("../../../deploy/examples/scope.lua"));
    expect(
        &ran,
        "200
        content-type: text/plain
        > scope prefix: \\nscope permissions: read write enumerate delete \\nerror setting: the permission covers only keys that begin with `users:1:`\\n
        users:1:name = bob",
    );
}

#[test]
fn counter() {
    let source = include_str!("../../../deploy/examples/counter.lua");
    expect(&world().run(source), "200\ncontent-type: text/plain\n> 1\\n\ncounter = 1");
    let ran = world().with("hits", "41").var("counter", "hits").run(source);
    expect(&ran, "200\ncontent-type: text/plain\n> 42\\n\nhits = 42");
    let ran = world().with("hits", "many").var("counter", "hits").run(source);
    expect(
        &ran,
        "400\ncontent-type: text/plain\n> error incrementing: not a number: a counter is an int64 or float64 as text\\n",
    );
}

/// What each of them answers is tested on a cluster: `cluster-tests/tests/examples`.
#[test]
fn every_example_compiles() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples");
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let source = std::fs::read_to_string(&path).unwrap();
        crate::script::check(&crate::kv::ScriptName::parse(&name).unwrap(), &source).unwrap();
    }
}
