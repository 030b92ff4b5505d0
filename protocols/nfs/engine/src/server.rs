//! The server's threads and their bounds, from the listening socket to the last reply.
//!
//! One thread accepts. Each connection has a reader, which also runs calls as long as they come one at a time and are quick: no hand-over, no wake-up.
//! What comes while something is buffered, or after slow calls, goes to the pool. Changes go to the committers, unsent bytes to the flusher.

use crate::budget::Budget;
use crate::committer::{COMMITTERS, Committer, Pending};
use crate::config::{Config, Limits};
use crate::connection::{Connection, Ticket};
use crate::counters::{Counters, Span};
use crate::datagram;
use crate::dispatch::{CALL_BYTES_MAX, Locking, Programs, Reply, answer_bytes_max};
use crate::duplicates::{Duplicates, Key, Verdict};
use crate::export::{Client, Export, Exports};
use crate::flusher::Flusher;
use crate::handle::Handles;
use crate::mount::Mounts;
use crate::nfs::{self, Service};
use crate::nlm::callback::Callbacks;
use crate::nlm::{self, Hosts, Locks};
use crate::nsm;
use crate::pool::{Pool, Work};
use crate::portmap::Ports;
use crate::record::{Buffers, End, Patience, Records};
use crate::rpc::{Call, Refused};
use crate::wait::{Signal, Woken, readable};
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{Builder, JoinHandle, sleep};
use std::time::{Duration, Instant};
use trefoil_core::filesystem::locks::LockTable;
use trefoil_core::filesystem::{FileSystem, TRANSFER_BYTES_MAX};

/// A call that takes longer is slow, and so are the next SLOW_CALLS of its connection taken to be.
const QUICK_MICROSECONDS_MAX: u128 = 300;
const SLOW_CALLS: u32 = 64;
/// For memory, and for outstanding calls to be answered.
const PATIENCE_SECONDS: u64 = 60;
/// At the stop: for outstanding calls, and for the client to close after them.
const STOP_SECONDS: u64 = 10;
const FAREWELL_SECONDS: u64 = 1;
const STOP_LOOK_MILLISECONDS: u64 = 5;
/// Until `accept` is tried again without descriptors.
const ACCEPT_PAUSE_MILLISECONDS: u64 = 100;

struct Shared {
    programs: Programs,
    limits: Limits,
    budget: Arc<Budget>,
    buffers: Buffers,
    duplicates: Duplicates<Ticket>,
    pool: Pool,
    committer: Committer,
    flusher: Arc<Flusher>,
    callbacks: Arc<Callbacks>,
    accepted: AtomicU64,
    stop: Arc<Signal>,
    stopping: AtomicBool,
    connections: Mutex<HashMap<u64, Arc<Connection>>>,
    readers: Mutex<Vec<JoinHandle<()>>>,
}

/// A running server; dropping it stops it too.
pub struct Server {
    shared: Arc<Shared>,
    address: SocketAddr,
    /// Those that begin things, and those that end them.
    threads: Vec<JoinHandle<()>>,
    helpers: Vec<JoinHandle<()>>,
}

/// Names the address: it is what the operator can change.
fn cannot_listen(address: SocketAddr) -> impl Fn(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address).map_err(cannot_listen(address))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn listen_datagrams(beside: &TcpListener) -> io::Result<UdpSocket> {
    let address = beside.local_addr()?;
    UdpSocket::bind(address).map_err(cannot_listen(address))
}

fn locking(table: Arc<LockTable>, file: Option<PathBuf>, callbacks: &Arc<Callbacks>) -> io::Result<Locking> {
    let hosts = Arc::new(Hosts::open(file)?);
    Ok(Locking {
        locks: Locks::new(table, hosts.clone(), callbacks.clone()),
        hosts,
    })
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(format!("nfs-{name}")).spawn(body)
}

