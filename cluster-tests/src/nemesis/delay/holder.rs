//! A thread that holds a node's packets for a while.
//!
//! Invariants:
//! - At most [`HELD_MAX`] packets are held; the oldest goes on when one more comes.
//! - The kernel stops handing packets over before the thread ends, and the thread lets all go before it
//!   ends: undoing loses none.
//! - Where the thread dies, packets pass (`--queue-bypass`).

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nfq::{Message, Queue, Verdict};

use crate::lab::{HARNESS, Network, run};

/// Most packets held at once.
const HELD_MAX: usize = 4096;
/// Most packets that the kernel waits for us with; those that are held count.
const QUEUE_MAX: u32 = 2 * HELD_MAX as u32;
/// How often the queue and the clock are looked at: the error of a delay.
const TICK: Duration = Duration::from_millis(1);
/// How long the queue may take to be bound.
const BOUND: Duration = Duration::from_secs(5);

/// How packets are held.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habit {
    /// At least so long,
    pub(super) least: Duration,
    /// and up to this longer.
    pub(super) jitter: Duration,
    /// So many of a hundred; the others pass.
    pub(super) share: u8,
    /// None is let go before one that came earlier.
    pub(super) in_order: bool,
}

impl fmt::Display for Habit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.least.as_millis(), (self.least + self.jitter).as_millis());
        let order = if self.in_order { "in order" } else { "out of order" };
        write!(f, "{} % of packets {from}-{to} ms, {order}", self.share)
    }
}

/// The thread, and the rule that hands it a node's packets.
pub(super) struct Holder {
    id: u64,
    number: u16,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<(), String>>>,
}

impl Holder {
    /// Begins to hold a node's packets.
    pub(super) fn begin(id: u64, habit: Habit, rng: fastrand::Rng) -> Result<Self, String> {
        static NUMBER: AtomicU16 = AtomicU16::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let stop = Arc::new(AtomicBool::new(false));
        let (bound, is_bound) = mpsc::channel();
        let held = Held { habit, rng, packets: BTreeMap::new(), count: 0, latest: None };
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let queue = Network::enter(id).and_then(|()| open(number));
            // Nobody listens where it took too long.
            let _ = bound.send(queue.as_ref().map(drop).map_err(Clone::clone));
            hold(queue?, number, held, &stopped)
        });
        let holder = Holder { id, number, stop, thread: Some(thread) };
        is_bound.recv_timeout(BOUND).map_err(|e| format!("queue of node {id}: {e}"))??;
        // Only now: what was handed over while the queue was set up would be lost. At the head of the
        // list: the newest fault has the packets.
        holder.rule("-I")?;
        Ok(holder)
    }

    fn rule(&self, verb: &str) -> Result<(), String> {
        let line = format!(
            "iptables -w 5 {verb} INPUT ! -s {HARNESS} -j NFQUEUE --queue-num {} --queue-bypass",
            self.number
        );
        run(&mut Network::inside(self.id, &line)).map(drop)
    }

    /// Lets all packets go, and ends the thread.
    pub(super) fn end(mut self) -> Result<(), String> {
        self.stop()
    }

    fn stop(&mut self) -> Result<(), String> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        let removed = self.rule("-D");
        self.stop.store(true, Ordering::Relaxed);
        let ended = thread.join();
        removed?;
        ended.map_err(|_| format!("the thread with packets of node {} panicked", self.id))?
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Of a fault that could not be installed, or was never undone.
        let _ = self.stop();
    }
}

fn open(number: u16) -> Result<Queue, String> {
    let opened = Queue::open().and_then(|mut queue| {
        queue.bind(number)?;
        // Nothing of a packet is looked at.
        queue.set_copy_range(number, 0)?;
        queue.set_queue_max_len(number, QUEUE_MAX)?;
        queue.set_nonblocking(true);
        Ok(queue)
    });
    opened.map_err(|e| format!("NFQUEUE {number}: {e}"))
}

/// Packets and when they go on.
struct Held {
    habit: Habit,
    rng: fastrand::Rng,
    packets: BTreeMap<(Instant, u64), Message>,
    count: u64,
    latest: Option<Instant>,
}

impl Held {
    /// When a packet that comes now goes on.
    fn due(&mut self, now: Instant) -> Instant {
        let mut due = now;
        if self.rng.u8(0..100) < self.habit.share {
            due += self.habit.least + self.habit.jitter.mul_f64(self.rng.f64());
        }
        if self.habit.in_order {
            due = self.latest.map_or(due, |latest| due.max(latest));
        }
        self.latest = Some(due);
        due
    }

    fn put(&mut self, packet: Message) {
        let due = self.due(Instant::now());
        self.count += 1;
        self.packets.insert((due, self.count), packet);
    }

    /// The next packet that must go on: it is due, there are too many, or all go.
    fn next(&mut self, all: bool) -> Option<Message> {
        let entry = self.packets.first_entry()?;
        let now = all || entry.key().0 <= Instant::now();
        (now || self.packets.len() > HELD_MAX).then(|| self.packets.pop_first())?.map(|(_, p)| p)
    }
}

fn hold(mut queue: Queue, number: u16, mut held: Held, stop: &AtomicBool) -> Result<(), String> {
    let complain = |e: std::io::Error| format!("NFQUEUE {number}: {e}");
    loop {
        // Before looking into the queue: nothing comes any more once this is set.
        let all = stop.load(Ordering::Relaxed);
        loop {
            match queue.recv() {
                Ok(packet) => held.put(packet),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // The verdict of a packet that the kernel has dropped: it drops what is queued in a
                // namespace when the rules of another fault are removed there.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(complain(error)),
            }
        }
        while let Some(mut packet) = held.next(all) {
            packet.set_verdict(Verdict::Accept);
            match queue.verdict(packet) {
                // Dropped by the kernel meanwhile, as above.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                done => done.map_err(complain)?,
            }
        }
        if all {
            return queue.unbind(number).map_err(complain);
        }
        std::thread::sleep(TICK);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(habit: Habit) -> Held {
        let rng = fastrand::Rng::with_seed(1);
        Held { habit, rng, packets: BTreeMap::new(), count: 0, latest: None }
    }

    #[test]
    fn in_order_is_never_overtaken() {
        let (least, jitter) = (Duration::from_millis(10), Duration::from_millis(50));
        let mut held = held(Habit { least, jitter, share: 100, in_order: true });
        let now = Instant::now();
        let dues: Vec<Instant> = (0..100).map(|_| held.due(now)).collect();
        assert!(dues.is_sorted());
        assert!(dues.iter().all(|due| *due >= now + least && *due <= now + least + jitter));
    }

    #[test]
    fn out_of_order_holds_a_share() {
        let (least, jitter) = (Duration::from_millis(1), Duration::from_millis(50));
        let mut held = held(Habit { least, jitter, share: 30, in_order: false });
        let now = Instant::now();
        let dues: Vec<Instant> = (0..1000).map(|_| held.due(now)).collect();
        assert!(!dues.is_sorted());
        let late = dues.iter().filter(|due| **due > now).count();
        assert!((200..400).contains(&late), "{late} of 1000 were held");
    }
}
