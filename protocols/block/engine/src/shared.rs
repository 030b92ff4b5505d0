//! What all connections share: rules, namespaces, controllers, memory, threads.

use crate::access::{Access, Host};
use crate::budget::Budget;
use crate::config::Limits;
use crate::controller::{Controller, Peer, Role};
use crate::counters::Counters;
use crate::events::Event;
use crate::mailbox::Mailbox;
use crate::namespace::{Attached, Map, Namespaces};
use crate::pool::Pool;
use crate::reservation::Notice;
use crate::status::Status;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

/// The highest that Connect may give out.
const CONTROLLER_ID_MAX: u16 = 0xffef;

pub struct Shared {
    pub nqn: String,
    pub serial: String,
    pub advertise: Vec<SocketAddr>,
    pub limits: Limits,
    access: RwLock<Arc<Access>>,
    pub generation: AtomicU64,
    pub namespaces: Namespaces,
    pub budget: Arc<Budget>,
    pub pool: Pool,
    /// Of one thread, for reservations: a change of one waits until commands are done that may be queued in `pool`.
    pub changes: Pool,
    pub counters: Counters,
    pub stopping: AtomicBool,
    controllers: Mutex<Controllers>,
    lingering: Mutex<Vec<Lingering>>,
    /// Controllers hear of one change after another.
    telling: Mutex<()>,
    pub next_connection: AtomicU64,
    pub connections: Mutex<HashMap<u64, (IpAddr, Arc<Mailbox>)>>,
}

/// What a lost host had attached.
struct Lingering {
    until: Instant,
    host: String,
    attached: Vec<Arc<Attached>>,
}

#[derive(Default)]
struct Controllers {
    by_id: HashMap<u16, Arc<Controller>>,
    last: u16,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(
        nqn: String,
        serial: String,
        advertise: Vec<SocketAddr>,
        limits: Limits,
        access: Access,
        namespaces: Namespaces,
        budget: Arc<Budget>,
    ) -> Self {
        Self {
            nqn,
            serial,
            advertise,
            limits,
            access: RwLock::new(Arc::new(access)),
            generation: AtomicU64::new(1),
            namespaces,
            budget,
            pool: Pool::default(),
            changes: Pool::default(),
            counters: Counters::default(),
            stopping: AtomicBool::new(false),
            controllers: Mutex::default(),
            lingering: Mutex::default(),
            telling: Mutex::default(),
            next_connection: AtomicU64::new(0),
            connections: Mutex::default(),
        }
    }

