//! The commands that ask a node over HTTP.

use std::io::{Read, Write};
use std::process::ExitCode;

use bytes::Bytes;

use super::{Bucket, Cluster, Command, Failure, Script, Server};
use crate::api::{NewBucket, Status};
use crate::client::{Client, ListOptions};

/// Keys of a list that are asked for at a time with what they hold: a page is held in memory.
const VALUES_PAGE: usize = 1_000;

type Result<T> = std::result::Result<T, Failure>;

/// Runs a command that asks; its exit code.
pub(super) fn run(server: &Server, command: Command) -> Result<ExitCode> {
    let admin_key = server.admin_key.as_ref().map(|key| key.expose().to_owned());
    let client = Client::new(&server.url, server.bucket_key.clone(), admin_key)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Other(format!("the runtime: {error}")))?;
    runtime.block_on(ask(&client, command))
}

async fn ask(client: &Client, command: Command) -> Result<ExitCode> {
    match command {
        Command::Start(_) | Command::Bench(_) => {
            return Err(Failure::Other("that is no question".to_owned()));
        }
        Command::Status => print(&status(&client.status().await?))?,
        Command::Bucket(bucket) => return create(client, bucket).await,
        Command::Get { bucket, key } => print(&client.get(&bucket, key.as_bytes()).await?)?,
        Command::Set { bucket, key, value } => {
            let value = if value == "-" { read("-")? } else { value.into() };
            client.set(&bucket, key.as_bytes(), value).await?;
        }
        Command::Incr { bucket, key, by } => {
            print_line(&client.incr(&bucket, key.as_bytes(), &by).await?)?;
        }
        Command::Delete { bucket, key } => client.delete(&bucket, key.as_bytes()).await?,
        Command::List { bucket, prefix, values, limit, reverse } => {
            let options = ListOptions { prefix, values, limit, reverse, ..ListOptions::default() };
            list(client, &bucket, options).await?;
        }
        Command::Script(script) => return ask_script(client, script).await,
        Command::Cluster(cluster) => ask_cluster(client, cluster).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Lists keys, as many as there are where no limit is named: page by page.
async fn list(client: &Client, bucket: &str, mut options: ListOptions) -> Result<()> {
    let limited = options.limit.is_some();
    if options.values && !limited {
        options.limit = Some(VALUES_PAGE);
    }
    loop {
        let (lines, cursor) = client.list(bucket, &options).await?;
        print(&lines)?;
        options.cursor = cursor.filter(|_| !limited);
        if options.cursor.is_none() {
            return Ok(());
        }
    }
}

async fn create(client: &Client, bucket: Bucket) -> Result<ExitCode> {
    let Bucket::Create { id, secret_key, write_key, read_key } = bucket;
    let new = NewBucket { id, secret_key, write_key, read_key, ..NewBucket::default() };
    print_line(client.create_bucket(&new).await?.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

async fn ask_script(client: &Client, script: Script) -> Result<ExitCode> {
    match script {
        Script::Put { bucket, name, file } => {
            let version = client.put_script(&bucket, &name, read(&file)?).await?;
            print_line(version.as_bytes())?;
        }
        Script::Run { bucket, name, args } => {
            let args = args.iter().map(|arg| pair(arg)).collect::<Result<Vec<_>>>()?;
            let answer = client.run_script(&bucket, &name, &args).await?;
            print(&answer.body)?;
            if answer.status.as_u16() >= 400 {
                note(&format!("the script answered {}", answer.status));
                return Ok(ExitCode::from(1));
            }
            if let Some(location) = answer.headers.get(http::header::LOCATION) {
                note(&format!("{}: {}", answer.status, location.to_str().unwrap_or_default()));
            }
        }
        Script::List { bucket } => {
            for script in client.scripts(&bucket).await? {
                let line =
                    format!("{} version={} bytes={}", script.name, script.version, script.bytes);
                print_line(line.as_bytes())?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn ask_cluster(client: &Client, cluster: Cluster) -> Result<()> {
    let answer = match cluster {
        Cluster::List => client.status().await?,
        Cluster::Add { peer_addr } => client.add_member(&peer_addr).await?,
        Cluster::Promote { id } => client.promote(id).await?,
        Cluster::Remove { id } => client.remove(id).await?,
        Cluster::Transfer { id } => client.transfer(id).await?,
        Cluster::Snapshot => client.snapshot().await?,
    };
    print(&members(&answer))
}

/// `NAME=VALUE`.
pub(super) fn pair(argument: &str) -> Result<(String, String)> {
    let (name, value) = argument
        .split_once('=')
        .ok_or_else(|| Failure::Usage(format!("`{argument}`: write NAME=VALUE")))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A file's bytes, or standard input's.
fn read(file: &str) -> Result<Bytes> {
    let mut bytes = Vec::new();
    let read = match file {
        "-" => std::io::stdin().lock().read_to_end(&mut bytes),
        path => std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes)),
    };
    read.map_err(|error| Failure::Other(format!("cannot read {file}: {error}")))?;
    Ok(bytes.into())
}

pub(super) fn print(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // Whoever reads has read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| Failure::Other(format!("cannot write: {error}"))),
    }
}

fn print_line(bytes: &[u8]) -> Result<()> {
    print(&[bytes, b"\n"].concat())
}

/// Says something beside the answer.
pub(super) fn note(text: &str) {
    // Where standard error is closed, nobody wants to know.
    let _ = writeln!(std::io::stderr(), "kvdb: {text}");
}

fn status(status: &Status) -> Vec<u8> {
    let leader = match (status.leader, &status.leader_url) {
        (Some(id), Some(url)) => format!("node {id} at {url}"),
        (Some(id), None) => format!("node {id}"),
        (None, _) => "none".to_owned(),
    };
    let mut text = format!(
        "node      {} ({})\nleader    {leader}\nterm      {}\napplied   {} of {}\nsnapshot  {} \
         (log purged to {})\ncluster   {}\n",
        status.node_id,
        status.state,
        status.term,
        status.applied_index,
        status.last_log_index,
        status.snapshot_index,
        status.purged_index,
        status.cluster_id,
    )
    .into_bytes();
    text.extend(members(status));
    text
}

fn members(status: &Status) -> Vec<u8> {
    let mut text = format!("{:<6}{:<9}{:<8}{:<24}{}\n", "id", "role", "leads", "peers", "clients");
    for member in &status.members {
        let leads = if status.leader == Some(member.id) { "yes" } else { "-" };
        text += &format!(
            "{:<6}{:<9}{leads:<8}{:<24}{}\n",
            member.id, member.role, member.peer_addr, member.url
        );
    }
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Member;

    #[test]
    fn arguments_are_pairs() {
        assert_eq!(pair("a=b=c").unwrap(), ("a".to_owned(), "b=c".to_owned()));
        assert_eq!(pair("a=").unwrap(), ("a".to_owned(), String::new()));
        assert!(matches!(pair("a"), Err(Failure::Usage(_))));
    }

    #[test]
    fn a_status_on_a_screen() {
        let member = |id: u64| Member {
            id,
            role: "voter".to_owned(),
            peer_addr: format!("127.0.0.1:74{id}1"),
            url: format!("http://127.0.0.1:74{id}0"),
        };
        let shown = status(&Status {
            cluster_id: "c".to_owned(),
            node_id: 1,
            state: "follower".to_owned(),
            leader: Some(2),
            leader_url: Some("http://127.0.0.1:7420".to_owned()),
            term: 3,
            last_log_index: 12,
            committed_index: 11,
            applied_index: 11,
            snapshot_index: 0,
            purged_index: 0,
            members: vec![member(1), member(2)],
        });
        let expected = "\
node      1 (follower)
leader    node 2 at http://127.0.0.1:7420
term      3
applied   11 of 12
snapshot  0 (log purged to 0)
cluster   c
id    role     leads   peers                   clients
1     voter    -       127.0.0.1:7411          http://127.0.0.1:7410
2     voter    yes     127.0.0.1:7421          http://127.0.0.1:7420
";
        assert_eq!(String::from_utf8(shown).unwrap(), expected);
    }
}
