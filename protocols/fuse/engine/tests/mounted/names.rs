use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, StatxFlags};
use rustix::io::Errno;

use crate::rig::{Rig, errno};

#[test]
fn what_is_made_is_there_with_its_mode_and_owner() {
    let rig = Rig::new();
    fs::write(rig.path("file"), b"hello").unwrap();
    fs::create_dir(rig.path("directory")).unwrap();
    symlink("file", rig.path("link")).unwrap();
    fs::set_permissions(rig.path("file"), fs::Permissions::from_mode(0o4711)).unwrap();
    std::os::unix::fs::chown(rig.path("directory"), Some(12), Some(34)).unwrap();
    let file = fs::metadata(rig.path("file")).unwrap();
    assert_eq!((file.mode(), file.len(), file.nlink(), file.uid()), (0o104_711, 5, 1, 0));
    let directory = fs::metadata(rig.path("directory")).unwrap();
    assert_eq!((directory.uid(), directory.gid(), directory.nlink()), (12, 34, 2));
    assert_eq!(fs::read_link(rig.path("link")).unwrap().to_str(), Some("file"));
    assert_eq!(fs::read(rig.path("link")).unwrap(), b"hello");
    assert_eq!(fs::metadata(rig.root()).unwrap().ino(), 1, "the view is the mount's root");
    assert_eq!(fs::metadata(rig.root()).unwrap().nlink(), 3);
}

#[test]
fn special_files_keep_their_numbers() {
    let rig = Rig::new();
    let mode = Mode::from_raw_mode(0o640);
    let device = rustix::fs::makedev(4095, 1_048_575);
    for (name, kind, number) in [
        ("c", FileType::CharacterDevice, device),
        ("b", FileType::BlockDevice, device),
        ("p", FileType::Fifo, 0),
    ] {
        rustix::fs::mknodat(CWD, rig.path(name), kind, mode, number).unwrap();
    }
    rustix::fs::mknodat(CWD, rig.path("s"), FileType::Socket, mode, 0).unwrap();
    rustix::fs::mknodat(CWD, rig.path("f"), FileType::RegularFile, mode, 0).unwrap();
    let node = |name| fs::symlink_metadata(rig.path(name)).unwrap();
    assert!(node("c").file_type().is_char_device() && node("b").file_type().is_block_device());
    assert!(node("p").file_type().is_fifo() && node("s").file_type().is_socket() && node("f").is_file());
    assert_eq!((node("c").rdev(), node("b").rdev(), node("p").rdev()), (device, device, 0));
    let listener = std::os::unix::net::UnixListener::bind(rig.path("bound")).unwrap();
    std::os::unix::net::UnixStream::connect(rig.path("bound")).unwrap();
    drop(listener);
}

#[test]
fn rename_replaces_refuses_or_exchanges() {
    let rig = Rig::new();
    let rename = |from, to, flags| rustix::fs::renameat_with(CWD, rig.path(from), CWD, rig.path(to), flags);
    fs::write(rig.path("a"), b"a").unwrap();
    fs::write(rig.path("b"), b"b").unwrap();
    fs::create_dir(rig.path("d")).unwrap();
    assert_eq!(rename("a", "b", RenameFlags::NOREPLACE), Err(Errno::EXIST));
    assert_eq!(rename("a", "b", RenameFlags::WHITEOUT), Err(Errno::INVAL));
    rename("a", "b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(
        (fs::read(rig.path("a")).unwrap(), fs::read(rig.path("b")).unwrap()),
        (b"b".to_vec(), b"a".to_vec())
    );
    rename("a", "d", RenameFlags::EXCHANGE).unwrap();
    assert!(rig.path("a").is_dir() && rig.path("d").is_file());
    rename("d", "b", RenameFlags::empty()).unwrap();
    assert_eq!(fs::read(rig.path("b")).unwrap(), b"b");
    assert!(!rig.path("d").exists());
    fs::create_dir(rig.path("a/below")).unwrap();
    assert_eq!(rename("a", "a/below/c", RenameFlags::empty()), Err(Errno::INVAL));
    assert_eq!(errno(fs::remove_dir(rig.path("a"))), Errno::NOTEMPTY.raw_os_error());
}

#[test]
fn links_share_one_inode() {
    let rig = Rig::new();
    fs::write(rig.path("a"), b"one").unwrap();
    fs::hard_link(rig.path("a"), rig.path("b")).unwrap();
    fs::write(rig.path("b"), b"two").unwrap();
    let (a, b) = (fs::metadata(rig.path("a")).unwrap(), fs::metadata(rig.path("b")).unwrap());
    assert_eq!((a.ino(), a.nlink(), b.nlink()), (b.ino(), 2, 2));
    assert_eq!(fs::read(rig.path("a")).unwrap(), b"two");
    fs::remove_file(rig.path("a")).unwrap();
    assert_eq!(fs::metadata(rig.path("b")).unwrap().nlink(), 1);
    assert_eq!(errno(fs::hard_link(rig.root(), rig.path("c"))), Errno::PERM.raw_os_error());
}

