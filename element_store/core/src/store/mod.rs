//! The store: what joins devices, journal, segments and metadata into elements that survive.
//!
//! Owns the threads (writer, upkeep, reducer) and the order of things: content is durable before a transaction names it, a transaction is
//! durable before it is acknowledged or seen, and nothing is reused before the commit that gives it up and the last reader that could know it.
//! `docs/CONCURRENCY.md` names the threads and locks, `docs/DURABILITY.md` says when what is safe.

mod ages;
pub mod commit;
mod compact;
mod content_cache;
mod deepen;
pub mod digest;
pub mod drives;
mod files;
#[cfg(test)]
mod files_simulation;
mod guard;
mod just_landed;
mod landing;
mod merge;
#[cfg(test)]
mod namespace_tests;
mod open;
mod packs;
mod pressure;
mod read;
mod reduce;
#[cfg(test)]
mod reduce_tests;
mod reducer;
mod reduction_counters;
mod reduction_modes;
mod reduction_report;
pub mod root;
#[cfg(test)]
mod simulation;
mod snapshot_jobs;
#[cfg(test)]
mod snapshot_simulation;
mod snapshots;
mod status;
pub mod tables;
mod tend;
mod upkeep;
mod uploads;
mod volumes;

pub use crate::element::accounting::Accounting;
pub use crate::element::info::{
    Condition, Deletion, Digests, ElementInfo, Page, PartInfo, Removal, Terms, UploadInfo, UploadedPart, VersionInfo, VersionPage,
    Versioning, ViewInfo,
};
pub use crate::element::listing::ListQuery;
pub use crate::element::rows::{Attributes, Kind};
pub use crate::element::upload::Completion;
pub use crate::element::version_listing::VersionQuery;
pub use crate::reduction::Mode;
pub use landing::{Staged, Staging};
pub use open::OpenOptions;
pub use read::{Content, READ_BYTES_MAX};
pub use reducer::ReductionSettings;
pub use reduction_report::{Part, Usage};
pub use snapshot_jobs::{Backlog, Job, JobKind};
pub use snapshots::SnapshotEntry;
pub use status::{DeviceStatus, Status};
pub use volumes::{Lent, VolumeInfo};

use crate::element::content::Source;
use crate::element::history::View;
use crate::element::namespace::{self, Description, Origin, SHARED_RUNS_MAX};
use crate::element::{Rows, keys, listing, path, upload, version_listing, versions};
use crate::error::{Error, Result};
use crate::filesystem::Errno;
use crate::journal::{JournalReader, Start};
use crate::meta::lsm::LsmEngine;
use crate::pool::Pool;
use crate::segment::{ReclaimToken, Segments};
use commit::{Committer, Rank};
use content_cache::ContentCache;
use guard::Guard;
use just_landed::JustLanded;
use landing::Holds;
use pressure::Pressure;
use reducer::Reducer;
use reduction_counters::ReductionCounters;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;
use upkeep::{Checkpointed, UpkeepCounters};

/// Content up to this size lands in the journal as one record.
pub const SMALL_BYTES_MAX: usize = 128 * 1024;
/// Of one record of the daemon: a row's value.
pub const RECORD_BYTES_MAX: usize = crate::meta::VALUE_BYTES_MAX;
pub const RECORD_NAME_BYTES_MAX: usize = 512;
/// Keys that one transaction deletes.
const DELETED_KEYS_MAX: usize = 64;

/// Called exactly once, from a store thread; must be quick and must not call the store.
pub type Done<T> = Box<dyn FnOnce(Result<T>) + Send>;

/// Runs something that reports to a `Done`, and waits for it.
pub fn wait<T: Send + 'static>(start: impl FnOnce(Done<T>)) -> Result<T> {
    let (sender, receiver) = sync_channel(1);
    start(Box::new(move |result| {
        let _nobody_waits = sender.send(result);
    }));
    receiver.recv().unwrap_or_else(|_| Err(Error::Closed("the store is closed".into())))
}

