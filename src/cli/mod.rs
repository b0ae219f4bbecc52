//! The command line: `kvdb start` runs a node, everything else asks one over HTTP.
//!
//! What a command answers goes to standard output, what it has to say about it to standard error.
//! Exit codes: 0 done; 1 refused, or not there; 2 asked wrongly; 3 nobody there or no leader, ask
//! again; 4 the outcome of a write is not known.

mod ask;
mod bench;
mod start;

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::client::ClientError;
use crate::config::{Options, Secret};

const EXAMPLES: &str = "\
Examples:
  kvdb start --data ./data                    a database of one node
  kvdb bucket create --id shop                a bucket that all may use
  kvdb set shop apples 3                      a key
  kvdb incr shop apples 2                     prints 5
  kvdb list shop --values                     prints apples=5
  kvdb script put shop hello hello.lua        a script
  kvdb script run shop hello name=world       runs it on the leader
  kvdb status                                 who leads, who follows
  kvdb bench                                  how fast it is

Exit codes:
  0 done   1 refused, or not there   2 asked wrongly
  3 nobody there or no leader: ask again   4 a write may or may not have happened";

/// The version; a build that can have planted bugs says so.
const VERSION: &str = if cfg!(feature = "mutants") {
    concat!(env!("CARGO_PKG_VERSION"), "+mutants")
} else {
    env!("CARGO_PKG_VERSION")
};

/// A replicated key-value store that people program.
#[derive(Debug, Parser)]
#[command(name = "kvdb", version = VERSION, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    server: Server,
    #[command(subcommand)]
    command: Command,
}

/// Which server to ask, and as whom.
#[derive(Debug, Args)]
struct Server {
    /// The node to ask; any will do.
    #[arg(long, global = true, env = "KVDB_URL", default_value = "http://127.0.0.1:7400")]
    url: String,
    /// The secret, write or read key of the bucket.
    // Not called `key`: clap would take the commands' KEY argument for it.
    #[arg(
        long = "key",
        global = true,
        env = "KVDB_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    bucket_key: Option<String>,
    /// The cluster's admin key.
    // `start` has its own of this name and type; clap then leaves this one out there.
    #[arg(long, global = true, env = "KVDB_ADMIN_KEY", hide_env_values = true, value_name = "KEY")]
    admin_key: Option<Secret>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node.
    #[command(after_help = START_EXAMPLES)]
    Start(Box<Start>),
    /// Show the cluster as a node sees it.
    Status,
    /// Create buckets.
    #[command(subcommand)]
    Bucket(Bucket),
    /// Print what a key holds.
    Get {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// Set a key.
    #[command(after_help = "Examples:\n  kvdb set shop apples 3\n  kvdb set shop logo - <logo.png")]
    Set {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
        /// Its value; `-` reads standard input.
        #[arg(allow_hyphen_values = true)]
        value: String,
    },
    /// Add to a number and print the sum.
    Incr {
        /// The bucket.
        bucket: String,
        /// The key; counts from 0 where there is none.
        key: String,
        /// How much, negative to subtract.
        #[arg(default_value = "1", allow_hyphen_values = true)]
        by: String,
    },
    /// Remove a key.
    Delete {
        /// The bucket.
        bucket: String,
        /// The key.
        key: String,
    },
    /// List keys, a line each.
    #[command(
        after_help = "Examples:\n  kvdb list shop\n  kvdb list shop user: --values --limit 10"
    )]
    List {
        /// The bucket.
        bucket: String,
        /// Only keys that begin with this.
        #[arg(default_value = "")]
        prefix: String,
        /// Show what they hold: KEY=VALUE.
        #[arg(long)]
        values: bool,
        /// No more than this.
        #[arg(long)]
        limit: Option<usize>,
        /// From the last to the first.
        #[arg(long)]
        reverse: bool,
    },
    /// Upload, run and list scripts.
    #[command(subcommand)]
    Script(Script),
    /// Show and change the members of the cluster.
    #[command(subcommand)]
    Cluster(Cluster),
    /// Put load on a cluster and tell throughput and latency.
    #[command(after_help = bench::EXAMPLES)]
    Bench(Box<bench::Bench>),
}

