//! News for the kernel: what another face changed, so that no cache shows what was.
//!
//! The kernel waits for page locks while it drops pages, and for a directory's lock while it forgets a name; who holds them may wait for an answer from
//! us. So news is told by a thread of its own, never by one that answers requests, and whoever brings news only queues it.
//!
//! An answer that was made before a change may reach the kernel after the news of it, and would be believed then. Three things prevent that: the kernel
//! refuses attributes that it asked for before it was told of the inode, and looks names up under the lock that telling takes; an answer is not to be
//! kept at all if anything was told since it was asked for (`Freshness`); and what the kernel knew of is told a second time a little later, which covers
//! the inode that it met just between the two.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trefoil_core::filesystem::news::{Listener, NEWS_MAX, News, Origin};
use trefoil_core::filesystem::{Inode, ROOT};

use crate::device::Device;
use crate::known::Known;
use crate::wire::{Writer, notification};

/// By then every answer that was on its way when news was told has arrived.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Where the other faces say what they changed. Cheap to clone; never waits for the kernel.
#[derive(Debug, Clone)]
pub struct Invalidations {
    listener: Arc<Listener>,
    root: Inode,
}

/// A moment that answers are held against.
#[derive(Debug, Clone, Copy)]
pub struct Freshness(u64);

impl Invalidations {
    pub(crate) fn new(root: Inode, listener: Arc<Listener>) -> Self {
        Self { listener, root }
    }

    /// The bytes of a file changed, and its attributes with them.
    pub fn content(&self, inode: Inode) {
        self.listener.tell(&[News::Content(inode)]);
    }

    /// Mode, owner, links, times or xattrs changed, not the bytes.
    pub fn attributes(&self, inode: Inode) {
        self.listener.tell(&[News::Attributes(inode)]);
    }

    /// A directory's entry came, went or names something else now.
    pub fn entry(&self, directory: Inode, name: &[u8]) {
        self.listener.tell(&[News::Entry(directory, name.to_vec())]);
    }

    pub(crate) fn origin(&self) -> Origin {
        self.listener.origin()
    }

    pub(crate) fn now(&self) -> Freshness {
        Freshness(self.listener.told())
    }

    /// Nothing was told since.
    pub(crate) fn is_fresh(&self, since: Freshness) -> bool {
        self.listener.told() == since.0
    }

    pub(crate) fn close(&self) {
        self.listener.close();
    }
}

/// Tells the kernel, in a thread of its own.
pub struct Teller {
    pub invalidations: Invalidations,
    pub device: Arc<Device>,
    pub known: Arc<Known>,
    /// The kernel can be told to look up every name again.
    pub has_epochs: bool,
}

impl Teller {
    /// Until `Invalidations::close`.
    pub fn tell(&self) {
        let mut again: VecDeque<(Instant, News)> = VecDeque::new();
        loop {
            let pause = again.front().map(|(due, _)| due.saturating_duration_since(Instant::now()));
            let Some(heard) = self.invalidations.listener.hear(pause) else {
                return;
            };
            if heard.everything {
                self.forget_everything();
            }
            let due = Instant::now() + AGAIN_AFTER;
            for news in heard.news {
                if self.say(&news) {
                    again.push_back((due, news));
                }
            }
            let now = Instant::now();
            while again.len() > NEWS_MAX || again.front().is_some_and(|(due, _)| *due <= now) {
                let Some((_, news)) = again.pop_front() else { break };
                // Pages were locked while they were read, and are dropped for good.
                self.say(&match news {
                    News::Content(inode) => News::Attributes(inode),
                    news => news,
                });
            }
        }
    }

    /// News were lost: whatever the kernel keeps may be old.
    fn forget_everything(&self) {
        self.known.forget_versions();
        if self.has_epochs {
            // Fails only when the mount is ending.
            let _ = self.device.notify(notification::NEXT_EPOCH, &[]);
        }
        for (inode, is_open) in self.known.all() {
            self.say(&if is_open { News::Content(inode) } else { News::Attributes(inode) });
        }
        self.say(&News::Attributes(self.invalidations.root));
    }

    /// Whether the kernel knew of it, or is about to.
    fn say(&self, news: &News) -> bool {
        let mut payload = Writer::default();
        let (News::Content(about) | News::Attributes(about) | News::Entry(about, _)) = news;
        if *about != self.invalidations.root && !self.known.is_known(*about) {
            return false;
        }
        let about = self.outward(*about);
        let (code, is_new) = match news {
            News::Content(_) => {
                payload.u64(about).u64(0).u64(0);
                (notification::INVALIDATE_INODE, true)
            }
            News::Attributes(_) => {
                // A negative offset leaves the pages.
                payload.u64(about).u64(u64::MAX).u64(0);
                (notification::INVALIDATE_INODE, true)
            }
            News::Entry(_, name) => {
                // Looked up again at its next use; what is found to be the same stays where it is.
                payload
                    .u64(about)
                    .u32(name.len() as u32)
                    .u32(notification::EXPIRE_ONLY)
                    .bytes(name)
                    .zeros(1);
                (notification::INVALIDATE_ENTRY, false)
            }
        };
        // Fails only when the mount is ending, and its caches with it.
        self.device.notify(code, payload.as_slice()).is_ok_and(|knew| knew || is_new)
    }

    fn outward(&self, inode: Inode) -> u64 {
        if inode == self.invalidations.root { ROOT } else { inode }
    }
}
