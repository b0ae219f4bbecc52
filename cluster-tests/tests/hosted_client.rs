//! Code that was written for the hosted service, with another base URL: a JavaScript client and a
//! transcript of curl, against each node of a cluster.

use std::fs;
use std::process::{Command, Stdio};

use cluster_tests::launch::Launch;
use cluster_tests::scenario::Scenario;
use cluster_tests::transcript::Transcript;

/// What such code says.
const HOSTED: &str = "https://kvdb.io";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn code_for_the_hosted_service_runs_with_another_base_url() {
    let scenario = Scenario::begin("hosted");
    scenario.phase("start three nodes");
    let mut cluster = Launch::of(3).start(&scenario).await;
    cluster.leader().await;
    let hosted = Scenario::checkout().join("cluster-tests/tests/hosted");
    let mut failures = Vec::new();
    let transcript = fs::read_to_string(hosted.join("curl.md")).expect("the transcript is there");
    let transcript = Transcript::of_document(&transcript);
    let has_node = Command::new("node").arg("--version").stdout(Stdio::null()).status();
    let has_node = has_node.is_ok_and(|status| status.success());
    for id in cluster.ids() {
        scenario.phase(&format!("curl against node {id}: {} commands", transcript.steps.len()));
        let dir = scenario.dir().join(format!("curl-{id}"));
        fs::create_dir(&dir).expect("a directory can be made");
        let found = transcript.run(&dir, &[(HOSTED, cluster.url(id).to_owned())]);
        failures.extend(found.into_iter().map(|failure| format!("node {id}, curl.md {failure}")));
        if !has_node {
            scenario.say("!! SKIPPED: the JavaScript client, because `node` is not installed");
            continue;
        }
        scenario.phase(&format!("the JavaScript client against node {id}"));
        failures.extend(javascript(&hosted.join("client.mjs"), cluster.url(id)));
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
    cluster.agree().await;
}

/// Runs the client; what it complained of.
fn javascript(client: &std::path::Path, base: &str) -> Option<String> {
    let output = Command::new("timeout").args(["60", "node"]).arg(client).arg(base).output();
    let output = output.expect("node was found");
    let (out, err) = (&output.stdout, &output.stderr);
    let printed = format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err));
    let passed = output.status.success() && printed.trim_end().ends_with("all as expected");
    (!passed).then(|| format!("client.mjs against {base}: {}\n{printed}", output.status))
}
