//! `fcntl` and `flock`, in the table that all faces share. A mount without a table leaves locks to the kernel, which keeps them among its own processes.

use trefoil_core::filesystem::locks::{Family, Hold, Lock, LockOwner, Range};
use trefoil_core::filesystem::{Errno, Result};

use super::{Answer, Call, Engine};
use crate::device::Ticket;
use crate::options::Locks;
use crate::wire::{Reader, hint, operation};

/// `fcntl(2)`
const F_RDLCK: u32 = 0;
const F_WRLCK: u32 = 1;
const F_UNLCK: u32 = 2;

/// `struct fuse_lk_in`
struct Asked {
    family: Family,
    owner: u64,
    start: u64,
    end: u64,
    kind: u32,
    process: u32,
    handle: u64,
}

impl Engine {
    pub(super) fn getlk(&self, call: &mut Call) -> Result<Answer> {
        let locks = self.locks()?;
        let asked = Asked::read(&mut call.body)?;
        match locks.table.test(call.inode, asked.family, &asked.lock(locks.client)?) {
            None => call.out.u64(asked.start).u64(asked.end).u32(F_UNLCK).u32(0),
            Some(held) => {
                let kind = if held.hold == Hold::Shared { F_RDLCK } else { F_WRLCK };
                // The number of a process elsewhere means nothing here.
                let process = if held.owner.client == locks.client { held.process } else { 0 };
                call.out.u64(held.range.start()).u64(held.range.end()).u32(kind).u32(process)
            }
        };
        Ok(Answer::Payload)
    }

    pub(super) fn setlk(&self, call: &mut Call) -> Result<Answer> {
        let locks = self.locks()?;
        let asked = Asked::read(&mut call.body)?;
        if asked.kind == F_UNLCK {
            let owner = LockOwner {
                client: locks.client,
                owner: asked.owner,
            };
            return locks
                .table
                .unlock(call.inode, asked.family, owner, asked.range()?)
                .map(|()| Answer::Payload);
        }
        let wanted = asked.lock(locks.client)?;
        if asked.family == Family::Posix {
            self.holders.ask(call.inode, asked.handle, asked.owner);
        }
        if call.header.operation == operation::SETLK {
            return locks.table.set(call.inode, asked.family, &wanted).map(|()| Answer::Payload);
        }
        let ticket = Ticket::new(self.device.clone(), call.header.unique, std::mem::take(call.out));
        let begin = |answer| locks.table.wait(call.inode, asked.family, &wanted, answer);
        self.waits.wait(call.header.unique, ticket, &locks.table, begin);
        Ok(Answer::Elsewhere)
    }

    pub(super) fn interrupt(&self, call: &mut Call) -> Result<Answer> {
        if let Some(locks) = &self.options.locks {
            self.waits.interrupt(call.body.u64()?, &locks.table);
        }
        Ok(Answer::Elsewhere)
    }

    /// A descriptor was closed: POSIX locks of its process go, whichever descriptor they were taken by.
    pub(super) fn flush(&self, call: &mut Call) -> Result<Answer> {
        call.body.skip(16)?;
        let owner = call.body.u64()?;
        self.release_locks(call.inode, Family::Posix, owner)?;
        self.holders.flushed(call.inode, owner);
        Ok(Answer::Payload)
    }

    /// The last descriptor of an open file was closed.
    pub(super) fn end_locks(&self, call: &mut Call, handle: u64) -> Result<()> {
        call.body.skip(4)?;
        let hints = call.body.u32()?;
        let owner = call.body.u64()?;
        for owner in self.holders.released(call.inode, handle) {
            self.release_locks(call.inode, Family::Posix, owner)?;
        }
        if hints & hint::RELEASE_FLOCK_UNLOCK != 0 {
            self.release_locks(call.inode, Family::Flock, owner)
        } else {
            Ok(())
        }
    }

    fn release_locks(&self, inode: u64, family: Family, owner: u64) -> Result<()> {
        let locks = self.locks()?;
        locks.table.release(
            inode,
            family,
            LockOwner {
                client: locks.client,
                owner,
            },
        );
        Ok(())
    }

    /// ENOSYS sends the kernel back to its own.
    fn locks(&self) -> Result<&Locks> {
        self.options.locks.as_ref().ok_or(Errno::NOSYS)
    }
}

impl Asked {
    fn read(body: &mut Reader) -> Result<Self> {
        let handle = body.u64()?;
        let (owner, start, end) = (body.u64()?, body.u64()?, body.u64()?);
        let (kind, process, hints) = (body.u32()?, body.u32()?, body.u32()?);
        let family = if hints & hint::LOCK_FLOCK != 0 {
            Family::Flock
        } else {
            Family::Posix
        };
        Ok(Self {
            family,
            owner,
            start,
            end,
            kind,
            process,
            handle,
        })
    }

    fn range(&self) -> Result<Range> {
        if self.family == Family::Flock {
            Ok(Range::ALL)
        } else {
            Range::new(self.start, self.end)
        }
    }

    fn lock(&self, client: u64) -> Result<Lock> {
        let hold = match self.kind {
            F_RDLCK => Hold::Shared,
            F_WRLCK => Hold::Exclusive,
            _ => return Err(Errno::INVAL),
        };
        Ok(Lock {
            owner: LockOwner { client, owner: self.owner },
            hold,
            range: self.range()?,
            process: self.process,
        })
    }
}
