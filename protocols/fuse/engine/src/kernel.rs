//! Mounting and unmounting, by system calls as root and by `fusermount3` otherwise.

use std::ffi::CString;
use std::fs::File;
use std::io::{IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::process::{getegid, geteuid};
use trefoil_core::filesystem::TRANSFER_BYTES_MAX;

use crate::device::Device;
use crate::mount::MountError;
use crate::options::Options;
use crate::workers::Live;

/// How long a busy mount may become idle before its connection is cut.
const BUSY_WAIT: Duration = Duration::from_millis(500);
const BUSY_STEP: Duration = Duration::from_millis(25);
/// How long pages that programs changed through `mmap` may take to be written back before that.
const WRITE_BACK_WAIT: Duration = Duration::from_secs(5);
const SETTLE_STEP: Duration = Duration::from_millis(5);
/// What `fusermount3` says when it fails.
const COMPLAINT_BYTES_MAX: u64 = 4096;

/// The device number of what is mounted there, from the kernel's cache: nobody is asked.
pub fn device_number(path: &Path) -> Result<(u32, u32), Errno> {
    let found = rustix::fs::statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::TYPE)?;
    Ok((found.stx_dev_major, found.stx_dev_minor))
}

/// A mount whose server died answers ENOTCONN for ever; it is taken away. Others are left alone.
pub fn clear_dead(path: &Path) {
    let asked = rustix::fs::statx(CWD, path, AtFlags::STATX_FORCE_SYNC, StatxFlags::TYPE);
    if asked.is_err_and(|error| error == Errno::NOTCONN) && rustix::mount::unmount(path, UnmountFlags::DETACH).is_err() {
        fusermount(&["-u", "-z", "-q"], path);
    }
}

pub fn mount(path: &Path, options: &Options) -> Result<OwnedFd, MountError> {
    if geteuid().is_root() {
        mount_as_root(path, options)
    } else {
        mount_as_user(path, options)
    }
}

fn mount_as_root(path: &Path, options: &Options) -> Result<OwnedFd, MountError> {
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(MountError::Device)?;
    let mut data = format!(
        "fd={},rootmode=40000,user_id={},group_id={}",
        device.as_raw_fd(),
        geteuid().as_raw(),
        getegid().as_raw()
    );
    data.push_str(&format!(",max_read={TRANSFER_BYTES_MAX},default_permissions"));
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let data = CString::new(data).map_err(|_| MountError::Name)?;
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, options.read_only);
    flags.set(MountFlags::NOSUID, !options.set_id);
    flags.set(MountFlags::NODEV, !options.devices);
    rustix::mount::mount(options.name.as_str(), path, "fuse.trefoil", flags, &*data).map_err(|error| MountError::Refused {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(device)
}

/// The setuid helper mounts and passes the device over the socket that is its standard input.
fn mount_as_user(path: &Path, options: &Options) -> Result<OwnedFd, MountError> {
    let refused = |reason: String| MountError::Refused {
        path: path.to_owned(),
        reason,
    };
    let (ours, theirs) = UnixStream::pair().map_err(|error| refused(error.to_string()))?;
    let mut list = format!(
        "fsname={},subtype=trefoil,max_read={TRANSFER_BYTES_MAX},default_permissions",
        options.name.replace(',', "\\,")
    );
    for (wanted, word) in [(options.allow_other, ",allow_other"), (options.read_only, ",ro")] {
        list.push_str(if wanted { word } else { "" });
    }
    let mut helper = Command::new("fusermount3")
        .args(["-o", &list, "--"])
        .arg(path)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| refused(format!("fusermount3 does not start: {error}")))?;
    let device = receive(&ours);
    let mut complaint = String::new();
    if let Some(stderr) = helper.stderr.take() {
        // What cannot be read is not shown.
        let _ = stderr.take(COMPLAINT_BYTES_MAX).read_to_string(&mut complaint);
    }
    let _ = helper.wait();
    device.ok_or_else(|| refused(complaint.trim().to_owned()))
}

