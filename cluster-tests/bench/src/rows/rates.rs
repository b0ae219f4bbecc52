//! Rows that count calls in a second, of clients in a closed loop.

use super::Measured;
use crate::clients::ours::BANK;
use crate::clients::{BALANCE, Work};
use crate::lab::{At, CLIENTS, KEYS, Lab};
use crate::peers::System as _;

fn ours(lab: &mut Lab, work: Work, at: At) -> Result<f64, String> {
    let plan = lab.settings.closed(CLIENTS);
    Ok(lab.drive_ours(&plan, work, at)?.per_second())
}

fn etcd(lab: &mut Lab, work: Work, at: At) -> Result<f64, String> {
    let plan = lab.settings.closed(CLIENTS);
    Ok(lab.drive_etcd(&plan, work, at)?.per_second())
}

fn redis(lab: &mut Lab, work: Work) -> Result<f64, String> {
    let plan = lab.settings.closed(CLIENTS);
    Ok(lab.drive_redis(&plan, work)?.per_second())
}

fn rounds(
    lab: &mut Lab,
    ours: impl FnMut(&mut Lab) -> Result<f64, String>,
    peer: impl FnMut(&mut Lab) -> Result<f64, String>,
) -> Result<Measured, String> {
    let rounds = lab.settings.rounds;
    Ok(lab.rounds(rounds, ours, peer)?.into())
}

const TRANSFER: Work = Work::Transfer(KEYS);
const PUT: Work = Work::Put(KEYS);
const GET: Work = Work::Get(KEYS);

pub(super) fn transfer_etcd(lab: &mut Lab) -> Result<Measured, String> {
    let measured =
        rounds(lab, |lab| ours(lab, TRANSFER, At::Leader), |lab| etcd(lab, TRANSFER, At::Leader))?;
    check_sum(lab)?;
    Ok(measured)
}

pub(super) fn transfer_redis(lab: &mut Lab) -> Result<Measured, String> {
    let measured = rounds(lab, |lab| ours(lab, TRANSFER, At::Leader), |lab| redis(lab, TRANSFER))?;
    check_sum(lab)?;
    Ok(measured)
}

pub(super) fn transfer_tarantool(lab: &mut Lab) -> Result<Measured, String> {
    let plan = lab.settings.closed(CLIENTS);
    rounds(
        lab,
        |lab| ours(lab, TRANSFER, At::Leader),
        |lab| Ok(lab.drive_tarantool(&plan)?.per_second()),
    )
}

/// Transfers make no money and lose none.
fn check_sum(lab: &mut Lab) -> Result<(), String> {
    let ours = lab.ours()?;
    let reply = ours.call("GET", &format!("/{BANK}/?prefix=a&values=true&limit={KEYS}"))?;
    let values = reply.text();
    let balances = values.lines().filter_map(|line| line.split_once('=')?.1.parse::<u64>().ok());
    let (accounts, sum) = balances.fold((0, 0), |(n, sum), balance| (n + 1, sum + balance));
    if (accounts, sum) == (KEYS, KEYS * BALANCE) {
        return Ok(());
    }
    Err(format!("{}: {accounts} accounts hold {sum}: money was made or lost", ours.name()))
}

pub(super) fn put_grpc(lab: &mut Lab) -> Result<Measured, String> {
    rounds(lab, |lab| ours(lab, PUT, At::Leader), |lab| etcd(lab, PUT, At::Leader))
}

pub(super) fn put_gateway(lab: &mut Lab) -> Result<Measured, String> {
    rounds(
        lab,
        |lab| ours(lab, PUT, At::Leader),
        |lab| {
            let plan = lab.settings.closed(CLIENTS);
            Ok(lab.drive_gateway(&plan)?.per_second())
        },
    )
}

pub(super) fn get_leader(lab: &mut Lab) -> Result<Measured, String> {
    rounds(lab, |lab| ours(lab, GET, At::Leader), |lab| etcd(lab, GET, At::Leader))
}

pub(super) fn get_spread(lab: &mut Lab) -> Result<Measured, String> {
    rounds(
        lab,
        |lab| ours(lab, GET, At::Spread),
        |lab| Ok(etcd(lab, GET, At::Leader)?.max(etcd(lab, GET, At::Spread)?)),
    )
}

pub(super) fn hot_counter(lab: &mut Lab) -> Result<Measured, String> {
    rounds(
        lab,
        |lab| ours(lab, Work::Count(1), At::Leader),
        |lab| ours(lab, Work::Count(KEYS), At::Leader),
    )
}

/// Calls in a second for several numbers of clients, for the plot: PUT on ours and etcd, SET on Redis.
///
/// # Errors
/// When an answer was wrong.
pub fn by_clients(lab: &mut Lab) -> Result<(), String> {
    for count in [1, 4, 16, 64, 256] {
        let plan = lab.settings.closed(count);
        let ours = lab.drive_ours(&plan, PUT, At::Leader)?.per_second();
        let etcd = lab.drive_etcd(&plan, PUT, At::Leader)?.per_second();
        let redis = lab.drive_redis(&plan, PUT)?.per_second();
        let clients = count as f64;
        lab.series.clients.add("KVdb, HTTP", (clients, ours));
        lab.series.clients.add("etcd, gRPC", (clients, etcd));
        lab.series.clients.add("Redis, WAIT 1", (clients, redis));
    }
    Ok(())
}
