//! What a workload needs before its clients begin: its bucket, its scripts, the bank's accounts.

use std::time::Duration;

use super::scripts;
use crate::cluster::Cluster;
use crate::http::{Call, Reply};
use crate::model::{ACCOUNTS, BALANCE, account_key};
use crate::wait::{self, holds};

/// How long all of it may take, a step.
const LIMIT: Duration = Duration::from_secs(30);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);
/// What all scripts begin with: a call that was refused ends them.
const MUST: &str = "local function must(err) if err then error(err, 2) end end\n";

/// Makes the bucket of a workload and what is in it, by this node. Nobody else may be at work in it: steps
/// whose outcome is unknown are done again.
pub async fn setup(cluster: &Cluster, workload: &str, node: u64) -> Result<(), String> {
    let at = |path: &str| cluster.at(node, path);
    let form = cluster.http.post(at("/"), format!("id={workload}"));
    let form = form.header("content-type", "application/x-www-form-urlencoded");
    // Where an earlier attempt made it, it is there.
    step(form, |reply| matches!(reply.status, 201 | 409)).await?;
    for (name, source) in scripts(workload) {
        let source = format!("{MUST}{}", source.trim_start());
        let put = cluster.http.put(at(&format!("/{workload}/scripts/{name}")), source);
        step(put.header("content-type", "text/plain"), is_done).await?;
    }
    if workload == "bank" {
        for account in 0..ACCOUNTS {
            let path = format!("/{workload}/{}", account_key(account));
            step(cluster.http.put(at(&path), BALANCE.to_string()), is_done).await?;
        }
    }
    Ok(())
}

fn is_done(reply: &Reply) -> bool {
    matches!(reply.status, 200 | 201)
}

async fn step(call: Call, done: impl Fn(&Reply) -> bool) -> Result<(), String> {
    let call = call.timeout(ATTEMPT);
    wait::try_until(LIMIT, async || {
        let reply = call.clone().send().await.map_err(|failure| failure.reason)?;
        holds(done(&reply), || format!("setting up: {reply}"))
    })
    .await
}
