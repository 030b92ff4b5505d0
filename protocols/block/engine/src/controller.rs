//! One host's session: registers, features, what it sees, what it is yet to be told.
//!
//! Its admin connection owns it: when that ends, so do its I/O connections, and what it had attached is detached, at once after a goodbye and after a while
//! without one.

use crate::counters::Counter;
use crate::events::Events;
use crate::features::Features;
use crate::mailbox::{Mail, Mailbox};
use crate::namespace::{Attached, Map, Namespace, Namespaces};
use crate::reservation::HostId;
use crate::status::Status;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};
use trefoil_core::block::BlockError;

/// Of the error log; the newest are kept.
pub const ERRORS_MAX: usize = 64;
/// In which a host's keep-alive time is rounded up.
pub const KEEP_ALIVE_GRANULARITY: Duration = Duration::from_secs(1);

pub mod registers {
    pub const CAPABILITIES: u32 = 0x00;
    pub const VERSION: u32 = 0x08;
    pub const CONFIGURATION: u32 = 0x14;
    pub const STATUS: u32 = 0x1c;
    pub const ENABLE: u32 = 1;
    pub const READY: u32 = 1;
    pub const FATAL: u32 = 1 << 1;
    pub const SHUTDOWN_REQUEST: u32 = 3 << 14;
    pub const SHUTDOWN_UNDER_WAY: u32 = 1 << 2;
    pub const SHUTDOWN_DONE: u32 = 2 << 2;
    pub const SHUTDOWN_STATE: u32 = 3 << 2;
    /// Specification 1.4.
    pub const VERSION_NUMBER: u32 = 1 << 16 | 4 << 8;
    /// Queue entries of 64 and 16 bytes; that, and nothing else, is what a host may set beside Enable and Shutdown.
    pub const ENTRY_SIZES: u32 = 4 << 20 | 6 << 16;
    pub const SETTINGS: u32 = 0x00ff_3ff0;
}

use registers::*;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Discovery,
    Io,
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub nqn: String,
    pub id: HostId,
    pub address: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorEntry {
    pub number: u64,
    pub queue: u16,
    pub command_id: u16,
    pub status: Status,
    pub namespace_id: u32,
}

#[derive(Default)]
struct Registers {
    configuration: u32,
    status: u32,
}

#[derive(Default)]
struct Spaces {
    visible: Arc<Map>,
    attached: HashMap<u32, Arc<Attached>>,
}

/// For the SMART log: what this host did, not what others do.
#[derive(Default)]
pub struct Traffic {
    pub reads: Counter,
    pub writes: Counter,
    pub read_bytes: Counter,
    pub write_bytes: Counter,
}

