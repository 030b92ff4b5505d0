//! A file system that is asked by NFS as far as NFS goes, and directly for the rest: so the judge of file systems judges an NFS server.
//!
//! Everything that an answer tells by NFS is compared with what the file system tells itself; where they differ the answer is EPROTO, with the
//! difference on standard error. What it changes directly it syncs at once: whatever is not durable after a call, the server left so.

use super::client::{Attributes, Client, Handle, NFS, OK, Set, Words};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use trefoil_core::filesystem::*;

pub struct Through {
    fs: Arc<dyn FileSystem>,
    session: Mutex<Session>,
}

struct Session {
    client: Client,
    handles: HashMap<Inode, Handle>,
    /// Counts calls, to take turns among ways of doing the same.
    turn: u64,
    /// How many operations went by NFS, and how many did not.
    by_nfs: u64,
    directly: u64,
}

type Outcome<T> = std::result::Result<T, u32>;

fn errno(status: u32) -> Errno {
    match status {
        1 | 2 | 5 | 6 | 13 | 17..=22 | 27 | 28 | 30 | 31 => Errno::from_raw_os_error(status as i32),
        63 => Errno::NAMETOOLONG,
        66 => Errno::NOTEMPTY,
        70 => Errno::STALE,
        _ => Errno::PROTO,
    }
}

fn wire_time(ns: i64) -> Option<(u32, u32)> {
    let seconds = u32::try_from(ns.div_euclid(1_000_000_000)).ok()?;
    Some((seconds, ns.rem_euclid(1_000_000_000) as u32))
}

/// Linux's `dev_t`, taken apart as glibc's gnu_dev_major does.
fn device(number: u64) -> (u32, u32) {
    let major = ((number >> 8) & 0xfff) | ((number >> 32) & !0xfff);
    let minor = (number & 0xff) | ((number >> 12) & !0xff);
    (major as u32, minor as u32)
}

fn kind(node: &Node) -> (u32, (u32, u32)) {
    match node.kind {
        Type::File => (1, (0, 0)),
        Type::Directory => (2, (0, 0)),
        Type::BlockDevice(number) => (3, device(number)),
        Type::CharacterDevice(number) => (4, device(number)),
        Type::Symlink => (5, (0, 0)),
        Type::Socket => (6, (0, 0)),
        Type::Fifo => (7, (0, 0)),
    }
}

/// What NFS should tell of a node. A time that it cannot tell is any time.
fn agrees(told: &Attributes, node: &Node) -> bool {
    let (kind, device) = kind(node);
    let same_time = |ns: i64, told: (u32, u32)| wire_time(ns).is_none_or(|time| time == told);
    (told.kind, told.device) == (kind, device)
        && (told.mode, told.links, told.uid, told.gid) == (node.mode, node.links, node.uid, node.gid)
        && (told.size, told.used, told.inode) == (node.size, node.allocated, node.inode)
        && same_time(node.accessed_ns, told.accessed)
        && same_time(node.modified_ns, told.modified)
        && same_time(node.changed_ns, told.changed)
}

impl Session {
    fn handle(&mut self, inode: Inode) -> Option<Handle> {
        let handle = self.handles.get(&inode).cloned();
        *(if handle.is_some() { &mut self.by_nfs } else { &mut self.directly }) += 1;
        self.turn += 1;
        handle
    }

    /// Which of `ways` ways it is this time.
    fn way(&self, ways: u64) -> u64 {
        self.turn % ways
    }

    /// As this user, once.
    fn acting<T>(&mut self, uid: u32, gid: u32, act: impl FnOnce(&mut Client) -> T) -> T {
        let before = self.client.user.replace((uid, gid, Vec::new()));
        let done = act(&mut self.client);
        self.client.user = before;
        done
    }
}

