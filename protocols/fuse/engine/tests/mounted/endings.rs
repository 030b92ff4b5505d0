use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rustix::io::Errno;
use trefoil_core::filesystem::model::{Model, system_clock};
use trefoil_core::filesystem::{FileSystem, New, ROOT};
use trefoil_fuse::{Mount, MountError, Options};

use crate::rig::{ROOT_OWNER, Rig, errno, soon};

fn mounted(path: &Path) -> bool {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.lines().any(|line| line.split(' ').nth(1) == path.to_str())
}

#[test]
fn an_ended_mount_is_gone_and_can_come_again() {
    let mut rig = Rig::new();
    fs::write(rig.path("f"), b"content").unwrap();
    let inode = fs::metadata(rig.path("f")).unwrap().ino();
    rig.end();
    assert!(!mounted(rig.root()) && !rig.path("f").exists());
    let options = Options {
        root: rig.view,
        ..Options::default()
    };
    rig.mount = Some(Mount::start(rig.model.clone(), rig.root(), options).unwrap());
    assert_eq!(fs::read(rig.path("f")).unwrap(), b"content");
    assert_eq!(fs::metadata(rig.path("f")).unwrap().ino(), inode);
}

#[test]
fn it_ends_although_it_is_used() {
    let mut rig = Rig::new();
    fs::write(rig.path("f"), b"content").unwrap();
    let file = File::open(rig.path("f")).unwrap();
    let mut user = Command::new("sleep").arg("60").current_dir(rig.root()).spawn().unwrap();
    rig.end();
    assert!(!mounted(rig.root()));
    assert_eq!(errno(file.metadata()), Errno::NOTCONN.raw_os_error());
    user.kill().unwrap();
    user.wait().unwrap();
}

#[test]
fn what_others_unmounted_ends_quietly_and_touches_nothing_else() {
    let mut rig = Rig::new();
    rustix::mount::unmount(rig.root(), rustix::mount::UnmountFlags::empty()).unwrap();
    rustix::mount::mount("other", rig.root(), "tmpfs", rustix::mount::MountFlags::empty(), None).unwrap();
    rig.end();
    assert!(mounted(rig.root()), "the other mount is left alone");
    rustix::mount::unmount(rig.root(), rustix::mount::UnmountFlags::empty()).unwrap();
}

#[test]
fn a_mount_whose_server_died_is_replaced() {
    let rig = Rig::new();
    let number = rustix::fs::minor(fs::metadata(rig.root()).unwrap().dev());
    // As if it had been killed: nobody serves the connection any more.
    let control = tempfile::TempDir::new().unwrap();
    rustix::mount::mount("none", control.path(), "fusectl", rustix::mount::MountFlags::empty(), None).unwrap();
    fs::write(control.path().join(number.to_string()).join("abort"), "1").unwrap();
    rustix::mount::unmount(control.path(), rustix::mount::UnmountFlags::empty()).unwrap();
    soon("it is dead", || errno(fs::read_dir(rig.root())) == Errno::NOTCONN.raw_os_error());
    let options = Options {
        root: rig.view,
        ..Options::default()
    };
    let again = Mount::start(rig.model.clone(), rig.root(), options).unwrap();
    fs::write(rig.path("f"), b"served").unwrap();
    again.end().unwrap();
    assert!(!mounted(rig.root()));
}

#[test]
fn read_only_is_read_only() {
    let rig = Rig::with(|options| options.read_only = true);
    assert_eq!(errno(fs::write(rig.path("f"), b"")), Errno::ROFS.raw_os_error());
}

#[test]
fn a_mount_that_cannot_be_says_why() {
    let model = Arc::new(Model::new(1 << 20, system_clock()));
    let file = model.create(ROOT, b"v", New::Directory, 0o755, ROOT_OWNER).unwrap();
    let file = model.create(file.inode, b"f", New::File, 0o644, ROOT_OWNER).unwrap();
    let directory = tempfile::TempDir::new().unwrap();
    let start = |path: &Path, options| Mount::start(model.clone(), path, options).unwrap_err();
    let none = start(&directory.path().join("missing"), Options::default());
    assert!(matches!(none, MountError::Point(..)), "{none}");
    let threads = start(
        directory.path(),
        Options {
            threads: 0,
            ..Options::default()
        },
    );
    assert!(matches!(threads, MountError::Threads(0)), "{threads}");
    let root = start(
        directory.path(),
        Options {
            root: file.inode,
            ..Options::default()
        },
    );
    assert!(matches!(root, MountError::Root(_, Errno::NOTDIR)), "{root}");
    assert!(!mounted(directory.path()));
}

#[test]
fn the_kernel_reads_ahead_as_far_as_it_is_told() {
    let rig = Rig::with(|options| options.read_ahead_bytes = 512 << 10);
    let device = fs::metadata(rig.root()).unwrap().dev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let told = fs::read_to_string(format!("/sys/class/bdi/{number}/read_ahead_kb")).unwrap();
    assert_eq!(told.trim(), "512");
}

#[test]
fn the_whole_store_can_be_mounted() {
    let mut rig = Rig::with(|options| options.root = ROOT);
    fs::write(rig.path("view/f"), b"content").unwrap();
    assert_eq!(
        errno(fs::write(rig.path("f"), b"")),
        Errno::PERM.raw_os_error(),
        "the root holds views only"
    );
    fs::create_dir(rig.path("another")).unwrap();
    assert_eq!(
        errno(fs::rename(rig.path("view/f"), rig.path("another/f"))),
        Errno::XDEV.raw_os_error()
    );
    rig.end();
}
