//! What to do next. Few names, few places and small ranges, so that things meet; now and then something far out.

use super::listing::LISTINGS_MAX;
use super::operation::{Bytes, Make, Mode, Name, Operation};
use super::pairs::Id;
use super::{Both, Judge, VIEWS};
use crate::filesystem::*;

/// Beyond this the judge removes rather than makes.
const LIVING_MAX: usize = 80;
/// Below this it makes rather than removes, as a rule.
const LIVING_MIN: usize = 30;
/// As many are chosen more often than others, so that much happens to one thing.
const FAVOURITES: usize = 8;
const OPENS_MAX: usize = 24;
/// Most content lies here.
const NEAR_BYTES: u64 = 48 << 10;
/// Now and then.
const LONG_BYTES: usize = 300 << 10;

const NAMES: [&[u8]; 12] = [
    b"a",
    b"b",
    b"c",
    b"a-",
    b"a.b",
    b"a b",
    b"B",
    "ä".as_bytes(),
    b"\xff\xfe",
    b"a%2F",
    b".key",
    &[b'n'; NAME_BYTES_MAX],
];
const BAD_NAMES: [&[u8]; 8] = [b"", b".", b"..", b"a/", b"/", b"a/b", b"a\0", &[b'n'; NAME_BYTES_MAX + 1]];
const XATTRS: [&[u8]; 9] = [
    b"user.a",
    b"user.b",
    b"trusted.c",
    "user.ä".as_bytes(),
    b"security.d",
    b"security.capability",
    b"system.posix_acl_access",
    b"system.posix_acl_default",
    b"user.with a longer name",
];
const TIMES: [i64; 5] = [0, 1, -1_000_000_001, 1_700_000_000_123_456_789, 1 << 62];
const IDS: [u32; 4] = [0, 1, 1000, u32::MAX - 1];
const FAR: [u64; 5] = [1 << 20, (1 << 31) + 1, 1 << 40, FILE_BYTES_MAX - 5, FILE_BYTES_MAX];