    pub fn access(&self) -> Arc<Access> {
        self.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn controllers(&self) -> Vec<Arc<Controller>> {
        locked(&self.controllers).by_id.values().cloned().collect()
    }

    pub fn controller(&self, id: u16) -> Option<Arc<Controller>> {
        locked(&self.controllers).by_id.get(&id).cloned()
    }

    /// Of a host that may connect. It sees its namespaces from the first moment.
    pub fn create_controller(&self, role: Role, peer: Peer, keep_alive_milliseconds: u32) -> Result<Arc<Controller>, Status> {
        let mut controllers = locked(&self.controllers);
        if controllers.by_id.len() >= self.limits.controllers {
            return Err(Status::CONNECT_BUSY);
        }
        // Ids come around late, so that one that a host still has in mind is nobody else's.
        let mut id = controllers.last;
        loop {
            id = if id >= CONTROLLER_ID_MAX { 1 } else { id + 1 };
            if !controllers.by_id.contains_key(&id) {
                break;
            }
        }
        controllers.last = id;
        let visible = match role {
            Role::Io => self.visible_to(&peer.nqn, &self.namespaces.all()),
            Role::Discovery => Map::new(),
        };
        let controller = Arc::new(Controller::new(id, role, peer, visible, keep_alive_milliseconds));
        controllers.by_id.insert(id, controller.clone());
        Ok(controller)
    }

    /// Its admin connection has ended.
    pub fn remove_controller(&self, controller: &Arc<Controller>) {
        locked(&self.controllers).by_id.remove(&controller.id);
        controller.close();
        let attached = controller.detach_all();
        let host = controller.peer.nqn.clone();
        if controller.has_said_goodbye() {
            self.detach_lost(|lost| lost.host == host);
        } else if !attached.is_empty() {
            let until = Instant::now() + self.limits.grace;
            locked(&self.lingering).push(Lingering { until, host, attached });
        }
    }

    /// Detaches what lost hosts had when they had time enough to come back, or it is gone.
    pub fn end_lingering(&self) {
        let now = Instant::now();
        self.detach_lost(|lost| lost.until <= now);
        let all = self.namespaces.all();
        let mut gone = Vec::new();
        for lost in locked(&self.lingering).iter_mut() {
            gone.extend(lost.attached.extract_if(.., |attached| !attached.namespace.is_in(&all)));
        }
        // As above.
        drop(gone);
    }

    /// All that lost hosts had.
    pub fn detach_all_lost(&self) {
        self.detach_lost(|_| true);
    }

    fn detach_lost(&self, which: impl Fn(&Lingering) -> bool) {
        let ended: Vec<_> = locked(&self.lingering).extract_if(.., |lost| which(lost)).collect();
        // Detaching may wait for the store: not under the lock.
        drop(ended);
    }

    fn visible_to(&self, nqn: &str, all: &Map) -> Map {
        let access = self.access();
        let seen = all.iter().filter(|(id, _)| access.sees(nqn, **id));
        seen.map(|(id, namespace)| (*id, namespace.clone())).collect()
    }

    /// Volumes or rules changed. A host that has a volume attached which is gone was not asked: it may go on to write to the number, which may be another
    /// volume's next. So it is cut off, sees nothing new before, and looks at what there is when it comes back.
    pub fn follow(&self) {
        let _telling = locked(&self.telling);
        let changed = self.namespaces.refresh();
        let all = self.namespaces.all();
        for controller in self.controllers() {
            if controller.attached().iter().any(|attached| !attached.namespace.is_in(&all)) {
                controller.cut();
            } else if controller.role == Role::Io {
                controller.show(self.visible_to(&controller.peer.nqn, &all), &changed);
            }
        }
        self.end_lingering();
    }

    /// A host that may not connect any more, or must prove something else now, is cut off.
    pub fn set_access(&self, access: Access) {
        let old = self.access();
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access.clone());
        self.generation.fetch_add(1, Ordering::SeqCst);
        let credentials = |host: Host| (host.secret, host.controller_secret);
        for controller in self.controllers() {
            let nqn = &controller.peer.nqn;
            match controller.role {
                Role::Discovery => {
                    let mut events = controller.events.lock().unwrap_or_else(PoisonError::into_inner);
                    if events.happen(Event::Discovery) {
                        drop(events);
                        controller.announce();
                    }
                }
                Role::Io if access.host(nqn).map(credentials) != old.host(nqn).map(credentials) => controller.close(),
                Role::Io => {}
            }
        }
        self.follow();
    }

    /// Tells hosts of reservations that others took from them.
    pub fn tell(&self, namespace_id: u32, notices: &[Notice]) {
        for controller in self.controllers() {
            let mine = notices.iter().filter(|(host, _)| *host == controller.peer.id);
            for (_, news) in mine {
                let masked = {
                    let features = controller.features.lock().unwrap_or_else(PoisonError::into_inner);
                    features.masks(namespace_id, *news as u8)
                };
                if masked || !controller.visible().contains_key(&namespace_id) {
                    continue;
                }
                let mut events = controller.events.lock().unwrap_or_else(PoisonError::into_inner);
                if events.reservation(*news, namespace_id) {
                    drop(events);
                    controller.announce();
                }
            }
        }
    }
}
