//! Drives clients: each is a task, all on the calling thread.
//!
//! A call costs no timer and no lock. One slow tick per client sees whether its call takes too long. In an open loop a
//! second thread, which sleeps nearly always, rings for the calls that become due: tokio's timers are
//! exact to a millisecond, which is as long as a call.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::schedule::{Open, Schedule};
use super::tally::Tally;
use super::{CALL_MAX, Client, Plan, Progress, Report};

/// How often it is looked whether a call takes too long.
const WATCH: Duration = Duration::from_secs(1);
/// How often progress is told.
const TELL: Duration = Duration::from_secs(1);
/// How long a client rests after a call that failed: it would ask a node that is down as fast as it can.
const REST: Duration = Duration::from_millis(10);

/// What the clients of a run share.
struct Run {
    schedule: Schedule,
    tally: RefCell<Tally>,
    /// One for each client of an open loop; rings when its next call is due.
    bells: Arc<[Notify]>,
}

/// Connects the clients and drives them on this thread until the plan is over. Must not be called on a thread of a runtime.
///
/// # Errors
/// When the plan cannot be run, or a client cannot connect.
pub fn run<C: Client + 'static>(
    plan: &Plan,
    connect: impl AsyncFn(usize) -> Result<C, String>,
    progress: impl FnMut(Progress),
) -> Result<Report, String> {
    plan.check()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the runtime: {error}"))?;
    LocalSet::new().block_on(&runtime, drive(plan, connect, progress))
}

async fn drive<C: Client + 'static>(
    plan: &Plan,
    connect: impl AsyncFn(usize) -> Result<C, String>,
    progress: impl FnMut(Progress),
) -> Result<Report, String> {
    let mut clients = Vec::with_capacity(plan.clients);
    for index in 0..plan.clients {
        clients.push(connect(index).await?);
    }
    let schedule = Schedule::new(plan, Instant::now());
    let bells: Arc<[Notify]> = clients.iter().map(|_| Notify::new()).collect();
    let tally = RefCell::new(Tally::new(schedule));
    let run = Rc::new(Run { schedule, tally, bells: bells.clone() });
    let mut tasks = JoinSet::new();
    for (serial, client) in (0..).zip(clients) {
        tasks.spawn_local(keep_calling(client, serial, run.clone()));
    }
    let pacer = schedule.open.map(|open| std::thread::spawn(move || pace(&schedule, open, &bells)));
    wait(&mut tasks, &run, progress).await?;
    // It has nothing to do after the last call is due, which is before the clients end.
    pacer.map(std::thread::JoinHandle::join);
    let run = Rc::into_inner(run).ok_or("a client outlived its run")?;
    Ok(run.tally.into_inner().finish())
}

/// Waits until all clients have ended, and tells how they stand.
async fn wait(
    tasks: &mut JoinSet<()>,
    run: &Run,
    mut progress: impl FnMut(Progress),
) -> Result<(), String> {
    let mut tick = slow_tick(TELL);
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => return Ok(()),
                Some(ended) => ended.map_err(|error| format!("a client ended early: {error}"))?,
            },
            _ = tick.tick() => progress(run.tally.borrow().progress()),
        }
    }
}

/// Rings for each call when it is due.
fn pace(schedule: &Schedule, open: Open, bells: &[Notify]) {
    for serial in 0..open.total {
        let wait = schedule.due(&open, serial).saturating_duration_since(Instant::now());
        if !wait.is_zero() {
            std::thread::sleep(wait);
        }
        if let Some(bell) = bells.get(schedule.client(serial)) {
            bell.notify_one();
        }
    }
}

/// One client's life: its calls, from the one with this serial number on.
async fn keep_calling(mut client: impl Client, mut serial: u64, run: Rc<Run>) {
    let mut watch = slow_tick(WATCH);
    while let Some(due) = run.next_call(serial).await {
        match call(&mut client, serial, &mut watch, CALL_MAX).await {
            Ok(()) => run.tally.borrow_mut().done(due, Instant::now()),
            Err(why) => {
                run.tally.borrow_mut().failed(due, why);
                tokio::time::sleep(REST).await;
            }
        }
        serial = run.schedule.next(serial);
    }
}

