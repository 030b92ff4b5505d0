//! A model with one fault put in.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::filesystem::model::Model;
use crate::filesystem::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    LosesWrites,
    WritesTooLittle,
    AppendsBesideTheEnd,
    KeepsPrivileges,
    AnswersAnotherErrno,
    CountsOneLink,
    HidesChanges,
    RoundsTimes,
    KeepsVersions,
    SkipsEntries,
    ListsByPosition,
    ReplacesUnasked,
    MovesInsteadOfExchanging,
    ForgetsTheParent,
    CopiesInsteadOfLinking,
    ShowsWhatWasCutOff,
    PunchesTooLittle,
    GrowsBeyondKeptSize,
    CopiesTooLittle,
    ForgetsValues,
    KeepsAttributes,
    EmptiesWhatIsOpen,
    NeverForgets,
    ForgetsTheGroup,
    FindsNoData,
    FindsHolesInData,
    CutsTargets,
    HeedsTheUmaskOnly,
    ForgetsToInherit,
    KeepsListsApart,
    KeepsCapabilities,
}

pub const ALL: [Fault; 31] = [
    Fault::LosesWrites,
    Fault::WritesTooLittle,
    Fault::AppendsBesideTheEnd,
    Fault::KeepsPrivileges,
    Fault::AnswersAnotherErrno,
    Fault::CountsOneLink,
    Fault::HidesChanges,
    Fault::RoundsTimes,
    Fault::KeepsVersions,
    Fault::SkipsEntries,
    Fault::ListsByPosition,
    Fault::ReplacesUnasked,
    Fault::MovesInsteadOfExchanging,
    Fault::ForgetsTheParent,
    Fault::CopiesInsteadOfLinking,
    Fault::ShowsWhatWasCutOff,
    Fault::PunchesTooLittle,
    Fault::GrowsBeyondKeptSize,
    Fault::CopiesTooLittle,
    Fault::ForgetsValues,
    Fault::KeepsAttributes,
    Fault::EmptiesWhatIsOpen,
    Fault::NeverForgets,
    Fault::ForgetsTheGroup,
    Fault::FindsNoData,
    Fault::FindsHolesInData,
    Fault::CutsTargets,
    Fault::HeedsTheUmaskOnly,
    Fault::ForgetsToInherit,
    Fault::KeepsListsApart,
    Fault::KeepsCapabilities,
];

/// Faults of content show at one operation in so many, so that they are not found by the very first one.
const ONE_IN: u64 = 8;

pub struct Faulty {
    pub model: Model,
    pub fault: Fault,
    calls: AtomicU64,
    /// A directory that was moved, and where it was.
    moved: Mutex<Option<(Inode, Inode)>>,
}