/// What may still be read by somebody who came before it was given up.
#[derive(Debug)]
pub(crate) enum Reclaim {
    Zones(ReclaimToken),
    Journal { start: Start, tail: u64 },
}

/// Everything that the threads share.
pub(crate) struct Core {
    pool: Arc<Pool>,
    committer: Arc<Committer>,
    journal: JournalReader,
    segments: Segments,
    engine: Arc<LsmEngine>,
    guard: Guard<Reclaim>,
    holds: Arc<Holds>,
    wake: Arc<Wake>,
    /// What failed in the background last, until it works again.
    trouble: Mutex<Option<String>>,
    upkeep_counters: UpkeepCounters,
    reduction_counters: ReductionCounters,
    reducer: Mutex<Reducer>,
    /// Of reduction, where no view says otherwise.
    mode: Mode,
    base_cache: ContentCache,
    /// Of what was read in part: the next read often wants the rest.
    part_cache: ContentCache,
    /// Extents that landed in segments last, for the reducer.
    just_landed: JustLanded,
    pressure: Pressure,
    /// No payload is landed in the journal before it: where looks for landed ones start, past the deleted rows of those that were moved.
    landed_floor: AtomicU64,
    /// By users: whoever works in the background gives way.
    reads: AtomicU64,
    content_locks: files::ContentLocks,
    volumes: volumes::States,
    volumes_later: volumes::Later,
    snapshot_progress: snapshot_jobs::Progress,
    /// Content up to this size goes into a journal record.
    small_bytes_max: usize,
    /// Held during a checkpoint.
    checkpointed: Mutex<Checkpointed>,
}

/// A latch that a thread sleeps on.
#[derive(Default)]
pub(crate) struct Signal {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    fn notify(&self) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn wait(&self, timeout: Duration) {
        let set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut set, _) = self
            .changed
            .wait_timeout_while(set, timeout, |set| !*set)
            .unwrap_or_else(PoisonError::into_inner);
        *set = false;
    }
}

/// How the background threads are woken and ended.
#[derive(Default)]
pub(crate) struct Wake {
    upkeep: Signal,
    reducer: Signal,
    /// The writer waited for room since the last checkpoint, and since the last pass of the reducer.
    pressed: [AtomicBool; 2],
    stopped: AtomicBool,
}

impl Wake {
    /// A change waits for room.
    fn press(&self) {
        self.pressed.iter().for_each(|pressed| pressed.store(true, Ordering::SeqCst));
        self.upkeep.notify();
        self.reducer.notify();
    }

    fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.press();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

pub struct Store {
    core: Arc<Core>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// The most that a change of a key writes in rows: directories on the way, the element, what it replaces, versions.
fn rows_for(key: &[u8], attributes: Option<&Attributes>, digests: Option<&Digests>) -> usize {
    const CHANGE_BYTES: usize = 6 * 1024;
    const DIRECTORY_BYTES: usize = 160;
    let depth = key.iter().filter(|byte| **byte == b'/').count();
    let xattrs = attributes.map_or(0, |attributes| {
        attributes.xattrs.iter().map(|(name, value)| name.len() + value.len() + 6).sum()
    });
    let digests = digests.map_or(0, |digests| digests.iter().map(|(name, value)| name.len() + value.len() + 2).sum());
    CHANGE_BYTES + 6 * key.len() + DIRECTORY_BYTES * depth + 2 * (xattrs + digests)
}

impl Core {
    fn snapshot(&self) -> View {
        View::new(|| self.committer.meta.snapshot(), || self.committer.shared.spaces())
    }
}

impl Store {
    /// Drains, checkpoints, stops the threads. The devices close with the last `Content` and `Staging`. Idempotent.
    pub fn close(&self) -> Result<()> {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        if threads.is_empty() {
            return Ok(());
        }
        self.core.committer.close("the store is closed");
        self.core.pressure.stop();
        let drained = self.core.committer.run_own(Rank::Own, 64, |_| Ok(()));
        let checkpointed = drained.and_then(|()| self.core.checkpoint());
        self.core.wake.stop();
        self.core.committer.stop();
        threads.into_iter().for_each(|thread| {
            let _panicked = thread.join();
        });
        self.core.volumes_later.stop();
        checkpointed
    }

