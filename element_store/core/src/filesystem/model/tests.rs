//! The model against POSIX, case by case.

use std::sync::atomic::{AtomicI64, Ordering};

use super::*;

mod attributes;
mod content;
mod names;
mod renames;

pub const USER: Owner = Owner { uid: 1000, gid: 100 };

/// A model with one view root, and a clock that every test moves itself.
pub struct World {
    pub model: Model,
    pub view: Inode,
    time: Arc<AtomicI64>,
}

impl World {
    pub fn new() -> Self {
        Self::with_room(64 << 20)
    }

    pub fn with_room(bytes_max: u64) -> Self {
        let time = Arc::new(AtomicI64::new(1_000));
        let clock = time.clone();
        let model = Model::new(bytes_max, Arc::new(move || clock.load(Ordering::Relaxed)));
        let view = model.create(ROOT, b"view", New::Directory, 0o755, USER).unwrap().inode;
        let world = Self { model, view, time };
        world.tick();
        world
    }

    /// The new time.
    pub fn tick(&self) -> i64 {
        self.time.fetch_add(1_000, Ordering::Relaxed) + 1_000
    }

    pub fn make(&self, directory: Inode, name: &[u8], new: New<'_>) -> Inode {
        self.model.create(directory, name, new, 0o755, USER).unwrap().inode
    }

    pub fn file(&self, directory: Inode, name: &[u8]) -> Inode {
        self.make(directory, name, New::File)
    }

    pub fn directory(&self, directory: Inode, name: &[u8]) -> Inode {
        self.make(directory, name, New::Directory)
    }

    pub fn stat(&self, inode: Inode) -> Node {
        self.model.stat(inode).unwrap()
    }

    pub fn names(&self, directory: Inode) -> Vec<Vec<u8>> {
        let entries = self.model.list(directory, 0, usize::MAX).unwrap();
        entries.into_iter().map(|entry| entry.name).collect()
    }

    pub fn rename(&self, from: (Inode, &[u8]), to: (Inode, &[u8])) -> Result<()> {
        self.model.rename(from, to, Replace::Yes)
    }

    /// Which of an inode's times (`a`, `m`, `c`) moved to now while the action ran.
    pub fn moved<T>(&self, inode: Inode, action: impl FnOnce() -> T) -> String {
        let before = self.stat(inode);
        let now = self.tick();
        action();
        let after = self.stat(inode);
        let times = [
            ('a', before.accessed_ns, after.accessed_ns),
            ('m', before.modified_ns, after.modified_ns),
            ('c', before.changed_ns, after.changed_ns),
        ];
        let moved = times.into_iter().filter(|(_, before, after)| before != after);
        moved
            .inspect(|(_, _, after)| assert_eq!(*after, now))
            .map(|(name, _, _)| name)
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.model.locked().check();
        }
    }
}
