//! Volumes of the store: what operators do with them, and the block face's way in.
//!
//! A host's change is one closure for the writer, lazy unless the host wants it durable; nobody's thread waits for it (`Done`). Up to the store's bound for
//! small content it lands in the journal with its rows, so it is whole or not there; more is staged in segments first. Invariant: what a host was told is done
//! every face sees; what it flushed survives. Content that a reader has pinned is copied for that reader first, by the thread `later`.

mod device;
mod later;
#[cfg(test)]
mod tests;

pub use later::Later;

use super::commit::Promise;
use super::{Attributes, Core, Done, Store, rows_for, wait};
use crate::block::{self, BlockDevice, BlockError, RESERVATION_BYTES_MAX, Volume, VolumeId, Volumes};
use crate::element::path;
use crate::element::volumes::{self, Found, New, Target};
use crate::error::{Error, Result};
use crate::filesystem::Errno;
use crate::filesystem::news::Origin;
use device::Device;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Rows of a change of an element and its place.
const CHANGE_BYTES: usize = 96 * 1024;
/// Runs that one step of a resize or of zeroing cuts away.
const STEP_RUNS_MAX: usize = 512;
/// A run that is cut or shared, with the extent that it gives back.
const RUN_BYTES: usize = 512;

/// What the handles of one volume share.
#[derive(Debug)]
pub(super) struct State {
    pub target: Target,
    pub block_bytes: u32,
    /// A change ran since its element was settled last.
    pub is_unsettled: AtomicBool,
}

/// Volumes that were opened since the store was, by element.
#[derive(Default)]
pub(super) struct States(Mutex<HashMap<u64, Arc<State>>>);

impl States {
    fn of(&self, found: &Found) -> Arc<State> {
        let mut states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            Arc::new(State {
                target: Target {
                    id: found.mark.id,
                    element: found.place.element,
                    uuid: found.mark.uuid,
                    is_image: found.place.image.is_some(),
                },
                block_bytes: found.mark.block_bytes,
                is_unsettled: AtomicBool::new(false),
            })
        };
        // A file may have been made another volume since.
        let known = states.entry(found.place.element).or_insert_with(make);
        if known.target.uuid != found.mark.uuid {
            *known = make();
        }
        known.clone()
    }

    fn forget(&self, element: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&element);
    }

    fn unsettled(&self) -> Vec<Arc<State>> {
        let states = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_unsettled = |state: &&Arc<State>| state.is_unsettled.swap(false, Ordering::SeqCst);
        states.values().filter(is_unsettled).cloned().collect()
    }
}

/// A volume that the kernel's target has by a mount.
pub struct Lent {
    core: Arc<Core>,
    element: u64,
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.core.let_go(self.element);
    }
}

/// What an operator is shown of a volume.
#[derive(Debug, Clone)]
pub struct VolumeInfo {
    pub volume: Volume,
    pub allocated_bytes: u64,
    /// Handles of hosts; other faces may not change it while there are any.
    pub handles: usize,
    /// Other faces may change it all the same.
    pub is_unlocked: bool,
}

fn volume(found: &Found) -> Volume {
    Volume {
        id: found.mark.id,
        path: found.path.clone(),
        uuid: found.mark.uuid,
        size_bytes: found.size_bytes(),
        used_bytes: found.row.size.saturating_sub(found.hole_bytes).min(found.size_bytes()),
        block_bytes: found.mark.block_bytes,
        read_only: found.place.image.is_some(),
    }
}

fn block_error(error: Error) -> BlockError {
    match error {
        Error::NotFound(_) | Error::Invalid(_) => BlockError::OutOfRange,
        Error::OutOfSpace(_) => BlockError::OutOfSpace,
        Error::Damaged(what) => BlockError::Damaged(what),
        Error::File(Errno::ROFS) => BlockError::ReadOnly,
        Error::Conflict(what) => BlockError::Busy(what),
        other => BlockError::Failed(other.to_string()),
    }
}

/// View and key of a volume's path. Raises Invalid.
fn parts(path: &str) -> Result<(String, Vec<u8>)> {
    match path.trim_start_matches('/').split_once('/') {
        Some((view, key)) if !view.is_empty() && !key.is_empty() && !key.ends_with('/') => Ok((view.to_owned(), key.as_bytes().to_vec())),
        _ => Err(Error::Invalid("a volume's path is VIEW/NAME".into())),
    }
}