impl Through {
    /// `/` must be exported to this machine, with root trusted.
    pub fn connect(fs: Arc<dyn FileSystem>, address: SocketAddr) -> Self {
        let mut client = Client::connect(address);
        let handles = HashMap::from([(ROOT, client.mount("/").unwrap())]);
        let session = Session {
            client,
            handles,
            turn: 0,
            by_nfs: 0,
            directly: 0,
        };
        Self {
            fs,
            session: Mutex::new(session),
        }
    }

    /// After a restart of the server: the handles must still do.
    pub fn reconnect(&mut self, fs: Arc<dyn FileSystem>, address: SocketAddr) {
        self.fs = fs;
        self.session().client = Client::connect(address);
    }

    /// The share of operations that went by NFS, in percent.
    pub fn share(&self) -> u64 {
        let session = self.session();
        100 * session.by_nfs / (session.by_nfs + session.directly).max(1)
    }

    fn has_default_acl(&self, directory: Inode) -> bool {
        self.fs.xattr(directory, b"system.posix_acl_default").is_ok()
    }

    fn session(&self) -> MutexGuard<'_, Session> {
        self.session.lock().unwrap()
    }

    fn directly<T>(&self, act: impl FnOnce(&dyn FileSystem) -> Result<T>) -> Result<T> {
        self.session().directly += 1;
        let done = act(&*self.fs)?;
        self.fs.sync()?;
        Ok(done)
    }

    /// The node that `told` is about.
    fn checked(&self, told: &Attributes) -> Result<Node> {
        let node = self.fs.stat(told.inode)?;
        if agrees(told, &node) {
            return Ok(node);
        }
        eprintln!("NFS told {told:?} of {node:?}");
        Err(Errno::PROTO)
    }

    fn met(&self, found: Outcome<(Handle, Attributes)>) -> Result<Node> {
        let (handle, told) = found.map_err(errno)?;
        let mut session = self.session();
        let known = session.handles.entry(told.inode).or_insert_with(|| handle.clone());
        if *known != handle {
            eprintln!("inode {} has another handle", told.inode);
            return Err(Errno::PROTO);
        }
        drop(session);
        self.checked(&told)
    }

    fn make(&self, directory: &[u8], name: &[u8], new: &New<'_>, mode: u32, owner: Owner, inherits: bool) -> Outcome<(Handle, Attributes)> {
        let set = Set {
            mode: Some(mode),
            uid: Some(owner.uid),
            gid: (!inherits).then_some(owner.gid),
            ..Set::default()
        };
        let mut session = self.session();
        let way = session.way(2);
        let entry = Words::new().entry(directory, name);
        session.acting(0, owner.gid, |client| {
            let mut special = |number: u32, device: Option<u64>| {
                let words = set.encode(entry.clone().int(number));
                let number = device.map(self::device);
                client
                    .make(11, number.map_or(words.clone(), |(major, minor)| words.int(major).int(minor)))
                    .0
            };
            match new {
                New::Directory => client.make(9, set.encode(entry)).0,
                New::Symlink(target) => client.make(10, set.encode(entry).bytes(target)).0,
                New::BlockDevice(number) => special(3, Some(*number)),
                New::CharacterDevice(number) => special(4, Some(*number)),
                New::Socket => special(6, None),
                New::Fifo => special(7, None),
                New::File if way == 0 || inherits => client.create_guarded(directory, name, &set),
                New::File => create_exclusively(client, directory, name, &set),
            }
        })
    }

    /// NFS has no flag for what becomes of set-id bits: they go if the owner is not root, or with a new owner.
    fn by_setattr(&self, node: &Node, changes: &Changes) -> Option<(Set, (u32, u32))> {
        let time = |time: Option<Time>| match time {
            None => Some(None),
            Some(Time::Now) => Some(Some(None)),
            Some(Time::At(ns)) => wire_time(ns).map(|time| Some(Some(time))),
        };
        let set = Set {
            mode: changes.mode,
            uid: changes.uid,
            gid: changes.gid,
            size: changes.size,
            accessed: time(changes.accessed)?,
            modified: time(changes.modified)?,
        };
        let given = node.kind != Type::Directory && (set.uid.is_some() || set.gid.is_some());
        if changes.strip_privileges == given && !(given && set.mode.is_some()) {
            return Some((set, (0, 0)));
        }
        let resize = Changes {
            size: Some(changes.size?),
            strip_privileges: true,
            ..Changes::default()
        };
        (*changes == resize && node.uid != 0).then_some((set, (node.uid, node.gid)))
    }
}

