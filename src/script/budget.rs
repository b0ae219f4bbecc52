//! What a call has used, and the fault that ends it: kept where no script can reach.
//!
//! Luau calls [`Budget::tick`] at each call, loop turn and pattern step; host functions report
//! their own work by [`Budget::charge`]. Both count fuel, which is deterministic, and now and then ask
//! the [`Watch`]. A script can catch the Lua error that a limit raises, but the flag stays: the next
//! interrupt or host function fails again, and the fault is the result of the call.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use mlua::{Lua, VmState};

use super::{Cost, Limits, Watch};
use crate::error::{Error, Result};

/// Interrupts between two looks at the clock while the heap is small.
const WATCH_INTERVAL: i64 = 64;
/// With a heap of this size, one operation (a concatenation, say) can take milliseconds.
const LARGE_HEAP_BYTES: usize = 1 << 20;
/// So an interrupt counts for this many.
const LARGE_HEAP_WEIGHT: i64 = 16;
/// Bytes that a library function handles in about the time of one interrupt.
const BYTES_PER_STEP: usize = 1024;

/// The meter of the running call.
pub(super) struct Budget {
    limits: Limits,
    fuel: Cell<u64>,
    /// Steps until the next look at the clock.
    countdown: Cell<i64>,
    /// What a pattern step counts for, by the size of string and pattern.
    weight: Cell<i64>,
    /// Memory in use when the call began.
    idle_bytes: Cell<usize>,
    /// The most memory that an interrupt saw.
    peak_bytes: Cell<usize>,
    /// Nothing runs any more: the script exited, or met a fault.
    stopped: Cell<bool>,
    fault: RefCell<Option<Error>>,
    watch: RefCell<Option<Rc<dyn Watch>>>,
}

impl Budget {
    pub(super) fn new(limits: Limits) -> Self {
        Budget {
            limits,
            fuel: Cell::new(u64::MAX),
            countdown: Cell::new(WATCH_INTERVAL),
            weight: Cell::new(1),
            idle_bytes: Cell::new(0),
            peak_bytes: Cell::new(0),
            stopped: Cell::new(false),
            fault: RefCell::new(None),
            watch: RefCell::new(None),
        }
    }

    pub(super) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Arms the meter for a call.
    pub(super) fn begin(&self, watch: Rc<dyn Watch>, idle_bytes: usize) {
        self.fuel.set(self.limits.fuel);
        self.countdown.set(WATCH_INTERVAL);
        self.weight.set(1);
        self.idle_bytes.set(idle_bytes);
        self.peak_bytes.set(idle_bytes);
        self.stopped.set(false);
        *self.fault.borrow_mut() = None;
        *self.watch.borrow_mut() = Some(watch);
    }

    /// What the call has used, where so much memory is in use now.
    pub(super) fn cost(&self, used_bytes: usize) -> Cost {
        let peak = self.peak_bytes.get().max(used_bytes);
        Cost {
            fuel: self.limits.fuel - self.fuel.get(),
            memory_bytes: peak.saturating_sub(self.idle_bytes.get()),
        }
    }

    /// Disarms it; the fault that the call met.
    pub(super) fn end(&self) -> Option<Error> {
        self.fuel.set(u64::MAX);
        self.stopped.set(false);
        *self.watch.borrow_mut() = None;
        self.fault.borrow_mut().take()
    }

    /// One interrupt of the VM.
    pub(super) fn tick(&self, lua: &Lua) -> mlua::Result<VmState> {
        self.enter()?;
        let used = lua.used_memory();
        self.peak_bytes.set(self.peak_bytes.get().max(used));
        let large = used > self.idle_bytes.get() + LARGE_HEAP_BYTES;
        let weight = if large { LARGE_HEAP_WEIGHT } else { 1 };
        self.spend(1, weight.max(self.weight.get()))?;
        Ok(VmState::Continue)
    }

    /// Fails once the call has been stopped: every host function begins with it.
    pub(super) fn enter(&self) -> mlua::Result<()> {
        if self.stopped.get() { Err(stop()) } else { Ok(()) }
    }

    /// Pays for work of the host.
    pub(super) fn charge(&self, steps: usize) -> mlua::Result<()> {
        self.spend(steps as u64, i64::try_from(steps).unwrap_or(i64::MAX))
    }

    /// Pays for handling bytes in one go.
    pub(super) fn charge_bytes(&self, bytes: usize) -> mlua::Result<()> {
        self.charge(1 + bytes / BYTES_PER_STEP)
    }

    /// Sets what each further interrupt counts for, where a pattern step is dear.
    pub(super) fn weigh(&self, work: usize) {
        let weight = i64::try_from(work >> 16).unwrap_or(i64::MAX);
        self.weight.set(weight.clamp(1, WATCH_INTERVAL));
    }

    fn spend(&self, fuel: u64, steps: i64) -> mlua::Result<()> {
        match self.fuel.get().checked_sub(fuel) {
            Some(left) => self.fuel.set(left),
            None => {
                self.fuel.set(0);
                let max = format!("{} steps", self.limits.fuel);
                return Err(self.fail(Error::ScriptLimit { limit: "fuel", max }));
            }
        }
        let countdown = self.countdown.get().saturating_sub(steps);
        if countdown > 0 {
            self.countdown.set(countdown);
            return Ok(());
        }
        self.countdown.set(WATCH_INTERVAL);
        self.watch()
    }

    fn watch(&self) -> mlua::Result<()> {
        let watch = self.watch.borrow().clone();
        match watch.map_or(Ok(()), |watch| watch.check()) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Ends the call with a fault; the first one counts.
    pub(super) fn fail(&self, error: Error) -> mlua::Error {
        self.stopped.set(true);
        self.fault.borrow_mut().get_or_insert(error);
        stop()
    }

    /// Ends the call without one: `exit` and its like.
    pub(super) fn stop(&self) -> mlua::Error {
        self.stopped.set(true);
        stop()
    }

    /// Ends the call because the VM has no memory left.
    pub(super) fn out_of_memory(&self) -> mlua::Error {
        self.fail(self.memory_error())
    }

    /// The limit's own error.
    pub(super) fn memory_error(&self) -> Error {
        Error::ScriptLimit { limit: "memory", max: format!("{} bytes", self.limits.memory_bytes) }
    }

    /// Lets an error of the Lua library pass, except that a lack of memory ends the call.
    pub(super) fn seen(&self, error: mlua::Error) -> mlua::Error {
        if is_out_of_memory(&error) { self.out_of_memory() } else { error }
    }

    /// Sorts the errors of the database: what the script is told, and what ends it.
    pub(super) fn told<T>(
        &self,
        result: Result<T>,
    ) -> mlua::Result<std::result::Result<T, String>> {
        match result {
            Ok(value) => Ok(Ok(value)),
            Err(
                error @ (Error::Invalid(_)
                | Error::Forbidden(_)
                | Error::PreconditionFailed(_)
                | Error::Conflict(_)),
            ) => Ok(Err(error.to_string())),
            Err(error) => Err(self.fail(error)),
        }
    }
}

/// Whether the VM's allocator refused, however deep the error was wrapped.
pub(super) fn is_out_of_memory(error: &mlua::Error) -> bool {
    match error {
        mlua::Error::MemoryError(_) => true,
        mlua::Error::CallbackError { cause, .. } | mlua::Error::WithContext { cause, .. } => {
            is_out_of_memory(cause)
        }
        _ => false,
    }
}

fn stop() -> mlua::Error {
    mlua::Error::RuntimeError("the script has ended".to_owned())
}
