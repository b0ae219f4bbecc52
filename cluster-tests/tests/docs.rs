//! What documents show is what is answered: their transcripts, run by a real shell and curl against a
//! cluster. The form of a transcript is described in `cluster_tests::transcript`.

use std::fs;

use cluster_tests::cluster::Cluster;
use cluster_tests::launch::{ADMIN_KEY, Launch};
use cluster_tests::scenario::Scenario;
use cluster_tests::transcript::Transcript;

/// Each document, and the fewest commands that it has: a block that is not found any more is noticed.
const DOCUMENTS: &[(&str, usize)] =
    &[("README.md", 10), ("docs/api.md", 50), ("docs/scripting.md", 15), ("docs/semantics.md", 10)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn documents_show_what_is_answered() {
    let scenario = Scenario::begin("docs");
    scenario.phase("start three nodes");
    let mut cluster = Launch::of(3).start(&scenario).await;
    cluster.leader().await;
    let here = replacements(&cluster);
    let mut failures = Vec::new();
    for (document, fewest) in DOCUMENTS {
        let text = fs::read_to_string(Scenario::checkout().join(document));
        let transcript = Transcript::of_document(&text.expect("the document is there"));
        let commands = transcript.steps.len();
        scenario.phase(&format!("{document}: {commands} commands"));
        assert!(commands >= *fewest, "{document} has {commands} commands, expected {fewest}");
        let dir = scenario.dir().join(document.replace('/', "-"));
        fs::create_dir(&dir).expect("a directory can be made");
        let found = transcript.run(&dir, &here);
        failures.extend(found.into_iter().map(|failure| format!("{document} {failure}")));
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n\n"));
    cluster.agree().await;
}

/// Documents speak of the nodes and of the admin key of `make cluster`.
fn replacements(cluster: &Cluster) -> Vec<(&'static str, String)> {
    let address = |id: u64| cluster.url(id).trim_start_matches("http://").to_owned();
    vec![
        ("localhost:7411", address(1)),
        ("localhost:7412", address(2)),
        ("localhost:7413", address(3)),
        ("Bearer admin", format!("Bearer {ADMIN_KEY}")),
    ]
}
