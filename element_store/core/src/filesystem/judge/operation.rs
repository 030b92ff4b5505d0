//! One thing to do, in words that mean the same to both sides.

use super::pairs::{Id, Pairs};
use crate::device::random::Seeded;
use crate::filesystem::*;

/// Shows itself as text, a long one shortened.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Name(pub Vec<u8>);

impl std::ops::Deref for Name {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = &self.0[..self.0.len().min(12)];
        let rest = self.0.len() - start.len();
        write!(formatter, "\"{}\"", start.escape_ascii())?;
        if rest > 0 { write!(formatter, "+{rest}") } else { Ok(()) }
    }
}

/// Bits, and the umask of whoever asks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mode(pub u32, pub u32);

#[derive(Debug, Clone)]
pub(super) enum Make {
    Directory,
    File,
    Symlink(Name),
    Fifo,
    Socket,
    CharacterDevice(u64),
    BlockDevice(u64),
}

/// Bytes by their seed, so that a trace stays short.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bytes {
    pub seed: u64,
    pub length: usize,
}

impl Bytes {
    pub fn make(self) -> Vec<u8> {
        let mut seeded = Seeded::new(self.seed);
        let words = std::iter::repeat_with(|| seeded.next_u64().to_le_bytes());
        words.take(self.length.div_ceil(8)).flatten().take(self.length).collect()
    }
}

#[derive(Debug, Clone)]
pub(super) enum Operation {
    Lookup(Id, Name),
    Parent(Id),
    Stat(Id),
    Change(Id, Changes),
    Create(Id, Name, Make, Mode, Owner),
    CreateUnnamed(Id, Mode, Owner),
    Link(Id, Id, Name),
    Unlink(Id, Name),
    RemoveDirectory(Id, Name),
    Rename((Id, Name), (Id, Name), Replace),
    ReadLink(Id),
    Open(Id),
    Close(Id),
    Read(Id, u64, usize),
    Write(Id, u64, Bytes, bool),
    Append(Id, Bytes, bool),
    NoteAccess(Id),
    Sync,
    Allocate(Id, Allocation, u64, u64),
    Seek(Id, u64, Seek),
    Copy((Id, u64), (Id, u64), u64),
    StartListing(Id),
    /// Which listing goes on, and by how many entries.
    GoOn(usize, usize),
    Xattr(Id, Name),
    SetXattr(Id, Name, Bytes, XattrMode),
    Xattrs(Id),
    RemoveXattr(Id, Name),
    Statistics,
}

/// What both sides must agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Nothing,
    Node(Node),
    Bytes(Vec<u8>),
    Names(Vec<Vec<u8>>),
    Number(u64),
    Statistics(Statistics),
}

impl Make {
    fn as_new(&self) -> New<'_> {
        match self {
            Make::Directory => New::Directory,
            Make::File => New::File,
            Make::Symlink(target) => New::Symlink(target),
            Make::Fifo => New::Fifo,
            Make::Socket => New::Socket,
            Make::CharacterDevice(number) => New::CharacterDevice(*number),
            Make::BlockDevice(number) => New::BlockDevice(*number),
        }
    }
}

/// Operations of which each side's answer is judged by itself are none of this one's.
pub(super) fn perform(files: &dyn FileSystem, operation: &Operation, pairs: &Pairs, side: usize) -> Result<Answer> {
    use Operation as O;
    let at = |id: &Id| pairs.inode(*id, side);
    let nothing = |()| Answer::Nothing;
    match operation {
        O::Lookup(id, name) => files.lookup(at(id), name).map(Answer::Node),
        O::Parent(id) => files.parent(at(id)).map(Answer::Node),
        O::Stat(id) => files.stat(at(id)).map(Answer::Node),
        O::Change(id, changes) => files.change(at(id), changes).map(Answer::Node),
        O::Create(id, name, make, mode, owner) => files
            .create_masked(at(id), Some(name), make.as_new(), mode.0, mode.1, *owner)
            .map(Answer::Node),
        O::CreateUnnamed(id, mode, owner) => files
            .create_masked(at(id), None, New::File, mode.0, mode.1, *owner)
            .map(Answer::Node),
        O::Link(id, directory, name) => files.link(at(id), at(directory), name).map(Answer::Node),
        O::Unlink(id, name) => files.unlink(at(id), name).map(nothing),
        O::RemoveDirectory(id, name) => files.remove_directory(at(id), name).map(nothing),
        O::Rename(from, to, replace) => files.rename((at(&from.0), &from.1), (at(&to.0), &to.1), *replace).map(nothing),
        O::ReadLink(id) => files.read_link(at(id)).map(Answer::Bytes),
        O::Open(id) => files.open(at(id)).map(Answer::Node),
        O::Close(id) => {
            files.close(at(id));
            Ok(Answer::Nothing)
        }
        O::Read(id, offset, length) => files.read(at(id), *offset, *length).map(Answer::Bytes),
        O::Write(id, offset, bytes, strip) => files.write(at(id), *offset, &bytes.make(), *strip).map(Answer::Node),
        O::Append(id, bytes, strip) => files.append(at(id), &bytes.make(), *strip).map(Answer::Node),
        O::NoteAccess(id) => {
            files.note_access(at(id));
            Ok(Answer::Nothing)
        }
        O::Sync => files.sync().map(nothing),
        O::Allocate(id, how, offset, length) => files.allocate(at(id), *how, *offset, *length).map(Answer::Node),
        O::Copy(from, to, length) => files.copy((at(&from.0), from.1), (at(&to.0), to.1), *length).map(Answer::Number),
        O::Xattr(id, name) => files.xattr(at(id), name).map(Answer::Bytes),
        O::SetXattr(id, name, value, mode) => files.set_xattr(at(id), name, &value_of(name, *value), *mode).map(nothing),
        O::Xattrs(id) => files.xattrs(at(id)).map(sorted),
        O::RemoveXattr(id, name) => files.remove_xattr(at(id), name).map(nothing),
        O::Statistics => files.statistics().map(Answer::Statistics),
        O::Seek(..) | O::StartListing(_) | O::GoOn(..) => unreachable!("each side's answer to {operation:?} is its own"),
    }
}

/// Of an attribute; a list where one is asked for.
fn value_of(name: &[u8], value: Bytes) -> Vec<u8> {
    if name.starts_with(b"system.posix_acl") && value.length > 0 {
        acl::arbitrary(value.seed)
    } else {
        value.make()
    }
}

fn sorted(mut names: Vec<Vec<u8>>) -> Answer {
    names.sort();
    Answer::Names(names)
}

impl Operation {
    /// What it does, without what it does it to.
    pub fn verb(&self) -> String {
        format!("{self:?}").split('(').next().unwrap_or_default().to_string()
    }

    /// Whose content, or entries, it changes if it succeeds.
    pub fn modifies(&self) -> Vec<Id> {
        match self {
            Self::Create(directory, ..) | Self::Link(_, directory, _) => vec![*directory],
            Self::Unlink(directory, _) | Self::RemoveDirectory(directory, _) => vec![*directory],
            Self::Rename(from, to, _) => vec![from.0, to.0],
            Self::Write(id, _, bytes, _) | Self::Append(id, bytes, _) if bytes.length > 0 => vec![*id],
            _ => Vec::new(),
        }
    }

    /// Whose time of access it may move, or not.
    pub fn accesses(&self) -> Option<Id> {
        match self {
            Self::NoteAccess(id) => Some(*id),
            _ => None,
        }
    }
}
