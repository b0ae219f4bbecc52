//! What rows measure with: the databases of a run, started when a row first asks for them, and the one way to
//! put load on any of them.
//!
//! Invariants:
//! - Only one database is loaded at a time; the others that are up are idle.
//! - Both sides of a round get the same plan, back to back, and take turns in going first.
//! - A measurement with a wrong answer counts for nothing: it is an error, and its round is done again.

use std::time::{Duration, Instant};

use cluster_tests::launch::Launch;
use kvdb::bench::http::HttpClient;
use kvdb::bench::{Pace, Plan, Report};
use tokio::runtime::Runtime;

use crate::clients::gateway::Puts;
use crate::clients::ours::{BANK, VALUES};
use crate::clients::redis::Caller as RedisCaller;
use crate::clients::tarantool::Caller as TarantoolCaller;
use crate::clients::{Draw, Work};
use crate::drive::{drive, drive_etcd, drive_kvdb};
use crate::machine::{self, CpuTime};
use crate::peers::System;
use crate::peers::etcd::Etcd;
use crate::peers::load::Load;
use crate::peers::ours::Ours;
use crate::peers::redis::Redis;
use crate::peers::tarantool::Tarantool;
use crate::results::Series;
use crate::say::say;
use crate::scratch::Scratch;
use crate::stats::{Noise, Round};

/// Keys, accounts and counters of most rows.
pub const KEYS: u64 = 10_000;
/// Clients of most rows.
pub const CLIENTS: usize = 64;
/// How long the disk is probed before and after a measurement.
const PROBE: Duration = Duration::from_millis(100);
/// Rounds that are done again, in a row, before it is given up.
const REPEATS_MAX: usize = 2;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Rounds of a row.
    pub rounds: usize,
    /// How long load is counted.
    pub duration: Duration,
    /// How long it goes on before it is counted.
    pub warmup: Duration,
    /// Whether data is scaled down, to be done within minutes.
    pub quick: bool,
}

impl Settings {
    /// What the document is made of.
    pub const FULL: Settings = Settings {
        rounds: 5,
        duration: Duration::from_secs(5),
        warmup: Duration::from_secs(1),
        quick: false,
    };
    /// A look, within minutes.
    pub const QUICK: Settings = Settings {
        rounds: 1,
        duration: Duration::from_millis(1500),
        warmup: Duration::from_millis(500),
        quick: true,
    };

    /// The second where data is scaled down, else the first.
    #[must_use]
    pub fn scaled<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// A run of so many clients, in a closed loop.
    #[must_use]
    pub fn closed(&self, clients: usize) -> Plan {
        Plan { clients, pace: Pace::Closed, warmup: self.warmup, duration: self.duration }
    }

    /// A run at a rate.
    #[must_use]
    pub fn open(&self, per_second: f64) -> Plan {
        Plan { pace: Pace::Open { per_second }, ..self.closed(CLIENTS) }
    }
}

/// Whom clients ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// The leader.
    Leader,
    /// All three nodes in turn.
    Spread,
}

/// The databases and all that a row needs. Dropping it ends them.
pub struct Lab {
    /// How much is measured.
    pub settings: Settings,
    /// What plots are made of, as far as rows have measured it.
    pub series: Series,
    ours: Option<Ours>,
    etcd: Option<Etcd>,
    redis: Option<Redis>,
    tarantool: Option<Tarantool>,
    /// Both with a million keys, while rows want them.
    pub million: Option<(Ours, Etcd)>,
    runs: u64,
    /// For what is not load: starting, loading, asking how it is.
    pub control: Runtime,
    /// Where their data is.
    pub scratch: Scratch,
}