impl Core {
    /// A lazy change by an operator, who waits until it is durable.
    fn change_volumes<T: Send + 'static>(
        &self,
        rows: usize,
        work: impl FnOnce(&mut crate::element::transaction::Transaction) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        wait(|done| self.committer.submit(0, rows, done, work))
    }

    /// Never another volume's: made from an id that never returns.
    fn new_uuid(&self) -> Result<[u8; 16]> {
        Ok(self.uuid_of(&[b"volume".as_slice(), &self.staged_id()?.to_be_bytes()].concat()))
    }

    /// Of what has that name in this pool, and of nothing else.
    fn uuid_of(&self, name: &[u8]) -> [u8; 16] {
        let hash = blake3::keyed_hash(&self.pool.secret, name);
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&hash.as_bytes()[..16]);
        // RFC 9562: a version of its maker's own.
        uuid[6] = uuid[6] & 0x0f | 0x80;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        uuid
    }

    /// A handle is gone. Other faces may change the volume once its row says all that hosts did. May be called on the writer's own thread.
    fn let_go(&self, element: u64) {
        self.committer
            .post_own(CHANGE_BYTES, move |tx| match tx.attachments().release(element) {
                true => volumes::settle(tx, element),
                false => Ok(()),
            });
    }

    /// Whoever reads the element as an object is given a copy, so that it can change.
    fn part_with_readers_of(self: &Arc<Self>, element: u64) -> Result<()> {
        let _parts = self.content_locks.part(element);
        let pins = &self.committer.shared.pins;
        if !pins.is_pinned(element) {
            return Ok(());
        }
        let size = path::element(&self.snapshot(), element)?.size;
        self.part_with_readers(element, size)
    }

    /// What hosts changed since the last time is said in the elements' rows from now on.
    pub(super) fn settle_volumes(&self) {
        for state in self.volumes.unsettled() {
            let element = state.target.element;
            self.committer.post_own(CHANGE_BYTES, move |tx| volumes::settle(tx, element));
        }
    }
}

impl Store {
    /// A thin volume at VIEW/NAME, where there is nothing. Raises Invalid, NotFound("view"), Precondition, Limit.
    pub fn create_volume(&self, path: &str, attributes: Attributes, size_bytes: u64, block_bytes: u32) -> Result<VolumeInfo> {
        let (view, key) = parts(path)?;
        let new = New {
            size_bytes,
            block_bytes,
            uuid: self.core.new_uuid()?,
        };
        let rows = rows_for(&key, Some(&attributes), None) + CHANGE_BYTES;
        let made = self
            .core
            .change_volumes(rows, move |tx| volumes::create(tx, &view, &key, attributes, &new))?;
        Ok(self.info(&made))
    }

    /// The file or object at VIEW/NAME becomes a volume; its content stays where it is. Raises NotFound, Invalid, Conflict, Limit.
    pub fn volume_from_file(&self, path: &str, block_bytes: u32) -> Result<VolumeInfo> {
        let (view, key) = parts(path)?;
        let uuid = self.core.new_uuid()?;
        let made = self
            .core
            .change_volumes(CHANGE_BYTES, move |tx| volumes::from_file(tx, &view, &key, block_bytes, uuid))?;
        Ok(self.info(&made))
    }

    /// What a snapshot has of the volume at VIEW/NAME is a volume of its own that only reads, until the snapshot goes. The same one however often it is asked
    /// for. Raises NotFound("path"), NotFound("snapshot"), Invalid, Limit.
    pub fn show_snapshot_of_volume(&self, path: &str, snapshot: &str) -> Result<VolumeInfo> {
        let (view, key) = parts(path)?;
        let path = format!("{view}/{}", String::from_utf8_lossy(&key));
        let (snapshot, core) = (snapshot.to_owned(), self.core.clone());
        let uuid_of = move |image: &[u8]| core.uuid_of(&[b"snapshot of a volume", image].concat());
        let shown = self
            .core
            .change_volumes(CHANGE_BYTES, move |tx| volumes::images::show(tx, &path, &snapshot, uuid_of))?;
        Ok(self.info(&shown))
    }

    /// It is a plain file from now on. `force`: also while hosts have it. Raises NotFound, Conflict(ATTACHED).
    pub fn volume_to_file(&self, id: VolumeId, force: bool) -> Result<()> {
        let found = self.core.change_volumes(CHANGE_BYTES, move |tx| volumes::to_file(tx, id, force))?;
        self.core.volumes.forget(found.place.element);
        Ok(())
    }

    /// With what is in it. `force`: also while hosts have it. Raises NotFound, Conflict(ATTACHED).
    pub fn delete_volume(&self, id: VolumeId, force: bool) -> Result<()> {
        let found = self
            .core
            .change_volumes(2 * CHANGE_BYTES, move |tx| volumes::delete(tx, id, force))?;
        self.core.volumes.forget(found.place.element);
        Ok(())
    }

