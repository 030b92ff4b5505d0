//! A store that panics, waits and fails to sync: the mount goes on.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use rustix::fs::OFlags;
use rustix::io::Errno;
use trefoil_core::filesystem::model::Model;
use trefoil_core::filesystem::news::Listener;
use trefoil_core::filesystem::*;

use crate::rig::{Rig, errno, soon};

pub struct Faulty {
    model: Arc<Model>,
    pub panics: AtomicBool,
    pub sync_fails: AtomicBool,
    pub syncs: AtomicU64,
    pub reads: AtomicU64,
    pub opens: AtomicU64,
    pub closes: AtomicU64,
    pub shut: Mutex<bool>,
    pub opened: Condvar,
    pub waiting: AtomicU64,
    /// It tells news, of which so many may wait.
    pub news_max: Option<usize>,
}

impl Faulty {
    pub fn around(model: Arc<Model>) -> Arc<Self> {
        Self::telling(model, None)
    }

    pub fn telling(model: Arc<Model>, news_max: Option<usize>) -> Arc<Self> {
        Arc::new(Self {
            model,
            panics: AtomicBool::new(false),
            sync_fails: AtomicBool::new(false),
            syncs: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            opens: AtomicU64::new(0),
            closes: AtomicU64::new(0),
            shut: Mutex::new(false),
            opened: Condvar::new(),
            waiting: AtomicU64::new(0),
            news_max,
        })
    }

    pub fn shut(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.opened.notify_all();
    }

    fn pass(&self) {
        assert!(!self.panics.load(Ordering::SeqCst), "as the test asked");
        let mut shut = self.shut.lock().unwrap();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        while *shut {
            shut = self.opened.wait(shut).unwrap();
        }
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

macro_rules! as_the_model_does {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($argument: $type),*) -> $result { self.model.$name($($argument),*) })*
    };
}

