//! News for the kernel: what another face changed, so that no cache shows what was.
//!
//! The kernel waits for page locks while it drops pages, and those may need an answer from us; so news is only queued here and told by a thread of
//! its own, never by one that answers requests. The queue is bounded: when it is full, all open content is dropped from the kernel's cache and every
//! later open drops its own, and names and attributes are as old as their timeouts at most.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use trefoil_core::filesystem::{Inode, ROOT};

use crate::device::Device;
use crate::known::{Known, lock};
use crate::wire::{Writer, notification};

/// News that wait.
const NEWS_MAX: usize = 65_536;

#[derive(Debug, Clone, PartialEq, Eq)]
enum News {
    Content(Inode),
    Attributes(Inode),
    Entry(Inode, Vec<u8>),
}

#[derive(Debug, Default)]
struct Queue {
    news: VecDeque<News>,
    overflowed: bool,
    closed: bool,
}

/// Where the other faces say what they changed. Cheap to clone; never waits for the kernel.
#[derive(Debug, Clone)]
pub struct Invalidations {
    shared: Arc<(Mutex<Queue>, Condvar)>,
    root: Inode,
}

impl Invalidations {
    pub(crate) fn new(root: Inode) -> Self {
        Self {
            shared: Arc::default(),
            root,
        }
    }

    /// The bytes of a file changed, and its attributes with them.
    pub fn content(&self, inode: Inode) {
        self.push(News::Content(inode));
    }

    /// Mode, owner, links, times or xattrs changed, not the bytes.
    pub fn attributes(&self, inode: Inode) {
        self.push(News::Attributes(inode));
    }

    /// A directory's entry came, went or names something else now.
    pub fn entry(&self, directory: Inode, name: &[u8]) {
        self.push(News::Entry(directory, name.to_vec()));
    }

    pub(crate) fn close(&self) {
        lock(&self.shared.0).closed = true;
        self.shared.1.notify_all();
    }

    /// Tells the kernel until `close`.
    pub(crate) fn tell(&self, device: &Device, known: &Known) {
        while let Some((news, overflowed)) = self.wait() {
            if overflowed {
                known.forget_versions();
                known
                    .open()
                    .into_iter()
                    .for_each(|(inode, _)| self.say(device, &News::Content(inode)));
            }
            news.iter().for_each(|one| self.say(device, one));
        }
    }

    fn push(&self, news: News) {
        let mut queue = lock(&self.shared.0);
        if queue.closed {
            return;
        }
        if queue.news.len() >= NEWS_MAX {
            queue.overflowed = true;
        } else {
            queue.news.push_back(news);
        }
        drop(queue);
        self.shared.1.notify_one();
    }

    fn wait(&self) -> Option<(VecDeque<News>, bool)> {
        let mut queue = lock(&self.shared.0);
        while queue.news.is_empty() && !queue.overflowed {
            if queue.closed {
                return None;
            }
            queue = self.shared.1.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        Some((std::mem::take(&mut queue.news), std::mem::take(&mut queue.overflowed)))
    }

    fn say(&self, device: &Device, news: &News) {
        let mut payload = Writer::default();
        let code = match news {
            News::Content(inode) => {
                payload.u64(self.outward(*inode)).u64(0).u64(0);
                notification::INVALIDATE_INODE
            }
            News::Attributes(inode) => {
                // A negative offset leaves the pages.
                payload.u64(self.outward(*inode)).u64(u64::MAX).u64(0);
                notification::INVALIDATE_INODE
            }
            News::Entry(directory, name) => {
                payload
                    .u64(self.outward(*directory))
                    .u32(name.len() as u32)
                    .u32(0)
                    .bytes(name)
                    .zeros(1);
                notification::INVALIDATE_ENTRY
            }
        };
        // Fails only when the mount is ending, and its caches with it.
        let _ = device.notify(code, payload.as_slice());
    }

    fn outward(&self, inode: Inode) -> u64 {
        if inode == self.root { ROOT } else { inode }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_come_in_order_and_a_full_queue_says_so() {
        let news = Invalidations::new(ROOT);
        news.content(7);
        news.entry(1, b"a");
        assert_eq!(
            news.wait(),
            Some((VecDeque::from([News::Content(7), News::Entry(1, b"a".to_vec())]), false))
        );
        for inode in 0..=NEWS_MAX as u64 {
            news.attributes(inode);
        }
        let (told, overflowed) = news.wait().unwrap();
        assert_eq!((told.len(), overflowed), (NEWS_MAX, true));
        news.close();
        news.content(8);
        assert_eq!(news.wait(), None);
    }
}
