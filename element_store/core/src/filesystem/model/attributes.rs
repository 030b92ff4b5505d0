//! What stands beside content and names: mode, owner, size, times, extended attributes.

use super::data::end_of;
use super::state::{Element, State};
use super::{XATTR_BYTES_MAX, XATTR_NAME_BYTES_MAX};
use crate::filesystem::*;

fn moment(time: Time, now: i64) -> i64 {
    match time {
        Time::Now => now,
        Time::At(at) => at,
    }
}

fn apply(element: &mut Element, changes: &Changes, now: i64) {
    let node = &mut element.node;
    let before = node.clone();
    node.mode = changes.mode.map_or(node.mode, |mode| mode & 0o7777);
    node.uid = changes.uid.unwrap_or(node.uid);
    node.gid = changes.gid.unwrap_or(node.gid);
    node.accessed_ns = changes.accessed.map_or(node.accessed_ns, |time| moment(time, now));
    node.modified_ns = changes.modified.map_or(node.modified_ns, |time| moment(time, now));
    if changes.strip_privileges {
        element.strip_privileges();
    }
    let asked = Changes {
        strip_privileges: false,
        ..changes.clone()
    };
    if asked != Changes::default() || element.node != before {
        element.node.changed_ns = now;
    }
}

impl State {
    pub fn change(&mut self, inode: Inode, changes: &Changes, now: i64) -> Result<Node> {
        let element = self.get_mut(inode)?;
        if let Some(size) = changes.size {
            let content = element.content()?;
            end_of(size, 0)?;
            let before = content.allocated();
            content.set_size(size);
            let after = content.allocated();
            element.modified(now);
            self.resized(before, after);
        }
        apply(self.at(inode), changes, now);
        self.node(inode)
    }

    pub fn xattr(&self, inode: Inode, name: &[u8]) -> Result<Vec<u8>> {
        self.get(inode)?.xattrs.get(name).cloned().ok_or(Errno::NODATA)
    }

    pub fn xattrs(&self, inode: Inode) -> Result<Vec<Vec<u8>>> {
        Ok(self.get(inode)?.xattrs.keys().cloned().collect())
    }

    pub fn set_xattr(&mut self, inode: Inode, name: &[u8], value: &[u8], mode: XattrMode, now: i64) -> Result<()> {
        let element = self.get(inode)?;
        if name.is_empty() || name.contains(&0) || std::str::from_utf8(name).is_err() {
            return Err(Errno::INVAL);
        }
        if name.len() > XATTR_NAME_BYTES_MAX {
            return Err(Errno::RANGE);
        }
        let held = element.xattrs.get(name).map_or(0, |value| name.len() + value.len());
        match (mode, element.xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(Errno::EXIST),
            (XattrMode::Replace, false) => return Err(Errno::NODATA),
            _ => {}
        }
        let (before, wanted) = (element.xattr_bytes(), (name.len() + value.len()) as u64);
        let after = before - held as u64 + wanted;
        if after > XATTR_BYTES_MAX as u64 {
            return Err(Errno::NOSPC);
        }
        self.reserve(after.saturating_sub(before))?;
        let element = self.at(inode);
        element.xattrs.insert(name.to_vec(), value.to_vec());
        element.node.changed_ns = now;
        self.resized(before, after);
        Ok(())
    }

    pub fn remove_xattr(&mut self, inode: Inode, name: &[u8], now: i64) -> Result<()> {
        let element = self.get_mut(inode)?;
        let value = element.xattrs.remove(name).ok_or(Errno::NODATA)?;
        element.node.changed_ns = now;
        self.resized((name.len() + value.len()) as u64, 0);
        Ok(())
    }
}