    fn check_open(&self) -> Result<()> {
        match self.core.committer.closed_reason() {
            Some(reason) => Err(Error::Closed(reason)),
            None => Ok(()),
        }
    }

    /// A look at the newest committed state.
    fn look<T>(&self, look: impl FnOnce(&dyn Rows) -> Result<T>) -> Result<T> {
        self.check_open()?;
        look(&self.core.snapshot())
    }

    pub fn create_view(&self, name: &str, attributes: Attributes, done: Done<ViewInfo>) {
        let name = name.to_owned();
        self.core
            .committer
            .submit(0, rows_for(name.as_bytes(), Some(&attributes), None), done, move |tx| {
                namespace::create_view(tx, &name, attributes)
            });
    }

    pub fn set_view_attributes(&self, name: &str, attributes: Attributes, done: Done<ViewInfo>) {
        let name = name.to_owned();
        let rows = rows_for(name.as_bytes(), Some(&attributes), None);
        self.core
            .committer
            .submit(0, rows, done, move |tx| namespace::set_view_attributes(tx, &name, attributes));
    }

    /// Uploads in progress are aborted. Raises NotFound, Conflict while it holds a key, EROFS for a snapshot.
    pub fn delete_view(&self, name: &str) -> Result<()> {
        let space = keys::space_of(self.view(name)?.id);
        if self
            .core
            .committer
            .shared
            .spaces()
            .get(space)
            .is_some_and(|space| space.row.is_image)
        {
            return Err(Error::File(Errno::ROFS));
        }
        let one = ListQuery {
            limit: 1,
            ..Default::default()
        };
        let any = VersionQuery {
            list: one,
            after_version: None,
        };
        if !self.list_versions(name, &any)?.versions.is_empty() {
            return Err(Error::Conflict("view".into()));
        }
        loop {
            for upload in self.list_uploads(name, b"", b"", "", 100)? {
                match wait(|done| self.abort_upload(name, &upload.key, &upload.id, done)) {
                    Ok(()) | Err(Error::NotFound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            let view = name.to_owned();
            match wait(|done| {
                self.core
                    .committer
                    .submit(0, rows_for(b"", None, None), done, move |tx| namespace::delete_view(tx, &view))
            }) {
                Err(Error::Conflict(_)) if !self.list_uploads(name, b"", b"", "", 1)?.is_empty() => {}
                result => return result,
            }
        }
    }

    pub fn view(&self, name: &str) -> Result<ViewInfo> {
        self.look(|rows| namespace::view(rows, name))
    }

    pub fn views(&self) -> Result<Vec<ViewInfo>> {
        self.look(|rows| namespace::views(rows))
    }

    /// What the key names, or one of its versions. Raises NotFound("view"), "key", "version", "marker".
    pub fn lookup(&self, view: &str, key: &[u8], version: Option<u64>) -> Result<ElementInfo> {
        self.look(|rows| namespace::lookup(rows, view, key, version))
    }

    /// A version, or the newest; a delete marker too.
    pub fn version(&self, view: &str, key: &[u8], version: Option<u64>) -> Result<VersionInfo> {
        self.look(|rows| versions::version(rows, view, key, version))
    }

    pub fn list_versions(&self, view: &str, query: &VersionQuery) -> Result<VersionPage> {
        self.look(|rows| version_listing::list(rows, view, query))
    }

    pub fn list(&self, view: &str, query: &ListQuery) -> Result<Page> {
        self.look(|rows| listing::list(rows, view, query))
    }

    /// Content of at most SMALL_BYTES_MAX. `digests` must hold the MD5. Raises NotFound, Precondition, Invalid, Limit, OutOfSpace.
    #[allow(clippy::too_many_arguments, reason = "they are what a PUT consists of")]
    pub fn put(
        &self,
        view: &str,
        key: &[u8],
        bytes: Vec<u8>,
        attributes: Attributes,
        digests: Digests,
        terms: Terms,
        done: Done<ElementInfo>,
    ) {
        if bytes.len() > SMALL_BYTES_MAX {
            return done(Err(Error::Limit("small content".into())));
        }
        if bytes.len() > self.core.small_bytes_max {
            let mut staging = self.stage();
            return match staging.write(&bytes).and_then(|()| staging.finish()) {
                Ok(staged) => self.publish(view, key, staged, attributes, digests, terms, done),
                Err(error) => done(Err(error)),
            };
        }
        let (view, key) = (view.to_owned(), key.to_vec());
        let (payload, rows) = (bytes.len(), rows_for(&key, Some(&attributes), Some(&digests)));
        self.core.committer.submit(payload, rows, done, move |tx| {
            let description = Description::whole(attributes, digests)?;
            namespace::publish(tx, &view, &key, Origin::New(Source::Small(bytes)), description, &terms)
        });
    }

    pub fn stage(&self) -> Staging {
        Staging::new(self.core.clone())
    }

    /// Gives staged content a name.
    #[allow(clippy::too_many_arguments, reason = "they are what a PUT consists of")]
    pub fn publish(
        &self,
        view: &str,
        key: &[u8],
        staged: Staged,
        attributes: Attributes,
        digests: Digests,
        terms: Terms,
        done: Done<ElementInfo>,
    ) {
        let (view, key) = (view.to_owned(), key.to_vec());
        let rows = rows_for(&key, Some(&attributes), Some(&digests));
        let space = self.look(|rows| path::space_of(rows, &view, &key));
        self.place(staged, space, rows, done, move |tx, origin| {
            namespace::publish(tx, &view, &key, origin, Description::whole(attributes, digests)?, &terms)
        });
    }

    /// Commits staged content: at once if its rows fit a transaction, else its extents are assembled in a hidden element of the space first.
    fn place<T: Send + 'static>(
        &self,
        staged: Staged,
        space: Result<u64>,
        rows: usize,
        done: Done<T>,
        name: impl FnOnce(&mut crate::element::transaction::Transaction, Origin) -> Result<T> + Send + 'static,
    ) {
        const EXTENT_ROW_BYTES: usize = 400;
        let Staged { source, hold, .. } = staged;
        let done: Done<T> = Box::new(move |result| {
            drop(hold);
            done(result);
        });
        match source {
            Source::Staged(extents) if extents.len() > SHARED_RUNS_MAX => {
                match space.and_then(|space| self.core.assemble_staged(space, extents)) {
                    Ok(hidden) => {
                        let origin = hidden.origin();
                        let done: Done<T> = Box::new(move |result| {
                            drop(hidden);
                            done(result);
                        });
                        self.core.committer.submit(0, rows, done, move |tx| name(tx, origin));
                    }
                    Err(error) => done(Err(error)),
                }
            }
            source => {
                let (payload, extents) = match &source {
                    Source::Small(bytes) => (bytes.len(), 1),
                    Source::Staged(extents) => (0, extents.len()),
                };
                self.core
                    .committer
                    .submit(payload, rows + EXTENT_ROW_BYTES * extents, done, move |tx| {
                        name(tx, Origin::New(source))
                    });
            }
        }
    }

    pub fn delete(&self, view: &str, removal: Removal, versioning: Versioning, done: Done<Deletion>) {
        let view = view.to_owned();
        self.core.committer.submit(0, rows_for(&removal.key, None, None), done, move |tx| {
            namespace::delete(tx, &view, &removal, versioning)
        });
    }

    /// Each key for itself: one result per key. Blocks.
    pub fn delete_many(&self, view: &str, removals: Vec<Removal>, versioning: Versioning) -> Result<Vec<Result<Deletion>>> {
        self.view(view)?;
        let mut results = Vec::with_capacity(removals.len());
        for batch in removals.chunks(DELETED_KEYS_MAX) {
            let rows = batch.iter().map(|removal| rows_for(&removal.key, None, None)).sum();
            let (view, batch) = (view.to_owned(), batch.to_vec());
            results.extend(wait(|done| {
                self.core.committer.submit(0, rows, done, move |tx| {
                    batch
                        .iter()
                        .map(|removal| settled(namespace::delete(tx, &view, removal, versioning)))
                        .collect::<Result<Vec<_>>>()
                });
            })?);
        }
        Ok(results)
    }

    pub fn set_attributes(
        &self,
        view: &str,
        key: &[u8],
        version: Option<u64>,
        attributes: Attributes,
        condition: Option<Condition>,
        done: Done<ElementInfo>,
    ) {
        let (view, key) = (view.to_owned(), key.to_vec());
        let rows = rows_for(&key, Some(&attributes), None) + 4096;
        self.core.committer.submit(0, rows, done, move |tx| {
            namespace::set_attributes(tx, &view, &key, version, attributes, condition.as_ref())
        });
    }

    /// Pins what the key names now, or one of its versions.
    pub fn open_content(&self, view: &str, key: &[u8], version: Option<u64>) -> Result<Content> {
        self.check_open()?;
        Content::open(&self.core, view, key, version)
    }

    pub fn get_record(&self, kind: &str, name: &str) -> Result<Option<Vec<u8>>> {
        self.look(|rows| rows.get(&keys::record(kind, name)))
    }

    /// In byte order of names.
    pub fn list_records(&self, kind: &str) -> Result<Vec<(String, Vec<u8>)>> {
        let from = keys::record(kind, "");
        let name = |key: &[u8]| String::from_utf8_lossy(&key[from.len()..]).into_owned();
        self.look(|rows| {
            rows.range(&from, &crate::meta::prefix_end(&from), false)
                .map(|row| row.map(|(key, value)| (name(&key), value)))
                .collect()
        })
    }

    /// Raises Conflict if it must be new and is not, Limit, Invalid.
    pub fn put_record(&self, kind: &str, name: &str, value: Vec<u8>, must_be_new: bool, done: Done<()>) {
        if value.len() > RECORD_BYTES_MAX || kind.len() + name.len() > RECORD_NAME_BYTES_MAX {
            return done(Err(Error::Limit("record".into())));
        }
        if kind.contains('\0') || name.contains('\0') {
            return done(Err(Error::Invalid("a record's name holds NUL".into())));
        }
        let key = keys::record(kind, name);
        self.core.committer.submit(0, value.len() + 2048, done, move |tx| {
            if must_be_new && tx.get(&key)?.is_some() {
                return Err(Error::Conflict("record".into()));
            }
            tx.put(key, value)
        });
    }

    pub fn delete_record(&self, kind: &str, name: &str, done: Done<bool>) {
        let key = keys::record(kind, name);
        self.core.committer.submit(0, 2048, done, move |tx| {
            let there = tx.get(&key)?.is_some();
            tx.delete(&key)?;
            Ok(there)
        });
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _closed_as_far_as_possible = self.close();
    }
}

/// What a key's own deletion may fail with is its result; anything else ends the transaction.
fn settled(result: Result<Deletion>) -> Result<Result<Deletion>> {
    match result {
        Err(error @ (Error::NotFound(_) | Error::Precondition(_) | Error::Conflict(_))) => Ok(Err(error)),
        result => result.map(Ok),
    }
}

pub use upload::PART_NUMBER_MAX;
