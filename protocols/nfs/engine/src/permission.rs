//! Who may do what: the checks that a kernel does for a local file system and nobody else does for NFS.
//!
//! Mode bits and POSIX access lists (acl(5), the extended attribute's layout as in Linux's `posix_acl_xattr.h`), the sticky bit, and what may be
//! changed by whom. The relaxations usual for NFS live in the procedures: an owner may read and write what he could open earlier.

use crate::export::{Export, Squash};
use crate::rpc::SystemCredential;
use trefoil_core::filesystem::{Changes, Errno, FileSystem, Node, Time, Type};

pub const READ: u32 = 4;
pub const WRITE: u32 = 2;
pub const EXECUTE: u32 = 1;

pub const SET_UID: u32 = 0o4000;
pub const SET_GID: u32 = 0o2000;
pub const STICKY: u32 = 0o1000;

const ACCESS_LIST: &[u8] = b"system.posix_acl_access";
const ACCESS_LIST_VERSION: u32 = 2;
const TAG_USER: u16 = 0x02;
const TAG_GROUP_OWNER: u16 = 0x04;
const TAG_GROUP: u16 = 0x08;
const TAG_MASK: u16 = 0x10;
const TAG_OTHER: u16 = 0x20;

/// What somebody may do: the bits of each class or access list entry that speaks for him. One of them must hold all that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted(Vec<u32>);

impl Granted {
    fn one(bits: u32) -> Self {
        Self(vec![bits & 7])
    }

    pub fn has(&self, wanted: u32) -> bool {
        self.0.iter().any(|bits| bits & wanted == wanted)
    }
}

/// Who a call acts as, once the export's rules were applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    groups: Vec<u32>,
}

impl Caller {
    pub fn new(credential: Option<&SystemCredential>, export: &Export) -> Self {
        let (uid, gid) = (export.anonymous_uid, export.anonymous_gid);
        match (credential, export.squash) {
            (None, _) | (_, Squash::All) => Self {
                uid,
                gid,
                groups: Vec::new(),
            },
            (Some(said), Squash::None) => Self {
                uid: said.uid,
                gid: said.gid,
                groups: said.groups.clone(),
            },
            (Some(said), Squash::Root) => {
                let or = |id: u32, anonymous: u32| if id == 0 { anonymous } else { id };
                let groups = said.groups.iter().map(|&group| or(group, gid)).collect();
                Self {
                    uid: or(said.uid, uid),
                    gid: or(said.gid, gid),
                    groups,
                }
            }
        }
    }

