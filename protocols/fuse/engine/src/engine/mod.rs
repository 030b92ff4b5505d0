//! Every operation that the kernel can ask for, over the core's `FileSystem`.
//!
//! The engine keeps no state of its own that a crash or another face could make wrong: inode numbers are the store's, a directory's offsets are the
//! store's cookies, and files are open in the store. It never checks a permission (the kernel does, by `default_permissions`) and never answers
//! before the store has. A panic below it answers EIO.
//!
//! What is refused, and why: `RENAME_WHITEOUT` is EINVAL (only overlayfs asks for it), xattrs outside `user`, `trusted`, `security` and ACLs are EOPNOTSUPP,
//! `ioctl` and `poll` are the kernel's own, and there is no writeback cache: size and times are the store's.

mod attributes;
mod content;
mod listing;
mod locks;
mod names;
mod shape;
mod xattrs;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use trefoil_core::filesystem::news::Origin;
use trefoil_core::filesystem::{Errno, FileSystem, Inode, Owner, ROOT, Result};

use listing::Listings;

use crate::device::{Device, Ticket};
use crate::holders::Holders;
use crate::invalidations::{Freshness, Invalidations};
use crate::known::Known;
use crate::options::{Options, Timeouts};
use crate::syncs::Syncs;
use crate::waits::Waits;
use crate::wire::{Header, Reader, Writer, operation};

/// How a request is answered.
enum Answer {
    /// With what the operation wrote to `Call::out`.
    Payload,
    Content(Vec<u8>),
    /// By somebody who has its ticket, or never: the kernel does not wait for FORGET.
    Elsewhere,
}

/// One request.
struct Call<'a> {
    header: Header,
    inode: Inode,
    body: Reader<'a>,
    out: &'a mut Writer,
    since: Freshness,
}

impl Call<'_> {
    fn owner(&self) -> Owner {
        Owner {
            uid: self.header.uid,
            gid: self.header.gid,
        }
    }

    /// Where the protocol does not say it: whether the caller lacks CAP_FSETID, so that a change of content takes set-id bits away.
    fn strips(&self) -> bool {
        self.header.uid != 0
    }
}

pub struct Engine {
    fs: Arc<dyn FileSystem>,
    device: Arc<Device>,
    options: Options,
    timeouts: Timeouts,
    known: Arc<Known>,
    invalidations: Invalidations,
    syncs: Syncs,
    waits: Arc<Waits>,
    holders: Holders,
    listings: Listings,
}

impl Engine {
    pub fn new(
        fs: Arc<dyn FileSystem>,
        device: Arc<Device>,
        options: Options,
        timeouts: Timeouts,
        invalidations: Invalidations,
        syncs: Syncs,
    ) -> Self {
        Self {
            fs,
            device,
            options,
            timeouts,
            known: Arc::default(),
            invalidations,
            syncs,
            waits: Arc::default(),
            holders: Holders::default(),
            listings: Listings::default(),
        }
    }

    /// The name in which the mount makes changes.
    pub fn origin(&self) -> Origin {
        self.invalidations.origin()
    }

    pub fn known(&self) -> &Arc<Known> {
        &self.known
    }

    /// Answers one message of the kernel.
    pub fn serve(&self, message: &[u8], out: &mut Writer) {
        out.clear();
        let Ok((header, body)) = Reader::message(message) else { return };
        let inode = self.inward(header.node);
        let mut call = Call {
            header,
            inode,
            body,
            out,
            since: self.invalidations.now(),
        };
        let answer = catch_unwind(AssertUnwindSafe(|| self.operate(&mut call))).unwrap_or(Err(Errno::IO));
        match answer {
            Ok(Answer::Payload) => self.device.answer(header.unique, out.as_slice(), &[]),
            Ok(Answer::Content(bytes)) => self.device.answer(header.unique, out.as_slice(), &bytes),
            Ok(Answer::Elsewhere) => {}
            Err(error) => self.device.refuse(header.unique, error),
        }
    }

    fn operate(&self, call: &mut Call) -> Result<Answer> {
        match call.header.operation {
            operation::LOOKUP => self.lookup(call),
            operation::FORGET => self.forget(call),
            operation::BATCH_FORGET => self.forget_many(call),
            operation::GETATTR => self.getattr(call),
            operation::STATX => self.statx(call),
            operation::SETATTR => self.setattr(call),
            operation::READLINK => self.readlink(call),
            operation::SYMLINK => self.symlink(call),
            operation::MKNOD => self.mknod(call),
            operation::MKDIR => self.mkdir(call),
            operation::UNLINK => self.unlink(call),
            operation::RMDIR => self.rmdir(call),
            operation::RENAME | operation::RENAME2 => self.rename(call),
            operation::LINK => self.link(call),
            operation::OPEN => self.open(call),
            operation::CREATE => self.create(call),
            operation::TMPFILE => self.tmpfile(call),
            operation::READ => self.read(call),
            operation::WRITE => self.write(call),
            operation::RELEASE | operation::RELEASEDIR => self.release(call),
            operation::FSYNC | operation::FSYNCDIR | operation::SYNCFS => self.sync(call),
            operation::FALLOCATE => self.fallocate(call),
            operation::LSEEK => self.lseek(call),
            operation::COPY_FILE_RANGE | operation::COPY_FILE_RANGE_64 => self.copy_file_range(call),
            operation::OPENDIR => self.opendir(call),
            operation::READDIR | operation::READDIRPLUS => self.readdir(call),
            operation::STATFS => self.statfs(call),
            operation::SETXATTR => self.setxattr(call),
            operation::GETXATTR => self.getxattr(call),
            operation::LISTXATTR => self.listxattr(call),
            operation::REMOVEXATTR => self.removexattr(call),
            operation::GETLK => self.getlk(call),
            operation::SETLK | operation::SETLKW => self.setlk(call),
            operation::FLUSH => self.flush(call),
            operation::INTERRUPT => self.interrupt(call),
            operation::IOCTL => Err(Errno::NOTTY),
            operation::DESTROY => Ok(Answer::Payload),
            // The kernel remembers this answer and does without: ACCESS is then its own, as BMAP and POLL.
            _ => Err(Errno::NOSYS),
        }
    }

    fn notes_accesses(&self) -> bool {
        self.options.access_times && !self.options.read_only
    }

    fn forget(&self, call: &mut Call) -> Result<Answer> {
        self.known.forgotten(call.inode, call.body.u64()?);
        Ok(Answer::Elsewhere)
    }

    fn forget_many(&self, call: &mut Call) -> Result<Answer> {
        let count = call.body.u32()?;
        call.body.skip(4)?;
        for _ in 0..count {
            let inode = self.inward(call.body.u64()?);
            self.known.forgotten(inode, call.body.u64()?);
        }
        Ok(Answer::Elsewhere)
    }

    /// The payload goes out when everything before it is durable.
    fn after_sync(&self, call: &mut Call) -> Answer {
        self.syncs
            .after_sync(Ticket::new(self.device.clone(), call.header.unique, std::mem::take(call.out)));
        Answer::Elsewhere
    }

    fn sync(&self, call: &mut Call) -> Result<Answer> {
        Ok(self.after_sync(call))
    }

    /// The kernel calls the mount's root 1, whatever directory that is.
    fn inward(&self, node: u64) -> Inode {
        if node == ROOT { self.options.root } else { node }
    }

    fn outward(&self, inode: Inode) -> u64 {
        if inode == self.options.root { ROOT } else { inode }
    }
}
