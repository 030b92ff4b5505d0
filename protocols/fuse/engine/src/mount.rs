//! One mount, from its start to its end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use trefoil_core::filesystem::FileSystem;
use trefoil_core::filesystem::news::{Listener, Origin};

use crate::device::Device;
use crate::engine::Engine;
use crate::invalidations::{Invalidations, Teller};
use crate::known::Known;
use crate::options::{Locks, Options, THREADS_MAX, Timeouts};
use crate::syncs::{Syncs, serve};
use crate::wire::MINOR_EPOCHS;
use crate::workers::{Live, Workers};
use crate::{handshake, kernel};

/// How long requests that are in the store may take when the mount ends.
const END_WAIT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("/dev/fuse cannot be opened: {0}")]
    Device(Errno),
    #[error("{0} is not a directory that can be mounted on: {1}")]
    Point(PathBuf, std::io::Error),
    #[error("{path} cannot be mounted: {reason}", path = path.display())]
    Refused { path: PathBuf, reason: String },
    #[error("the mount's name has a NUL in it")]
    Name,
    #[error("a mount has 1 to {THREADS_MAX} threads, not {0}")]
    Threads(usize),
    #[error("this kernel's FUSE cannot be used (Linux 5.13 or later can): {0}")]
    Kernel(Errno),
    #[error("{0} is no directory of the store: {1}")]
    Root(u64, Errno),
    #[error("no thread can be started: {0}")]
    Thread(std::io::Error),
    #[error("{0} is unmounted, but requests were still in the store {seconds} seconds later", seconds = END_WAIT.as_secs())]
    Stuck(PathBuf),
}

/// A mounted filesystem. It ends with `end`, when it is dropped, or when somebody unmounts it.
#[derive(Debug)]
pub struct Mount {
    path: PathBuf,
    number: (u32, u32),
    device: Arc<Device>,
    live: Arc<Live>,
    invalidations: Invalidations,
    opened: Option<Opened>,
}

/// What is open in the store on behalf of the kernel, which does not say goodbye when a mount ends.
struct Opened {
    fs: Arc<dyn FileSystem>,
    known: Arc<Known>,
    locks: Option<Locks>,
}

impl Mount {
    /// Returns when the mount can be used.
    pub fn start(fs: Arc<dyn FileSystem>, mountpoint: &Path, options: Options) -> Result<Self, MountError> {
        if !(1..=THREADS_MAX).contains(&options.threads) {
            return Err(MountError::Threads(options.threads));
        }
        fs.list(options.root, 0, 1).map_err(|error| MountError::Root(options.root, error))?;
        kernel::clear_dead(mountpoint);
        let path = mountpoint
            .canonicalize()
            .map_err(|error| MountError::Point(mountpoint.to_owned(), error))?;
        let device = Arc::new(Device::new(kernel::mount(&path, &options)?));
        // The kernel answers for its own caches from here on: the number can be had before anything is served.
        let number = kernel::device_number(&path).map_err(MountError::Kernel)?;
        Self::serve(fs, path.clone(), device.clone(), number, options)
            .inspect_err(|_| kernel::unmount(&path, number, &device, &Live::default()))
    }

    fn serve(
        fs: Arc<dyn FileSystem>,
        path: PathBuf,
        device: Arc<Device>,
        number: (u32, u32),
        options: Options,
    ) -> Result<Self, MountError> {
        let minor = handshake::shake(&device, options.locks.is_some()).map_err(MountError::Kernel)?;
        let has_epochs = minor >= MINOR_EPOCHS;
        let live = Arc::new(Live::default());
        let listener = fs.subscribe();
        let timeouts = options.timeouts.unwrap_or(Timeouts::right(listener.is_some(), has_epochs));
        let invalidations = Invalidations::new(options.root, listener.unwrap_or_else(Listener::alone));
        let (syncs, tickets) = Syncs::new();
        let (threads, read_ahead, locks) = (options.threads, options.read_ahead_bytes, options.locks.clone());
        let engine = Engine::new(fs.clone(), device.clone(), options, timeouts, invalidations.clone(), syncs);
        let known = engine.known().clone();
        let opened = Some(Opened {
            fs: fs.clone(),
            known: known.clone(),
            locks,
        });
        let mount = Self {
            path,
            number,
            device: device.clone(),
            live: live.clone(),
            invalidations: invalidations.clone(),
            opened,
        };
        thread("fuse-sync", &live, move || serve(&fs, &tickets))?;
        let teller = Teller {
            invalidations,
            device: device.clone(),
            known,
            has_epochs,
        };
        thread("fuse-news", &live, move || teller.tell())?;
        Workers::start(engine, device, threads, &live).map_err(MountError::Thread)?;
        kernel::read_ahead(number, read_ahead);
        Ok(mount)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns when it was unmounted, by whomever; `end` is still to be called.
    pub fn wait_unmounted(&self) {
        self.device.wait_gone();
    }

    /// Where other faces say what they changed.
    pub fn invalidations(&self) -> Invalidations {
        self.invalidations.clone()
    }

    /// In whose name its programs change what they change.
    pub fn origin(&self) -> Origin {
        self.invalidations.origin()
    }

    /// Unmounts; what programs still have open there fails with ENOTCONN from now on. Waits for the requests that are in the store.
    pub fn end(mut self) -> Result<(), MountError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), MountError> {
        let Some(opened) = self.opened.take() else { return Ok(()) };
        kernel::unmount(&self.path, self.number, &self.device, &self.live);
        self.invalidations.close();
        if let Some(locks) = &opened.locks {
            locks.table.release_client(locks.client);
        }
        if !self.live.wait(END_WAIT) {
            return Err(MountError::Stuck(self.path.clone()));
        }
        for (inode, opens) in opened.known.open() {
            (0..opens).for_each(|_| opened.fs.close(inode));
        }
        Ok(())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Nobody is left to be told.
        let _ = self.finish();
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Opened").finish_non_exhaustive()
    }
}

fn thread(name: &str, live: &Arc<Live>, work: impl FnOnce() + Send + 'static) -> Result<(), MountError> {
    let alive = live.enter();
    let run = move || {
        work();
        drop(alive);
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map(|_| ())
        .map_err(MountError::Thread)
}