/// As Linux does it: the attributes follow in SETATTR. The owner first, since a new owner takes the set-id bits away.
fn create_exclusively(client: &mut Client, directory: &[u8], name: &[u8], set: &Set) -> Outcome<(Handle, Attributes)> {
    let (handle, _) = client.create_exclusive(directory, name, [1, 2, 3, 4, 5, 6, 7, 8])?;
    let owner = Set {
        mode: None,
        accessed: Some(None),
        modified: Some(None),
        ..set.clone()
    };
    for set in [owner, Set::mode(set.mode.unwrap_or(0))] {
        let (status, _) = client.setattr(&handle, &set, None);
        assert_eq!(status, OK);
    }
    let attributes = client.getattr(&handle)?;
    Ok((handle, attributes))
}

/// Names that NFS has a meaning of its own for, or an errno of its own.
fn is_dot(name: &[u8]) -> bool {
    matches!(name, b"." | b"..")
}

impl FileSystem for Through {
    fn lookup(&self, directory: Inode, name: &[u8]) -> Result<Node> {
        let mut session = self.session();
        match session.handle(directory).filter(|_| !is_dot(name)) {
            Some(handle) => {
                let found = session.client.lookup(&handle, name);
                drop(session);
                self.met(found)
            }
            None => self.fs.lookup(directory, name),
        }
    }

    fn parent(&self, directory: Inode) -> Result<Node> {
        let mut session = self.session();
        match session.handle(directory) {
            Some(handle) => {
                let found = session.client.lookup(&handle, "..");
                drop(session);
                self.met(found)
            }
            None => self.fs.parent(directory),
        }
    }

    fn stat(&self, inode: Inode) -> Result<Node> {
        let mut session = self.session();
        match session.handle(inode) {
            Some(handle) => {
                let told = session.client.getattr(&handle).map_err(errno)?;
                drop(session);
                self.checked(&told)
            }
            None => self.fs.stat(inode),
        }
    }

    fn change(&self, inode: Inode, changes: &Changes) -> Result<Node> {
        let Some((set, (uid, gid))) = self.fs.stat(inode).ok().and_then(|node| self.by_setattr(&node, changes)) else {
            return self.directly(|fs| fs.change(inode, changes));
        };
        let mut session = self.session();
        let Some(handle) = session.handle(inode) else {
            drop(session);
            return self.directly(|fs| fs.change(inode, changes));
        };
        let (status, wcc) = session.acting(uid, gid, |client| client.setattr(&handle, &set, None));
        drop(session);
        if status != OK {
            return Err(errno(status));
        }
        self.checked(&wcc.after.ok_or(Errno::PROTO)?)
    }

    fn create(&self, directory: Inode, name: &[u8], new: New<'_>, mode: u32, owner: Owner) -> Result<Node> {
        let inherits = self.fs.stat(directory).is_ok_and(|node| node.mode & 0o2000 != 0);
        let handle = self.session().handle(directory);
        // NFS has no say in a symlink's mode.
        let plain = !is_dot(name) && (mode == 0o777 || !matches!(new, New::Symlink(_)));
        match handle.filter(|_| plain) {
            Some(handle) => self.met(self.make(&handle, name, &new, mode, owner, inherits)),
            None => self.directly(|fs| fs.create(directory, name, new, mode, owner)),
        }
    }