/// Makes a call, which fails where it takes longer than this, and up to a tick more.
async fn call(
    client: &mut impl Client,
    serial: u64,
    watch: &mut Interval,
    most: Duration,
) -> Result<(), String> {
    let begun = Instant::now();
    let mut call = std::pin::pin!(client.call(serial));
    loop {
        tokio::select! {
            biased;
            result = &mut call => return result,
            _ = watch.tick() => {
                if begun.elapsed() > most {
                    return Err(format!("no answer within {most:?}"));
                }
            }
        }
    }
}

impl Run {
    /// Waits until a call is due; when that was. None where the run is over: no call begins any more.
    async fn next_call(&self, serial: u64) -> Option<Instant> {
        let now = Instant::now();
        let Some(open) = &self.schedule.open else {
            return (now < self.schedule.end).then_some(now);
        };
        if now >= self.schedule.end {
            let missed = self.schedule.remaining(open, serial);
            self.tally.borrow_mut().missed(missed);
            return None;
        }
        if serial >= open.total {
            return None;
        }
        let due = self.schedule.due(open, serial);
        let bell = self.bells.get(self.schedule.client(serial))?;
        // The bell may have rung for calls that this client made late.
        while Instant::now() < due {
            bell.notified().await;
        }
        Some(due)
    }
}