impl Lab {
    /// With data in a directory, which is deleted in the end.
    ///
    /// # Errors
    /// When there can be none.
    pub fn new(settings: Settings, data: &std::path::Path) -> Result<Self, String> {
        let scratch = Scratch::new(data)?;
        let control = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|e| format!("the runtime: {e}"))?;
        Ok(Lab {
            settings,
            series: Series::default(),
            ours: None,
            etcd: None,
            redis: None,
            tarantool: None,
            million: None,
            runs: 0,
            control,
            scratch,
        })
    }

    // The databases.

    /// Three nodes of ours without data.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn start_ours(&self, name: &str, launch: &Launch) -> Result<Ours, String> {
        say(&format!("   starting ours ({name})"));
        Ours::start(self.control.handle(), &self.scratch.fresh(&format!("ours-{name}"))?, launch)
    }

    /// Three members of etcd without data.
    ///
    /// # Errors
    /// When they cannot be started.
    pub fn start_etcd(&self, name: &str) -> Result<Etcd, String> {
        say(&format!("   starting etcd ({name})"));
        Etcd::start(self.control.handle(), &self.scratch.fresh(&format!("etcd-{name}"))?)
    }

    /// Ours, with the usual keys and accounts.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn ours(&mut self) -> Result<&mut Ours, String> {
        if self.ours.is_none() {
            let mut ours = self.start_ours("ours", &Launch::of(3))?;
            ours.load(&Load::values(VALUES, 0..KEYS))?;
            ours.load(&Load::accounts(BANK, KEYS))?;
            self.ours = Some(ours);
        }
        self.ours.as_mut().ok_or_else(|| "ours is gone".to_owned())
    }

    /// etcd, with the usual keys and accounts.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn etcd(&mut self) -> Result<&mut Etcd, String> {
        if self.etcd.is_none() {
            let mut etcd = self.start_etcd("etcd")?;
            etcd.load(&Load::values(VALUES, 0..KEYS))?;
            etcd.load(&Load::accounts(BANK, KEYS))?;
            self.etcd = Some(etcd);
        }
        self.etcd.as_mut().ok_or_else(|| "etcd is gone".to_owned())
    }

    /// Redis, with the usual accounts.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn redis(&mut self) -> Result<&Redis, String> {
        if self.redis.is_none() {
            say("   starting redis");
            let redis = Redis::start(&self.scratch.fresh("redis")?)?;
            redis.load(&Load::accounts(BANK, KEYS))?;
            self.redis = Some(redis);
        }
        self.redis.as_ref().ok_or_else(|| "redis is gone".to_owned())
    }

    /// Ends all databases: the next row begins with new ones.
    pub fn clear(&mut self) {
        self.ours = None;
        self.etcd = None;
        self.redis = None;
        self.tarantool = None;
        self.million = None;
    }

    // Load.

    /// Another seed for each run.
    pub fn seed(&mut self) -> u64 {
        self.runs += 1;
        self.runs
    }

    /// Load on ours.
    ///
    /// # Errors
    /// When an answer was wrong.
    pub fn drive_ours(&mut self, plan: &Plan, work: Work, at: At) -> Result<Report, String> {
        let urls = targets(self.ours()?, at)?;
        drive_kvdb(plan, &urls, self.seed(), work, None)
    }

    /// Load on etcd over gRPC.
    ///
    /// # Errors
    /// When an answer was wrong.
    pub fn drive_etcd(&mut self, plan: &Plan, work: Work, at: At) -> Result<Report, String> {
        let urls = targets(self.etcd()?, at)?;
        drive_etcd(plan, urls, self.seed(), work)
    }

    /// Puts on etcd over its gateway.
    ///
    /// # Errors
    /// When an answer was wrong.
    pub fn drive_gateway(&mut self, plan: &Plan) -> Result<Report, String> {
        let urls = targets(self.etcd()?, At::Leader)?;
        let seed = self.seed();
        drive(plan, async |index| {
            let connection = kvdb::bench::http::Connection::new(&urls, index, &[]).await?;
            Ok(HttpClient::new(connection, Puts::new(KEYS, Draw::new(seed, index))))
        })
    }

    /// Load on Redis, each call with `WAIT 1`.
    ///
    /// # Errors
    /// When an answer was wrong.
    pub fn drive_redis(&mut self, plan: &Plan, work: Work) -> Result<Report, String> {
        let redis = self.redis()?;
        let (address, script) = (redis.address().to_owned(), redis.script().to_owned());
        let seed = self.seed();
        drive(plan, async |index| {
            RedisCaller::connect(&address, &script, work, Draw::new(seed, index)).await
        })
    }

    /// Transfers on Tarantool.
    ///
    /// # Errors
    /// When an answer was wrong.
    pub fn drive_tarantool(&mut self, plan: &Plan) -> Result<Report, String> {
        if self.tarantool.is_none() {
            say("   starting tarantool");
            self.tarantool = Some(Tarantool::start(&self.scratch.fresh("tarantool")?, KEYS)?);
        }
        let address = self.tarantool.as_ref().map(|server| server.address().to_owned());
        let (address, seed) = (address.unwrap_or_default(), self.seed());
        drive(plan, async |index| {
            TarantoolCaller::connect(&address, KEYS, Draw::new(seed, index)).await
        })
    }

    // Rounds.

    /// Rounds of two measurements that take turns in going first.
    ///
    /// # Errors
    /// When one fails again and again.
    pub fn rounds(
        &mut self,
        rounds: usize,
        mut ours: impl FnMut(&mut Lab) -> Result<f64, String>,
        mut peer: impl FnMut(&mut Lab) -> Result<f64, String>,
    ) -> Result<Vec<Round>, String> {
        let mut done = Vec::new();
        let mut repeats = 0;
        while done.len() < rounds {
            match self.round(done.len() % 2 == 0, &mut ours, &mut peer) {
                Ok(round) => {
                    say(&format!("   round {}: {}", done.len() + 1, describe(&round)));
                    done.push(round);
                }
                Err(reason) if repeats < REPEATS_MAX => {
                    repeats += 1;
                    say(&format!("   a round counts for nothing: {reason}"));
                }
                Err(reason) => return Err(reason),
            }
        }
        Ok(done)
    }

    fn round(
        &mut self,
        ours_first: bool,
        ours: &mut impl FnMut(&mut Lab) -> Result<f64, String>,
        peer: &mut impl FnMut(&mut Lab) -> Result<f64, String>,
    ) -> Result<Round, String> {
        let (ours, peer) = if ours_first {
            let ours = self.watched(ours)?;
            (ours, self.watched(peer)?)
        } else {
            let peer = self.watched(peer)?;
            (self.watched(ours)?, peer)
        };
        Ok(Round { ours: ours.0, peer: peer.0, noise: ours.1.with(peer.1) })
    }

    /// Measures something, and what the machine did meanwhile that was none of it.
    ///
    /// # Errors
    /// When it cannot be measured.
    pub fn watched(
        &mut self,
        measure: &mut impl FnMut(&mut Lab) -> Result<f64, String>,
    ) -> Result<(f64, Noise), String> {
        let before = machine::fdatasync_rate(self.scratch.path(), PROBE);
        let (begun, busy, own) = (Instant::now(), CpuTime::now().busy, machine::family_cpu());
        let figure = measure(self)?;
        let elapsed = begun.elapsed().as_secs_f64();
        let other = (CpuTime::now().busy - busy) - (machine::family_cpu() - own);
        let after = machine::fdatasync_rate(self.scratch.path(), PROBE);
        let fdatasync = (before.min(after), before.max(after));
        Ok((figure, Noise { other_cores: (other / elapsed).max(0.0), fdatasync }))
    }
}

fn describe(round: &Round) -> String {
    let short = crate::stats::short;
    let noisy = if round.noise.is_noisy() { ", noisy" } else { "" };
    format!("{} and {}: {}{noisy}", short(round.ours), short(round.peer), short(round.ratio()))
}

fn targets(system: &mut impl System, at: At) -> Result<Vec<String>, String> {
    match at {
        At::Leader => system.leader_url(),
        At::Spread => Ok(system.urls()),
    }
}