    pub fn is_root(&self) -> bool {
        self.uid == 0
    }

    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }

    pub fn owns(&self, node: &Node) -> bool {
        self.is_root() || self.uid == node.uid
    }

    /// EACCES unless all of `wanted` is granted.
    pub fn may(&self, fs: &dyn FileSystem, node: &Node, wanted: u32) -> Result<(), Errno> {
        if self.granted(fs, node)?.has(wanted) {
            Ok(())
        } else {
            Err(Errno::ACCESS)
        }
    }

    pub fn granted(&self, fs: &dyn FileSystem, node: &Node) -> Result<Granted, Errno> {
        if self.is_root() {
            let executes = node.kind == Type::Directory || node.mode & 0o111 != 0;
            return Ok(Granted::one(READ | WRITE | if executes { EXECUTE } else { 0 }));
        }
        if self.uid == node.uid {
            return Ok(Granted::one(node.mode >> 6));
        }
        // With an access list the group's bits are its mask: if they grant nothing, only the bits for others are left to count.
        if node.mode & 0o070 != 0 {
            match fs.xattr(node.inode, ACCESS_LIST) {
                Ok(list) => return self.granted_by_list(&list, node),
                Err(Errno::NODATA | Errno::NOTSUP) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Granted::one(if self.in_group(node.gid) { node.mode >> 3 } else { node.mode }))
    }

    /// The access check of acl(5), for who is neither root nor the owner.
    fn granted_by_list(&self, list: &[u8], node: &Node) -> Result<Granted, Errno> {
        let entries = access_entries(list).ok_or(Errno::IO)?;
        let mask = entries.iter().find(|entry| entry.tag == TAG_MASK).map_or(7, |entry| entry.bits);
        if let Some(entry) = entries.iter().find(|entry| entry.tag == TAG_USER && entry.id == self.uid) {
            return Ok(Granted::one(entry.bits & mask));
        }
        let mine = |entry: &&AccessEntry| match entry.tag {
            TAG_GROUP_OWNER => self.in_group(node.gid),
            TAG_GROUP => self.in_group(entry.id),
            _ => false,
        };
        let groups: Vec<u32> = entries.iter().filter(mine).map(|entry| entry.bits & mask).collect();
        if groups.is_empty() {
            return Ok(Granted::one(
                entries.iter().find(|entry| entry.tag == TAG_OTHER).map_or(0, |entry| entry.bits),
            ));
        }
        Ok(Granted(groups))
    }

    /// EPERM in a sticky directory for who owns neither it nor what is to be removed from it.
    pub fn may_remove(&self, directory: &Node, node: &Node) -> Result<(), Errno> {
        let free = directory.mode & STICKY == 0 || self.owns(directory) || self.owns(node);
        if free { Ok(()) } else { Err(Errno::PERM) }
    }

    /// Checks `changes` as chmod(2), chown(2), utimensat(2) and truncate(2) would, and takes away what goes silently: set-id bits.
    pub fn may_change(&self, fs: &dyn FileSystem, node: &Node, changes: &mut Changes) -> Result<(), Errno> {
        self.may_give(node, changes)?;
        if let Some(mode) = &mut changes.mode {
            if !self.owns(node) {
                return Err(Errno::PERM);
            }
            if !self.is_root() && !self.in_group(changes.gid.unwrap_or(node.gid)) {
                *mode &= !SET_GID;
            }
        }
        self.may_set_times(fs, node, changes)?;
        let sized = changes.size.is_some();
        if sized && self.uid != node.uid {
            self.may(fs, node, WRITE)?;
        }
        let given = node.kind != Type::Directory && (changes.uid.is_some() || changes.gid.is_some());
        if given && let Some(mode) = &mut changes.mode {
            *mode &= !(SET_UID | SET_GID);
        }
        changes.strip_privileges = given || (sized && !self.is_root());
        Ok(())
    }

    fn may_give(&self, node: &Node, changes: &Changes) -> Result<(), Errno> {
        let uid = changes.uid.is_none_or(|uid| self.is_root() || (uid == node.uid && self.uid == uid));
        let gid = changes
            .gid
            .is_none_or(|gid| self.is_root() || (self.uid == node.uid && (gid == node.gid || self.in_group(gid))));
        if uid && gid { Ok(()) } else { Err(Errno::PERM) }
    }

    fn may_set_times(&self, fs: &dyn FileSystem, node: &Node, changes: &Changes) -> Result<(), Errno> {
        let times = [changes.accessed, changes.modified];
        if times == [None, None] || self.owns(node) {
            return Ok(());
        }
        if times.iter().flatten().any(|time| matches!(time, Time::At(_))) {
            return Err(Errno::PERM);
        }
        self.may(fs, node, WRITE)
    }
}

struct AccessEntry {
    tag: u16,
    bits: u32,
    id: u32,
}

fn access_entries(list: &[u8]) -> Option<Vec<AccessEntry>> {
    let (version, entries) = list.split_at_checked(4)?;
    if u32::from_le_bytes(version.try_into().ok()?) != ACCESS_LIST_VERSION || entries.len() % 8 != 0 {
        return None;
    }
    let half = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
    let entry = |bytes: &[u8]| AccessEntry {
        tag: half(bytes),
        bits: u32::from(half(&bytes[2..])) & 7,
        id: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
    };
    Some(entries.chunks_exact(8).map(entry).collect())
}
