//! The devices of one pool: their health, their counters, and one I/O thread with a bounded queue each.
//!
//! Invariants: a device that failed a write or a flush is dead for the rest of the process and gets no further I/O; a flush is never retried. Writes
//! handed over in one call reach one device in their order. Never decides what a loss means for the pool.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use bytes::Bytes;

use super::Device;

/// Batches that wait for one device; more block their callers.
pub const QUEUE_BATCHES_MAX: usize = 64;

pub type FailureObserver = Box<dyn Fn(u16, &str) + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceState {
    Live,
    /// Failed, or stale: holds nothing that counts.
    Dead,
    /// Not given at open.
    Missing,
}

#[derive(Debug, Clone)]
pub struct WriteJob {
    pub device: u16,
    pub offset: u64,
    pub bytes: Bytes,
}

/// Since open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DeviceCounters {
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub write_bytes: u64,
    pub flushes: u64,
}

/// Cheap to clone; all clones are one set.
#[derive(Debug, Clone)]
pub struct Devices {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    slots: BTreeMap<u16, Arc<Slot>>,
    queues: BTreeMap<u16, SyncSender<Batch>>,
    threads: Vec<JoinHandle<()>>,
    observers: Arc<Observers>,
    /// Rotates the order of devices from call to call, so that none is always the last, and a simulation sees each of them first.
    turn: AtomicU64,
}

#[derive(Default)]
struct Observers(Mutex<Vec<Arc<FailureObserver>>>);

impl std::fmt::Debug for Observers {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Observers")
    }
}

#[derive(Debug)]
struct Slot {
    index: u16,
    device: Option<Arc<Counted>>,
    state: AtomicU8,
    reason: Mutex<String>,
    observers: Arc<Observers>,
}

struct Batch {
    writes: Vec<(u64, Bytes)>,
    flush: bool,
    reply: Sender<(u16, io::Result<()>)>,
}

impl Devices {
    /// A missing device is None.
    pub fn new(devices: Vec<(u16, Option<Arc<dyn Device>>)>) -> Self {
        let observers = Arc::new(Observers::default());
        let (mut slots, mut queues, mut threads) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
        for (index, device) in devices {
            let slot = Arc::new(Slot::new(index, device, observers.clone()));
            if slot.device.as_ref().is_some_and(|device| !device.is_instant()) {
                let (sender, receiver) = sync_channel(QUEUE_BATCHES_MAX);
                let worker = slot.clone();
                let builder = std::thread::Builder::new().name(format!("device-{index}"));
                threads.push(
                    builder
                        .spawn(move || serve(&worker, &receiver))
                        .expect("the system has no thread left at start"),
                );
                queues.insert(index, sender);
            }
            slots.insert(index, slot);
        }
        Self {
            inner: Arc::new(Inner {
                slots,
                queues,
                threads,
                observers,
                turn: AtomicU64::new(0),
            }),
        }
    }

    pub fn count(&self) -> usize {
        self.inner.slots.len()
    }

    /// Indexes in ascending order.
    pub fn live(&self) -> Vec<u16> {
        self.inner
            .slots
            .values()
            .filter(|slot| slot.state() == DeviceState::Live)
            .map(|slot| slot.index)
            .collect()
    }

    pub fn is_live(&self, index: u16) -> bool {
        self.state(index) == DeviceState::Live
    }

    pub fn state(&self, index: u16) -> DeviceState {
        self.slot(index).map_or(DeviceState::Missing, |slot| slot.state())
    }

    /// Why it is not live, else empty.
    pub fn reason(&self, index: u16) -> String {
        self.slot(index)
            .map_or_else(|| "unknown device".into(), |slot| lock(&slot.reason).clone())
    }

    /// Also of a dead device; what is done through it counts but does not change its health.
    pub fn device(&self, index: u16) -> Option<Arc<dyn Device>> {
        self.slot(index)?.device.clone().map(|device| device as Arc<dyn Device>)
    }