/// Ticks that do not make up for those that nobody waited for.
fn slow_tick(period: Duration) -> Interval {
    let mut tick = interval(period);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Pace;

    /// Does something for each call.
    struct Fake<F>(F);

    impl<F: AsyncFnMut(u64) -> Result<(), String>> Client for Fake<F> {
        async fn call(&mut self, serial: u64) -> Result<(), String> {
            (self.0)(serial).await
        }
    }

    const MS: Duration = Duration::from_millis(1);

    fn plan(clients: usize, pace: Pace, warmup: u32, duration: u32) -> Plan {
        Plan { clients, pace, warmup: MS * warmup, duration: MS * duration }
    }

    fn go(plan: &Plan, call: impl AsyncFn(u64) -> Result<(), String> + 'static) -> Report {
        let call = Rc::new(call);
        let connect = async |_| {
            let call = call.clone();
            Ok(Fake(async move |serial| call(serial).await))
        };
        run(plan, connect, |_| ()).unwrap()
    }

    #[test]
    fn closed_clients_call_one_after_the_other() {
        let serials = Rc::new(RefCell::new(Vec::new()));
        let seen = serials.clone();
        let report = go(&plan(3, Pace::Closed, 0, 200), async move |serial| {
            seen.borrow_mut().push(serial);
            tokio::time::sleep(MS * 5).await;
            Ok(())
        });
        let mut serials = serials.take();
        assert_eq!(report.done, serials.len() as u64);
        assert_eq!((report.failed, report.missed), (0, 0));
        assert_eq!(report.latency.len(), report.done);
        assert!(report.quantile_ms(0.0) >= 4.9, "{}", report.quantile_ms(0.0));
        // Three at a time, each no faster than its calls.
        assert!((3..=3 * 41).contains(&report.done), "{}", report.done);
        assert!(report.elapsed >= MS * 150, "{:?}", report.elapsed);
        serials.sort_unstable();
        serials.dedup();
        assert_eq!(report.done, serials.len() as u64);
        assert_eq!(u64::from(report.timeline.iter().sum::<u32>()), report.done);
    }

    #[test]
    fn a_stall_is_seen_by_all_calls_that_were_due_meanwhile() {
        // One client, 200 calls a second, and one call that takes half a second: a hundred others were due.
        let pace = Pace::Open { per_second: 200.0 };
        let report = go(&plan(1, pace, 0, 1500), async |serial| {
            if serial == 20 {
                tokio::time::sleep(MS * 500).await;
            }
            Ok(())
        });
        assert_eq!(report.done + report.missed, 300);
        let late = report.latency.count_between(250_000, 10_000_000);
        // Calls 20 to 70 waited for more than half of it; a slow machine makes it more.
        assert!(late >= 50, "{late}");
        assert!(report.longest_gap.0 >= MS * 490, "{:?}", report.longest_gap);
    }

    #[test]
    fn open_calls_are_spread_over_clients_and_time() {
        let serials = Rc::new(RefCell::new(Vec::new()));
        let seen = serials.clone();
        let begun = Instant::now();
        let pace = Pace::Open { per_second: 100.0 };
        let report = go(&plan(4, pace, 0, 300), async move |serial| {
            // Never early.
            assert!(begun.elapsed() >= MS * 10 * u32::try_from(serial).unwrap());
            seen.borrow_mut().push(serial);
            Ok(())
        });
        assert_eq!(report.done + report.missed, 30);
        assert_eq!(report.done, serials.borrow().len() as u64);
        assert!(report.done > 4, "{}", report.done);
    }

    #[test]
    fn what_was_due_and_not_made_is_missed() {
        // Two clients whose calls take a fifth of the run each cannot do 100.
        let pace = Pace::Open { per_second: 200.0 };
        let report = go(&plan(2, pace, 0, 500), async |_| {
            tokio::time::sleep(MS * 100).await;
            Ok(())
        });
        assert_eq!(report.done + report.missed, 100);
        assert!((2..=10).contains(&report.done), "{}", report.done);
    }

    #[test]
    fn warmup_is_not_counted() {
        let calls = Rc::new(RefCell::new(0));
        let counter = calls.clone();
        let pace = Pace::Open { per_second: 100.0 };
        let report = go(&plan(2, pace, 400, 100), async move |serial| {
            *counter.borrow_mut() += 1;
            if serial < 40 { Err("cold".to_owned()) } else { Ok(()) }
        });
        assert_eq!(report.done + report.missed, 10);
        assert_eq!((report.failed, report.first_failure), (0, None));
        assert!(*calls.borrow() >= 20, "{}", calls.borrow());
    }

    #[test]
    fn failures_are_counted_and_the_client_goes_on() {
        let report = go(&plan(1, Pace::Closed, 0, 300), async |serial| {
            tokio::task::yield_now().await;
            if serial < 2 { Err(format!("no {serial}")) } else { Ok(()) }
        });
        assert_eq!((report.failed, report.first_failure.as_deref()), (2, Some("no 0")));
        assert!(report.done > 0);
        assert_eq!(report.latency.len(), report.done);
    }

    #[tokio::test]
    async fn a_call_that_takes_too_long_fails_and_the_next_is_made() {
        let mut client =
            Fake(async |serial| if serial == 0 { std::future::pending().await } else { Ok(()) });
        let mut watch = slow_tick(MS);
        let why = call(&mut client, 0, &mut watch, MS * 20).await.unwrap_err();
        assert_eq!(why, "no answer within 20ms");
        assert_eq!(call(&mut client, 1, &mut watch, MS * 20).await, Ok(()));
    }

    #[test]
    fn progress_is_told_and_what_cannot_be_run_is_refused() {
        let mut told = Vec::new();
        let connect = async |_| Ok(Fake(async |_| std::future::ready(Ok(())).await));
        let paced = plan(1, Pace::Open { per_second: 50.0 }, 0, 100);
        let report = run(&paced, connect, |progress| told.push(progress)).unwrap();
        assert!(told.iter().all(|progress| progress.done <= report.done), "{told:?}");
        assert!(!told.is_empty());
        for wrong in [
            plan(0, Pace::Closed, 0, 1),
            plan(1, Pace::Closed, 0, 0),
            plan(1, Pace::Open { per_second: 0.0 }, 0, 1),
            plan(1, Pace::Open { per_second: f64::NAN }, 0, 1),
        ] {
            run(&wrong, connect, |_| ()).unwrap_err();
        }
    }

    #[test]
    fn a_client_that_cannot_connect_ends_the_run() {
        struct Never;
        impl Client for Never {
            async fn call(&mut self, _serial: u64) -> Result<(), String> {
                Ok(())
            }
        }
        let connect = async |index| if index == 1 { Err("refused".to_owned()) } else { Ok(Never) };
        let result = run(&plan(2, Pace::Closed, 0, 100), connect, |_| ());
        assert_eq!(result.unwrap_err(), "refused");
    }
}