    /// Hosts hear of it. `shrink`: what is past the new end is lost. Raises NotFound, Invalid, Conflict without `shrink` where it would get smaller.
    pub fn resize_volume(&self, id: VolumeId, size_bytes: u64, shrink: bool) -> Result<VolumeInfo> {
        loop {
            let found = self.look(|rows| volumes::find(rows, id))?;
            volumes::check_size(size_bytes, found.mark.block_bytes)?;
            if size_bytes < found.row.size && !shrink {
                return Err(Error::Conflict("smaller".into()));
            }
            let rows = CHANGE_BYTES + RUN_BYTES * (STEP_RUNS_MAX + volumes::BLOCK_BYTES[1] as usize / 64);
            match self
                .core
                .change_volumes(rows, move |tx| volumes::resize(tx, id, size_bytes, STEP_RUNS_MAX))?
            {
                Some(true) => return self.volume(id),
                Some(false) => {}
                None => self.core.part_with_readers_of(found.place.element)?,
            }
        }
    }

    /// Other faces may change it although hosts have it, until the last of them lets go. Raises NotFound, Conflict("detached").
    pub fn unlock_volume(&self, id: VolumeId) -> Result<()> {
        let found = self.look(|rows| volumes::find(rows, id))?;
        match self.core.committer.shared.attachments.unlock(found.place.element) {
            true => Ok(()),
            false => Err(Error::Conflict("detached".into())),
        }
    }

    /// Hosts attach it through a mount, by which alone it changes while this lives. Raises NotFound.
    pub fn lend_volume(&self, id: VolumeId, mount: Origin) -> Result<Lent> {
        let lend = |done: Done<u64>| {
            self.core
                .committer
                .submit_with(Promise::Lazy(None), 0, CHANGE_BYTES, done, move |tx| {
                    let found = volumes::find(tx, id)?;
                    if found.place.image.is_some() {
                        return Err(Error::Invalid("a mount does not lend what a snapshot has of a volume".into()));
                    }
                    let element = found.place.element;
                    tx.attachments().lend(element, mount);
                    Ok(element)
                });
        };
        let element = wait(lend)?;
        Ok(Lent {
            core: self.core.clone(),
            element,
        })
    }

    /// Raises NotFound.
    pub fn volume(&self, id: VolumeId) -> Result<VolumeInfo> {
        self.look(|rows| volumes::find(rows, id)).map(|found| self.info(&found))
    }

    /// By id.
    pub fn volumes(&self) -> Result<Vec<VolumeInfo>> {
        Ok(self
            .look(|rows| volumes::list(rows))?
            .iter()
            .map(|found| self.info(found))
            .collect())
    }

    fn info(&self, found: &Found) -> VolumeInfo {
        let attachments = &self.core.committer.shared.attachments;
        let element = found.place.element;
        let handles = attachments.handles(element);
        VolumeInfo {
            volume: volume(found),
            allocated_bytes: found.row.size.saturating_sub(found.hole_bytes),
            handles,
            is_unlocked: handles > 0 && !attachments.is_locked(element),
        }
    }

    /// Periods that a crash left open end.
    pub(super) fn settle_after_crash(&self) -> Result<()> {
        for element in self.look(|rows| volumes::unsettled_elements(rows))? {
            self.core.change_volumes(CHANGE_BYTES, move |tx| volumes::settle(tx, element))?;
        }
        Ok(())
    }
}

/// The block face's way in.
impl Volumes for Store {
    fn list(&self) -> block::Result<Vec<Volume>> {
        let found = self.look(|rows| volumes::list(rows)).map_err(block_error)?;
        Ok(found.iter().map(volume).collect())
    }

    fn open(&self, id: VolumeId) -> block::Result<Arc<dyn BlockDevice>> {
        let attach = |done: Done<Found>| {
            self.core
                .committer
                .submit_with(Promise::Lazy(None), 0, CHANGE_BYTES, done, move |tx| {
                    let found = volumes::find(tx, id)?;
                    tx.attachments().attach(found.place.element);
                    Ok(found)
                });
        };
        let found = wait(attach).map_err(block_error)?;
        Ok(Arc::new(Device::new(self.core.clone(), self.core.volumes.of(&found))))
    }

    fn reservation(&self, id: VolumeId) -> block::Result<Option<Vec<u8>>> {
        self.look(|rows| volumes::reservation(rows, id)).map_err(block_error)
    }

    fn keep_reservation(&self, id: VolumeId, record: Option<Vec<u8>>) -> block::Result<()> {
        let bytes = record.as_ref().map_or(0, Vec::len);
        if bytes > RESERVATION_BYTES_MAX {
            return Err(BlockError::Failed("the record of a reservation is too long".into()));
        }
        let keep = move |tx: &mut crate::element::transaction::Transaction| volumes::keep_reservation(tx, id, record);
        self.core.change_volumes(bytes + 512, keep).map_err(block_error)
    }

    fn wait_changed(&self, seen: u64, patience: Duration) -> u64 {
        self.core.committer.shared.attachments.wait_changed(seen, patience)
    }
}