pub struct Controller {
    pub id: u16,
    pub role: Role,
    pub peer: Peer,
    registers: Mutex<Registers>,
    ready: AtomicBool,
    spaces: RwLock<Spaces>,
    queues: Mutex<HashMap<u16, Arc<Mailbox>>>,
    pub events: Mutex<Events>,
    pub features: Mutex<Features>,
    write_through: AtomicBool,
    keep_alive_milliseconds: AtomicU64,
    heard_milliseconds: AtomicU64,
    began: Instant,
    errors: Mutex<(u64, VecDeque<ErrorEntry>)>,
    pub traffic: Traffic,
    said_goodbye: AtomicBool,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Controller {
    pub fn new(id: u16, role: Role, peer: Peer, visible: Map, keep_alive_milliseconds: u32) -> Self {
        let spaces = Spaces {
            visible: Arc::new(visible),
            attached: HashMap::new(),
        };
        Self {
            id,
            role,
            peer,
            registers: Mutex::default(),
            ready: AtomicBool::new(false),
            spaces: RwLock::new(spaces),
            queues: Mutex::default(),
            events: Mutex::default(),
            features: Mutex::default(),
            write_through: AtomicBool::new(false),
            keep_alive_milliseconds: AtomicU64::new(keep_alive_milliseconds.into()),
            heard_milliseconds: AtomicU64::new(0),
            began: Instant::now(),
            errors: Mutex::default(),
            traffic: Traffic::default(),
            said_goodbye: AtomicBool::new(false),
        }
    }

    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    pub fn configuration(&self) -> u32 {
        locked(&self.registers).configuration
    }

    pub fn status(&self) -> u32 {
        locked(&self.registers).status
    }

    /// What the host wrote to CC (base specification, section 3.1.3.5). Its queues end when it disables the controller.
    pub fn configure(self: &Arc<Self>, value: u32) {
        let (was, shuts_down) = {
            let mut registers = locked(&self.registers);
            let was = std::mem::replace(&mut registers.configuration, value);
            if value & ENABLE != 0 && was & ENABLE == 0 {
                let sane = value & SETTINGS == ENTRY_SIZES;
                registers.status = if sane { READY } else { FATAL };
            } else if value & ENABLE == 0 {
                registers.status &= !(READY | FATAL);
            }
            let shuts_down = value & SHUTDOWN_REQUEST != 0 && registers.status & SHUTDOWN_STATE == 0;
            if shuts_down {
                registers.status |= SHUTDOWN_UNDER_WAY;
            }
            let ready = registers.status & READY != 0 && value & SHUTDOWN_REQUEST == 0;
            self.ready.store(ready, Ordering::SeqCst);
            (was, shuts_down)
        };
        if was & ENABLE != 0 && value & ENABLE == 0 {
            self.close_io();
        }
        if shuts_down {
            self.said_goodbye.store(true, Ordering::SeqCst);
            self.flush_all();
        }
    }

    /// What is volatile becomes durable; the shutdown is done when all of it is.
    fn flush_all(self: &Arc<Self>) {
        // Dropped by whichever flush is the last, also if there is none.
        let last = Arc::new(Farewell(self.clone()));
        let attached: Vec<_> = self.attached();
        for attached in attached {
            let last = last.clone();
            attached.device.flush(Box::new(move |_| drop(last)));
        }
    }

    pub fn attached(&self) -> Vec<Arc<Attached>> {
        let spaces = self.spaces.read().unwrap_or_else(PoisonError::into_inner);
        spaces.attached.values().cloned().collect()
    }

    /// Everything that it had attached; it has nothing any more.
    pub fn detach_all(&self) -> Vec<Arc<Attached>> {
        let mut spaces = self.spaces.write().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *spaces).attached.into_values().collect()
    }

    pub fn visible(&self) -> Arc<Map> {
        self.spaces.read().unwrap_or_else(PoisonError::into_inner).visible.clone()
    }

    /// The namespaces that there are for this host from now on. Those of `changed` that it sees or saw are told to it.
    pub fn show(&self, visible: Map, changed: &[u32]) {
        let told: Vec<u32> = {
            let mut spaces = self.spaces.write().unwrap_or_else(PoisonError::into_inner);
            let old = std::mem::replace(&mut spaces.visible, Arc::new(visible));
            let now = spaces.visible.clone();
            spaces.attached.retain(|_, attached| attached.namespace.is_in(&now));
            let same = |id: &u32| match (old.get(id), now.get(id)) {
                (Some(old), Some(now)) => Arc::ptr_eq(old, now) && !changed.contains(id),
                (None, None) => true,
                _ => false,
            };
            let ids: HashSet<u32> = old.keys().chain(now.keys()).copied().collect();
            ids.into_iter().filter(|id| !same(id)).collect()
        };
        if !told.is_empty() && locked(&self.events).namespaces_changed(told) {
            self.announce();
        }
    }

    pub fn namespace(&self, id: u32) -> Result<Arc<Namespace>, Status> {
        self.visible().get(&id).cloned().ok_or(Status::INVALID_NAMESPACE)
    }

    /// For I/O: attaches it if need be.
    pub fn attach(&self, id: u32, namespaces: &Namespaces) -> Result<Arc<Attached>, Status> {
        {
            let spaces = self.spaces.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(attached) = spaces.attached.get(&id) {
                return Ok(attached.clone());
            }
        }
        let namespace = self.namespace(id)?;
        let attached = namespace.attach(&*namespaces.volumes).map_err(|error| match error {
            BlockError::OutOfRange => Status::INVALID_NAMESPACE,
            error => error.into(),
        })?;
        let mut spaces = self.spaces.write().unwrap_or_else(PoisonError::into_inner);
        let still = namespace.is_in(&spaces.visible);
        if still {
            spaces.attached.insert(id, attached.clone());
        }
        if still { Ok(attached) } else { Err(Status::INVALID_NAMESPACE) }
    }

