//! Names: finding, making, linking, removing and listing.

use super::state::{Body, Mode, State};
use crate::filesystem::*;

pub(super) fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > NAME_BYTES_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    let illegal = matches!(name, b"" | b"." | b"..") || name.iter().any(|byte| matches!(byte, b'/' | 0));
    if illegal { Err(Errno::INVAL) } else { Ok(()) }
}

fn kind_of(new: &New<'_>) -> Result<(Type, Vec<u8>)> {
    Ok(match new {
        New::Directory => (Type::Directory, Vec::new()),
        New::File => (Type::File, Vec::new()),
        New::Fifo => (Type::Fifo, Vec::new()),
        New::Socket => (Type::Socket, Vec::new()),
        New::CharacterDevice(number) => (Type::CharacterDevice(*number), Vec::new()),
        New::BlockDevice(number) => (Type::BlockDevice(*number), Vec::new()),
        New::Symlink(target) if target.len() > TARGET_BYTES_MAX => return Err(Errno::NAMETOOLONG),
        New::Symlink([]) => return Err(Errno::NOENT),
        New::Symlink(target) if target.contains(&0) => return Err(Errno::INVAL),
        New::Symlink(target) => (Type::Symlink, target.to_vec()),
    })
}

impl State {
    /// The directory is one, the name is legal; what it names, if anything.
    pub fn find(&self, directory: Inode, name: &[u8]) -> Result<Option<Inode>> {
        let entries = self.directory(directory)?;
        check_name(name)?;
        Ok(entries.get(name))
    }

    pub fn lookup(&self, directory: Inode, name: &[u8]) -> Result<Node> {
        self.node(self.find(directory, name)?.ok_or(Errno::NOENT)?)
    }

    pub fn parent(&self, directory: Inode) -> Result<Node> {
        self.node(self.growing(directory)?.parent)
    }

    pub fn create(&mut self, directory: Inode, name: &[u8], new: &New<'_>, mode: Mode, owner: Owner, now: i64) -> Result<Node> {
        if self.find(directory, name)?.is_some() {
            return Err(Errno::EXIST);
        }
        self.growing(directory)?;
        let (kind, target) = kind_of(new)?;
        if directory == ROOT && kind != Type::Directory {
            return Err(Errno::PERM);
        }
        self.reserve_element(name, target.len())?;
        let inode = self.insert_new(kind, &target, directory, mode, owner, now);
        self.add_entry(directory, name, inode, now);
        let node = &mut self.at(inode).node;
        node.links += u32::from(kind != Type::Directory);
        Ok(node.clone())
    }

    pub fn create_unnamed(&mut self, directory: Inode, mode: Mode, owner: Owner, now: i64) -> Result<Node> {
        self.growing(directory)?;
        if directory == ROOT {
            return Err(Errno::PERM);
        }
        self.reserve_element(b"", 0)?;
        let inode = self.insert_new(Type::File, b"", directory, mode, owner, now);
        self.open(inode)
    }

    pub fn link(&mut self, inode: Inode, directory: Inode, name: &[u8], now: i64) -> Result<Node> {
        let (view, is_directory, links) = self
            .get(inode)
            .map(|element| (element.view, element.is_directory(), element.node.links))?;
        if self.find(directory, name)?.is_some() {
            return Err(Errno::EXIST);
        }
        self.growing(directory)?;
        if is_directory {
            return Err(Errno::PERM);
        }
        if self.get(directory)?.view != view {
            return Err(Errno::XDEV);
        }
        if links >= LINKS_MAX {
            return Err(Errno::MLINK);
        }
        self.reserve_entry(name)?;
        self.add_entry(directory, name, inode, now);
        let node = &mut self.at(inode).node;
        node.links += 1;
        node.changed_ns = now;
        Ok(node.clone())
    }

    pub fn unlink(&mut self, directory: Inode, name: &[u8], now: i64) -> Result<()> {
        let inode = self.find(directory, name)?.ok_or(Errno::NOENT)?;
        if self.get(inode)?.is_directory() {
            return Err(Errno::ISDIR);
        }
        self.remove_entry(directory, name, now);
        self.unlinked(inode, now);
        Ok(())
    }

    pub fn remove_directory(&mut self, directory: Inode, name: &[u8], now: i64) -> Result<()> {
        let inode = self.find(directory, name)?.ok_or(Errno::NOENT)?;
        if !self.directory(inode)?.is_empty() {
            return Err(Errno::NOTEMPTY);
        }
        self.remove_entry(directory, name, now);
        self.unlinked(inode, now);
        Ok(())
    }

    pub fn read_link(&self, inode: Inode) -> Result<Vec<u8>> {
        match &self.get(inode)?.body {
            Body::Symlink(target) => Ok(target.clone()),
            _ => Err(Errno::INVAL),
        }
    }

    pub fn list(&self, directory: Inode, cookie: u64, limit: usize) -> Result<Vec<Entry>> {
        let entry = |(cookie, name, inode): (u64, &[u8], Inode)| {
            let name = name.to_vec();
            Ok(Entry {
                name,
                cookie,
                node: self.node(inode)?,
            })
        };
        self.directory(directory)?.after(cookie).take(limit).map(entry).collect()
    }

    pub fn newest_cookie(&self, directory: Inode) -> Result<u64> {
        Ok(self.directory(directory)?.after(0).last().map_or(0, |(cookie, ..)| cookie))
    }

    pub fn open(&mut self, inode: Inode) -> Result<Node> {
        let element = self.get_mut(inode)?;
        element.opens += 1;
        Ok(element.node.clone())
    }

    pub fn close(&mut self, inode: Inode) {
        if let Ok(element) = self.get_mut(inode) {
            element.opens = element.opens.saturating_sub(1);
            self.forget_if_unused(inode);
        }
    }
}