impl FileSystem for Faulty {
    as_the_model_does! {
        fn lookup(directory: Inode, name: &[u8]) -> Result<Node>;
        fn parent(directory: Inode) -> Result<Node>;
        fn stat(inode: Inode) -> Result<Node>;
        fn change(inode: Inode, changes: &Changes) -> Result<Node>;
        fn create(directory: Inode, name: &[u8], new: New<'_>, mode: u32, owner: Owner) -> Result<Node>;
        fn create_unnamed(directory: Inode, mode: u32, owner: Owner) -> Result<Node>;
        fn link(inode: Inode, directory: Inode, name: &[u8]) -> Result<Node>;
        fn unlink(directory: Inode, name: &[u8]) -> Result<()>;
        fn remove_directory(directory: Inode, name: &[u8]) -> Result<()>;
        fn rename(from: (Inode, &[u8]), to: (Inode, &[u8]), replace: Replace) -> Result<()>;
        fn read_link(inode: Inode) -> Result<Vec<u8>>;
        fn write(inode: Inode, offset: u64, bytes: &[u8], strip: bool) -> Result<Node>;
        fn append(inode: Inode, bytes: &[u8], strip: bool) -> Result<Node>;
        fn allocate(inode: Inode, how: Allocation, offset: u64, length: u64) -> Result<Node>;
        fn seek(inode: Inode, offset: u64, what: Seek) -> Result<u64>;
        fn copy(from: (Inode, u64), to: (Inode, u64), length: u64) -> Result<u64>;
        fn list(directory: Inode, cookie: u64, limit: usize) -> Result<Vec<Entry>>;
        fn newest_cookie(directory: Inode) -> Result<u64>;
        fn xattr(inode: Inode, name: &[u8]) -> Result<Vec<u8>>;
        fn set_xattr(inode: Inode, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()>;
        fn xattrs(inode: Inode) -> Result<Vec<Vec<u8>>>;
        fn remove_xattr(inode: Inode, name: &[u8]) -> Result<()>;
        fn statistics() -> Result<Statistics>;
    }

    fn read(&self, inode: Inode, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.pass();
        self.model.read(inode, offset, length)
    }

    fn subscribe(&self) -> Option<Arc<Listener>> {
        self.news_max.map(|news_max| self.model.subscribe_bounded(news_max))
    }

    fn open(&self, inode: Inode) -> Result<Node> {
        self.opens.fetch_add(1, Ordering::SeqCst);
        self.model.open(inode)
    }

    fn close(&self, inode: Inode) {
        self.closes.fetch_add(1, Ordering::SeqCst);
        self.model.close(inode);
    }

    fn sync(&self) -> Result<()> {
        self.pass();
        self.syncs.fetch_add(1, Ordering::SeqCst);
        if self.sync_fails.load(Ordering::SeqCst) {
            Err(Errno::NOSPC)
        } else {
            Ok(())
        }
    }
}

pub fn faulty() -> (Rig, Arc<Faulty>) {
    let mut kept = None;
    let rig = Rig::serving(|_| {}, |model| kept.insert(Faulty::around(model)).clone());
    (rig, kept.unwrap())
}

#[test]
fn a_panic_is_eio_and_nothing_more() {
    let (rig, store) = faulty();
    fs::write(rig.path("f"), b"content").unwrap();
    let direct = File::options()
        .read(true)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(rig.path("f"))
        .unwrap();
    store.panics.store(true, Ordering::SeqCst);
    for _ in 0..40 {
        assert_eq!(errno(direct.read_at(&mut [0; 512], 0)), Errno::IO.raw_os_error());
    }
    assert_eq!(errno(direct.sync_all()), Errno::IO.raw_os_error());
    store.panics.store(false, Ordering::SeqCst);
    assert_eq!(fs::read(rig.path("f")).unwrap(), b"content");
    direct.sync_all().unwrap();
}

#[test]
fn fsync_waits_for_the_store_and_tells_its_error() {
    let (rig, store) = faulty();
    fs::write(rig.path("f"), b"content").unwrap();
    assert_eq!(store.syncs.load(Ordering::SeqCst), 0);
    let file = File::options().write(true).open(rig.path("f")).unwrap();
    file.sync_all().unwrap();
    file.sync_data().unwrap();
    File::open(rig.root()).unwrap().sync_all().unwrap();
    assert_eq!(store.syncs.load(Ordering::SeqCst), 3);
    let synchronous = File::options()
        .write(true)
        .custom_flags(OFlags::DSYNC.bits() as i32)
        .open(rig.path("f"))
        .unwrap();
    synchronous.write_all_at(b"x", 0).unwrap();
    assert!(store.syncs.load(Ordering::SeqCst) >= 4, "O_DSYNC; newer kernels ask for it too");
    store.sync_fails.store(true, Ordering::SeqCst);
    assert_eq!(errno(file.sync_all()), Errno::NOSPC.raw_os_error());
    assert_eq!(errno(synchronous.write_all_at(b"x", 0)), Errno::NOSPC.raw_os_error());
}

#[test]
fn many_that_sync_at_once_share_one_sync() {
    let (rig, store) = faulty();
    fs::write(rig.path("f"), b"content").unwrap();
    // The kernel lets one caller at a time into each file.
    let files: Vec<File> = (0..40).map(|number| File::create(rig.path(format!("{number}"))).unwrap()).collect();
    store.shut(true);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| File::open(rig.path("f")).unwrap().sync_all());
        soon("the first is in the store", || store.waiting.load(Ordering::SeqCst) == 1);
        let others: Vec<_> = files.iter().map(|file| scope.spawn(|| file.sync_all())).collect();
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(
            fs::metadata(rig.path("f")).unwrap().len(),
            7,
            "no thread of the mount waits with them"
        );
        store.shut(false);
        first.join().unwrap().unwrap();
        others.into_iter().for_each(|other| other.join().unwrap().unwrap());
    });
    assert!(store.syncs.load(Ordering::SeqCst) <= 10);
}

#[test]
fn the_end_waits_for_what_is_in_the_store_and_closes_what_is_open() {
    let (mut rig, store) = faulty();
    fs::write(rig.path("f"), b"content").unwrap();
    let file = File::open(rig.path("f")).unwrap();
    let direct = File::options()
        .read(true)
        .custom_flags(OFlags::DIRECT.bits() as i32)
        .open(rig.path("f"))
        .unwrap();
    store.shut(true);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| direct.read_at(&mut [0; 512], 0));
        soon("it is in the store", || store.waiting.load(Ordering::SeqCst) == 1);
        let open = scope.spawn(|| {
            assert!(reader.join().unwrap().is_err());
            store.shut(false);
        });
        rig.end();
        open.join().unwrap();
    });
    assert_eq!(store.closes.load(Ordering::SeqCst), store.opens.load(Ordering::SeqCst));
    assert_eq!(errno(file.metadata()), Errno::NOTCONN.raw_os_error());
}
