//! Rows that ask how long a call takes.

use kvdb::bench::{Plan, Report};

use super::Measured;
use crate::clients::Work;
use crate::lab::{At, CLIENTS, KEYS, Lab};
use crate::stats::short;

/// How much more than a rate a peak must be for the rate to be kept up.
const ROOM: f64 = 1.2;
/// The percentiles that are plotted.
const PERCENTILES: &[f64] = &[1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.99];

const PUT: Work = Work::Put(KEYS);

pub(super) fn put_p50(lab: &mut Lab) -> Result<Measured, String> {
    let rounds = lab.settings.rounds;
    let plan = lab.settings.closed(1);
    let rounds = lab.rounds(
        rounds,
        |lab| Ok(lab.drive_ours(&plan, PUT, At::Leader)?.quantile_ms(0.5)),
        |lab| Ok(lab.drive_etcd(&plan, PUT, At::Leader)?.quantile_ms(0.5)),
    )?;
    Ok(rounds.into())
}

pub(super) fn put_p99(lab: &mut Lab) -> Result<Measured, String> {
    let peak_plan = lab.settings.closed(CLIENTS);
    let peak = lab.drive_ours(&peak_plan, PUT, At::Leader)?.per_second();
    let peer_peak = lab.drive_etcd(&peak_plan, PUT, At::Leader)?.per_second();
    let half = peak / 2.0;
    let plan = lab.settings.open(half);
    let (peer_plan, peer_rate) = peer_plan(&plan, &peak_plan, half, peer_peak);
    let rounds = lab.settings.rounds;
    let rounds = lab.rounds(
        rounds,
        |lab| {
            let report = lab.drive_ours(&plan, PUT, At::Leader)?;
            keep(lab, "KVdb, HTTP", &report);
            Ok(report.quantile_ms(0.99))
        },
        |lab| {
            let report = lab.drive_etcd(&peer_plan, PUT, At::Leader)?;
            keep(lab, "etcd, gRPC", &report);
            Ok(report.quantile_ms(0.99))
        },
    )?;
    let note = format!("ours at half of its peak; etcd {peer_rate}");
    Ok(Measured { rounds, note })
}

/// What etcd gets: the same rate if it can, else its peak in a closed loop. An open loop at a rate that it cannot
/// keep up would show how long the loop was, not how long a call takes.
fn peer_plan(plan: &Plan, peak_plan: &Plan, rate: f64, peak: f64) -> (Plan, String) {
    if peak >= rate * ROOM {
        (*plan, "at the same rate".to_owned())
    } else {
        let share = short(peak / rate);
        (
            *peak_plan,
            format!("at its own peak, {share} of that rate, in a closed loop of 64 clients"),
        )
    }
}

/// Keeps the percentiles of the last round for the plot.
fn keep(lab: &mut Lab, name: &str, report: &Report) {
    let points = PERCENTILES.iter().map(|p| (*p, report.quantile_ms(p / 100.0)));
    lab.series.latency.set(name, points.collect());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lab::Settings;

    #[test]
    fn etcd_gets_our_rate_where_it_can_keep_it_up() {
        let second = Duration::from_secs(1);
        let settings = Settings { rounds: 1, duration: second, warmup: second, quick: true };
        let (open, closed) = (settings.open(1000.0), settings.closed(CLIENTS));
        assert_eq!(peer_plan(&open, &closed, 1000.0, 1300.0).0.pace, open.pace);
        let (plan, words) = peer_plan(&open, &closed, 1000.0, 1100.0);
        assert_eq!(plan.pace, closed.pace);
        assert!(words.contains("1.10 of that rate"), "{words}");
    }
}