    pub fn counters(&self, index: u16) -> DeviceCounters {
        self.slot(index)
            .and_then(|slot| slot.device.as_ref())
            .map_or_else(DeviceCounters::default, |device| device.counters.snapshot())
    }

    /// In the calling thread. Any error kills the device; one that is not live gives NotConnected. A range that no device of this size can have
    /// is InvalidInput and harmless: it comes from a damaged row, not from the device.
    pub fn read(&self, index: u16, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let slot = self.slot(index).ok_or_else(|| not_live(index))?;
        let device = slot.live_device()?;
        check_range(device, offset, buffer.len())?;
        device
            .read_at(offset, buffer)
            .inspect_err(|error| slot.fail(&format!("read failed: {error}")))
    }

    /// Writes in parallel over devices and in order within one, then flushes each named device once if asked. One result per device named, by index.
    pub fn write_all(&self, jobs: Vec<WriteJob>, flush: bool) -> Vec<(u16, io::Result<()>)> {
        let mut batches: BTreeMap<u16, Vec<(u64, Bytes)>> = BTreeMap::new();
        for job in jobs {
            batches.entry(job.device).or_default().push((job.offset, job.bytes));
        }
        self.run(batches, flush)
    }

    /// One result per device, by index.
    pub fn flush_all(&self, indexes: &[u16]) -> Vec<(u16, io::Result<()>)> {
        self.run(indexes.iter().map(|index| (*index, Vec::new())).collect(), true)
    }

    /// Marks a device dead, once; the observers hear of it.
    pub fn fail(&self, index: u16, reason: &str) {
        if let Some(slot) = self.slot(index) {
            slot.fail(reason);
        }
    }

    /// Asks every live device whether its backing is still there; those where it is not are dead.
    pub fn probe(&self) {
        for slot in self.inner.slots.values() {
            if let Ok(device) = slot.live_device()
                && let Err(error) = device.probe()
            {
                slot.fail(&error.to_string());
            }
        }
    }

    /// Called once per device that dies, by the thread that found out. Must not do I/O on these devices: it may be their only thread.
    pub fn on_failure(&self, observer: FailureObserver) {
        lock(&self.inner.observers.0).push(Arc::new(observer));
    }

    fn slot(&self, index: u16) -> Option<&Arc<Slot>> {
        self.inner.slots.get(&index)
    }

    fn perform(&self, index: u16, writes: &[(u64, Bytes)], flush: bool) -> io::Result<()> {
        self.slot(index).ok_or_else(|| not_live(index))?.perform(writes, flush)
    }

    /// The caller does the last device's batch itself: it has to wait anyway, and one wake-up less is measurable on a fast flush.
    fn run(&self, batches: BTreeMap<u16, Vec<(u64, Bytes)>>, flush: bool) -> Vec<(u16, io::Result<()>)> {
        let mut batches: Vec<(u16, Vec<(u64, Bytes)>)> = batches.into_iter().collect();
        let turn = self.inner.turn.fetch_add(1, Relaxed) as usize % batches.len().max(1);
        batches.rotate_left(turn);
        let own = batches.pop();
        let (reply, replies) = channel();
        let mut results = Vec::with_capacity(batches.len() + 1);
        let mut waiting = Vec::new();
        for (index, writes) in batches {
            let Some(queue) = self.inner.queues.get(&index) else {
                results.push((index, self.perform(index, &writes, flush)));
                continue;
            };
            let reply = reply.clone();
            match queue.send(Batch { writes, flush, reply }) {
                Ok(()) => waiting.push(index),
                Err(_ended) => results.push((index, Err(not_live(index)))),
            }
        }
        drop(reply);
        if let Some((index, writes)) = own {
            results.push((
                index,
                self.slot(index)
                    .map_or_else(|| Err(not_live(index)), |slot| slot.perform(&writes, flush)),
            ));
        }
        for (index, result) in replies {
            waiting.retain(|waited| *waited != index);
            results.push((index, result));
        }
        // A thread that ended without an answer has panicked in a device.
        for index in waiting {
            self.fail(index, "its I/O thread ended");
            results.push((index, Err(not_live(index))));
        }
        results.sort_by_key(|(index, _)| *index);
        results
    }
}