type Maker = fn(&mut Judge, Both<'_>) -> Operation;

/// How often each comes up.
const WEIGHTS: [(u64, Maker); 23] = [
    (13, Judge::create),
    (10, Judge::remove),
    (12, Judge::rename),
    (5, Judge::link),
    (9, Judge::change),
    (9, Judge::attribute),
    (5, Judge::open_or_close),
    (6, Judge::allocate),
    (5, Judge::copy),
    (4, Judge::lookup),
    (2, |judge, both| Operation::Stat(judge.anything(both))),
    (1, |judge, both| Operation::Parent(judge.directory(both))),
    (1, |judge, both| {
        Operation::CreateUnnamed(judge.directory(both), judge.masked(), judge.owner())
    }),
    (2, |judge, both| {
        Operation::ReadLink(judge.element(both, |kind| kind == Type::Symlink))
    }),
    (5, |judge, both| Operation::Read(judge.file(both), judge.offset(), judge.length())),
    (13, Judge::write),
    (3, |judge, both| {
        Operation::Append(judge.file(both), judge.bytes(), judge.random.chance(4))
    }),
    (4, |judge, both| {
        Operation::Seek(judge.file(both), judge.offset(), judge.one_of(&[Seek::Data, Seek::Hole]))
    }),
    (2, Judge::start_to_list),
    (8, |judge, _| Operation::GoOn(judge.below(LISTINGS_MAX), 1 + judge.below(3))),
    (2, |judge, both| Operation::NoteAccess(judge.anything(both))),
    (1, |_, _| Operation::Sync),
    (1, |_, _| Operation::Statistics),
];

impl Judge {
    pub(super) fn generate(&mut self, both: Both<'_>) -> Operation {
        let total = WEIGHTS.iter().map(|(weight, _)| weight).sum();
        let mut drawn = self.random.below(total);
        let chosen = WEIGHTS.iter().find(|(weight, _)| {
            let found = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            found
        });
        chosen.map_or(Operation::Sync, |(_, make)| make(self, both))
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random.below(bound as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    fn maybe<T>(&mut self, one_in: u64, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.random.chance(one_in).then(|| value(self))
    }

    /// Of the kind that is wanted, as a rule; something that is gone, now and then.
    fn element(&mut self, both: Both<'_>, wanted: fn(Type) -> bool) -> Id {
        if self.random.chance(60) {
            return Id(self.below(self.pairs.count()));
        }
        let mut found = Id::ROOT;
        if let Some(open) = self.maybe(6, Self::some_open).flatten() {
            found = open;
            if self.pairs.kind(open).is_some_and(wanted) {
                return open;
            }
        }
        for _ in 0..16 {
            let count = self.pairs.living().len();
            let index = if self.random.chance(3) {
                self.below(count.min(FAVOURITES))
            } else {
                self.below(count)
            };
            found = self.pairs.living()[index];
            match both[0].stat(self.pairs.inode(found, 0)) {
                Ok(node) if wanted(node.kind) => return found,
                Ok(_) => {}
                Err(_) => self.pairs.bury(index),
            }
        }
        found
    }

    /// It may have no name any more.
    fn some_open(&mut self) -> Option<Id> {
        let index = self.below(self.opens.len().max(1));
        self.opens.get(index).copied()
    }

    fn anything(&mut self, both: Both<'_>) -> Id {
        self.element(both, |_| true)
    }

    fn file(&mut self, both: Both<'_>) -> Id {
        if self.random.chance(30) {
            self.anything(both)
        } else {
            self.element(both, |kind| kind == Type::File)
        }
    }

    /// Seldom ROOT, where little is permitted.
    fn directory(&mut self, both: Both<'_>) -> Id {
        if self.random.chance(60) {
            return self.anything(both);
        }
        let found = self.element(both, |kind| kind == Type::Directory);
        if found == Id::ROOT && !self.random.chance(5) {
            return self.element(both, |kind| kind == Type::Directory);
        }
        found
    }

    fn view(&self, both: Both<'_>, directory: Id) -> Option<Inode> {
        let mut view = None;
        let mut at = self.pairs.inode(directory, 0);
        while at != ROOT {
            view = Some(at);
            at = both[0].parent(at).ok()?.inode;
        }
        view
    }

    /// A directory and any name in it.
    fn place(&mut self, both: Both<'_>) -> (Id, Name) {
        let directory = self.directory(both);
        let name = if self.random.chance(50) {
            self.one_of(&BAD_NAMES)
        } else if directory == Id::ROOT {
            self.one_of(&[VIEWS[0], VIEWS[1], b"view-three"])
        } else {
            self.one_of(&NAMES)
        };
        (directory, Name(name.to_vec()))
    }

    /// As a rule one where something is.
    fn taken(&mut self, both: Both<'_>) -> (Id, Name) {
        for _ in 0..4 {
            let listed = self.maybe(4, Self::some_listed).flatten();
            let directory = listed.unwrap_or_else(|| self.directory(both));
            let count = self.entry_count(directory);
            if count > 0 && !self.random.chance(8) {
                let index = self.below(count);
                let name = self.names.of(directory).and_then(|names| names.iter().nth(index)).cloned();
                return (directory, Name(name.unwrap_or_default()));
            }
        }
        self.place(both)
    }

    fn some_listed(&mut self) -> Option<Id> {
        let index = self.below(LISTINGS_MAX);
        self.names.listed(index)
    }

    fn entry_count(&self, directory: Id) -> usize {
        self.names.of(directory).map_or(0, |names| names.len())
    }

    /// As a rule where much is.
    fn start_to_list(&mut self, both: Both<'_>) -> Operation {
        let directories = [0; 4].map(|_| self.directory(both));
        let fullest = directories.into_iter().max_by_key(|directory| self.entry_count(*directory));
        Operation::StartListing(fullest.unwrap_or(Id::ROOT))
    }

    fn masked(&mut self) -> Mode {
        Mode(self.mode(), self.one_of(&[0, 0o22, 0o77, 0o777]))
    }

    fn mode(&mut self) -> u32 {
        self.below(0o10000) as u32
    }

    fn owner(&mut self) -> Owner {
        let (uid, gid) = (self.one_of(&IDS), self.one_of(&IDS));
        Owner { uid, gid }
    }

    fn create(&mut self, both: Both<'_>) -> Operation {
        if self.pairs.living().len() > LIVING_MAX {
            return self.remove(both);
        }
        let (directory, name) = self.place(both);
        let owner = self.owner();
        let make = match self.below(20) {
            0..10 => Make::File,
            10..15 => Make::Directory,
            15 => Make::Fifo,
            16 => Make::CharacterDevice(0x0103),
            17 if self.random.chance(2) => Make::Socket,
            17 => Make::BlockDevice(7 << 20),
            _ => return Operation::Create(directory, name, Make::Symlink(Name(self.target())), Mode(0o777, 0), owner),
        };
        Operation::Create(directory, name, make, self.masked(), owner)
    }

    fn target(&mut self) -> Vec<u8> {
        let length = match self.below(12) {
            0 => TARGET_BYTES_MAX,
            1 => TARGET_BYTES_MAX + 1,
            _ => 1 + self.below(40),
        };
        vec![b't'; length]
    }

    fn remove(&mut self, both: Both<'_>) -> Operation {
        if self.pairs.living().len() < LIVING_MIN && !self.random.chance(3) {
            return self.create(both);
        }
        let (directory, name) = self.taken(both);
        if directory == Id::ROOT && *name == *VIEWS[0] {
            return Operation::Stat(directory);
        }
        let node = both[0].lookup(self.pairs.inode(directory, 0), &name);
        let is_directory = node.is_ok_and(|node| node.kind == Type::Directory);
        if is_directory != self.random.chance(12) {
            Operation::RemoveDirectory(directory, name)
        } else {
            Operation::Unlink(directory, name)
        }
    }

    fn rename(&mut self, both: Both<'_>) -> Operation {
        let replace = self.one_of(&[Replace::Yes, Replace::Yes, Replace::Yes, Replace::No, Replace::Exchange]);
        let from = self.taken(both);
        let mut to = self.target_place(both);
        for _ in 0..4 {
            if self.view(both, from.0) != self.view(both, to.0) {
                to = self.target_place(both);
            }
        }
        if from == to && from.0 == Id::ROOT {
            // Nothing to do, and not permitted: either answer is right.
            return Operation::Stat(Id::ROOT);
        }
        Operation::Rename(from, to, replace)
    }

    fn target_place(&mut self, both: Both<'_>) -> (Id, Name) {
        if self.random.chance(2) {
            self.taken(both)
        } else {
            self.place(both)
        }
    }

    fn link(&mut self, both: Both<'_>) -> Operation {
        let (directory, name) = self.place(both);
        let id = if self.random.chance(4) {
            self.anything(both)
        } else {
            self.file(both)
        };
        Operation::Link(id, directory, name)
    }

    fn lookup(&mut self, both: Both<'_>) -> Operation {
        let (directory, name) = if self.random.chance(3) {
            self.place(both)
        } else {
            self.taken(both)
        };
        Operation::Lookup(directory, name)
    }

    fn change(&mut self, both: Both<'_>) -> Operation {
        let id = if self.random.chance(2) {
            self.file(both)
        } else {
            self.anything(both)
        };
        let kind = self.pairs.kind(id);
        let mut changes = Changes {
            uid: self.maybe(4, |judge| judge.one_of(&IDS)),
            gid: self.maybe(4, |judge| judge.one_of(&IDS)),
            accessed: self.maybe(4, Self::time),
            modified: self.maybe(4, Self::time),
            strip_privileges: self.random.chance(4),
            ..Changes::default()
        };
        // A symlink's mode means nothing.
        if kind != Some(Type::Symlink) && !changes.strip_privileges {
            changes.mode = self.maybe(2, Self::mode);
        }
        if kind == Some(Type::File) || self.random.chance(8) {
            changes.size = self.maybe(2, Self::size);
        }
        Operation::Change(id, changes)
    }

    fn time(&mut self) -> Time {
        let at = self.one_of(&TIMES);
        if self.random.chance(3) { Time::Now } else { Time::At(at) }
    }

    fn size(&mut self) -> u64 {
        if self.random.chance(60) {
            FILE_BYTES_MAX + 1
        } else {
            self.offset()
        }
    }

    fn open_or_close(&mut self, both: Both<'_>) -> Operation {
        let full = self.opens.len() >= OPENS_MAX;
        if let Some(open) = self.some_open().filter(|_| full || self.random.chance(2)) {
            return Operation::Close(open);
        }
        Operation::Open(if self.random.chance(3) {
            self.anything(both)
        } else {
            self.file(both)
        })
    }

    fn offset(&mut self) -> u64 {
        let near = self.random.below(NEAR_BYTES);
        match self.below(40) {
            0 => self.one_of(&FAR),
            1..6 => 0,
            6..16 => near / 4096 * 4096,
            _ => near,
        }
    }

    fn length(&mut self) -> usize {
        match self.below(40) {
            0 => 0,
            1 => 1 + self.below(LONG_BYTES),
            2..8 => 4096 * (1 + self.below(4)),
            8..20 => 1 + self.below(100),
            _ => 1 + self.below(12_000),
        }
    }

    fn bytes(&mut self) -> Bytes {
        Bytes {
            seed: self.random.next_u64(),
            length: self.length(),
        }
    }

    fn write(&mut self, both: Both<'_>) -> Operation {
        let (id, bytes) = (self.file(both), self.bytes());
        // Nothing written too far out is no error everywhere.
        let offset = if bytes.length == 0 { 0 } else { self.offset() };
        Operation::Write(id, offset, bytes, self.random.chance(4))
    }

    fn allocate(&mut self, both: Both<'_>) -> Operation {
        let (id, offset, mut length) = (self.file(both), self.offset(), self.length() as u64);
        let keep_size = self.random.chance(2);
        let how = self.one_of(&[Allocation::Punch, Allocation::Reserve { keep_size }, Allocation::Zero { keep_size }]);
        if how == Allocation::Punch && self.random.chance(8) {
            length = 1 << 50;
        }
        Operation::Allocate(id, how, offset, length)
    }

    fn copy(&mut self, both: Both<'_>) -> Operation {
        let (from, to) = (self.file(both), self.file(both));
        let near = |judge: &mut Self| judge.offset().min(FAR[2]);
        let (start, target) = (near(self), near(self));
        let to = if self.random.chance(4) { from } else { to };
        let mut length = if self.random.chance(10) { 1 << 50 } else { self.length() as u64 };
        if from == to {
            // What overlaps only beyond the end of the file may be refused or not.
            let size = both[0].stat(self.pairs.inode(from, 0)).map_or(0, |node| node.size);
            length = length.min(size.saturating_sub(start));
        }
        Operation::Copy((from, start), (to, target), length)
    }

    fn attribute(&mut self, both: Both<'_>) -> Operation {
        let favourite = self.maybe(2, |_| XATTRS[0]);
        let name = favourite.unwrap_or_else(|| self.one_of(&XATTRS)).to_vec();
        let (id, name) = (self.anything(both), Name(name));
        match self.below(10) {
            0 => Operation::Xattr(id, name),
            1 => Operation::Xattrs(id),
            2..4 => Operation::RemoveXattr(id, name),
            4 => self.large_attribute(id, name),
            _ => {
                let mode = self.one_of(&[XattrMode::Any, XattrMode::Any, XattrMode::Create, XattrMode::Replace]);
                let (seed, length) = (self.random.next_u64(), self.below(200));
                Operation::SetXattr(id, name, Bytes { seed, length }, mode)
            }
        }
    }

    /// One of these fits, two never do, and one that never does; or a name that is none.
    fn large_attribute(&mut self, id: Id, name: Name) -> Operation {
        let seed = self.random.next_u64();
        let (name, length) = match self.below(4) {
            0 => (Name(b"user.\xff".to_vec()), 1),
            1 => (name, 40 << 10),
            _ => (name, 20 << 10),
        };
        Operation::SetXattr(id, name, Bytes { seed, length }, XattrMode::Any)
    }
}
