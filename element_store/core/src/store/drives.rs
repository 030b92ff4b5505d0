//! The pool's devices as segments see them.
//!
//! Owns a few threads that read for those who need several shards at once. Invariants: a device that is not live gets no I/O; devices that never wait are
//! read in the calling thread, so that a simulation replays. Never retries, and decides nothing about health: the device set does.

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::device::set::{self, Devices};
use crate::segment::{Drives, ReadJob, WriteJob};

/// Enough for the shards of one degraded read; concurrent ones share them, and each caller reads too.
pub const READERS_MAX: usize = 16;

type Outcome = (u16, io::Result<()>);

#[derive(Debug)]
pub struct PoolDrives {
    devices: Devices,
    readers: Option<Sender<ReadTask>>,
    threads: Vec<JoinHandle<()>>,
}

struct ReadTask {
    job: ReadJob,
    at: usize,
    reply: Sender<(usize, io::Result<Vec<u8>>)>,
}

impl PoolDrives {
    pub fn new(devices: Devices) -> Self {
        let waits = |index: &u16| devices.device(*index).is_some_and(|device| !device.is_instant());
        let count = devices.live().iter().filter(|index| waits(index)).count().min(READERS_MAX);
        let (sender, receiver) = channel();
        let tasks = Arc::new(Mutex::new(receiver));
        // A thread that the system refuses is one reader fewer; without any the callers read.
        let threads: Vec<_> = (0..count).filter_map(|number| reader(number, &devices, &tasks).ok()).collect();
        Self {
            readers: (!threads.is_empty()).then_some(sender),
            threads,
            devices,
        }
    }

    pub fn devices(&self) -> &Devices {
        &self.devices
    }
}

impl Drop for PoolDrives {
    /// Waits for the readers: they hold the devices open.
    fn drop(&mut self) {
        self.readers = None;
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

fn reader(number: usize, devices: &Devices, tasks: &Arc<Mutex<Receiver<ReadTask>>>) -> io::Result<JoinHandle<()>> {
    let (devices, tasks) = (devices.clone(), tasks.clone());
    let serve = move || {
        loop {
            let task = tasks.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).recv();
            let Ok(task) = task else { return };
            // A caller that no longer waits has panicked; there is nobody to tell.
            let _nobody_waits = task.reply.send((task.at, read(&devices, &task.job)));
        }
    };
    std::thread::Builder::new().name(format!("reader-{number}")).spawn(serve)
}

fn read(devices: &Devices, job: &ReadJob) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; job.length];
    devices.read(job.device, job.offset, &mut buffer).map(|()| buffer)
}

impl Drives for PoolDrives {
    fn live(&self) -> Vec<u16> {
        self.devices.live()
    }

    fn read(&self, device: u16, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.devices.read(device, offset, buffer)
    }

    fn write_all(&self, jobs: Vec<WriteJob>, flush: bool) -> Vec<Outcome> {
        let order: Vec<u16> = jobs.iter().map(|job| job.device).collect();
        let batch = jobs.into_iter().map(|job| set::WriteJob {
            device: job.device,
            offset: job.offset,
            bytes: job.bytes,
        });
        per_job(&order, self.devices.write_all(batch.collect(), flush))
    }

    fn flush_all(&self, devices: &[u16]) -> Vec<Outcome> {
        per_job(devices, self.devices.flush_all(devices))
    }

    /// Only gives space back: if it fails the zone keeps its old bytes, which no reader takes for new ones, and the next write tells what the device is worth.
    fn discard(&self, device: u16, offset: u64, length: u64) {
        if let Some(target) = self.devices.device(device).filter(|_| self.devices.is_live(device)) {
            let _keeps_old_bytes = target.discard(offset, length);
        }
    }

    /// The caller reads the last one itself: it has to wait anyway.
    fn read_many(&self, jobs: &[ReadJob]) -> Vec<io::Result<Vec<u8>>> {
        let (Some(readers), [others @ .., own]) = (&self.readers, jobs) else {
            return jobs.iter().map(|job| read(&self.devices, job)).collect();
        };
        let mut results: Vec<Option<io::Result<Vec<u8>>>> = jobs.iter().map(|_| None).collect();
        let (reply, replies) = channel();
        for (at, job) in others.iter().enumerate() {
            let task = ReadTask {
                job: *job,
                at,
                reply: reply.clone(),
            };
            if readers.send(task).is_err() {
                results[at] = Some(read(&self.devices, job));
            }
        }
        drop(reply);
        results[others.len()] = Some(read(&self.devices, own));
        for (at, result) in replies {
            results[at] = Some(result);
        }
        let unanswered = || Err(io::Error::other("the thread that read ended without an answer"));
        results.into_iter().map(|result| result.unwrap_or_else(unanswered)).collect()
    }
}

/// The set answers once per device, in their order. A failure is that of each of the device's jobs: it may have undone any of them.
fn per_job(jobs: &[u16], outcomes: Vec<Outcome>) -> Vec<Outcome> {
    if jobs.len() == outcomes.len() {
        return outcomes;
    }
    let again = |device: &u16| {
        let outcome = outcomes.binary_search_by_key(device, |(index, _)| *index);
        let result = match outcome.map(|at| &outcomes[at].1) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(io::Error::new(error.kind(), error.to_string())),
            Err(_) => Err(io::Error::other("the device did not answer")),
        };
        (*device, result)
    };
    jobs.iter().map(again).collect()
}

#[cfg(test)]
mod tests;
