use std::fs;

use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::Errno;

use crate::rig::Rig;

#[test]
fn attributes_are_set_listed_and_removed() {
    let rig = Rig::new();
    let path = rig.path("f");
    fs::write(&path, b"").unwrap();
    setxattr(&path, "user.a", b"one", XattrFlags::CREATE).unwrap();
    assert_eq!(setxattr(&path, "user.a", b"two", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(setxattr(&path, "user.b", b"two", XattrFlags::REPLACE), Err(Errno::NODATA));
    setxattr(&path, "trusted.t", &[0, 255], XattrFlags::empty()).unwrap();
    setxattr(&path, "security.s", b"", XattrFlags::empty()).unwrap();
    let mut room = [0; 64];
    assert_eq!(getxattr(&path, "user.a", &mut room), Ok(3));
    assert_eq!(&room[..3], b"one");
    assert_eq!(getxattr(&path, "user.a", &mut [0; 2]), Err(Errno::RANGE));
    let length = listxattr(&path, &mut room).unwrap();
    let mut names: Vec<_> = room[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    assert_eq!(names, [&b"security.s"[..], b"trusted.t", b"user.a"]);
    assert_eq!(listxattr(&path, &mut [0; 3]), Err(Errno::RANGE));
    removexattr(&path, "user.a").unwrap();
    assert_eq!(removexattr(&path, "user.a"), Err(Errno::NODATA));
    assert_eq!(getxattr(&path, "user.a", &mut room), Err(Errno::NODATA));
}

#[test]
fn other_namespaces_are_not_served() {
    let rig = Rig::new();
    let path = rig.path("f");
    fs::write(&path, b"").unwrap();
    for name in ["system.other", "user.", "nonsense"] {
        assert_eq!(setxattr(&path, name, b"x", XattrFlags::empty()), Err(Errno::OPNOTSUPP), "{name}");
        assert_eq!(getxattr(&path, name, &mut [0; 8]), Err(Errno::OPNOTSUPP), "{name}");
    }
}

#[test]
fn trusted_names_are_shown_to_root_only() {
    let rig = Rig::new();
    let path = rig.path("f");
    fs::write(&path, b"").unwrap();
    setxattr(&path, "trusted.t", b"x", XattrFlags::empty()).unwrap();
    setxattr(&path, "user.u", b"x", XattrFlags::empty()).unwrap();
    let seen = std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(65_534);
        // Of this thread alone.
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let mut room = [0; 64];
        let length = listxattr(&path, &mut room).unwrap();
        room[..length].to_vec()
    });
    assert_eq!(seen.join().unwrap(), b"user.u\0");
}
