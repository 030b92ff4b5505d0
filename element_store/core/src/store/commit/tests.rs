//! Changes share records, whatever the size of the journal; lazy ones run where they are asked for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::device::Device;
use crate::device::memory::MemoryDevice;
use crate::error::Error;
use crate::filesystem::{FileSystem, New, Owner, ROOT};
use crate::pool::{FormatOptions, Geometry, Pool};
use crate::store::{OpenOptions, Store};

const CHANGES: usize = 300;
/// One whose longest record is hardly longer than `RECORD_BYTES`, and one whose is much longer.
const JOURNALS: [u64; 2] = [16 << 20, 128 << 20];

/// Nothing becomes durable but by a change that is.
fn store(state: &std::path::Path, journal_bytes: u64) -> Arc<Store> {
    const ZONE_BYTES: u64 = 2 << 20;
    let bytes = journal_bytes + 64 * ZONE_BYTES;
    let device = || vec![Arc::new(MemoryDevice::new("m", bytes)) as Arc<dyn Device>];
    let format = FormatOptions {
        geometry: Some(Geometry::fitted(bytes, 512 << 10, journal_bytes, ZONE_BYTES).unwrap()),
        ..FormatOptions::default()
    };
    let options = OpenOptions {
        background: false,
        lazy_age: Duration::MAX,
        ..OpenOptions::default()
    };
    Store::start(Pool::format(device(), format).unwrap(), state, options).unwrap()
}

fn records(store: &Store) -> u64 {
    store.core.committer.counters.records.load(Ordering::Relaxed)
}

#[test]
fn lazy_changes_fill_a_record() {
    for journal_bytes in JOURNALS {
        let state = tempfile::tempdir().unwrap();
        let store = store(state.path(), journal_bytes);
        let owner = Owner { uid: 0, gid: 0 };
        let before = records(&store);
        (0..CHANGES).for_each(|name| {
            let made = FileSystem::create(store.as_ref(), ROOT, format!("{name}").as_bytes(), New::Directory, 0o755, owner);
            made.unwrap();
        });
        store.core.committer.sync().unwrap();
        let written = records(&store) - before;
        assert!(
            written <= 8,
            "{CHANGES} changes took {written} records of a journal of {journal_bytes}"
        );
    }
}

#[test]
fn durable_changes_that_wait_share_a_flush() {
    for journal_bytes in JOURNALS {
        let state = tempfile::tempdir().unwrap();
        let store = store(state.path(), journal_bytes);
        let committer = &store.core.committer;
        let ((open, gate), (done, all)) = (channel::<()>(), channel());
        let before = records(&store);
        // The writer is busy while the others come.
        committer.submit(0, 64, Box::new(|_| {}), move |_| {
            gate.recv().map_err(|_| Error::Closed("gone".into()))
        });
        for change in 0..CHANGES as u64 {
            let done = done.clone();
            let told = move |result: crate::error::Result<()>| done.send(result).unwrap();
            committer.submit(0, 64, Box::new(told), move |tx| {
                tx.put(format!("R{change}").into_bytes(), vec![0; 8])
            });
        }
        open.send(()).unwrap();
        (0..CHANGES).for_each(|_| all.recv().unwrap().unwrap());
        let written = records(&store) - before;
        assert!(
            written <= 8,
            "{CHANGES} changes took {written} records of a journal of {journal_bytes}"
        );
    }
}

#[test]
fn a_lazy_change_runs_where_it_is_asked_for_unless_others_are_before_it() {
    let state = tempfile::tempdir().unwrap();
    let store = store(state.path(), JOURNALS[0]);
    let committer = &store.core.committer;
    let here = || committer.run_lazy(None, 0, 64, |_| Ok(std::thread::current().id())).unwrap();
    // The first change of a store leases ids, durably.
    committer.run_lazy(None, 0, 64, |tx| Ok(tx.new_id())).unwrap();
    committer.sync().unwrap();
    // The writer may hold the pen for a moment.
    assert!((0..1000).any(|_| here() == std::thread::current().id()));
    let ((open, gate), (begun, has_begun)) = (channel::<()>(), channel());
    let busy = move |_: &mut crate::element::transaction::Transaction| {
        begun.send(()).unwrap();
        gate.recv().map_err(|_| Error::Closed("gone".into()))
    };
    committer.submit(0, 64, Box::new(|_| {}), busy);
    has_begun.recv().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| (here(), std::thread::current().id()));
        while committer.queued() == 0 {
            std::thread::yield_now();
        }
        open.send(()).unwrap();
        let (ran, asked) = waiting.join().unwrap();
        assert_ne!(ran, asked, "the pen was taken");
    });
}

#[test]
fn a_change_that_panics_closes_the_store_wherever_it_runs() {
    for is_lazy in [true, false] {
        let state = tempfile::tempdir().unwrap();
        let store = store(state.path(), JOURNALS[0]);
        let committer = &store.core.committer;
        let panics = |_: &mut crate::element::transaction::Transaction| -> crate::error::Result<()> { panic!("on purpose") };
        let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match is_lazy {
            true => committer.run_lazy(None, 0, 64, panics),
            false => crate::store::wait(|done| committer.submit(0, 64, done, panics)),
        }));
        assert!(!matches!(asked, Ok(Ok(()))));
        let after = committer.run_lazy(None, 0, 64, |_| Ok(()));
        assert!(matches!(after, Err(Error::Closed(_))), "{after:?}");
        assert!(committer.closed_reason().is_some());
    }
}
