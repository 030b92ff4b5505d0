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
    if let Some(mode) = changes.mode {
        node.mode = mode & 0o7777;
        if let Some(list) = element.xattrs.get_mut(acl::ACCESS.as_bytes()) {
            *list = acl::after_chmod(list, mode);
        }
    }
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
        if changes.uid.is_some() || changes.gid.is_some() || changes.size.is_some() {
            self.strip_capability(inode);
        }
        apply(self.at(inode), changes, now);
        self.node(inode)
    }

    /// Capabilities were given to other content, or by another owner.
    pub fn strip_capability(&mut self, inode: Inode) {
        let element = self.at(inode);
        if let Some(value) = element.xattrs.remove(CAPABILITY.as_bytes()) {
            self.resized((CAPABILITY.len() + value.len()) as u64, 0);
        }
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
        let name_text = std::str::from_utf8(name).map_err(|_| Errno::INVAL)?;
        let held = element.xattrs.get(name).map_or(0, |value| name.len() + value.len());
        match (mode, element.xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(Errno::EXIST),
            (XattrMode::Replace, false) => return Err(Errno::NODATA),
            _ => {}
        }
        let setting = acl::set(name_text, value, element.is_directory())?;
        let mode = setting.as_ref().and_then(|setting| setting.mode);
        let kept = setting.map_or_else(|| Some(value.to_vec()), |setting| setting.kept);
        let wanted = kept.as_ref().map_or(0, |value| (name.len() + value.len()) as u64);
        let before = element.xattr_bytes();
        let after = before - held as u64 + wanted;
        if after > XATTR_BYTES_MAX as u64 {
            return Err(Errno::NOSPC);
        }
        self.reserve(after.saturating_sub(before))?;
        let element = self.at(inode);
        match kept {
            Some(value) => element.xattrs.insert(name.to_vec(), value),
            None => element.xattrs.remove(name),
        };
        element.node.mode = mode.map_or(element.node.mode, |bits| element.node.mode & !0o777 | bits);
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
