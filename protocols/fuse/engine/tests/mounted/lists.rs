//! POSIX ACLs and capabilities, as acl(5) and capabilities(7) have them.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};

use rustix::fs::{Mode, XattrFlags, getxattr, listxattr, setxattr};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};

use crate::rig::{Rig, errno};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const OWNER: u16 = 1;
const USER: u16 = 2;
const GROUP: u16 = 4;
const MASK: u16 = 16;
const OTHER: u16 = 32;
const NOBODY: u32 = 65_534;

fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        bytes.extend([&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat());
    }
    bytes
}

fn naming_nobody(rights: u16) -> Vec<u8> {
    list(&[
        (OWNER, 7, u32::MAX),
        (USER, rights, NOBODY),
        (GROUP, 0, u32::MAX),
        (MASK, 7, u32::MAX),
        (OTHER, 0, u32::MAX),
    ])
}

fn value(path: &std::path::Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut room = [0; 256];
    getxattr(path, name, &mut room).map(|length| room[..length].to_vec())
}

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

/// Of this thread alone, for good.
fn become_nobody() {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_res_gid(group, group, group).unwrap();
    rustix::thread::set_thread_res_uid(user, user, user).unwrap();
}

#[test]
fn a_list_lets_in_whom_it_names() {
    let rig = Rig::new();
    fs::set_permissions(rig.root(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = rig.path("f");
    fs::write(&path, b"secret").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let opens = |path: &std::path::PathBuf| {
        let path = path.clone();
        std::thread::spawn(move || {
            become_nobody();
            errno(File::open(path))
        })
        .join()
        .unwrap()
    };
    assert_eq!(opens(&path), Errno::ACCESS.raw_os_error());
    setxattr(&path, ACCESS, &naming_nobody(4), XattrFlags::empty()).unwrap();
    assert_eq!(opens(&path), 0);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(opens(&path), Errno::ACCESS.raw_os_error(), "the mask went with the mode");
}

#[test]
fn lists_and_modes_agree() {
    let rig = Rig::new();
    let path = rig.path("f");
    fs::write(&path, b"").unwrap();
    setxattr(&path, ACCESS, &naming_nobody(6), XattrFlags::empty()).unwrap();
    assert_eq!(mode(&path), 0o770);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let after = value(&path, ACCESS).unwrap();
    assert_eq!((after[6], after[14], after[30]), (6, 6, 4), "owner, named user, mask");
    // A list that says what mode 644 says.
    let plain = list(&[(OWNER, 6, u32::MAX), (GROUP, 4, u32::MAX), (OTHER, 4, u32::MAX)]);
    setxattr(&path, ACCESS, &plain, XattrFlags::empty()).unwrap();
    assert_eq!((mode(&path), value(&path, ACCESS)), (0o644, Err(Errno::NODATA)));
    assert_eq!(setxattr(&path, ACCESS, b"nonsense", XattrFlags::empty()), Err(Errno::OPNOTSUPP));
}

#[test]
fn what_is_made_inherits_and_the_umask_is_for_where_nothing_is() {
    let rig = Rig::new();
    let (plain, listed) = (rig.path("plain"), rig.path("listed"));
    fs::create_dir(&plain).unwrap();
    fs::create_dir(&listed).unwrap();
    setxattr(&listed, DEFAULT, &naming_nobody(7), XattrFlags::empty()).unwrap();
    let make = |directory: &std::path::Path| {
        File::options()
            .write(true)
            .create_new(true)
            .mode(0o666)
            .open(directory.join("f"))
            .unwrap();
        DirBuilder::new().mode(0o777).create(directory.join("d")).unwrap();
        [directory.join("f"), directory.join("d")].map(|path| (mode(&path), value(&path, ACCESS).is_ok(), value(&path, DEFAULT).is_ok()))
    };
    // The process's own, which other tests do not change.
    let umask = rustix::process::umask(Mode::from_raw_mode(0o22));
    assert_eq!(make(&plain), [(0o644, false, false), (0o755, false, false)]);
    assert_eq!(make(&listed), [(0o660, true, false), (0o770, true, true)]);
    rustix::process::umask(umask);
    let mut room = [0; 256];
    let length = listxattr(listed.join("d"), &mut room).unwrap();
    let names = String::from_utf8(room[..length].to_vec()).unwrap();
    assert!(names.contains(ACCESS) && names.contains(DEFAULT), "{names}");
}

#[test]
fn capabilities_go_with_the_content() {
    let rig = Rig::new();
    let path = rig.path("f");
    // Version 2, CAP_NET_RAW permitted.
    let capability = [0, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let changes: [fn(&std::path::Path); 3] = [
        |path| fs::write(path, b"other").unwrap(),
        |path| File::options().write(true).open(path).unwrap().set_len(1).unwrap(),
        |path| std::os::unix::fs::chown(path, Some(7), None).unwrap(),
    ];
    for change in changes {
        fs::write(&path, b"program").unwrap();
        setxattr(&path, "security.capability", &capability, XattrFlags::empty()).unwrap();
        assert_eq!(value(&path, "security.capability").unwrap(), capability);
        change(&path);
        assert_eq!(value(&path, "security.capability"), Err(Errno::NODATA));
    }
}