    /// A client knows no default ACL and takes its umask away by itself.
    fn create_masked(&self, directory: Inode, name: Option<&[u8]>, new: New<'_>, mode: u32, umask: u32, owner: Owner) -> Result<Node> {
        match name.filter(|_| !self.has_default_acl(directory)) {
            Some(name) => self.create(directory, name, new, mode & !(umask & 0o777), owner),
            None => self.directly(|fs| fs.create_masked(directory, name, new, mode, umask, owner)),
        }
    }

    fn create_unnamed(&self, directory: Inode, mode: u32, owner: Owner) -> Result<Node> {
        self.directly(|fs| fs.create_unnamed(directory, mode, owner))
    }

    fn link(&self, inode: Inode, directory: Inode, name: &[u8]) -> Result<Node> {
        let mut session = self.session();
        let both = session.handle(inode).zip(session.handle(directory));
        let Some((file, directory)) = both.filter(|_| !is_dot(name)) else {
            drop(session);
            return self.directly(|fs| fs.link(inode, directory, name));
        };
        let (status, told, _) = session.client.link(&file, &directory, name);
        drop(session);
        if status != OK {
            return Err(errno(status));
        }
        self.checked(&told.ok_or(Errno::PROTO)?)
    }

    fn unlink(&self, directory: Inode, name: &[u8]) -> Result<()> {
        let mut session = self.session();
        let Some(handle) = session.handle(directory).filter(|_| !is_dot(name)) else {
            drop(session);
            return self.directly(|fs| fs.unlink(directory, name));
        };
        done(session.client.remove(&handle, name).0)
    }

    fn remove_directory(&self, directory: Inode, name: &[u8]) -> Result<()> {
        let mut session = self.session();
        let Some(handle) = session.handle(directory).filter(|_| !is_dot(name)) else {
            drop(session);
            return self.directly(|fs| fs.remove_directory(directory, name));
        };
        done(session.client.rmdir(&handle, name).0)
    }

    fn rename(&self, from: (Inode, &[u8]), to: (Inode, &[u8]), replace: Replace) -> Result<()> {
        let mut session = self.session();
        let both = session.handle(from.0).zip(session.handle(to.0));
        let plain = replace == Replace::Yes && !is_dot(from.1) && !is_dot(to.1);
        let Some((source, target)) = both.filter(|_| plain) else {
            drop(session);
            return self.directly(|fs| fs.rename(from, to, replace));
        };
        done(session.client.rename((&source, from.1), (&target, to.1)).0)
    }

    fn read_link(&self, inode: Inode) -> Result<Vec<u8>> {
        let mut session = self.session();
        match session.handle(inode) {
            Some(handle) => session.client.readlink(&handle).map_err(errno),
            None => self.fs.read_link(inode),
        }
    }

    fn open(&self, inode: Inode) -> Result<Node> {
        self.directly(|fs| fs.open(inode))
    }

    fn close(&self, inode: Inode) {
        let _ = self.directly(|fs| {
            fs.close(inode);
            Ok(())
        });
    }

    fn read(&self, inode: Inode, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut session = self.session();
        let Some(handle) = session.handle(inode) else {
            return self.fs.read(inode, offset, length);
        };
        let (bytes, end) = session.client.read(&handle, offset, length as u32).map_err(errno)?;
        let size = self.fs.stat(inode)?.size;
        if end != (offset.saturating_add(bytes.len() as u64) >= size) {
            eprintln!("the end of {size} bytes was told wrongly at {offset} and {}", bytes.len());
            return Err(Errno::PROTO);
        }
        Ok(bytes)
    }

