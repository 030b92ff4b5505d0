//! How to mount.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use trefoil_core::filesystem::locks::LockTable;
use trefoil_core::filesystem::{Inode, ROOT};

/// Threads at once in the store; each has a buffer of `TRANSFER_BYTES_MAX`.
pub const THREADS_MAX: usize = 64;

/// The table that all faces share, and the name of this mount in it: one that no other mount and no host has.
#[derive(Clone)]
pub struct Locks {
    pub table: Arc<LockTable>,
    pub client: u64,
}

/// How long the kernel believes what it was told; another face's change shows after that, or at once with news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    pub attributes: Duration,
    pub names: Duration,
    /// Of a name that is not there; zero asks every time.
    pub absent_names: Duration,
}

impl Timeouts {
    pub const NONE: Self = Self::all(Duration::ZERO);
    /// Without news: what close-to-open consistency elsewhere has made programs live with.
    const UNTOLD: Duration = Duration::from_secs(1);
    /// With news: long enough not to matter, and an end to whatever goes wrong.
    const TOLD: Duration = Duration::from_secs(3600);

    pub const fn all(time: Duration) -> Self {
        Self {
            attributes: time,
            names: time,
            absent_names: time,
        }
    }

    /// `has_epochs`: the kernel can be told to look up every name again, which must be done when news were lost.
    pub(crate) fn right(has_news: bool, has_epochs: bool) -> Self {
        match (has_news, has_epochs) {
            (true, true) => Self::all(Self::TOLD),
            (told, _) => Self {
                attributes: if told { Self::TOLD } else { Self::UNTOLD },
                names: Self::UNTOLD,
                absent_names: Duration::ZERO,
            },
        }
    }
}

#[derive(Debug, Clone)]
pub struct Options {
    /// What `mount` and `df` show as the source.
    pub name: String,
    /// The directory that is mounted: all views, or one.
    pub root: Inode,
    /// Other users than the one who mounts. Permissions are checked by the kernel always. Needs root or `user_allow_other` in `/etc/fuse.conf`.
    pub allow_other: bool,
    pub read_only: bool,
    /// Note when something was read, as `relatime` does. A read-only mount never does.
    pub access_times: bool,
    /// Honour set-user-id and set-group-id bits and file capabilities. Only root may ask.
    pub set_id: bool,
    /// Open character and block devices. Only root may ask.
    pub devices: bool,
    /// At most so many requests are in the store at once: 1 to THREADS_MAX. They start when they are needed.
    pub threads: usize,
    /// How long the kernel believes what it was told; `None`: as long as is right.
    pub timeouts: Option<Timeouts>,
    /// What the kernel reads ahead at most; it takes this only from root.
    pub read_ahead_bytes: u32,
    /// Without them the kernel keeps locks among its own processes; with them each close of a descriptor is a request.
    pub locks: Option<Locks>,
}

impl fmt::Debug for Locks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Locks")
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

impl Default for Options {
    fn default() -> Self {
        let privileged = rustix::process::geteuid().is_root();
        Self {
            name: "trefoil".to_owned(),
            root: ROOT,
            allow_other: privileged,
            read_only: false,
            access_times: true,
            set_id: privileged,
            devices: privileged,
            threads: 16,
            timeouts: None,
            read_ahead_bytes: 1 << 20,
            locks: None,
        }
    }
}
