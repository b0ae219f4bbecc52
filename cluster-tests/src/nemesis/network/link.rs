//! A node's cable: pulled and plugged in, or thin.

use std::fmt;
use std::time::Duration;

use super::probe::{self, End};
use crate::lab::{Network, shell};
use crate::nemesis::background::{self, Background, Stop};
use crate::nemesis::{Arena, Evidence, Fault, Task};

/// A beat of a flapping link: how long it is down, how long up.
#[derive(Clone, Copy, Debug)]
struct Beat {
    down: Duration,
    up: Duration,
}

/// A link that goes down and up some times, then stays up.
pub(super) struct Flap {
    id: u64,
    beats: Vec<Beat>,
    running: Option<Background>,
}

impl Flap {
    pub(super) fn draw(id: u64, rng: &mut fastrand::Rng) -> Self {
        let beat = |_| Beat {
            down: Duration::from_millis(rng.u64(100..=1500)),
            up: Duration::from_millis(rng.u64(100..=1500)),
        };
        Flap { id, beats: (0..4).map(beat).collect(), running: None }
    }
}

impl fmt::Display for Flap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link of {} down for", self.id)?;
        self.beats.iter().try_for_each(|beat| write!(f, " {}", beat.down.as_millis()))?;
        f.write_str(" ms")
    }
}

impl Fault for Flap {
    fn install<'a>(&'a mut self, _arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(async move {
            set(self.id, "down").await?;
            // Asked first, or the link may be up again; it comes up whatever was seen.
            let first = probe::ping(End::Harness, End::Node(self.id), "-c 3 -i 0.02 -W 0.1").await;
            let (id, beats) = (self.id, self.beats.clone());
            self.running = Some(Background::start(|stop| flap(id, beats, stop)));
            let first = first?;
            if first.received > 0 {
                return Err(format!("{} pings came back while the link was down", first.received));
            }
            Ok(format!("none of {} pings came back while it was down", first.sent))
        })
    }

    fn undo<'a>(&'a mut self, _arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move {
            let flapped = match self.running.take() {
                Some(running) => running.end().await,
                None => Ok(()),
            };
            set(self.id, "up").await?;
            flapped
        })
    }
}

/// Goes through the beats, or until it is stopped. The link is down at first.
async fn flap(id: u64, beats: Vec<Beat>, mut stop: Stop) -> Result<(), String> {
    for Beat { down, up } in beats {
        set(id, "down").await?;
        let stopped = tokio::time::timeout(down, &mut stop).await.is_ok();
        set(id, "up").await?;
        if stopped || tokio::time::timeout(up, &mut stop).await.is_ok() {
            return Ok(());
        }
    }
    Ok(())
}

async fn set(id: u64, state: &str) -> Result<(), String> {
    background::command(shell(&format!("ip link set v{id} {state}"))).await.map(drop)
}

/// A link that carries little of what the node sends.
pub(super) struct SlowLink {
    id: u64,
    kbit: u32,
    there: bool,
}

impl SlowLink {
    pub(super) fn new(id: u64, kbit: u32) -> Self {
        SlowLink { id, kbit, there: false }
    }
}

impl fmt::Display for SlowLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sends {} kbit/s", self.id, self.kbit)
    }
}

impl Fault for SlowLink {
    fn install<'a>(&'a mut self, _arena: &'a mut Arena) -> Task<'a, Evidence> {
        Box::pin(async move {
            let rate = format!("rate {}kbit burst 2kb latency 400ms", self.kbit);
            // Refused where another fault has slowed it: that one's would be undone with ours.
            let line = format!("tc qdisc add dev eth0 root tbf {rate}");
            background::command(Network::inside(self.id, &line)).await?;
            self.there = true;
            let options = "-c 20 -i 0.002 -s 1400 -W 2";
            let pings = probe::ping(End::Harness, End::Node(self.id), options).await?;
            let shown =
                background::command(Network::inside(self.id, "tc -s qdisc show dev eth0")).await?;
            let held = number_after(&shown, "overlimits");
            if held == 0 {
                return Err(format!("nothing was held back: {shown}"));
            }
            Ok(format!(
                "packets held back {held} times; {} of {} long pings came back, after {:.0} ms",
                pings.received, pings.sent, pings.average
            ))
        })
    }

    fn undo<'a>(&'a mut self, _arena: &'a mut Arena) -> Task<'a, ()> {
        Box::pin(async move {
            if self.there {
                background::command(Network::inside(self.id, "tc qdisc del dev eth0 root")).await?;
                self.there = false;
            }
            Ok(())
        })
    }
}

fn number_after(text: &str, word: &str) -> u64 {
    let mut words = text.split_whitespace().skip_while(|other| *other != word);
    words.nth(1).and_then(|number| number.parse().ok()).unwrap_or(0)
}
