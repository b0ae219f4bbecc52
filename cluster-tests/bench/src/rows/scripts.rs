//! What a slow script of one bucket does to another.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvdb::bench::http::{Connection, Request};

use super::Measured;
use crate::clients::Work;
use crate::lab::{At, CLIENTS, KEYS, Lab};
use crate::peers::System;
use crate::peers::ours::SLOW;
use crate::stats::median;

/// How long the script is to take.
const SCRIPT: Duration = Duration::from_millis(50);
/// Turns of its loop when its speed is measured.
const TURNS: f64 = 1_000_000.0;
/// Calls that measure it.
const SAMPLES: usize = 5;

pub(super) fn slow_script(lab: &mut Lab) -> Result<Measured, String> {
    let put = Work::Put(KEYS);
    let peak = lab.settings.closed(CLIENTS);
    let peak = lab.drive_ours(&peak, put, At::Leader)?.per_second();
    let turns = turns_for(lab, SCRIPT)?;
    let plan = lab.settings.open(peak / 4.0);
    let rounds = lab.settings.rounds;
    let mut calls = 0;
    let rounds = lab.rounds(
        rounds,
        |lab| {
            let spinner = Spinner::start(lab.ours()?, turns)?;
            let report = lab.drive_ours(&plan, put, At::Leader)?;
            calls += spinner.stop()?;
            Ok(report.quantile_ms(0.99))
        },
        |lab| Ok(lab.drive_ours(&plan, put, At::Leader)?.quantile_ms(0.99)),
    )?;
    let note = format!("the script ran {calls} times, one call after the other");
    Ok(Measured { rounds, note })
}

/// How many turns take so long here, by the median of some calls.
fn turns_for(lab: &mut Lab, time: Duration) -> Result<u64, String> {
    let path = format!("/{SLOW}/scripts/spin?turns={TURNS}");
    let mut seconds = Vec::new();
    for _ in 0..SAMPLES {
        let ours = lab.ours()?;
        ours.leader_id()?;
        let begun = Instant::now();
        ours.call("POST", &path)?;
        seconds.push(begun.elapsed().as_secs_f64());
    }
    Ok((TURNS * time.as_secs_f64() / median(seconds)) as u64)
}

/// A thread that calls the script, one call after the other.
struct Spinner {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Result<u64, String>>,
}

impl Spinner {
    fn start(ours: &mut impl System, turns: u64) -> Result<Self, String> {
        let urls = ours.leader_url()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|e| format!("the runtime: {e}"))?;
            runtime.block_on(spin(&urls, turns, &stopped))
        });
        Ok(Spinner { stop, thread })
    }

    /// Ends it; how often the script ran.
    fn stop(self) -> Result<u64, String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the slow script's caller ended early".to_owned())?
    }
}

async fn spin(urls: &[String], turns: u64, stop: &AtomicBool) -> Result<u64, String> {
    let mut connection = Connection::new(urls, 0, &[]).await?;
    let path = format!("/{SLOW}/scripts/spin?turns={turns}");
    let request = Request { method: "POST", path, body: Vec::new() };
    let mut calls = 0;
    while !stop.load(Ordering::Relaxed) {
        connection.call(&request).await?.expect(200)?;
        calls += 1;
    }
    Ok(calls)
}