impl Server {
    pub fn start(fs: Arc<dyn FileSystem>, config: Config) -> io::Result<Self> {
        let listener = listen(config.listen)?;
        let portmapper = config.portmapper.map(listen).transpose()?;
        let datagrams = portmapper.as_ref().map(listen_datagrams).transpose()?;
        let address = listener.local_addr()?;
        let ports = Ports {
            tcp: address.port(),
            udp: datagrams
                .as_ref()
                .map(UdpSocket::local_addr)
                .transpose()?
                .map(|address| address.port()),
            locks: config.locks.is_some(),
        };
        let shared = Arc::new(Shared::new(fs, config, ports)?);
        let mut server = Self {
            shared,
            address,
            threads: Vec::new(),
            helpers: Vec::new(),
        };
        server.start_helpers()?;
        server.start_listening([Some(listener), portmapper].into_iter().flatten(), datagrams)?;
        Ok(server)
    }

    fn start_helpers(&mut self) -> io::Result<()> {
        for _ in 0..self.shared.limits.workers {
            let shared = self.shared.clone();
            self.helpers
                .push(spawn("worker", move || shared.pool.run(|work| shared.run_parsed(work)))?);
        }
        for _ in 0..COMMITTERS {
            let shared = self.shared.clone();
            let run = move || {
                let service = &shared.programs.service;
                shared.committer.run(&*service.fs, &service.counters, |ticket, key, span, reply| {
                    shared.deliver(ticket, key, span, reply)
                })
            };
            self.helpers.push(spawn("committer", run)?);
        }
        let shared = self.shared.clone();
        self.helpers.push(spawn("flusher", move || shared.flusher.run())?);
        Ok(())
    }

    fn start_listening(&mut self, listeners: impl Iterator<Item = TcpListener>, datagrams: Option<UdpSocket>) -> io::Result<()> {
        for listener in listeners {
            let shared = self.shared.clone();
            self.threads.push(spawn("acceptor", move || accept(&shared, &listener))?);
        }
        if let Some(socket) = datagrams {
            socket.set_nonblocking(true)?;
            let shared = self.shared.clone();
            self.threads.push(spawn("datagrams", move || {
                datagram::serve(&socket, &shared.programs, &shared.stop)
            })?);
        }
        self.start_notifier()
    }

