//! What comes through: the network is asked, not the rules.
//!
//! Invariants:
//! - A cut is there when nothing of several attempts comes back; one lost packet proves nothing.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tokio::task::JoinSet;

use crate::lab::{HARNESS, Network, shell};
use crate::nemesis::background;

/// How long a connection may take. A lost SYN is sent again after a second.
const CONNECT: Duration = Duration::from_millis(1500);

/// One end of a path: a node, or the harness on the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nemesis) enum End {
    Node(u64),
    Harness,
}

impl End {
    fn address(self) -> String {
        match self {
            End::Node(id) => Network::address(id),
            End::Harness => HARNESS.to_owned(),
        }
    }
}

/// What pings said.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::nemesis) struct Pings {
    pub(in crate::nemesis) sent: u32,
    pub(in crate::nemesis) received: u32,
    /// Milliseconds.
    pub(in crate::nemesis) average: f64,
    /// Answers that came after one that was asked for later.
    pub(in crate::nemesis) overtaken: u32,
}

/// Sends pings, some milliseconds apart, and waits for each at most `wait` seconds.
pub(in crate::nemesis) async fn ping(from: End, to: End, options: &str) -> Result<Pings, String> {
    let line = format!("ping -n {options} {}", to.address());
    let mut command = match from {
        End::Node(id) => Network::inside(id, &line),
        End::Harness => shell(&line),
    };
    // Its status says whether an answer came: no error of ours.
    let output = background::blocking(move || command.output().map_err(|e| e.to_string())).await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    parse(&text)
        .ok_or_else(|| format!("{line}: {text} {}", String::from_utf8_lossy(&output.stderr).trim()))
}

fn parse(text: &str) -> Option<Pings> {
    let mut pings = Pings::default();
    let mut latest = 0;
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("icmp_seq=") {
            let number: u32 = rest.split(' ').next()?.parse().ok()?;
            pings.overtaken += u32::from(number < latest);
            latest = latest.max(number);
        } else if line.contains("packets transmitted") {
            let mut numbers = line.split(' ').filter_map(|word| word.parse().ok());
            (pings.sent, pings.received) = (numbers.next()?, numbers.next()?);
        } else if let Some(times) = line.strip_prefix("rtt min/avg/max/mdev = ") {
            pings.average = times.split('/').nth(1)?.parse().ok()?;
        }
    }
    (pings.sent > 0).then_some(pings)
}

/// Whether anything comes through from one node to another and back. Asks often: other faults lose some.
pub(super) async fn passes(from: End, to: End) -> Result<bool, String> {
    Ok(ping(from, to, "-c 8 -i 0.05 -W 0.7").await?.received > 0)
}

/// Those of the pairs that nothing comes through between, asked all at once.
pub(super) async fn silent(pairs: &[(u64, u64)]) -> Result<Vec<(u64, u64)>, String> {
    let mut asked = JoinSet::new();
    for (from, to) in pairs.iter().copied() {
        asked.spawn(async move { Ok(((from, to), passes(End::Node(from), End::Node(to)).await?)) });
    }
    let answers: Result<Vec<_>, String> = asked.join_all().await.into_iter().collect();
    let mut silent: Vec<_> =
        answers?.into_iter().filter(|(_, passes)| !passes).map(|(pair, _)| pair).collect();
    silent.sort_unstable();
    Ok(silent)
}

/// Whether a node's port can be asked for a connection: it is opened, or refused.
pub(super) async fn reaches(from: End, to: u64, port: u16) -> Result<bool, String> {
    let answer = connect(from, to, port).await?;
    Ok(matches!(answer, Ok(()) | Err(ErrorKind::ConnectionRefused)))
}

/// Tries to open a connection to a node's port.
pub(super) async fn connect(
    from: End,
    to: u64,
    port: u16,
) -> Result<Result<(), ErrorKind>, String> {
    let address: SocketAddr =
        format!("{}:{port}", Network::address(to)).parse().map_err(|e| format!("{e}"))?;
    let attempt = move || {
        Ok(TcpStream::connect_timeout(&address, CONNECT).map(drop).map_err(|error| error.kind()))
    };
    background::blocking(move || match from {
        End::Node(id) => Network::within(id, attempt),
        End::Harness => attempt(),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_ping_prints() {
        let text = "PING 10.77.0.2 (10.77.0.2) 56(84) bytes of data.\n\
            64 bytes from 10.77.0.2: icmp_seq=2 ttl=64 time=0.3 ms\n\
            64 bytes from 10.77.0.2: icmp_seq=1 ttl=64 time=90.3 ms\n\n\
            --- 10.77.0.2 ping statistics ---\n\
            3 packets transmitted, 2 received, 33% packet loss, time 5ms\n\
            rtt min/avg/max/mdev = 0.300/45.300/90.300/0.000 ms\n";
        let pings = parse(text).unwrap();
        assert_eq!(pings, Pings { sent: 3, received: 2, average: 45.3, overtaken: 1 });
        assert_eq!(parse("ping: unknown host"), None);
    }
}
