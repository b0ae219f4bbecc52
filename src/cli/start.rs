//! `kvdb start`: from configuration to a node that serves, and to its end.
//!
//! The port is taken before the node starts: a port in use is told at once, not after an election.
//! The first SIGTERM or SIGINT ends it in order: readiness off, leadership handed over, connections
//! drained, the node stopped. The second ends it at once; that is as safe as a crash.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{Failure, Start};
use crate::config::{Config, LogFormat, Options};
use crate::error::Error;
use crate::node::Node;
use crate::{http, metrics, mutant};

/// What a shell says of a process that SIGINT ended.
const INTERRUPTED: i32 = 130;
/// How long a process that has stopped in order, or cannot go on, waits for what runs on blocking threads.
const LINGER: Duration = Duration::from_secs(5);

/// Runs a node until it is told to stop.
pub(super) fn run(start: Start) -> Result<ExitCode, Failure> {
    let file = match &start.config {
        Some(path) => read(path)?,
        None => Options::default(),
    };
    let mut config = Config::settle(start.options, file)
        .map_err(|error| Failure::Usage(format!("the configuration is wrong:\n{error}")))?;
    if start.print_config {
        super::ask::print(config.reference().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    trace(&config);
    mutant::announce();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Other(format!("the runtime: {error}")))?;
    let served = runtime.block_on(serve(&mut config));
    // What still runs on a blocking thread then is asked for by nobody, and is cut off as by a crash.
    runtime.shutdown_timeout(LINGER);
    served.map(|()| ExitCode::SUCCESS)
}

fn read(path: &std::path::Path) -> Result<Options, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?;
    Options::parse(&text).map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
}

/// Log lines go to standard error.
fn trace(config: &Config) {
    // The filter was checked with the rest of the configuration.
    let filter = tracing_subscriber::EnvFilter::new(&config.log);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
}

async fn serve(config: &mut Config) -> Result<(), Failure> {
    let failed = |error: Error| Failure::Other(error.to_string());
    let mut stop = Stop::listen()?;
    metrics::install().map_err(failed)?;
    let listener = bind(config).await?;
    let node = Node::start(config).await.map_err(failed)?;
    let service = http::Service::new(node.clone(), config);
    node.set_forward_target(service.forward_target());
    tracing::info!(
        version = super::VERSION,
        node = config.node_id,
        listen = config.listen,
        advertise = config.advertise(),
        data = %config.data().display(),
        "serving"
    );
    let stopping = async {
        stop.told().await;
        tracing::info!("stopping");
        node.begin_shutdown();
        tokio::spawn(async move {
            stop.told().await;
            std::process::exit(INTERRUPTED);
        });
    };
    tokio::select! {
        () = service.serve(listener, stopping) => {}
        reason = node.failed() => return Err(Failure::Other(reason)),
    }
    node.shutdown().await.map_err(failed)?;
    tracing::info!("stopped");
    Ok(())
}

/// Takes the port for clients; port 0 is whichever is free.
async fn bind(config: &mut Config) -> Result<TcpListener, Failure> {
    let failed = |error: std::io::Error| {
        let listen = &config.listen;
        Failure::Other(format!("cannot listen on {listen}: {error}\nChoose another with --listen."))
    };
    let listener = TcpListener::bind(&config.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    if config.listen.ends_with(":0") {
        config.listen = address.to_string();
    }
    Ok(listener)
}

/// The signals that stop a node.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn listen() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::Other(format!("signals: {error}")));
        Ok(Stop {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Ready at the next of them.
    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