const START_EXAMPLES: &str = "\
Examples:
  kvdb start --data ./data

  Three nodes on one machine; the others have node ids 2 and 3 and ports of their own:
  kvdb start --node-id 1 --data ./n1 --listen 127.0.0.1:7400 --peer-listen 127.0.0.1:7401 \\
      --join 127.0.0.1:7401,127.0.0.1:7411,127.0.0.1:7421 --cluster-secret S

Each option may also be in the environment or in the file; a flag comes before the environment, and
the environment before the file. `kvdb start --data ./data --print-config` writes such a file.";

/// Options of `kvdb start`.
#[derive(Debug, Args)]
struct Start {
    /// A TOML file with any of the options below, by the same names.
    #[arg(long, env = "KVDB_CONFIG", value_name = "FILE")]
    config: Option<std::path::PathBuf>,
    /// Print the settled configuration, and what each entry means, and stop.
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    options: Options,
}

#[derive(Debug, Subcommand)]
enum Bucket {
    /// Create a bucket and print its name.
    #[command(
        after_help = "Examples:\n  kvdb bucket create\n  kvdb bucket create --id shop --secret-key S --write-key W"
    )]
    Create {
        /// Its name; without one, a name that nobody can guess.
        #[arg(long, value_name = "NAME")]
        id: Option<String>,
        /// The owner's key.
        #[arg(long, value_name = "KEY")]
        secret_key: Option<String>,
        /// The key for writing; without one, all may.
        #[arg(long, value_name = "KEY")]
        write_key: Option<String>,
        /// The key for reading; without one, all may.
        #[arg(long, value_name = "KEY")]
        read_key: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Script {
    /// Upload a script and print its version.
    Put {
        /// The bucket.
        bucket: String,
        /// Its name.
        name: String,
        /// The file; `-` reads standard input.
        file: String,
    },
    /// Run a script and print what it answered.
    #[command(after_help = "Examples:\n  kvdb script run shop hello name=world")]
    Run {
        /// The bucket.
        bucket: String,
        /// Its name.
        name: String,
        /// What `kvdb.var` holds.
        #[arg(value_name = "NAME=VALUE")]
        args: Vec<String>,
    },
    /// List scripts with version and size.
    List {
        /// The bucket.
        bucket: String,
    },
}

#[derive(Debug, Subcommand)]
enum Cluster {
    /// Show the members.
    List,
    /// Add the node that listens there for peers, as a learner.
    Add {
        /// Its peer address.
        peer_addr: String,
    },
    /// Make a learner a voter.
    Promote {
        /// Its node id.
        id: u64,
    },
    /// Remove a member; its id never returns.
    Remove {
        /// Its node id.
        id: u64,
    },
    /// Hand leadership to a voter.
    Transfer {
        /// Its node id.
        id: u64,
    },
    /// Have the node that is asked take a snapshot and purge its log.
    Snapshot,
}

/// Why a command failed.
#[derive(Debug)]
enum Failure {
    /// Asked wrongly.
    Usage(String),
    /// Could not be done.
    Other(String),
    /// Said by the client.
    Client(ClientError),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Failure::Client(error)
    }
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Failure::Other(_) => 1,
            Failure::Usage(_) | Failure::Client(ClientError::Invalid(_)) => 2,
            Failure::Client(ClientError::Unreachable { .. }) => 3,
            Failure::Client(ClientError::Broken { .. }) => 4,
            Failure::Client(ClientError::Malformed { .. }) => 1,
            Failure::Client(ClientError::Refused { code, .. }) => match code.as_str() {
                "no_leader" | "overloaded" | "rate_limited" => 3,
                "outcome_unknown" => 4,
                _ => 1,
            },
        }
    }
}

/// What failed, and what to do.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let error = match self {
            Failure::Usage(message) | Failure::Other(message) => return f.write_str(message),
            Failure::Client(error) => error,
        };
        write!(f, "{error}")?;
        f.write_str(advice(error))
    }
}

