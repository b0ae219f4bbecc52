//! A script call: from the transaction that it begins in to the writes that it leaves. It is compiled already.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use kvdb::error::Result;
use kvdb::executor::{ScriptCall, find_script};
use kvdb::kv::{Credential, Overlay, ScriptName, SharedView, Transaction};
use kvdb::script::{Call, Limits, Request, Vm, Watch};

use super::Running;
use super::fixture::{self, BUCKET, NOW};

/// As a node has them.
const LIMITS: Limits = Limits {
    fuel: 100_000_000,
    time_ms: 1000,
    memory_bytes: 32 << 20,
    output_bytes: 8 << 20,
    value_bytes: 1 << 20,
};
const CART: &str = r#"{"user":"u17","items":[
{"sku":"A-100","count":2,"price":1999},{"sku":"B-200","count":1,"price":4950},
{"sku":"C-300","count":5,"price":250},{"sku":"D-400","count":1,"price":129900}],
"note":"leave it at the door","gift":false}"#;

/// Time does not run out.
struct Endless;

impl Watch for Endless {
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

pub(super) fn counter() -> Result<Running> {
    running("counter", &[("name", "hits")], "")
}

pub(super) fn transfer() -> Result<Running> {
    running("transfer", &[("from", "17"), ("to", "42"), ("amount", "5")], "")
}

pub(super) fn json() -> Result<Running> {
    running("json", &[], CART)
}

fn running(name: &str, vars: &[(&str, &str)], body: &'static str) -> Result<Running> {
    let vars = vars.iter().chain(&[("remote_addr", "192.0.2.7")]);
    let vars: BTreeMap<_, _> =
        vars.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let request = Request {
        method: "POST".to_owned(),
        path: format!("/{}/scripts/{name}", fixture::NAME),
        headers: vec![header("host", "localhost:7400"), header("accept", "*/*")],
        body: body.into(),
    };
    let call = ScriptCall {
        name: ScriptName::parse(name)?,
        vars: Arc::new(vars),
        request: Arc::new(request),
    };
    let memory = fixture::memory()?;
    let mut overlay = Overlay::default();
    overlay.trim(&fixture::meta(&memory)?);
    let (view, mut vm): (SharedView, _) = (Arc::new(memory), Vm::new(LIMITS)?);
    let watch: Rc<dyn Watch> = Rc::new(Endless);
    Ok(Running::new(move || {
        let ahead = std::mem::take(&mut overlay);
        let mut txn = Transaction::new(Arc::clone(&view), BUCKET, ahead, NOW);
        let found = find_script(&call, &Credential::NONE, &mut txn);
        let (grant, script) = found.expect("the script is there");
        let call = Call {
            name: call.name.clone(),
            script,
            vars: Arc::clone(&call.vars),
            request: Arc::clone(&call.request),
            grant,
            seed: 42,
        };
        let report = vm.run(&call, txn, Rc::clone(&watch));
        let answer = report.result.expect("the script ends well");
        let (back, writes, _) = report.txn.finish();
        assert!(answer.status == 200 && !writes.is_empty(), "it did what it is for");
        overlay = back;
    }))
}