    /// It may wait long for a host that does not answer, so nobody waits for it, and it keeps nothing of the file system.
    fn start_notifier(&self) -> io::Result<()> {
        if let Some(locking) = &self.shared.programs.locking
            && locking.hosts.had_any()
        {
            let (hosts, callbacks, stop) = (locking.hosts.clone(), self.shared.callbacks.clone(), self.shared.stop.clone());
            spawn("notifier", move || nsm::notify(&hosts, &callbacks, &stop))?;
        }
        Ok(())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Name (with labels, without `trefoil_`) and value of each metric.
    pub fn metrics(&self) -> Vec<(String, f64)> {
        let mut samples = self.shared.counters().samples();
        let connections = self.shared.connections.lock().unwrap().len();
        samples.push(("nfs_connections".into(), connections as f64));
        samples
    }

    /// Other exports, or other rules, from now on.
    pub fn set_exports(&self, exports: Vec<Export>) {
        self.shared.programs.service.exports.replace(exports);
    }

    /// Answers what it has begun and closes; what it has not begun, clients send again to whoever comes next.
    pub fn stop(self) {
        drop(self);
    }

    fn halt(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.shared.stop.raise();
        // A thread that panicked has said so on its own.
        let join = |thread: JoinHandle<()>| drop(thread.join());
        self.threads.drain(..).for_each(join);
        let readers = std::mem::take(&mut *self.shared.readers.lock().unwrap());
        let deadline = Instant::now() + Duration::from_secs(STOP_SECONDS);
        while readers.iter().any(|reader| !reader.is_finished()) && Instant::now() < deadline {
            sleep(Duration::from_millis(STOP_LOOK_MILLISECONDS));
        }
        // Whoever takes no replies is not waited for any longer.
        self.shared
            .connections
            .lock()
            .unwrap()
            .values()
            .for_each(|connection| connection.close());
        readers.into_iter().for_each(join);
        self.shared.pool.stop();
        self.shared.committer.stop();
        self.shared.flusher.stop();
        self.helpers.drain(..).for_each(join);
        if let Some(locking) = &self.shared.programs.locking {
            locking.locks.close();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.halt();
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    loop {
        match listener.accept() {
            Ok((stream, peer)) => {
                let number = shared.accepted.fetch_add(1, Ordering::Relaxed);
                let server = stream.local_addr().map_or(peer.ip(), |address| address.ip()).to_canonical();
                let client = Client {
                    address: peer.ip().to_canonical(),
                    port: peer.port(),
                    server,
                };
                // A connection that cannot be served is closed by being dropped.
                let _ = admit(shared, number, stream, client);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let deadline = Instant::now() + Duration::from_secs(PATIENCE_SECONDS);
                let _ = readable(listener, &shared.stop, deadline);
            }
            Err(_) => sleep(Duration::from_millis(ACCEPT_PAUSE_MILLISECONDS)),
        }
        if shared.stopping.load(Ordering::Relaxed) {
            return;
        }
    }
}

fn admit(shared: &Arc<Shared>, number: u64, stream: TcpStream, client: Client) -> io::Result<()> {
    if !shared.has_room(client.address) {
        shared.programs.service.counters.connections_refused.add(1);
        return Ok(());
    }
    let connection = Connection::new(stream, client, shared.flusher.clone())?;
    shared.connections.lock().unwrap().insert(number, connection.clone());
    let inner = shared.clone();
    let reader = Builder::new().name("nfs-reader".into()).spawn(move || {
        inner.serve(&connection);
        inner.connections.lock().unwrap().remove(&number);
    });
    let mut readers = shared.readers.lock().unwrap();
    readers.retain(|reader| !reader.is_finished());
    match reader {
        Ok(reader) => readers.push(reader),
        Err(_) => drop(shared.connections.lock().unwrap().remove(&number)),
    }
    Ok(())
}

impl Shared {
    fn new(fs: Arc<dyn FileSystem>, config: Config, ports: Ports) -> io::Result<Self> {
        let mut verifier = [0; 8];
        rustix::rand::getrandom(&mut verifier, rustix::rand::GetRandomFlags::empty())?;
        let callbacks = Callbacks::new(config.client_portmapper_port);
        let locking = config
            .locks
            .map(|table| locking(table, config.lock_hosts, &callbacks))
            .transpose()?;
        let exports = Exports::new(fs.clone(), config.exports);
        let service = Service {
            fs,
            exports,
            handles: Handles::new(config.fsid, config.key),
            counters: Counters::default(),
            verifier,
        };
        let limits = config.limits;
        Ok(Self {
            programs: Programs {
                service,
                mounts: Mounts::default(),
                ports,
                locking,
            },
            budget: Budget::new(limits.memory_bytes, limits.memory_bytes_per_client),
            buffers: Buffers::default(),
            duplicates: Duplicates::default(),
            pool: Pool::new(limits.workers),
            committer: Committer::default(),
            flusher: Flusher::new(limits.send)?,
            callbacks,
            accepted: AtomicU64::new(0),
            stop: Arc::new(Signal::new()?),
            stopping: AtomicBool::new(false),
            connections: Mutex::default(),
            readers: Mutex::default(),
            limits,
        })
    }

    fn has_room(&self, address: IpAddr) -> bool {
        let connections = self.connections.lock().unwrap();
        let of_client = connections
            .values()
            .filter(|connection| connection.client.address == address)
            .count();
        connections.len() < self.limits.connections && of_client < self.limits.connections_per_client
    }

    /// The reader's life.
    fn serve(&self, connection: &Arc<Connection>) {
        let patience = Patience {
            idle: self.limits.idle,
            record: self.limits.record,
        };
        let mut records = Records::new(&connection.stream, &self.stop, &self.buffers, patience);
        let end = self.read_calls(connection, &mut records);
        match end {
            End::Stopped => {
                connection.settle(1, Duration::from_secs(STOP_SECONDS));
                farewell(&connection.stream);
            }
            End::Closed => drop(connection.settle(1, Duration::from_secs(STOP_SECONDS))),
            End::Broken => {}
        }
        connection.close();
    }

    fn read_calls(&self, connection: &Arc<Connection>, records: &mut Records<'_>) -> End {
        let patience = Duration::from_secs(PATIENCE_SECONDS);
        let mut slow_calls = 0;
        loop {
            if self.stopping.load(Ordering::Relaxed) {
                return End::Stopped;
            }
            if !connection.settle(self.limits.calls_per_connection, patience) {
                return End::Broken;
            }
            // Who is not served has nothing large to say.
            let content = if self.programs.service.exports.admits(connection.client) {
                TRANSFER_BYTES_MAX
            } else {
                0
            };
            let record = match records.next(content + CALL_BYTES_MAX) {
                Ok(record) => record,
                Err(end) => return end,
            };
            if !self.take(connection, record, records.has_more(), &mut slow_calls) {
                return End::Broken;
            }
        }
    }

    /// Runs or queues one call; false if there is nothing to be had from this client any more.
    fn take(&self, connection: &Arc<Connection>, record: Vec<u8>, has_more: bool, slow_calls: &mut u32) -> bool {
        let call = match Call::parse(&record) {
            Ok(call) => Ok(call),
            Err(Refused::Answer(answer)) => Err(answer),
            Err(Refused::NotACall) => return false,
        };
        let bytes = record.len() + CALL_BYTES_MAX + call.as_ref().map_or(0, answer_bytes_max);
        let Some(permit) = self
            .budget
            .take(connection.client.address, bytes, Duration::from_secs(PATIENCE_SECONDS))
        else {
            return false;
        };
        let ticket = Ticket::new(connection, permit);
        match call {
            Err(answer) => ticket.send(answer.into()),
            Ok(_) if has_more || *slow_calls > 0 => {
                *slow_calls = slow_calls.saturating_sub(1);
                self.pool.push(Work { ticket, record });
            }
            Ok(call) => {
                let began = Instant::now();
                self.run(ticket, &record, &call);
                if began.elapsed().as_micros() > QUICK_MICROSECONDS_MAX {
                    *slow_calls = SLOW_CALLS;
                }
                self.buffers.give(record);
            }
        }
        true
    }

    fn run_parsed(&self, Work { ticket, record }: Work) {
        if let Ok(call) = Call::parse(&record) {
            self.run(ticket, &record, &call);
        }
        self.buffers.give(record);
    }

    fn run(&self, ticket: Ticket, record: &[u8], call: &Call<'_>) {
        let span = Span::new(call);
        let client = ticket.client();
        let repeats = match call.program {
            nfs::PROGRAM => nfs::is_non_idempotent(call.procedure),
            nlm::PROGRAM => nlm::is_non_idempotent(call.procedure),
            _ => false,
        };
        let key = repeats.then(|| Key::new(client.address, call, record));
        let verdict = match key {
            Some(key) => self.duplicates.begin(key, ticket),
            None => Verdict::New(ticket),
        };
        let ticket = match verdict {
            Verdict::New(ticket) => ticket,
            Verdict::Answered(ticket, reply) => {
                self.counters().repetitions.add(1);
                return ticket.send(reply);
            }
            Verdict::Waits => return self.counters().repetitions.add(1),
        };
        let answer = self.programs.answer(client, call);
        match answer.unless_durable {
            Some(unless_durable) => self.committer.push(Pending {
                ticket,
                key,
                span,
                reply: answer.reply,
                unless_durable,
            }),
            None => self.deliver(ticket, key, span, answer.reply),
        }
    }

    fn counters(&self) -> &Counters {
        &self.programs.service.counters
    }

    fn deliver(&self, ticket: Ticket, key: Option<Key>, span: Span, reply: Reply) {
        self.counters().done(span, &reply);
        if let Some(key) = key {
            for waiting in self.duplicates.finish(key, &reply) {
                waiting.send(reply.clone());
            }
        }
        ticket.send(reply);
    }
}

/// Ends our side and lets the client end its own: to close with calls unread would reset the connection, and the last replies with it.
fn farewell(mut stream: &TcpStream) {
    let never = Signal::new();
    let deadline = Instant::now() + Duration::from_secs(FAREWELL_SECONDS);
    let (Ok(never), Ok(())) = (never, stream.shutdown(Shutdown::Write)) else {
        return;
    };
    let mut unread = [0; 4096];
    while Instant::now() < deadline {
        match stream.read(&mut unread) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if !matches!(readable(&stream, &never, deadline), Ok(Woken::Ready)) {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}
