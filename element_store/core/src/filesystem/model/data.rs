//! What changes and reads the content of files.

use super::state::State;
use crate::filesystem::*;

/// Raises FBIG.
pub(super) fn end_of(offset: u64, length: u64) -> Result<u64> {
    let end = offset.checked_add(length).filter(|end| *end <= FILE_BYTES_MAX);
    end.ok_or(Errno::FBIG)
}

impl State {
    pub fn read(&mut self, inode: Inode, offset: u64, length: usize) -> Result<Vec<u8>> {
        let content = self.get_mut(inode)?.content()?;
        if length > TRANSFER_BYTES_MAX {
            return Err(Errno::INVAL);
        }
        Ok(content.read(offset, length))
    }

    /// Without an offset: at the end. No bytes: nothing happens.
    pub fn write(&mut self, inode: Inode, offset: Option<u64>, bytes: &[u8], strip_privileges: bool, now: i64) -> Result<Node> {
        let content = self.get_mut(inode)?.content()?;
        if bytes.len() > TRANSFER_BYTES_MAX {
            return Err(Errno::INVAL);
        }
        if bytes.is_empty() {
            return self.node(inode);
        }
        let offset = offset.unwrap_or(content.size());
        end_of(offset, bytes.len() as u64)?;
        let missing = content.missing(offset, bytes.len() as u64);
        self.reserve(missing)?;
        let element = self.at(inode);
        element.content()?.write(offset, bytes);
        if strip_privileges {
            element.strip_privileges();
        }
        element.modified(now);
        self.resized(0, missing);
        self.strip_capability(inode);
        self.node(inode)
    }

    pub fn allocate(&mut self, inode: Inode, how: Allocation, offset: u64, length: u64, now: i64) -> Result<Node> {
        let content = self.get_mut(inode)?.content()?;
        if length == 0 {
            return Err(Errno::INVAL);
        }
        let end = end_of(offset, length)?;
        let missing = content.missing(offset, length);
        let before = content.allocated();
        if how != Allocation::Punch {
            self.reserve(missing)?;
        }
        let element = self.at(inode);
        let content = element.content()?;
        match how {
            Allocation::Punch => content.punch(offset, length),
            Allocation::Reserve { .. } => content.reserve(offset, length),
            Allocation::Zero { .. } => {
                content.punch(offset, length);
                content.reserve(offset, length);
            }
        }
        if let Allocation::Reserve { keep_size: false } | Allocation::Zero { keep_size: false } = how {
            content.grow(end);
        }
        let after = content.allocated();
        element.modified(now);
        self.resized(before, after);
        self.strip_capability(inode);
        self.node(inode)
    }

    pub fn seek(&mut self, inode: Inode, offset: u64, what: Seek) -> Result<u64> {
        let content = self.get_mut(inode)?.content()?;
        match what {
            Seek::Data => content.data(offset),
            Seek::Hole => content.hole(offset),
        }
    }

    pub fn copy(&mut self, from: (Inode, u64), to: (Inode, u64), length: u64, now: i64) -> Result<u64> {
        let source = self.get_mut(from.0)?.content()?.clone();
        let target = self.get_mut(to.0)?.content()?;
        let length = source.size().saturating_sub(from.1).min(length);
        if length == 0 {
            return Ok(0);
        }
        end_of(to.1, length)?;
        if from.0 == to.0 && from.1.abs_diff(to.1) < length {
            return Err(Errno::INVAL);
        }
        let mut copied = target.clone();
        copied.copy_from(&source, from.1, to.1, length);
        let (before, after) = (target.allocated(), copied.allocated());
        self.reserve(after.saturating_sub(before))?;
        let element = self.at(to.0);
        *element.content()? = copied;
        element.modified(now);
        self.resized(before, after);
        self.strip_capability(to.0);
        Ok(length)
    }
}