    fn write(&self, inode: Inode, offset: u64, bytes: &[u8], strip_privileges: bool) -> Result<Node> {
        let mut session = self.session();
        let (uid, gid) = match self.fs.stat(inode) {
            Ok(node) if strip_privileges => (node.uid, node.gid),
            _ => (0, 0),
        };
        let Some(handle) = session.handle(inode).filter(|_| !strip_privileges || uid != 0) else {
            drop(session);
            return self.directly(|fs| fs.write(inode, offset, bytes, strip_privileges));
        };
        let how = session.way(3) as u32;
        let written = session.acting(uid, gid, |client| client.write(&handle, offset, bytes, how));
        let (stable, verifier, wcc) = written.map_err(errno)?;
        if stable == 0 && session.client.commit(&handle) != Ok(verifier) || stable < how {
            eprintln!("a write asked for as {how} became {stable}");
            return Err(Errno::PROTO);
        }
        drop(session);
        self.checked(&wcc.after.ok_or(Errno::PROTO)?)
    }

    fn append(&self, inode: Inode, bytes: &[u8], strip_privileges: bool) -> Result<Node> {
        self.directly(|fs| fs.append(inode, bytes, strip_privileges))
    }

    fn sync(&self) -> Result<()> {
        self.fs.sync()
    }

    fn allocate(&self, inode: Inode, how: Allocation, offset: u64, length: u64) -> Result<Node> {
        self.directly(|fs| fs.allocate(inode, how, offset, length))
    }

    fn seek(&self, inode: Inode, offset: u64, what: Seek) -> Result<u64> {
        self.fs.seek(inode, offset, what)
    }

    fn copy(&self, from: (Inode, u64), to: (Inode, u64), length: u64) -> Result<u64> {
        self.directly(|fs| fs.copy(from, to, length))
    }

    fn newest_cookie(&self, directory: Inode) -> Result<u64> {
        self.fs.newest_cookie(directory)
    }

    fn list(&self, directory: Inode, cookie: u64, limit: usize) -> Result<Vec<Entry>> {
        let mut session = self.session();
        let Some(handle) = session.handle(directory) else {
            return self.fs.list(directory, cookie, limit);
        };
        let way = session.way(2);
        // Cookies 1 and 2 are those of `.` and `..`.
        let (mut entries, mut after) = (Vec::new(), cookie + 2);
        while entries.len() < limit {
            let (listed, end) = if way == 0 {
                session.client.readdirplus(&handle, after, 600, 1200).map_err(errno)?
            } else {
                session.client.readdir(&handle, after, 600).map_err(errno)?
            };
            after = listed.last().map_or(after, |entry| entry.cookie);
            entries.extend(listed);
            if end {
                break;
            }
        }
        drop(session);
        entries.truncate(limit);
        let seen = entries.into_iter().map(|entry| {
            let node = match (entry.handle, entry.attributes) {
                (Some(handle), Some(told)) => self.met(Ok((handle, told)))?,
                _ => self.fs.stat(entry.inode)?,
            };
            Ok(Entry {
                name: entry.name,
                cookie: entry.cookie - 2,
                node,
            })
        });
        seen.collect()
    }

    fn xattr(&self, inode: Inode, name: &[u8]) -> Result<Vec<u8>> {
        self.fs.xattr(inode, name)
    }

    fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        self.directly(|fs| fs.set_xattr(inode, name, value, mode))
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<Vec<u8>>> {
        self.fs.xattrs(inode)
    }

    fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<()> {
        self.directly(|fs| fs.remove_xattr(inode, name))
    }

    fn statistics(&self) -> Result<Statistics> {
        let mut session = self.session();
        let root = session.handles[&ROOT].clone();
        let mut results = session.client.call(NFS, 18, Words::new().bytes(&root));
        drop(session);
        let statistics = self.fs.statistics()?;
        let status = results.int();
        results.maybe_attributes();
        let (total_bytes, free_bytes) = (results.long(), results.long());
        assert_eq!(status, OK);
        Ok(Statistics {
            total_bytes,
            free_bytes,
            ..statistics
        })
    }
}

fn done(status: u32) -> Result<()> {
    if status == OK { Ok(()) } else { Err(errno(status)) }
}
