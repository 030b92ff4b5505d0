//! The target's threads, from its listening sockets to its end.
//!
//! One thread accepts for each address, one watches volumes; each connection has its own, and a pool runs what may wait for devices.

use crate::access::Access;
use crate::budget::Budget;
use crate::config::Config;
use crate::connection::Connection;
use crate::controller::Role;
use crate::mailbox::{Mail, Mailbox};
use crate::namespace::Namespaces;
use crate::shared::Shared;
use rustix::net::sockopt;
use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};
use trefoil_core::block::Volumes;

/// How late a stop may be noticed by who waits for volumes to change; what lost hosts had is looked at as often.
const WATCH_MILLISECONDS: u64 = 250;
/// Until `accept` is tried again without descriptors.
const ACCEPT_PAUSE_MILLISECONDS: u64 = 100;
/// Of a silent peer, by TCP itself: an I/O queue has no keep-alive of its own.
const TCP_IDLE: Duration = Duration::from_secs(30);
const TCP_PROBE: Duration = Duration::from_secs(10);
const TCP_PROBES: u32 = 3;
const QUEUE_DEPTHS: std::ops::RangeInclusive<u16> = 32..=4096;

/// A host that is connected, for people to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub host: String,
    pub address: SocketAddr,
    pub controller: u16,
    pub discovery: bool,
    /// Its connections.
    pub queues: usize,
    /// Paths of volumes that it has attached.
    pub volumes: Vec<String>,
}

/// A running target; dropping it stops it.
pub struct Target {
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    /// Of the acceptors.
    bells: Vec<Arc<Mailbox>>,
    threads: Vec<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(format!("nvme-{name}")).spawn(body)
}

fn refuse(sentence: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, sentence)
}

/// Names the address: it is what the operator can change.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"));
    let listener = TcpListener::bind(address).map_err(named)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn shared(volumes: Arc<dyn Volumes>, config: Config) -> io::Result<Shared> {
    let Config {
        advertise,
        nqn,
        serial,
        access,
        limits,
        ..
    } = config;
    if !nqn.starts_with("nqn.") || nqn.len() > crate::access::NQN_BYTES_MAX {
        return Err(refuse("the subsystem's name must begin with nqn. and have at most 223 bytes"));
    }
    if !QUEUE_DEPTHS.contains(&limits.queue_depth) || limits.io_queues == 0 || limits.io_queues == u16::MAX || limits.workers == 0 {
        return Err(refuse(
            "queues have 32 to 4096 entries, and there is at least one queue and one worker",
        ));
    }
    let budget = Budget::new(limits.memory_bytes, limits.connections);
    let budget = budget.ok_or_else(|| refuse("the memory is not enough for so many connections"))?;
    Ok(Shared::new(
        nqn,
        serial,
        advertise,
        limits,
        access,
        Namespaces::new(volumes),
        budget,
    ))
}

impl Target {
    pub fn start(volumes: Arc<dyn Volumes>, config: Config) -> io::Result<Self> {
        let listeners = config
            .listen
            .iter()
            .map(|address| listen(*address))
            .collect::<io::Result<Vec<_>>>()?;
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
        let shared = Arc::new(shared(volumes, config)?);
        let seen = shared.namespaces.volumes.wait_changed(0, Duration::ZERO);
        shared.namespaces.refresh();
        let mut target = Self {
            shared,
            addresses,
            bells: Vec::new(),
            threads: Vec::new(),
            workers: Vec::new(),
            connections: Arc::default(),
        };
        target.start_threads(listeners, seen)?;
        Ok(target)
    }

    fn start_threads(&mut self, listeners: Vec<TcpListener>, seen: u64) -> io::Result<()> {
        for _ in 0..self.shared.limits.workers {
            let shared = self.shared.clone();
            self.workers.push(spawn("worker", move || shared.pool.run())?);
        }
        let shared = self.shared.clone();
        self.workers.push(spawn("reservations", move || shared.changes.run())?);
        let shared = self.shared.clone();
        self.threads.push(spawn("watcher", move || watch(&shared, seen))?);
        for listener in listeners {
            let acceptor = Acceptor {
                shared: self.shared.clone(),
                connections: self.connections.clone(),
                bell: Mailbox::new()?,
            };
            self.bells.push(acceptor.bell.clone());
            self.threads.push(spawn("acceptor", move || acceptor.run(&listener))?);
        }
        Ok(())
    }

    /// Where it listens, in the configuration's order.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Other rules from now on, for the volumes that there are now. Hosts that may not connect any more, or have a volume attached which is gone, are cut
    /// off, the others told of what they see or see no more.
    pub fn set_access(&self, access: Access) {
        self.shared.set_access(access);
    }

