//! POSIX access control lists (acl(5)) as Linux keeps them in xattrs, and how they and modes follow each other.
//!
//! The bytes are Linux's `posix_acl_xattr` version 2: a version word, then entries of tag u16, permissions u16 and id u32, little-endian. Bytes from
//! outside pass `Acl::decode`, which takes nothing that Linux would refuse. Nothing here checks a permission.

use super::{Errno, Result};

/// The list that a permission check asks.
pub const ACCESS: &str = "system.posix_acl_access";
/// Of a directory: what comes to be in it starts with this.
pub const DEFAULT: &str = "system.posix_acl_default";

const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
const NO_ID: u32 = u32::MAX;
const PERMISSIONS: u16 = 7;

/// In the order that they must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Tag {
    Owner = 0x01,
    User = 0x02,
    OwningGroup = 0x04,
    Group = 0x08,
    Mask = 0x10,
    Other = 0x20,
}

impl Tag {
    fn decode(tag: u16) -> Option<Self> {
        [Self::Owner, Self::User, Self::OwningGroup, Self::Group, Self::Mask, Self::Other]
            .into_iter()
            .find(|known| *known as u16 == tag)
    }

    fn is_named(self) -> bool {
        matches!(self, Self::User | Self::Group)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: Tag,
    permissions: u16,
    id: u32,
}

/// A valid list: one owner, owning group and other, a mask if anybody is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acl(Vec<Entry>);

impl Acl {
    /// Raises EINVAL.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (version, rest) = bytes.split_first_chunk::<HEADER_BYTES>().ok_or(Errno::INVAL)?;
        let (entries, []) = rest.as_chunks::<ENTRY_BYTES>() else {
            return Err(Errno::INVAL);
        };
        if u32::from_le_bytes(*version) != VERSION {
            return Err(Errno::INVAL);
        }
        let acl = Self(entries.iter().map(decode_entry).collect::<Result<_>>()?);
        if acl.is_valid() { Ok(acl) } else { Err(Errno::INVAL) }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_le_bytes().to_vec();
        for entry in &self.0 {
            bytes.extend((entry.tag as u16).to_le_bytes());
            bytes.extend(entry.permissions.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }

    /// `posix_acl_valid`: tags in order, each unnamed one once at most, named ones with an id.
    fn is_valid(&self) -> bool {
        let count = |tag| self.0.iter().filter(|entry| entry.tag == tag).count();
        let named = self.0.iter().any(|entry| entry.tag.is_named());
        self.0.is_sorted_by_key(|entry| entry.tag)
            && [Tag::Owner, Tag::OwningGroup, Tag::Other].into_iter().all(|tag| count(tag) == 1)
            && count(Tag::Mask) <= 1
            && (!named || count(Tag::Mask) == 1)
            && self.0.iter().all(|entry| !entry.tag.is_named() || entry.id != NO_ID)
    }

    /// Does it say more than a mode can?
    pub fn is_extended(&self) -> bool {
        self.0.len() > 3
    }

    /// The nine bits that stand for it: the mask's for the group, where there is one.
    pub fn mode(&self) -> u32 {
        let bits = |tag| {
            self.0
                .iter()
                .find(|entry| entry.tag == tag)
                .map(|entry| u32::from(entry.permissions))
        };
        let group = bits(Tag::Mask).or(bits(Tag::OwningGroup)).unwrap_or(0);
        bits(Tag::Owner).unwrap_or(0) << 6 | group << 3 | bits(Tag::Other).unwrap_or(0)
    }

    /// `chmod`: the classes of the mode replace what stands for them.
    pub fn set_mode(&mut self, mode: u32) {
        self.change_classes(|_, class| class, mode);
    }

    /// What a directory's default list makes of something new that was asked for with a mode: the list of its own, and its nine bits.
    pub fn inherit(&self, mode: u32) -> (Self, u32) {
        let mut own = self.clone();
        own.change_classes(|held, class| held & class, mode);
        let bits = own.mode();
        (own, bits)
    }

    fn change_classes(&mut self, change: impl Fn(u16, u16) -> u16, mode: u32) {
        let has_mask = self.0.iter().any(|entry| entry.tag == Tag::Mask);
        for entry in &mut self.0 {
            let class = match entry.tag {
                Tag::Owner => mode >> 6,
                Tag::Mask => mode >> 3,
                Tag::OwningGroup if !has_mask => mode >> 3,
                Tag::Other => mode,
                _ => continue,
            };
            entry.permissions = change(entry.permissions, class as u16 & PERMISSIONS);
        }
    }
}

fn decode_entry(bytes: &[u8; ENTRY_BYTES]) -> Result<Entry> {
    let [a, b, c, d, id @ ..] = *bytes;
    let tag = Tag::decode(u16::from_le_bytes([a, b])).ok_or(Errno::INVAL)?;
    let permissions = u16::from_le_bytes([c, d]);
    if permissions & !PERMISSIONS != 0 {
        return Err(Errno::INVAL);
    }
    let id = if tag.is_named() { u32::from_le_bytes(id) } else { NO_ID };
    Ok(Entry { tag, permissions, id })
}

/// What setting an xattr of this name means for the mode: `None` if it is no list. Of the value, what is to be kept, if anything. Raises EINVAL;
/// EACCES for a default list of what is no directory.
pub fn set(name: &str, value: &[u8], is_directory: bool) -> Result<Option<Setting>> {
    match name {
        ACCESS => {
            let acl = Acl::decode(value)?;
            Ok(Some(Setting {
                kept: acl.is_extended().then(|| acl.encode()),
                mode: Some(acl.mode()),
            }))
        }
        DEFAULT if !is_directory => Err(Errno::ACCESS),
        DEFAULT => Ok(Some(Setting {
            kept: Some(Acl::decode(value)?.encode()),
            mode: None,
        })),
        _ => Ok(None),
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The value to keep; `None`: a list that the mode says too.
    pub kept: Option<Vec<u8>>,
    /// Nine bits that change with it.
    pub mode: Option<u32>,
}

/// How something new begins: its mode, and the lists that it gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Birth {
    pub mode: u32,
    pub lists: Vec<(&'static str, Vec<u8>)>,
}

impl Birth {
    /// `default`: the directory's list, which stands in for the umask where there is one. A list that cannot be read counts as none.
    pub fn new(default: Option<&[u8]>, mode: u32, umask: u32, is_directory: bool) -> Self {
        let Some(acl) = default.and_then(|bytes| Acl::decode(bytes).ok()) else {
            return Self {
                mode: mode & !(umask & 0o777),
                lists: Vec::new(),
            };
        };
        let (own, bits) = acl.inherit(mode);
        let mut lists = Vec::new();
        if own.is_extended() {
            lists.push((ACCESS, own.encode()));
        }
        if is_directory {
            lists.push((DEFAULT, acl.encode()));
        }
        Self {
            mode: mode & !0o777 | bits,
            lists,
        }
    }
}

/// The access list after `chmod`.
pub fn after_chmod(list: &[u8], mode: u32) -> Vec<u8> {
    match Acl::decode(list) {
        Ok(mut acl) => {
            acl.set_mode(mode);
            acl.encode()
        }
        Err(_) => list.to_vec(),
    }
}

/// Lists for tests: most are valid, and may name somebody.
pub fn arbitrary(seed: u64) -> Vec<u8> {
    let bits = |shift: u32| (seed >> shift) as u16 & PERMISSIONS;
    let entry = |tag, shift, id| Entry {
        tag,
        permissions: bits(shift),
        id,
    };
    let mut entries = vec![entry(Tag::Owner, 0, NO_ID)];
    if seed & 1 << 40 != 0 {
        entries.push(entry(Tag::User, 3, 1000 + (seed >> 50) as u32 % 3));
    }
    entries.push(entry(Tag::OwningGroup, 6, NO_ID));
    if seed & 1 << 41 != 0 {
        entries.push(entry(Tag::Group, 9, 2000));
    }
    // Now and then it lacks the mask that it needs.
    if seed & 3 << 40 != 0 && seed >> 60 != 0 || seed & 1 << 42 != 0 {
        entries.push(entry(Tag::Mask, 12, NO_ID));
    }
    entries.push(entry(Tag::Other, 15, NO_ID));
    Acl(entries).encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(entries: &[(Tag, u16, u32)]) -> Acl {
        Acl(entries
            .iter()
            .map(|&(tag, permissions, id)| Entry { tag, permissions, id })
            .collect())
    }

    fn extended() -> Acl {
        acl(&[
            (Tag::Owner, 7, NO_ID),
            (Tag::User, 6, 1000),
            (Tag::OwningGroup, 5, NO_ID),
            (Tag::Mask, 7, NO_ID),
            (Tag::Other, 4, NO_ID),
        ])
    }

    #[test]
    fn what_linux_writes_is_read() {
        // setfacl -m u:1000:rw on a file of mode 0644, as getfattr -e hex shows it.
        let bytes = [
            2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 6, 0, 232, 3, 0, 0, 4, 0, 4, 0, 255, 255, 255, 255, 16, 0, 6, 0, 255, 255,
            255, 255, 32, 0, 4, 0, 255, 255, 255, 255,
        ];
        let acl = Acl::decode(&bytes).unwrap();
        assert_eq!((acl.mode(), acl.is_extended()), (0o664, true));
        assert_eq!(acl.encode(), bytes);
    }

    #[test]
    fn what_linux_refuses_is_refused() {
        let good = extended();
        let bytes = good.encode();
        for length in 0..bytes.len() {
            assert_eq!(Acl::decode(&bytes[..length]), Err(Errno::INVAL), "{length}");
        }
        for missing in 0..5 {
            let mut entries = good.0.clone();
            entries.remove(missing);
            assert_eq!(Acl::decode(&Acl(entries).encode()).is_ok(), missing == 1);
        }
        let mut twice = good.0.clone();
        twice.insert(0, twice[0]);
        let mut swapped = good.0.clone();
        swapped.swap(0, 1);
        let mut anonymous = good.0.clone();
        anonymous[1].id = NO_ID;
        for entries in [twice, swapped, anonymous] {
            assert_eq!(Acl::decode(&Acl(entries).encode()), Err(Errno::INVAL));
        }
        let mut version = bytes.clone();
        version[0] = 1;
        let mut permissions = bytes;
        permissions[6] = 8;
        for bytes in [version, permissions] {
            assert_eq!(Acl::decode(&bytes), Err(Errno::INVAL));
        }
    }

    #[test]
    fn a_mode_changes_the_mask_and_not_the_owning_group() {
        let mut acl = extended();
        acl.set_mode(0o640);
        assert_eq!(acl.mode(), 0o640);
        assert_eq!(acl.0[2].permissions, 5);
        assert_eq!(acl.0[3].permissions, 4);
        let mut short = self::acl(&[(Tag::Owner, 7, NO_ID), (Tag::OwningGroup, 5, NO_ID), (Tag::Other, 4, NO_ID)]);
        short.set_mode(0o421);
        assert_eq!((short.mode(), short.is_extended()), (0o421, false));
    }

    #[test]
    fn something_new_has_no_more_than_was_asked_for_and_than_the_default_gives() {
        let default = extended().encode();
        let file = Birth::new(Some(&default), 0o6640, 0o777, false);
        assert_eq!(file.mode, 0o6640);
        assert_eq!(file.lists.iter().map(|(name, _)| *name).collect::<Vec<_>>(), [ACCESS]);
        let directory = Birth::new(Some(&default), 0o755, 0o22, true);
        assert_eq!(directory.mode, 0o754);
        assert_eq!(directory.lists[1], (DEFAULT, default));
        let plain = Birth::new(None, 0o2666, 0o22, false);
        assert_eq!((plain.mode, plain.lists.len()), (0o2644, 0));
    }

    #[test]
    fn a_list_that_a_mode_says_is_not_kept() {
        let short = acl(&[(Tag::Owner, 6, NO_ID), (Tag::OwningGroup, 4, NO_ID), (Tag::Other, 0, NO_ID)]).encode();
        let setting = set(ACCESS, &short, false).unwrap().unwrap();
        assert_eq!((setting.kept, setting.mode), (None, Some(0o640)));
        assert_eq!(set(DEFAULT, &short, false), Err(Errno::ACCESS));
        assert_eq!(set(DEFAULT, &short, true).unwrap().unwrap().kept, Some(short));
        assert_eq!(set("user.a", b"x", false), Ok(None));
    }

    #[test]
    fn most_arbitrary_lists_are_valid() {
        let seeds = (1..=1000u64).map(|seed| seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let valid = seeds.filter(|seed| Acl::decode(&arbitrary(*seed)).is_ok()).count();
        assert!((800..1000).contains(&valid), "{valid}");
    }
}