impl Drop for Inner {
    /// Waits for the threads, so that the devices are closed (and unlocked) when the last clone is gone.
    fn drop(&mut self) {
        self.queues.clear();
        for thread in self.threads.drain(..) {
            if thread.thread().id() != std::thread::current().id() {
                let _ended = thread.join();
            }
        }
    }
}

fn serve(slot: &Slot, batches: &Receiver<Batch>) {
    for batch in batches {
        let result = slot.perform(&batch.writes, batch.flush);
        // A caller that no longer waits has panicked; there is nobody to tell.
        let _nobody_waits = batch.reply.send((slot.index, result));
    }
}

fn check_range(device: &Counted, offset: u64, length: usize) -> io::Result<()> {
    match offset.checked_add(length as u64) {
        Some(end) if end <= device.len() => Ok(()),
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("bytes {offset}+{length} lie outside of {}", device.name()),
        )),
    }
}

fn not_live(index: u16) -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, format!("device {index} is not live"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Slot {
    fn new(index: u16, device: Option<Arc<dyn Device>>, observers: Arc<Observers>) -> Self {
        let state = if device.is_some() {
            DeviceState::Live
        } else {
            DeviceState::Missing
        };
        let reason = Mutex::new(if device.is_some() { String::new() } else { "missing".into() });
        let device = device.map(|inner| {
            Arc::new(Counted {
                inner,
                counters: Counters::default(),
            })
        });
        Self {
            index,
            device,
            state: AtomicU8::new(state as u8),
            reason,
            observers,
        }
    }

    fn state(&self) -> DeviceState {
        match self.state.load(SeqCst) {
            0 => DeviceState::Live,
            1 => DeviceState::Dead,
            _ => DeviceState::Missing,
        }
    }

    fn live_device(&self) -> io::Result<&Arc<Counted>> {
        match &self.device {
            Some(device) if self.state() == DeviceState::Live => Ok(device),
            _ => Err(not_live(self.index)),
        }
    }

    fn perform(&self, writes: &[(u64, Bytes)], flush: bool) -> io::Result<()> {
        let device = self.live_device()?;
        for (offset, bytes) in writes {
            check_range(device, *offset, bytes.len())?;
            device
                .write_at(*offset, bytes)
                .inspect_err(|error| self.fail(&format!("write failed: {error}")))?;
        }
        if flush {
            device.flush().inspect_err(|error| self.fail(&format!("flush failed: {error}")))?;
        }
        // It may have died meanwhile by another thread's failed flush, which can have dropped these very writes.
        self.live_device().map(|_| ())
    }

    fn fail(&self, reason: &str) {
        {
            let mut kept = lock(&self.reason);
            if self.state() != DeviceState::Live {
                return;
            }
            *kept = reason.to_string();
            self.state.store(DeviceState::Dead as u8, SeqCst);
        }
        let observers = lock(&self.observers.0).clone();
        observers.iter().for_each(|observer| observer(self.index, reason));
    }
}

/// A device whose operations are counted.
#[derive(Debug)]
struct Counted {
    inner: Arc<dyn Device>,
    counters: Counters,
}

#[derive(Debug, Default)]
struct Counters {
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    write_bytes: AtomicU64,
    flushes: AtomicU64,
}

impl Counters {
    fn snapshot(&self) -> DeviceCounters {
        DeviceCounters {
            reads: self.reads.load(Relaxed),
            read_bytes: self.read_bytes.load(Relaxed),
            writes: self.writes.load(Relaxed),
            write_bytes: self.write_bytes.load(Relaxed),
            flushes: self.flushes.load(Relaxed),
        }
    }
}

impl Device for Counted {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.counters.reads.fetch_add(1, Relaxed);
        self.counters.read_bytes.fetch_add(buffer.len() as u64, Relaxed);
        self.inner.read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.counters.writes.fetch_add(1, Relaxed);
        self.counters.write_bytes.fetch_add(bytes.len() as u64, Relaxed);
        self.inner.write_at(offset, bytes)
    }

    fn flush(&self) -> io::Result<()> {
        self.counters.flushes.fetch_add(1, Relaxed);
        self.inner.flush()
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        self.inner.discard(offset, length)
    }

    fn probe(&self) -> io::Result<()> {
        self.inner.probe()
    }

    fn is_instant(&self) -> bool {
        self.inner.is_instant()
    }

    fn name(&self) -> String {
        self.inner.name()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::fault::FaultScript;
    use crate::device::memory::MemoryDevice;

    fn set(count: u16) -> (Devices, Vec<Arc<MemoryDevice>>) {
        let memory: Vec<_> = (0..count)
            .map(|index| Arc::new(MemoryDevice::new(format!("m{index}"), 1 << 20)))
            .collect();
        let devices = memory
            .iter()
            .enumerate()
            .map(|(index, device)| (index as u16, Some(device.clone() as Arc<dyn Device>)));
        (Devices::new(devices.chain([(count, None)]).collect()), memory)
    }

    fn job(device: u16, offset: u64, bytes: &[u8]) -> WriteJob {
        WriteJob {
            device,
            offset,
            bytes: Bytes::copy_from_slice(bytes),
        }
    }

    #[test]
    fn writes_reach_each_device_in_order_with_one_flush_each() {
        let (devices, _) = set(3);
        let jobs = (0..3)
            .flat_map(|device| [job(device, 0, b"first"), job(device, 0, b"later")])
            .collect();
        assert!(devices.write_all(jobs, true).into_iter().all(|(_, result)| result.is_ok()));
        for index in 0..3 {
            let mut buffer = [0; 5];
            devices.read(index, 0, &mut buffer).unwrap();
            assert_eq!(&buffer, b"later");
            let expected = DeviceCounters {
                reads: 1,
                read_bytes: 5,
                writes: 2,
                write_bytes: 10,
                flushes: 1,
            };
            assert_eq!(devices.counters(index), expected);
        }
    }

    #[test]
    fn a_failed_flush_kills_the_device_once_and_for_all() {
        let (devices, memory) = set(3);
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = heard.clone();
        devices.on_failure(Box::new(move |index, reason| {
            hearing.lock().unwrap().push((index, reason.to_string()))
        }));
        memory[0].set_script(FaultScript::parse("flush 1 fail").unwrap());
        let results = devices.write_all((0..3).map(|device| job(device, 0, b"x")).collect(), true);
        assert_eq!(
            results.iter().map(|(_, result)| result.is_ok()).collect::<Vec<_>>(),
            [false, true, true]
        );
        let again = devices.flush_all(&[0, 1]);
        assert_eq!(again[0].1.as_ref().unwrap_err().kind(), io::ErrorKind::NotConnected);
        assert_eq!(
            (devices.live(), devices.state(0), devices.state(3)),
            (vec![1, 2], DeviceState::Dead, DeviceState::Missing)
        );
        assert_eq!(*heard.lock().unwrap(), [(0, "flush failed: scripted I/O error".to_string())]);
        assert_eq!(devices.counters(0).flushes, 1);
    }

    #[test]
    fn a_lost_device_is_found_by_reading_or_probing() {
        let (devices, memory) = set(2);
        memory[0].lose();
        memory[1].lose();
        assert!(devices.read(0, 0, &mut [0]).is_err());
        assert_eq!(devices.live(), [1]);
        assert_eq!(devices.read(1, 1 << 20, &mut [0]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(devices.live(), [1]);
        devices.probe();
        assert_eq!(devices.live(), [0u16; 0]);
        assert!(devices.reason(1).contains("gone"));
    }
}