#[test]
fn a_name_has_255_bytes_and_no_more() {
    let rig = Rig::new();
    let (fits, long) = ("n".repeat(255), "n".repeat(256));
    fs::write(rig.path(&fits), b"").unwrap();
    for result in [
        errno(fs::write(rig.path(&long), b"")),
        errno(fs::metadata(rig.path(&long))),
        errno(fs::create_dir(rig.path(&long))),
        errno(symlink("x", rig.path(&long))),
        errno(fs::rename(rig.path(&fits), rig.path(&long))),
        errno(fs::rename(rig.path(&long), rig.path("short"))),
        errno(fs::hard_link(rig.path(&fits), rig.path(&long))),
        errno(fs::remove_file(rig.path(&long))),
        errno(fs::remove_dir(rig.path(&long))),
    ] {
        assert_eq!(result, Errno::NAMETOOLONG.raw_os_error());
    }
}

#[test]
fn times_are_kept_to_the_nanosecond_before_1970_too() {
    let rig = Rig::new();
    fs::write(rig.path("f"), b"").unwrap();
    let at = |seconds, nanoseconds| rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let set = |accessed, modified| {
        let times = rustix::fs::Timestamps {
            last_access: accessed,
            last_modification: modified,
        };
        rustix::fs::utimensat(CWD, rig.path("f"), &times, AtFlags::empty()).unwrap();
        fs::metadata(rig.path("f")).unwrap()
    };
    let node = set(at(-2, 500_000_000), at(4_294_967_297, 1));
    assert_eq!(
        (node.atime(), node.atime_nsec(), node.mtime(), node.mtime_nsec()),
        (-2, 500_000_000, 4_294_967_297, 1)
    );
    let omitted = set(at(0, rustix::fs::UTIME_OMIT), at(0, rustix::fs::UTIME_NOW));
    assert_eq!((omitted.atime(), omitted.atime_nsec()), (-2, 500_000_000));
    assert!(omitted.mtime() > 1_700_000_000 && omitted.mtime() < 4_294_967_297);
    set(at(i64::MIN, 0), at(i64::MAX, 0));
    assert!(fs::metadata(rig.path("f")).is_ok(), "times that cannot be kept become the nearest");
}

#[test]
fn the_time_of_birth_is_told() {
    let rig = Rig::new();
    fs::write(rig.path("f"), b"").unwrap();
    let found = rustix::fs::statx(CWD, rig.path("f"), AtFlags::empty(), StatxFlags::BTIME | StatxFlags::BASIC_STATS).unwrap();
    assert!(found.stx_mask & StatxFlags::BTIME.bits() != 0);
    let created = rig.model_node("f").created_ns;
    assert_eq!(
        i128::from(found.stx_btime.tv_sec) * 1_000_000_000 + i128::from(found.stx_btime.tv_nsec),
        i128::from(created)
    );
    let made = created.div_euclid(1_000_000_000);
    assert_eq!((found.stx_btime.tv_sec, found.stx_mode & 0o170_000), (made, 0o100_000));
}

#[test]
fn a_file_without_a_name_can_get_one() {
    let rig = Rig::new();
    let file = rustix::fs::open(rig.root(), OFlags::TMPFILE | OFlags::RDWR, Mode::from_raw_mode(0o600)).unwrap();
    rustix::io::write(&file, b"content").unwrap();
    assert_eq!(rustix::fs::fstat(&file).unwrap().st_nlink, 0);
    assert_eq!(fs::read_dir(rig.root()).unwrap().count(), 0);
    let descriptor = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
    rustix::fs::linkat(CWD, descriptor, CWD, rig.path("named"), AtFlags::SYMLINK_FOLLOW).unwrap();
    drop(file);
    assert_eq!(fs::read(rig.path("named")).unwrap(), b"content");
    assert_eq!(fs::metadata(rig.path("named")).unwrap().nlink(), 1);
    drop(rustix::fs::open(rig.root(), OFlags::TMPFILE | OFlags::RDWR, Mode::from_raw_mode(0o600)).unwrap());
}

#[test]
fn what_is_made_elsewhere_first_is_opened_and_not_made_again() {
    use trefoil_core::filesystem::{FileSystem, New};
    let rig = Rig::with(|options| options.timeouts = Some(trefoil_fuse::Timeouts::all(crate::rig::FOR_EVER)));
    assert!(!rig.path("f").exists(), "and the kernel remembers that");
    let made = rig.model.create(rig.view, b"f", New::File, 0o644, crate::rig::ROOT_OWNER).unwrap();
    rig.model.write(made.inode, 0, b"theirs", false).unwrap();
    let mut options = fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(rig.path("f")).unwrap();
    assert_eq!(file.metadata().unwrap().ino(), made.inode);
    assert_eq!(fs::read(rig.path("f")).unwrap(), b"theirs");
}

#[test]
fn what_was_removed_can_be_looked_at_by_who_holds_it() {
    let rig = Rig::new();
    fs::write(rig.path("f"), b"content").unwrap();
    fs::create_dir(rig.path("d")).unwrap();
    fs::write(rig.path("replaced"), b"1").unwrap();
    fs::write(rig.path("other"), b"2").unwrap();
    let hold = |name: &str| rustix::fs::open(rig.path(name), OFlags::PATH, Mode::empty()).unwrap();
    let held = [hold("f"), hold("d"), hold("replaced")];
    fs::remove_file(rig.path("f")).unwrap();
    fs::remove_dir(rig.path("d")).unwrap();
    fs::rename(rig.path("other"), rig.path("replaced")).unwrap();
    for (held, size) in held.iter().zip([7, 0, 1]) {
        let found = rustix::fs::fstat(held).unwrap();
        assert_eq!((found.st_nlink, found.st_size), (0, size));
    }
}
