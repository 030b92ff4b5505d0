//! rename(2) and renameat2(2): first every check, in Linux's order, then the change.

use super::state::{Body, State};
use crate::filesystem::*;

impl State {
    pub fn rename(&mut self, from: (Inode, &[u8]), to: (Inode, &[u8]), replace: Replace, now: i64) -> Result<()> {
        let source = self.find(from.0, from.1)?;
        let target = self.find(to.0, to.1)?;
        let source = source.ok_or(Errno::NOENT)?;
        self.growing(to.0)?;
        match (replace, target) {
            (Replace::No, Some(_)) => return Err(Errno::EXIST),
            (Replace::Exchange, None) => return Err(Errno::NOENT),
            (_, Some(target)) if target == source => return Ok(()),
            _ => {}
        }
        self.check_places(from.0, source, to.0)?;
        match target {
            Some(target) if replace == Replace::Exchange => {
                self.check_exchange(from.0, target)?;
                self.exchange((from, source), (to, target), now);
            }
            target => {
                target.map_or(Ok(()), |target| self.check_replace(from.0, source, target))?;
                self.relocate((from, source), (to, target), now);
            }
        }
        Ok(())
    }

    fn check_places(&self, from: Inode, source: Inode, to: Inode) -> Result<()> {
        if from == ROOT {
            return Err(Errno::PERM);
        }
        if self.get(from)?.view != self.get(to)?.view {
            return Err(Errno::XDEV);
        }
        if self.is_within(to, source) { Err(Errno::INVAL) } else { Ok(()) }
    }

    fn check_exchange(&self, from: Inode, target: Inode) -> Result<()> {
        if self.is_within(from, target) { Err(Errno::INVAL) } else { Ok(()) }
    }

    fn check_replace(&self, from: Inode, source: Inode, target: Inode) -> Result<()> {
        if self.is_within(from, target) {
            return Err(Errno::NOTEMPTY);
        }
        match (&self.get(source)?.body, &self.get(target)?.body) {
            (Body::Directory(_), Body::Directory(entries)) if !entries.is_empty() => Err(Errno::NOTEMPTY),
            (Body::Directory(_), Body::Directory(_)) => Ok(()),
            (Body::Directory(_), _) => Err(Errno::NOTDIR),
            (_, Body::Directory(_)) => Err(Errno::ISDIR),
            _ => Ok(()),
        }
    }

    /// Whether the directory is `above` or anywhere below it.
    fn is_within(&self, directory: Inode, above: Inode) -> bool {
        let mut at = directory;
        while at != above && at != ROOT {
            match self.directory(at) {
                Ok(directory) => at = directory.parent,
                Err(_) => return false,
            }
        }
        at == above
    }

    fn relocate(&mut self, (from, source): ((Inode, &[u8]), Inode), (to, target): ((Inode, &[u8]), Option<Inode>), now: i64) {
        self.remove_entry(from.0, from.1, now);
        if let Some(target) = target {
            self.remove_entry(to.0, to.1, now);
            self.unlinked(target, now);
        }
        self.add_entry(to.0, to.1, source, now);
        self.moved(source, to.0, now);
    }

    fn exchange(&mut self, (from, source): ((Inode, &[u8]), Inode), (to, target): ((Inode, &[u8]), Inode), now: i64) {
        let directories = [source, target].map(|inode| u32::from(self.at(inode).is_directory()));
        for (place, inode, came, went) in [
            (from, target, directories[1], directories[0]),
            (to, source, directories[0], directories[1]),
        ] {
            self.exchange_entry(place.0, place.1, inode);
            let above = self.at(place.0);
            above.node.links = above.node.links + came - went;
            above.modified(now);
            self.moved(inode, place.0, now);
        }
    }

    fn moved(&mut self, inode: Inode, parent: Inode, now: i64) {
        let element = self.at(inode);
        element.node.changed_ns = now;
        if let Body::Directory(directory) = &mut element.body {
            directory.parent = parent;
        }
    }
}