fn receive(socket: &UnixStream) -> Option<OwnedFd> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC).ok()?;
    control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    })
}

/// Takes the mount away whether or not somebody uses it; who does is told ENOTCONN. What else may be mounted there by now is not touched: `number` alone
/// would not tell, as the kernel gives it to the next mount.
pub fn unmount(path: &Path, number: (u32, u32), device: &Device, live: &Live) {
    let until = Instant::now() + BUSY_WAIT;
    loop {
        if !device.connected() || device_number(path) != Ok(number) {
            return;
        }
        match gentle(path) {
            Err(Errno::BUSY) if Instant::now() < until => std::thread::sleep(BUSY_STEP),
            Err(Errno::BUSY | Errno::PERM) => break,
            _ => return,
        }
    }
    write_back(path);
    settle(device, live);
    // FORCE cuts the connection and then finds the mount as busy as before; DETACH takes it out of the tree.
    let _ = rustix::mount::unmount(path, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW);
    if rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_err() && device_number(path) == Ok(number) {
        fusermount(&["-u", "-z", "-q"], path);
    }
    // As a user only this cuts the connection; without it what is open stays served until it is closed.
    let _ = std::fs::write(format!("/sys/fs/fuse/connections/{}/abort", number.1), "1");
}

fn gentle(path: &Path) -> Result<(), Errno> {
    match rustix::mount::unmount(path, UnmountFlags::NOFOLLOW) {
        Err(Errno::PERM) if fusermount(&["-u", "-q"], path) => Ok(()),
        outcome => outcome,
    }
}

fn fusermount(arguments: &[&str], path: &Path) -> bool {
    let helper = Command::new("fusermount3")
        .args(arguments)
        .arg("--")
        .arg(path)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    helper.is_ok_and(|status| status.success())
}

/// In a thread of its own: a store that does not answer must not keep the mount.
fn write_back(path: &Path) {
    let (done, wait) = std::sync::mpsc::channel();
    let path = path.to_owned();
    let written = std::thread::Builder::new().name("fuse-write-back".to_owned()).spawn(move || {
        if let Ok(root) = File::open(path) {
            let _ = rustix::fs::syncfs(&root);
        }
        let _ = done.send(());
    });
    if written.is_ok() {
        let _ = wait.recv_timeout(WRITE_BACK_WAIT);
    }
}

/// `syncfs` asks for pages to be written, but newer kernels do not wait for a FUSE server's answers: cut off before, they would be lost.
fn settle(device: &Device, live: &Live) {
    let until = Instant::now() + WRITE_BACK_WAIT;
    let mut quiet = 0;
    // Twice, as a request that was just taken does not count as busy yet.
    while quiet < 2 && Instant::now() < until {
        quiet = if device.asked() || live.is_busy() { 0 } else { quiet + 1 };
        std::thread::sleep(SETTLE_STEP);
    }
}

/// The kernel reads ahead 128 KiB at most unless it is told here. Only root may; it is a matter of speed alone.
pub fn read_ahead(number: (u32, u32), bytes: u32) {
    let _ = std::fs::write(
        format!("/sys/class/bdi/{}:{}/read_ahead_kb", number.0, number.1),
        (bytes >> 10).to_string(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Root may ask the helper too, so the way of users is tried without one.
    #[test]
    fn the_helper_mounts_and_passes_the_device() {
        let directory = tempfile::TempDir::new().unwrap();
        let device = Device::new(mount_as_user(directory.path(), &Options::default()).unwrap());
        assert!(device.connected());
        let number = device_number(directory.path()).unwrap();
        assert_ne!(Ok(number), device_number(Path::new("/")));
        assert!(fusermount(&["-u", "-q"], directory.path()));
        assert!(!device.connected());
        let refused = mount_as_user(&directory.path().join("missing"), &Options::default())
            .unwrap_err()
            .to_string();
        assert!(refused.contains("missing") && refused.len() < 300, "{refused}");
    }
}