impl Faulty {
    pub fn new(model: Model, fault: Fault) -> Self {
        let (calls, moved) = (AtomicU64::new(0), Mutex::new(None));
        Self {
            model,
            fault,
            calls,
            moved,
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    fn fires(&self, fault: Fault) -> bool {
        self.has(fault) && self.calls.fetch_add(1, Ordering::Relaxed) % ONE_IN == ONE_IN - 1
    }

    fn show(&self, mut node: Node) -> Node {
        match self.fault {
            Fault::CountsOneLink if node.kind != Type::Directory => node.links = node.links.min(1),
            Fault::HidesChanges => node.changed_ns = node.modified_ns.max(node.created_ns),
            Fault::KeepsVersions => node.version = 1,
            _ => {}
        }
        node
    }

    fn size(&self, inode: Inode) -> u64 {
        self.model.stat(inode).map_or(0, |node| node.size)
    }
}

impl FileSystem for Faulty {
    fn lookup(&self, directory: Inode, name: &[u8]) -> Result<Node> {
        self.model.lookup(directory, name).map(|node| self.show(node))
    }

    fn parent(&self, directory: Inode) -> Result<Node> {
        match *self.moved.lock().unwrap() {
            Some((moved, before)) if moved == directory => self.model.stat(before),
            _ => self.model.parent(directory).map(|node| self.show(node)),
        }
    }

    fn stat(&self, inode: Inode) -> Result<Node> {
        self.model.stat(inode).map(|node| self.show(node))
    }

    fn change(&self, inode: Inode, changes: &Changes) -> Result<Node> {
        let mut changes = changes.clone();
        if let (true, Some(Time::At(at))) = (self.has(Fault::RoundsTimes), changes.modified) {
            changes.modified = Some(Time::At(at / 1000 * 1000));
        }
        let before = self.size(inode);
        let [list, capability] = [acl::ACCESS, CAPABILITY].map(|name| self.model.xattr(inode, name.as_bytes()));
        let node = self.model.change(inode, &changes)?;
        if self.has(Fault::KeepsListsApart) && changes.mode.is_some() && list.is_ok() {
            self.model.remove_xattr(inode, acl::ACCESS.as_bytes())?;
        }
        if let (true, Ok(capability)) = (self.has(Fault::KeepsCapabilities), capability) {
            self.model.set_xattr(inode, CAPABILITY.as_bytes(), &capability, XattrMode::Any)?;
        }
        if self.has(Fault::ShowsWhatWasCutOff) && before + 8 < node.size && node.size < 1 << 30 {
            return self.model.write(inode, before, b"old", false);
        }
        Ok(self.show(node))
    }

    fn create(&self, directory: Inode, name: &[u8], new: New<'_>, mode: u32, owner: Owner) -> Result<Node> {
        self.create_masked(directory, Some(name), new, mode, 0, owner)
    }

    fn create_masked(&self, directory: Inode, name: Option<&[u8]>, new: New<'_>, mode: u32, umask: u32, owner: Owner) -> Result<Node> {
        let heeded = if self.has(Fault::HeedsTheUmaskOnly) { mode & !umask } else { mode };
        let mut node = self.model.create_masked(directory, name, new, heeded, umask, owner)?;
        if self.has(Fault::ForgetsToInherit) && self.model.remove_xattr(node.inode, acl::ACCESS.as_bytes()).is_ok() {
            node = self.model.stat(node.inode)?;
        }
        if self.has(Fault::ForgetsTheGroup) && node.gid != owner.gid {
            let gid = Some(owner.gid);
            return self.model.change(node.inode, &Changes { gid, ..Changes::default() });
        }
        Ok(self.show(node))
    }

    fn create_unnamed(&self, directory: Inode, mode: u32, owner: Owner) -> Result<Node> {
        self.create_masked(directory, None, New::File, mode, 0, owner)
    }

    fn link(&self, inode: Inode, directory: Inode, name: &[u8]) -> Result<Node> {
        if self.has(Fault::CopiesInsteadOfLinking) {
            let Node { mode, uid, gid, .. } = self.model.stat(inode)?;
            return self.model.create(directory, name, New::File, mode, Owner { uid, gid });
        }
        self.model.link(inode, directory, name).map(|node| self.show(node))
    }

    fn unlink(&self, directory: Inode, name: &[u8]) -> Result<()> {
        let node = self.model.lookup(directory, name);
        let result = self.model.unlink(directory, name);
        match (result, node) {
            (Err(Errno::ISDIR), _) if self.has(Fault::AnswersAnotherErrno) => Err(Errno::PERM),
            (Ok(()), Ok(node)) if self.has(Fault::EmptiesWhatIsOpen) && node.links == 1 => {
                let size = Some(0);
                let _ = self.model.change(
                    node.inode,
                    &Changes {
                        size,
                        ..Changes::default()
                    },
                );
                Ok(())
            }
            (result, _) => result,
        }
    }

    fn remove_directory(&self, directory: Inode, name: &[u8]) -> Result<()> {
        self.model.remove_directory(directory, name)
    }

    fn rename(&self, from: (Inode, &[u8]), to: (Inode, &[u8]), replace: Replace) -> Result<()> {
        let replace = match replace {
            Replace::No if self.has(Fault::ReplacesUnasked) => Replace::Yes,
            Replace::Exchange if self.has(Fault::MovesInsteadOfExchanging) => Replace::Yes,
            replace => replace,
        };
        self.model.rename(from, to, replace)?;
        if self.has(Fault::ForgetsTheParent) && from.0 != to.0 {
            let moved = self.model.lookup(to.0, to.1)?;
            *self.moved.lock().unwrap() = (moved.kind == Type::Directory).then_some((moved.inode, from.0));
        }
        Ok(())
    }

    fn read_link(&self, inode: Inode) -> Result<Vec<u8>> {
        let mut target = self.model.read_link(inode)?;
        if self.has(Fault::CutsTargets) {
            target.truncate(1024);
        }
        Ok(target)
    }

    fn open(&self, inode: Inode) -> Result<Node> {
        self.model.open(inode).map(|node| self.show(node))
    }

    fn close(&self, inode: Inode) {
        if !self.has(Fault::NeverForgets) {
            self.model.close(inode);
        }
    }

    fn read(&self, inode: Inode, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.model.read(inode, offset, length)
    }

    fn write(&self, inode: Inode, offset: u64, bytes: &[u8], strip_privileges: bool) -> Result<Node> {
        let strip_privileges = strip_privileges && !self.has(Fault::KeepsPrivileges);
        if self.fires(Fault::LosesWrites) && offset + bytes.len() as u64 <= self.size(inode) {
            let zeros = self.model.read(inode, offset, bytes.len())?;
            return self.model.write(inode, offset, &zeros, strip_privileges);
        }
        if self.fires(Fault::WritesTooLittle) && bytes.len() > 1 {
            return self.model.write(inode, offset, &bytes[..bytes.len() - 1], strip_privileges);
        }
        self.model.write(inode, offset, bytes, strip_privileges).map(|node| self.show(node))
    }

    fn append(&self, inode: Inode, bytes: &[u8], strip_privileges: bool) -> Result<Node> {
        if self.has(Fault::AppendsBesideTheEnd) && self.size(inode) > 0 {
            return self.model.write(inode, self.size(inode) - 1, bytes, strip_privileges);
        }
        self.model.append(inode, bytes, strip_privileges).map(|node| self.show(node))
    }

    fn sync(&self) -> Result<()> {
        self.model.sync()
    }

    fn allocate(&self, inode: Inode, how: Allocation, offset: u64, length: u64) -> Result<Node> {
        let (how, length) = match how {
            Allocation::Punch if self.has(Fault::PunchesTooLittle) && length > 1 => (how, length - 1),
            Allocation::Zero { keep_size: true } if self.has(Fault::GrowsBeyondKeptSize) => (Allocation::Zero { keep_size: false }, length),
            _ => (how, length),
        };
        self.model.allocate(inode, how, offset, length).map(|node| self.show(node))
    }

    fn seek(&self, inode: Inode, offset: u64, what: Seek) -> Result<u64> {
        let found = self.model.seek(inode, offset, what)?;
        match what {
            Seek::Data if self.has(Fault::FindsNoData) => Err(Errno::NXIO),
            Seek::Hole if self.has(Fault::FindsHolesInData) && found > offset + 1 => Ok(found - 1),
            _ => Ok(found),
        }
    }

    fn copy(&self, from: (Inode, u64), to: (Inode, u64), length: u64) -> Result<u64> {
        let copied = self.model.copy(from, to, length)?;
        if self.fires(Fault::CopiesTooLittle) && copied > 0 {
            self.model.write(to.0, to.1 + copied - 1, b"?", false)?;
        }
        Ok(copied)
    }

    fn newest_cookie(&self, directory: Inode) -> Result<u64> {
        self.model.newest_cookie(directory)
    }

    fn list(&self, directory: Inode, cookie: u64, limit: usize) -> Result<Vec<Entry>> {
        if self.has(Fault::ListsByPosition) {
            let entries = self.model.list(directory, 0, usize::MAX)?.into_iter().zip(1..);
            let rest = entries.skip(cookie as usize).take(limit);
            return Ok(rest.map(|(entry, cookie)| Entry { cookie, ..entry }).collect());
        }
        let mut entries = self.model.list(directory, cookie, limit)?;
        if self.fires(Fault::SkipsEntries) && entries.len() > 1 {
            entries.remove(0);
        }
        entries.iter_mut().for_each(|entry| entry.node = self.show(entry.node.clone()));
        Ok(entries)
    }

    fn xattr(&self, inode: Inode, name: &[u8]) -> Result<Vec<u8>> {
        self.model.xattr(inode, name)
    }

    fn set_xattr(&self, inode: Inode, name: &[u8], value: &[u8], mode: XattrMode) -> Result<()> {
        let kept = self.model.xattr(inode, name);
        let value = kept.as_deref().ok().filter(|_| self.fires(Fault::ForgetsValues)).unwrap_or(value);
        self.model.set_xattr(inode, name, value, mode)
    }

    fn xattrs(&self, inode: Inode) -> Result<Vec<Vec<u8>>> {
        self.model.xattrs(inode)
    }

    fn remove_xattr(&self, inode: Inode, name: &[u8]) -> Result<()> {
        if self.has(Fault::KeepsAttributes) {
            let value = self.model.xattr(inode, name)?;
            return self.model.set_xattr(inode, name, &value, XattrMode::Any);
        }
        self.model.remove_xattr(inode, name)
    }

    fn statistics(&self) -> Result<Statistics> {
        self.model.statistics()
    }
}
