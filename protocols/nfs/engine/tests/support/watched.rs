//! The model, with its `sync` counted, held up, or failing; and with a memory of what was last synced, to fall back to as after a loss of power.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, RwLock};
use trefoil_core::filesystem::model::{Clock, Model, system_clock};
use trefoil_core::filesystem::*;

pub struct Watched {
    model: RwLock<Model>,
    /// As of the last `sync`, once it is asked for.
    durable: Mutex<Option<Model>>,
    /// `sync` succeeds and does nothing.
    pub sync_lies: AtomicBool,
    pub syncs: AtomicU64,
    pub sync_fails: AtomicBool,
    pub unlinks: AtomicU64,
    gate: Mutex<Gate>,
    changed: Condvar,
}

#[derive(Default)]
struct Gate {
    closed: bool,
    waiting: u64,
}

impl Default for Watched {
    fn default() -> Self {
        Self::new(system_clock())
    }
}

impl Watched {
    pub fn new(clock: Clock) -> Self {
        let (syncs, sync_fails, sync_lies, unlinks) = Default::default();
        Self {
            model: RwLock::new(Model::new(1 << 30, clock)),
            durable: Mutex::default(),
            syncs,
            sync_fails,
            sync_lies,
            unlinks,
            gate: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// From now on only what was synced outlives `lose_power`.
    pub fn forget_what_is_not_synced(&self) {
        *self.durable.lock().unwrap() = Some(self.model.read().unwrap().fork());
    }

    pub fn lose_power(&self) {
        let durable = self.durable.lock().unwrap();
        *self.model.write().unwrap() = durable.as_ref().unwrap().fork();
    }

    fn remember(&self) {
        let mut durable = self.durable.lock().unwrap();
        if durable.is_some() && !self.sync_lies.load(Ordering::SeqCst) {
            *durable = Some(self.model.read().unwrap().fork());
        }
    }

    /// From now on `sync` waits for `open_gate`.
    pub fn close_gate(&self) {
        self.gate.lock().unwrap().closed = true;
    }

    pub fn open_gate(&self) {
        self.gate.lock().unwrap().closed = false;
        self.changed.notify_all();
    }

    /// Until a `sync` waits.
    pub fn sync_waits(&self) {
        let gate = self.gate.lock().unwrap();
        drop(self.changed.wait_while(gate, |gate| gate.waiting == 0).unwrap());
    }

    pub fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::SeqCst)
    }
}

macro_rules! as_the_model {
    ($($name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($argument: $type),*) -> $result {
            self.model.read().unwrap().$name($($argument),*)
        })*
    };
}

impl FileSystem for Watched {
    fn sync(&self) -> Result<()> {
        let mut gate = self.gate.lock().unwrap();
        gate.waiting += 1;
        self.changed.notify_all();
        let mut gate = self.changed.wait_while(gate, |gate| gate.closed).unwrap();
        gate.waiting -= 1;
        drop(gate);
        self.syncs.fetch_add(1, Ordering::SeqCst);
        if self.sync_fails.load(Ordering::SeqCst) {
            Err(Errno::IO)
        } else {
            self.remember();
            Ok(())
        }
    }

    fn unlink(&self, directory: Inode, name: &[u8]) -> Result<()> {
        self.unlinks.fetch_add(1, Ordering::SeqCst);
        self.model.read().unwrap().unlink(directory, name)
    }

    as_the_model! {
        lookup(directory: Inode, name: &[u8]) -> Result<Node>;
        parent(directory: Inode) -> Result<Node>;
        stat(inode: Inode) -> Result<Node>;
        change(inode: Inode, changes: &Changes) -> Result<Node>;
        create(directory: Inode, name: &[u8], new: New<'_>, mode: u32, owner: Owner) -> Result<Node>;
        create_masked(directory: Inode, name: Option<&[u8]>, new: New<'_>, mode: u32, umask: u32, owner: Owner) -> Result<Node>;
        create_unnamed(directory: Inode, mode: u32, owner: Owner) -> Result<Node>;
        link(inode: Inode, directory: Inode, name: &[u8]) -> Result<Node>;
        remove_directory(directory: Inode, name: &[u8]) -> Result<()>;
        rename(from: (Inode, &[u8]), to: (Inode, &[u8]), replace: Replace) -> Result<()>;
        read_link(inode: Inode) -> Result<Vec<u8>>;
        open(inode: Inode) -> Result<Node>;
        close(inode: Inode) -> ();
        read(inode: Inode, offset: u64, length: usize) -> Result<Vec<u8>>;
        write(inode: Inode, offset: u64, bytes: &[u8], strip_privileges: bool) -> Result<Node>;
        append(inode: Inode, bytes: &[u8], strip_privileges: bool) -> Result<Node>;
        allocate(inode: Inode, how: Allocation, offset: u64, length: u64) -> Result<Node>;
        seek(inode: Inode, offset: u64, what: Seek) -> Result<u64>;
        copy(from: (Inode, u64), to: (Inode, u64), length: u64) -> Result<u64>;
        list(directory: Inode, cookie: u64, limit: usize) -> Result<Vec<Entry>>;
        newest_cookie(directory: Inode) -> Result<u64>;
        xattr(inode: Inode, name: &[u8]) -> Result<Vec<u8>>;
        set_xattr(inode: Inode, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()>;
        xattrs(inode: Inode) -> Result<Vec<Vec<u8>>>;
        remove_xattr(inode: Inode, name: &[u8]) -> Result<()>;
        statistics() -> Result<Statistics>;
    }
}
