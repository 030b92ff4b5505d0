//! Locks are those of the table that all faces share: the other face here is the test itself.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, fcntl_lock, flock};
use rustix::io::Errno;
use trefoil_core::filesystem::locks::{Family, Hold, Lock, LockOwner, Range};

use crate::rig::{Rig, soon};

const ELSEWHERE: LockOwner = LockOwner { client: 99, owner: 1 };

fn file(rig: &Rig) -> (File, u64) {
    fs::write(rig.path("f"), b"0123456789").unwrap();
    let file = File::options().read(true).write(true).open(rig.path("f")).unwrap();
    let inode = file.metadata().unwrap().ino();
    (file, inode)
}

fn exclusive(range: Range) -> Lock {
    Lock {
        owner: ELSEWHERE,
        hold: Hold::Exclusive,
        range,
        process: 0,
    }
}

#[test]
fn posix_locks_are_seen_by_other_faces_and_gone_with_a_close() {
    let rig = Rig::new();
    let (file, inode) = file(&rig);
    fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).unwrap();
    let held = rig.table.test(inode, Family::Posix, &exclusive(Range::ALL)).unwrap();
    assert_eq!(
        (held.owner.client, held.hold, held.process),
        (crate::rig::CLIENT, Hold::Exclusive, std::process::id())
    );
    assert_eq!(
        rig.table.test(inode, Family::Flock, &exclusive(Range::ALL)),
        None,
        "the families do not see each other"
    );
    drop(File::open(rig.path("f")).unwrap());
    soon("any close by the process ends its locks", || {
        rig.table.test(inode, Family::Posix, &exclusive(Range::ALL)).is_none()
    });
}

#[test]
fn a_lock_held_elsewhere_is_in_the_way() {
    let rig = Rig::new();
    let (file, inode) = file(&rig);
    for family in [Family::Posix, Family::Flock] {
        rig.table.set(inode, family, &exclusive(Range::ALL)).unwrap();
    }
    assert_eq!(fcntl_lock(&file, FlockOperation::NonBlockingLockShared), Err(Errno::AGAIN));
    assert_eq!(flock(&file, FlockOperation::NonBlockingLockShared), Err(Errno::AGAIN));
    std::thread::scope(|scope| {
        let posix = scope.spawn(|| fcntl_lock(&file, FlockOperation::LockShared));
        let bsd = scope.spawn(|| flock(&file, FlockOperation::LockExclusive));
        soon("both wait", || rig.table.count().1 == 2);
        assert_eq!(
            fs::read(rig.path("f")).unwrap(),
            b"0123456789",
            "no thread of the mount waits with them"
        );
        for family in [Family::Posix, Family::Flock] {
            rig.table.unlock(inode, family, ELSEWHERE, Range::ALL).unwrap();
        }
        assert_eq!((posix.join().unwrap(), bsd.join().unwrap()), (Ok(()), Ok(())));
    });
    drop(file);
    soon("the last close ends both", || rig.table.count() == (0, 0));
}

#[test]
fn a_signal_ends_a_wait() {
    let rig = Rig::new();
    let (_file, inode) = file(&rig);
    rig.table.set(inode, Family::Flock, &exclusive(Range::ALL)).unwrap();
    let mut waiter = Command::new("flock")
        .arg(rig.path("f"))
        .arg("true")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    soon("it waits", || rig.table.count().1 == 1);
    rustix::process::kill_process(rustix::process::Pid::from_child(&waiter), rustix::process::Signal::TERM).unwrap();
    soon("it ends", || waiter.try_wait().unwrap().is_some());
    soon("and waits no more", || rig.table.count() == (1, 0));
}

#[test]
fn the_end_of_a_mount_ends_its_locks_and_waits() {
    let mut rig = Rig::new();
    let (file, inode) = file(&rig);
    flock(&file, FlockOperation::NonBlockingLockShared).unwrap();
    rig.table.set(inode, Family::Posix, &exclusive(Range::ALL)).unwrap();
    std::thread::scope(|scope| {
        let wait = scope.spawn(|| fcntl_lock(&file, FlockOperation::LockShared));
        soon("it waits", || rig.table.count().1 == 1);
        let table = rig.table.clone();
        rig.end();
        assert!(wait.join().unwrap().is_err());
        assert_eq!(table.count(), (1, 0), "only the other face's is left");
    });
}