    pub fn sessions(&self) -> Vec<Session> {
        let controllers = self.shared.controllers();
        let session = |controller: &Arc<crate::controller::Controller>| Session {
            host: controller.peer.nqn.clone(),
            address: controller.peer.address,
            controller: controller.id,
            discovery: controller.role == Role::Discovery,
            queues: controller.queue_count(),
            volumes: controller.attached().iter().map(|attached| attached.namespace.path()).collect(),
        };
        controllers.iter().map(session).collect()
    }

    /// Name (with labels, without `trefoil_`) and value of each metric.
    pub fn metrics(&self) -> Vec<(String, f64)> {
        let mut samples = self.shared.counters.samples();
        let connections = locked(&self.shared.connections).len();
        samples.push(("nvme_connections".into(), connections as f64));
        samples.push(("nvme_controllers".into(), self.shared.controllers().len() as f64));
        for namespace in self.shared.namespaces.all().values() {
            let path = namespace.path();
            namespace.counters.samples(&path, &mut samples);
        }
        // One of each name: two volumes never have one path, except while one is being renamed.
        BTreeMap::from_iter(samples).into_iter().collect()
    }

    /// Answers what was begun and closes; what was not begun, hosts send again to whoever comes next.
    pub fn stop(self) {
        drop(self);
    }

    fn halt(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.bells.iter().for_each(|bell| bell.push(Mail::Stop));
        for (_, mailbox) in locked(&self.shared.connections).values() {
            mailbox.push(Mail::Stop);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        // Whoever was accepted meanwhile.
        for (_, mailbox) in locked(&self.shared.connections).values() {
            mailbox.push(Mail::Stop);
        }
        let connections = std::mem::take(&mut *locked(&self.connections));
        for thread in connections {
            let _ = thread.join();
        }
        self.shared.pool.stop();
        self.shared.changes.stop();
        for thread in self.workers.drain(..) {
            let _ = thread.join();
        }
        self.shared.detach_all_lost();
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Hears of volumes that come, go or change, and ends what lingers.
fn watch(shared: &Arc<Shared>, mut seen: u64) {
    while !shared.stopping.load(Ordering::SeqCst) {
        let now = shared
            .namespaces
            .volumes
            .wait_changed(seen, Duration::from_millis(WATCH_MILLISECONDS));
        if now != seen {
            seen = now;
            shared.follow();
        }
        shared.end_lingering();
    }
}

struct Acceptor {
    shared: Arc<Shared>,
    connections: Arc<Mutex<Vec<JoinHandle<()>>>>,
    bell: Arc<Mailbox>,
}

impl Acceptor {
    fn run(&self, listener: &TcpListener) {
        let mut pause = None;
        while !self.shared.stopping.load(Ordering::SeqCst) {
            // A failure to sleep is one to accept: it is tried again, a little later.
            let _ = self.bell.sleep(listener, pause.is_none(), false, pause);
            let _ = self.bell.take();
            pause = self
                .accept_all(listener)
                .err()
                .map(|_| Instant::now() + Duration::from_millis(ACCEPT_PAUSE_MILLISECONDS));
        }
    }

    fn accept_all(&self, listener: &TcpListener) -> io::Result<()> {
        while !self.shared.stopping.load(Ordering::SeqCst) {
            match listener.accept() {
                Ok((socket, peer)) => {
                    if let Err(_refused) = self.admit(socket, peer) {
                        self.shared.counters.connections_refused.add(1);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn admit(&self, socket: TcpStream, peer: SocketAddr) -> io::Result<()> {
        let address = peer.ip().to_canonical();
        let (limits, mailbox) = (&self.shared.limits, Mailbox::new()?);
        let key = self.shared.next_connection.fetch_add(1, Ordering::Relaxed);
        {
            let mut connections = locked(&self.shared.connections);
            let of_address = connections.values().filter(|(other, _)| *other == address).count();
            if connections.len() >= limits.connections || of_address >= limits.connections_per_address {
                return Err(ErrorKind::QuotaExceeded.into());
            }
            connections.insert(key, (address, mailbox.clone()));
        }
        let started = self.start(socket, mailbox, key);
        if started.is_err() {
            locked(&self.shared.connections).remove(&key);
        }
        started
    }

    fn start(&self, socket: TcpStream, mailbox: Arc<Mailbox>, key: u64) -> io::Result<()> {
        keep_alive(&socket)?;
        let connection = Connection::new(self.shared.clone(), socket, mailbox)?;
        let shared = self.shared.clone();
        let thread = spawn("queue", move || {
            // A panic ends this connection and nothing else.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| connection.run()));
            locked(&shared.connections).remove(&key);
        })?;
        self.shared.counters.connections.add(1);
        let mut connections = locked(&self.connections);
        connections.retain(|thread| !thread.is_finished());
        connections.push(thread);
        Ok(())
    }
}

fn keep_alive(socket: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(socket, true)?;
    sockopt::set_tcp_keepidle(socket, TCP_IDLE)?;
    sockopt::set_tcp_keepintvl(socket, TCP_PROBE)?;
    sockopt::set_tcp_keepcnt(socket, TCP_PROBES)?;
    Ok(())
}
