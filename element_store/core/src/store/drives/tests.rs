//! The device set behind the segments' interface.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::*;
use crate::device::Device;
use crate::device::fault::FaultScript;
use crate::device::memory::{MemoryDevice, PowerSwitch};

fn set(count: u16) -> (PoolDrives, Vec<Arc<MemoryDevice>>) {
    let memory: Vec<_> = (0..count)
        .map(|index| Arc::new(MemoryDevice::new(format!("m{index}"), 1 << 20)))
        .collect();
    (
        drives(memory.iter().map(|device| device.clone() as Arc<dyn Device>).collect()),
        memory,
    )
}

fn drives(devices: Vec<Arc<dyn Device>>) -> PoolDrives {
    let numbered = devices.into_iter().enumerate().map(|(index, device)| (index as u16, Some(device)));
    PoolDrives::new(Devices::new(numbered.collect()))
}

fn write(device: u16, offset: u64, bytes: &[u8]) -> WriteJob {
    WriteJob {
        device,
        offset,
        bytes: bytes.to_vec().into(),
    }
}

fn read_job(device: u16) -> ReadJob {
    ReadJob {
        device,
        offset: 10,
        length: 4,
    }
}

#[test]
fn what_is_written_is_read_back_in_the_order_asked_for() {
    let (drives, _) = set(6);
    let jobs = (0..6).map(|device| write(device, 10, &[device as u8; 4])).collect();
    assert!(drives.write_all(jobs, true).iter().all(|(_, outcome)| outcome.is_ok()));
    for order in [vec![], vec![3], vec![5, 0, 3, 3, 1], (0..6).collect()] {
        let jobs: Vec<ReadJob> = order.iter().map(|device| read_job(*device)).collect();
        let read: Vec<_> = drives.read_many(&jobs).into_iter().map(|bytes| bytes.unwrap()[0]).collect();
        assert_eq!(read, order.iter().map(|device| *device as u8).collect::<Vec<_>>());
    }
}

#[test]
fn every_job_gets_its_devices_outcome() {
    let (drives, memory) = set(3);
    memory[1].set_script(FaultScript::parse("write 2 fail").unwrap());
    let jobs = [2, 1, 0, 1].map(|device| write(device, 0, b"x")).into();
    let outcomes: Vec<_> = drives
        .write_all(jobs, false)
        .into_iter()
        .map(|(device, outcome)| (device, outcome.is_ok()))
        .collect();
    assert_eq!(outcomes, [(2, true), (1, false), (0, true), (1, false)]);
    let flushed = drives.flush_all(&[0, 1, 2, 2]);
    assert_eq!(
        flushed.iter().map(|(_, outcome)| outcome.is_ok()).collect::<Vec<_>>(),
        [true, false, true, true]
    );
}

#[test]
fn a_dead_device_fails_everything_and_is_left_alone() {
    let (drives, memory) = set(3);
    drives.write_all(vec![write(1, 0, &[7; 8192])], true);
    drives.devices().fail(1, "for the test");
    assert_eq!(drives.live(), [0, 2]);
    let failed: Vec<bool> = drives
        .read_many(&[0, 1, 2].map(read_job))
        .iter()
        .map(|bytes| bytes.is_err())
        .collect();
    assert_eq!(failed, [false, true, false]);
    assert!(drives.read(1, 0, &mut [0]).is_err() && drives.flush_all(&[1])[0].1.is_err());
    drives.discard(1, 0, 8192);
    drives.discard(9, 0, 8192);
    let mut kept = [0; 8192];
    memory[1].read_at(0, &mut kept).unwrap();
    assert_eq!(kept, [7; 8192]);
}

#[test]
fn a_live_device_discards_and_survives_a_wrong_range() {
    let (drives, _) = set(1);
    drives.write_all(vec![write(0, 0, &[7; 8192])], true);
    drives.discard(0, 0, 4096);
    drives.discard(0, 1 << 20, 4096);
    let mut bytes = [1; 8192];
    drives.read(0, 0, &mut bytes).unwrap();
    assert!(bytes[..4096] == [0; 4096] && bytes[4096..] == [7; 4096]);
}

#[test]
fn devices_that_never_wait_are_read_without_threads() {
    let power = PowerSwitch::new();
    let powered = |index| Arc::new(MemoryDevice::powered(format!("m{index}"), 1 << 20, power.clone())) as Arc<dyn Device>;
    let drives = drives((0..3).map(powered).collect());
    assert!(drives.threads.is_empty());
    assert!(drives.read_many(&[0, 1, 2].map(read_job)).iter().all(|bytes| bytes.is_ok()));
}

/// Reads return once all devices are being read.
#[derive(Debug)]
struct Meeting {
    arrived: Arc<(Mutex<usize>, Condvar)>,
    expected: usize,
}

impl Device for Meeting {
    fn len(&self) -> u64 {
        1 << 20
    }

    fn read_at(&self, _offset: u64, _buffer: &mut [u8]) -> io::Result<()> {
        let (arrived, all_here) = &*self.arrived;
        let mut count = arrived.lock().unwrap();
        *count += 1;
        all_here.notify_all();
        let patience = Duration::from_secs(10);
        let (_count, waited) = all_here
            .wait_timeout_while(count, patience, |count| *count < self.expected)
            .unwrap();
        if waited.timed_out() {
            return Err(io::Error::other("read alone"));
        }
        Ok(())
    }

    fn write_at(&self, _offset: u64, _bytes: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, _offset: u64, _length: u64) -> io::Result<()> {
        Ok(())
    }

    fn probe(&self) -> io::Result<()> {
        Ok(())
    }

    fn name(&self) -> String {
        "meeting".into()
    }
}

#[test]
fn several_devices_are_read_at_once() {
    let arrived = Arc::default();
    let meeting = |_| {
        Arc::new(Meeting {
            arrived: Arc::clone(&arrived),
            expected: 6,
        }) as Arc<dyn Device>
    };
    let drives = drives((0..6).map(meeting).collect());
    let jobs: Vec<ReadJob> = (0..6).map(read_job).collect();
    assert!(drives.read_many(&jobs).iter().all(|bytes| bytes.is_ok()));
}

#[test]
fn the_devices_are_closed_with_the_last_drives() {
    let (drives, memory) = set(4);
    drives.read_many(&[0, 1, 2].map(read_job));
    drop(drives);
    assert!(memory.iter().all(|device| Arc::strong_count(device) == 1));
}