    /// False: there is one already.
    pub fn add_queue(&self, id: u16, mailbox: &Arc<Mailbox>) -> bool {
        let mut queues = locked(&self.queues);
        let free = !queues.contains_key(&id);
        if free {
            queues.insert(id, mailbox.clone());
        }
        free
    }

    pub fn remove_queue(&self, id: u16, mailbox: &Arc<Mailbox>) {
        let mut queues = locked(&self.queues);
        if queues.get(&id).is_some_and(|queue| Arc::ptr_eq(queue, mailbox)) {
            queues.remove(&id);
        }
    }

    pub fn queue_count(&self) -> usize {
        locked(&self.queues).len()
    }

    fn close_io(&self) {
        let queues: Vec<_> = {
            let mut queues = locked(&self.queues);
            queues.extract_if(|id, _| *id != 0).map(|(_, mailbox)| mailbox).collect()
        };
        queues.iter().for_each(|mailbox| mailbox.push(Mail::Close));
    }

    /// Nothing more is done.
    pub fn close(&self) {
        self.ready.store(false, Ordering::SeqCst);
        self.cut();
    }

    /// Its connections end. What they do until then is done: the host tries the rest again when it comes back.
    pub fn cut(&self) {
        for mailbox in locked(&self.queues).values() {
            mailbox.push(Mail::Close);
        }
    }

    /// There may be events: its admin connection looks.
    pub fn announce(&self) {
        if let Some(mailbox) = locked(&self.queues).get(&0) {
            mailbox.push(Mail::Events);
        }
    }

    pub fn writes_through(&self) -> bool {
        self.write_through.load(Ordering::Relaxed)
    }

    pub fn set_write_through(&self, on: bool) {
        self.write_through.store(on, Ordering::SeqCst);
    }

    pub fn keep_alive(&self) -> Duration {
        Duration::from_millis(self.keep_alive_milliseconds.load(Ordering::Relaxed))
    }

    pub fn set_keep_alive(&self, milliseconds: u32) {
        self.keep_alive_milliseconds.store(milliseconds.into(), Ordering::Relaxed);
    }

    /// Any command on any queue counts.
    pub fn hear(&self) {
        self.heard_milliseconds
            .store(self.began.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    /// When the host is lost if nothing is heard of it.
    pub fn lost_at(&self, idle: Duration) -> Option<Instant> {
        let heard = self.began + Duration::from_millis(self.heard_milliseconds.load(Ordering::Relaxed));
        match (self.keep_alive(), self.role) {
            (Duration::ZERO, Role::Io) => None,
            (Duration::ZERO, Role::Discovery) => Some(heard + idle),
            (time, _) => Some(heard + time + KEEP_ALIVE_GRANULARITY),
        }
    }

    pub fn note_error(&self, queue: u16, command_id: u16, namespace_id: u32, status: Status) {
        let mut errors = locked(&self.errors);
        errors.0 += 1;
        let number = errors.0;
        errors.1.truncate(ERRORS_MAX - 1);
        errors.1.push_front(ErrorEntry {
            number,
            queue,
            command_id,
            status,
            namespace_id,
        });
    }

    /// Newest first, and how many there ever were.
    pub fn errors(&self) -> (u64, Vec<ErrorEntry>) {
        let errors = locked(&self.errors);
        (errors.0, errors.1.iter().copied().collect())
    }

    pub fn has_said_goodbye(&self) -> bool {
        self.said_goodbye.load(Ordering::SeqCst)
    }
}

/// Reports the end of a shutdown when the last flush is done.
struct Farewell(Arc<Controller>);

impl Drop for Farewell {
    fn drop(&mut self) {
        let mut registers = locked(&self.0.registers);
        registers.status = registers.status & !SHUTDOWN_STATE | SHUTDOWN_DONE;
    }
}
