//! News of changes, for whoever keeps copies of what a `FileSystem` said: which inodes have other content or attributes now, which names lead elsewhere.
//!
//! A change is told after everybody can see it, in the order of the changes, to everybody but the one who made it: a face that caches knows what it
//! did itself. Who speaks is the thread's matter (`speak_as`): all that a thread asks for is done in that name.
//!
//! Telling never waits: each listener has a bounded queue, in which equal news that wait are one. News that find it full are left out, and the
//! listener hears `everything` instead: whatever it keeps may be old. A listener that was dropped or closed is told no more.

use super::Inode;
use std::cell::Cell;
use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

/// News that wait for one listener.
pub const NEWS_MAX: usize = 65_536;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum News {
    /// The bytes of a file, and its attributes with them.
    Content(Inode),
    /// Anything that `stat` or an xattr shows, or that there is no such inode any more; not the bytes.
    Attributes(Inode),
    /// A name in a directory came, went, or leads elsewhere.
    Entry(Inode, Vec<u8>),
}

/// Who makes a change; 0 is somebody who keeps no copies.
pub type Origin = u64;

thread_local! {
    static SPEAKER: Cell<Origin> = const { Cell::new(0) };
}

/// What this thread asks for from now on is done in that name.
pub fn speak_as(origin: Origin) {
    SPEAKER.set(origin);
}

pub fn speaker() -> Origin {
    SPEAKER.get()
}

#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Oldest first.
    pub news: Vec<News>,
    /// News were left out since the last time.
    pub everything: bool,
}

#[derive(Debug, Default)]
struct Queue {
    news: VecDeque<News>,
    waiting: HashSet<News>,
    everything: bool,
    closed: bool,
}

/// One who keeps copies. Cheap to tell, from any thread.
#[derive(Debug)]
pub struct Listener {
    origin: Origin,
    queue: Mutex<Queue>,
    more: Condvar,
    told: AtomicU64,
    bound: usize,
}

impl Listener {
    fn new(origin: Origin, bound: usize) -> Self {
        Self {
            origin,
            queue: Mutex::default(),
            more: Condvar::new(),
            told: AtomicU64::new(0),
            bound,
        }
    }

    /// Apart from any hub: for a face whose filesystem has no news of its own.
    pub fn alone() -> Arc<Self> {
        Arc::new(Self::new(0, NEWS_MAX))
    }

    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Rises with all that it is told: what was read before it rose may be old by now.
    pub fn told(&self) -> u64 {
        self.told.load(Ordering::SeqCst)
    }

    pub fn tell(&self, news: &[News]) {
        let mut queue = self.queue();
        if queue.closed || news.is_empty() {
            return;
        }
        self.told.fetch_add(1, Ordering::SeqCst);
        for one in news {
            if queue.waiting.contains(one) {
                continue;
            }
            if queue.news.len() >= self.bound {
                queue.everything = true;
                break;
            }
            queue.waiting.insert(one.clone());
            queue.news.push_back(one.clone());
        }
        drop(queue);
        self.more.notify_one();
    }

    /// What came since the last time, waiting for it for at most `limit`: empty when it is over. `None` once closed and told all.
    pub fn hear(&self, limit: Option<Duration>) -> Option<Heard> {
        let mut queue = self.queue();
        let quiet = |queue: &mut Queue| queue.news.is_empty() && !queue.everything && !queue.closed;
        queue = match limit {
            None => self.more.wait_while(queue, quiet).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => {
                let waited = self.more.wait_timeout_while(queue, limit, quiet);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        if queue.closed && queue.news.is_empty() && !queue.everything {
            return None;
        }
        queue.waiting.clear();
        Some(Heard {
            news: std::mem::take(&mut queue.news).into(),
            everything: std::mem::take(&mut queue.everything),
        })
    }

    /// Nothing is told from now on, and nobody waits.
    pub fn close(&self) {
        self.queue().closed = true;
        self.more.notify_all();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a filesystem tells.
#[derive(Debug, Default)]
pub struct Hub {
    listeners: RwLock<Vec<Weak<Listener>>>,
    count: AtomicUsize,
    origins: AtomicU64,
}

impl Hub {
    pub fn subscribe(&self) -> Arc<Listener> {
        self.subscribe_bounded(NEWS_MAX)
    }

    pub fn subscribe_bounded(&self, news_max: usize) -> Arc<Listener> {
        let origin = 1 + self.origins.fetch_add(1, Ordering::Relaxed);
        let listener = Arc::new(Listener::new(origin, news_max));
        let mut listeners = self.listeners.write().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(&listener));
        self.count.store(listeners.len(), Ordering::SeqCst);
        listener
    }

    /// Whether anybody listens: who makes a change need not gather news for nobody.
    pub fn is_heard(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    pub fn tell(&self, origin: Origin, news: &[News]) {
        if news.is_empty() || !self.is_heard() {
            return;
        }
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        let others = listeners
            .iter()
            .filter_map(Weak::upgrade)
            .filter(|listener| listener.origin != origin);
        others.for_each(|listener| listener.tell(news));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Option<Duration> = Some(Duration::ZERO);

    #[test]
    fn all_but_the_speaker_hear_in_order() {
        let hub = Hub::default();
        assert!(!hub.is_heard());
        let (one, other) = (hub.subscribe(), hub.subscribe());
        let news = [News::Content(7), News::Entry(1, b"a".to_vec()), News::Content(7)];
        hub.tell(one.origin(), &news);
        assert_eq!(one.hear(NOW), Some(Heard::default()));
        let heard = other.hear(None).unwrap();
        assert_eq!((heard.news.as_slice(), heard.everything), (&news[..2], false));
        hub.tell(0, &news[..1]);
        assert_eq!(one.hear(NOW).unwrap().news, [News::Content(7)]);
        assert_eq!((one.told(), other.told()), (1, 2));
    }

    #[test]
    fn a_full_queue_says_so_once() {
        let hub = Hub::default();
        let listener = hub.subscribe_bounded(2);
        (1..=3).for_each(|inode| hub.tell(0, &[News::Attributes(inode)]));
        let heard = listener.hear(None).unwrap();
        assert_eq!((heard.news.len(), heard.everything), (2, true));
        hub.tell(0, &[News::Attributes(9)]);
        assert!(!listener.hear(None).unwrap().everything);
    }

    #[test]
    fn who_is_gone_is_told_no_more() {
        let hub = Hub::default();
        let (one, other) = (hub.subscribe(), hub.subscribe());
        one.close();
        drop(other);
        hub.tell(0, &[News::Content(1)]);
        assert_eq!(one.hear(None), None);
        assert!(hub.is_heard(), "until the next one comes");
    }

    #[test]
    fn a_thread_speaks_in_one_name() {
        speak_as(5);
        assert_eq!(speaker(), 5);
        assert_eq!(std::thread::spawn(speaker).join().unwrap(), 0);
        speak_as(0);
    }
}