fn advice(error: &ClientError) -> &'static str {
    match error {
        ClientError::Unreachable { .. } => {
            "\nStart a node with `kvdb start --data DIR`, or name one with --url."
        }
        ClientError::Broken { .. } => {
            "\nA write may or may not have happened: look before you repeat."
        }
        ClientError::Refused { code, .. } => match code.as_str() {
            "bucket_not_found" => "\nCreate it with `kvdb bucket create --id NAME`.",
            "script_not_found" => "\nUpload it with `kvdb script put BUCKET NAME FILE`.",
            "unauthorized" | "forbidden" => {
                "\nGive the bucket's key with --key (KVDB_KEY), the cluster's with --admin-key."
            }
            "no_leader" | "overloaded" | "rate_limited" => {
                "\nNothing was done: ask again in a moment."
            }
            "outcome_unknown" => {
                "\nThe write may or may not have happened: look before you repeat."
            }
            _ => "",
        },
        ClientError::Malformed { .. } => "\nIs it a KVdb node that answers there?",
        ClientError::Invalid(_) => "",
    }
}

/// Runs the command line of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(failure) => {
            // Where standard error is closed, the exit code still speaks.
            let _ = writeln!(std::io::stderr(), "kvdb: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Start(start) => start::run(*start),
        Command::Bench(bench) => bench::run(&cli.server, &bench),
        command => ask::run(&cli.server, command),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::api::Applied;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_tree_is_sound_and_every_option_says_what_it_is() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                let id = argument.get_id();
                assert!(argument.get_help().is_some(), "{} {id}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        Cli::command().debug_assert();
        check(&Cli::command());
        let help = Cli::command().render_help().to_string();
        assert!(help.contains("kvdb start --data ./data"));
    }

    #[test]
    fn global_options_stand_anywhere() {
        for line in [
            "kvdb --url http://a:1 --admin-key A --key K get b k",
            "kvdb get b k --key K --admin-key A --url http://a:1",
        ] {
            let cli = parse(line).unwrap();
            assert_eq!(cli.server.url, "http://a:1");
            assert_eq!(cli.server.bucket_key.as_deref(), Some("K"));
            assert_eq!(cli.server.admin_key.unwrap().expose(), "A");
        }
    }

    #[test]
    fn a_key_to_ask_for_is_no_key_to_ask_with() {
        let cli = parse("kvdb set b k v").unwrap();
        assert_eq!(cli.server.bucket_key, None);
    }

    #[test]
    fn start_takes_the_admin_key_wherever_it_stands() {
        for line in [
            "kvdb start --data d --join a:1,b:2 --admin-key A",
            "kvdb --admin-key A start --data d --join a:1,b:2",
        ] {
            let Command::Start(start) = parse(line).unwrap().command else { panic!("{line}") };
            assert_eq!(start.options.admin_key.unwrap().expose(), "A", "{line}");
            assert_eq!(start.options.join.unwrap().0, ["a:1", "b:2"]);
        }
    }

    #[test]
    fn negative_numbers_and_dashes_are_values() {
        let cli = parse("kvdb incr b k -5").unwrap();
        assert!(matches!(cli.command, Command::Incr { by, .. } if by == "-5"));
        let cli = parse("kvdb set b k -").unwrap();
        assert!(matches!(cli.command, Command::Set { value, .. } if value == "-"));
    }

    #[test]
    fn exit_codes() {
        let refused = |code: &str| {
            Failure::Client(ClientError::Refused {
                status: 0,
                code: code.to_owned(),
                message: String::new(),
                applied: Applied::No,
            })
        };
        assert_eq!(refused("key_not_found").code(), 1);
        assert_eq!(refused("no_leader").code(), 3);
        assert_eq!(refused("outcome_unknown").code(), 4);
        assert_eq!(Failure::Usage(String::new()).code(), 2);
        let (url, cause) = ("http://a".to_owned(), "refused".to_owned());
        let unreachable = Failure::Client(ClientError::Unreachable { url, cause });
        assert_eq!(unreachable.code(), 3);
        assert!(unreachable.to_string().contains("kvdb start --data DIR"));
    }
}
