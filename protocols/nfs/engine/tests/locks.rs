//! Locks as NFS clients take them: at once, waiting, called back, given up, reclaimed.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};
use support::World;
use support::client::*;
use trefoil_core::filesystem::locks::{Family, Hold, Lock, LockOwner, LockTable, Range};

const NLM: u32 = 100_021;
const NSM: u32 = 100_024;
const TEST: u32 = 1;
const LOCK: u32 = 2;
const CANCEL: u32 = 3;
const UNLOCK: u32 = 4;

const GRANTED: u32 = 0;
const DENIED: u32 = 1;
const BLOCKED: u32 = 3;
const GRACE: u32 = 4;
const DEADLOCK: u32 = 5;
const STALE_HANDLE: u32 = 7;

/// What a test asks for.
#[derive(Clone)]
struct Wanted {
    host: &'static str,
    process: u32,
    exclusive: bool,
    offset: u64,
    length: u64,
    block: bool,
    reclaim: bool,
    state: u32,
}

/// All of the file, exclusively.
fn wanted(host: &'static str, process: u32) -> Wanted {
    Wanted {
        host,
        process,
        exclusive: true,
        offset: 0,
        length: 0,
        block: false,
        reclaim: false,
        state: 3,
    }
}

impl Wanted {
    fn part(mut self, offset: u64, length: u64) -> Self {
        (self.offset, self.length) = (offset, length);
        self
    }

    fn waiting(self) -> Self {
        Self { block: true, ..self }
    }

    fn shared(self) -> Self {
        Self { exclusive: false, ..self }
    }

    fn words(&self, procedure: u32, handle: &[u8]) -> Words {
        let bit = u32::from;
        let words = Words::new().bytes(b"cook");
        let words = match procedure % 5 {
            TEST => words.int(bit(self.exclusive)),
            LOCK | CANCEL => words.int(bit(self.block)).int(bit(self.exclusive)),
            _ => words,
        };
        let words = words
            .bytes(self.host.as_bytes())
            .bytes(handle)
            .bytes(b"owner")
            .int(self.process)
            .long(self.offset)
            .long(self.length);
        if procedure % 5 == LOCK {
            words.int(bit(self.reclaim)).int(self.state)
        } else {
            words
        }
    }
}

struct Locker {
    client: Client,
    handle: Handle,
}

impl Locker {
    fn new(world: &World) -> Self {
        let mut client = world.client();
        let root = client.mount("/view").unwrap();
        let handle = client.create(&root, "file", &Set::mode(0o666)).unwrap().0;
        Self { client, handle }
    }

    fn call(&mut self, program: u32, version: u32, procedure: u32, words: &Words) -> Results {
        let record = self.client.encode(program, version, procedure, words);
        self.client.send(&record);
        self.client.xid += 1;
        Client::results(self.client.receive().unwrap(), self.client.xid - 1)
    }

    fn ask(&mut self, procedure: u32, wanted: &Wanted) -> u32 {
        let words = wanted.words(procedure, &self.handle);
        let mut results = self.call(NLM, 4, procedure, &words);
        assert_eq!(results.bytes(), b"cook");
        results.int()
    }

    fn lock(&mut self, wanted: &Wanted) -> u32 {
        self.ask(LOCK, wanted)
    }

    fn unlock(&mut self, wanted: &Wanted) -> u32 {
        self.ask(UNLOCK, wanted)
    }

    /// Until the lock is there.
    fn lock_soon(&mut self, wanted: &Wanted) {
        let began = Instant::now();
        while self.lock(wanted) != GRANTED {
            assert!(began.elapsed() < Duration::from_secs(20), "it was never granted");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn world(table: &Arc<LockTable>, portmapper_port: u16) -> World {
    let mut world = World::trusting();
    let table = table.clone();
    world.configure = Box::new(move |config| {
        config.locks = Some(table.clone());
        config.client_portmapper_port = portmapper_port;
    });
    world.restart();
    world
}

/// A client's port mapper, lock manager and status monitor: each call that it gets, and it answers with `answer`.
fn callee(answer: Words) -> (u16, Receiver<(u32, u32, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, calls) = channel();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Some((xid, program, procedure, body)) = stream.ok().as_mut().and_then(|stream| receive_call(stream, port, &answer)) else {
                continue;
            };
            let _ = xid;
            if program != PORTMAP && sender.send((program, procedure, body)).is_err() {
                return;
            }
        }
    });
    (port, calls)
}

fn receive_call(stream: &mut TcpStream, port: u16, answer: &Words) -> Option<(u32, u32, u32, Vec<u8>)> {
    let mut header = [0; 4];
    stream.read_exact(&mut header).ok()?;
    let mut record = vec![0; (u32::from_be_bytes(header) & 0x7fff_ffff) as usize];
    stream.read_exact(&mut record).ok()?;
    let word = |index: usize| u32::from_be_bytes(record[index * 4..][..4].try_into().unwrap());
    let (xid, program, procedure) = (word(0), word(3), word(5));
    let words = Words::new().int(xid).int(1).int(0).int(0).int(0).int(0);
    let reply = if program == PORTMAP {
        words.int(u32::from(port))
    } else {
        words.raw(&answer.0)
    };
    stream.write_all(&(reply.0.len() as u32 | 1 << 31).to_be_bytes()).ok()?;
    stream.write_all(&reply.0).ok()?;
    Some((xid, program, procedure, record[40..].to_vec()))
}

#[test]
fn locks_keep_others_out() {
    let table = Arc::new(LockTable::default());
    let world = world(&table, 1);
    let mut locker = Locker::new(&world);
    let (one, two) = (wanted("a", 1).part(0, 10), wanted("a", 2).part(5, 10));
    assert_eq!(
        [locker.lock(&one), locker.lock(&one), locker.lock(&two)],
        [GRANTED, GRANTED, DENIED]
    );
    assert_eq!(
        locker.lock(&wanted("b", 1).part(0, 1)),
        DENIED,
        "another host's process 1 is another"
    );
    assert_eq!(locker.lock(&wanted("a", 2).part(10, 10)), GRANTED);
    let words = two.words(TEST, &locker.handle);
    let mut results = locker.call(NLM, 4, TEST, &words);
    assert_eq!((results.bytes(), results.int()), (b"cook".to_vec(), DENIED));
    assert_eq!(
        (results.int(), results.int(), results.bytes(), results.long(), results.long()),
        (1, 1, Vec::new(), 0, 10)
    );
    results.done();
    assert_eq!(locker.unlock(&wanted("a", 1)), GRANTED);
    assert_eq!([locker.ask(TEST, &two), locker.lock(&two.clone().shared())], [GRANTED, GRANTED]);
    assert_eq!(
        [
            locker.lock(&wanted("a", 3).part(5, 3).shared()),
            locker.lock(&wanted("a", 3).part(5, 3))
        ],
        [GRANTED, DENIED]
    );
    let handle = std::mem::replace(&mut locker.handle, vec![1; 44]);
    assert_eq!(
        [locker.lock(&one), locker.unlock(&one), locker.ask(CANCEL, &one)],
        [STALE_HANDLE; 3]
    );
    locker.handle = handle;
    let mut stranger = Locker {
        client: world.client_as(9, 9, &[]),
        handle: locker.handle.clone(),
    };
    assert_eq!(stranger.lock(&wanted("c", 1).part(500, 1)), GRANTED);
    locker.client.setattr(&locker.handle, &Set::mode(0o600), None);
    assert_eq!(
        stranger.lock(&wanted("c", 1).part(500, 1)),
        DENIED,
        "who may not read it may not lock it"
    );
}

#[test]
fn the_table_is_shared() {
    let table = Arc::new(LockTable::default());
    let world = world(&table, 1);
    let mut locker = Locker::new(&world);
    let inode = locker.client.getattr(&locker.handle).unwrap().inode;
    let lock = Lock {
        owner: LockOwner { client: 1, owner: 1 },
        hold: Hold::Exclusive,
        range: Range::ALL,
        process: 77,
    };
    table.set(inode, Family::Posix, &lock).unwrap();
    assert_eq!(locker.lock(&wanted("a", 1)), DENIED);
    table.release(inode, Family::Posix, lock.owner);
    assert_eq!(locker.lock(&wanted("a", 1)), GRANTED);
    assert!(table.set(inode, Family::Posix, &lock).is_err());
}

#[test]
fn who_waits_is_called_when_it_is_granted() {
    let table = Arc::new(LockTable::default());
    let (port, calls) = callee(Words::new().bytes(b"cook").int(GRANTED));
    let world = world(&table, port);
    let mut locker = Locker::new(&world);
    let (one, two) = (wanted("a", 1), wanted("b", 2).part(3, 4).waiting());
    assert_eq!(
        [locker.lock(&one), locker.lock(&two), locker.lock(&two)],
        [GRANTED, BLOCKED, BLOCKED]
    );
    assert_eq!(locker.unlock(&one), GRANTED);
    let (program, procedure, body) = calls.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!((program, procedure), (NLM, 5));
    assert_eq!(body, two.words(TEST, &locker.handle).0);
    assert_eq!([locker.lock(&one), locker.lock(&two)], [DENIED, GRANTED]);
    assert_eq!([locker.unlock(&two), locker.lock(&one)], [GRANTED, GRANTED]);
}

#[test]
fn a_lock_that_its_client_refuses_is_free_again() {
    let table = Arc::new(LockTable::default());
    let (port, calls) = callee(Words::new().bytes(b"cook").int(DENIED));
    let world = world(&table, port);
    let mut locker = Locker::new(&world);
    assert_eq!(
        [locker.lock(&wanted("a", 1)), locker.lock(&wanted("b", 2).waiting())],
        [GRANTED, BLOCKED]
    );
    assert_eq!(locker.unlock(&wanted("a", 1)), GRANTED);
    calls.recv_timeout(Duration::from_secs(10)).unwrap();
    locker.lock_soon(&wanted("a", 1));
}

#[test]
fn who_cannot_be_called_asks_again() {
    let table = Arc::new(LockTable::default());
    let world = world(&table, 1);
    let mut locker = Locker::new(&world);
    let (one, two) = (wanted("a", 1), wanted("b", 2).waiting());
    assert_eq!([locker.lock(&one), locker.lock(&two)], [GRANTED, BLOCKED]);
    assert_eq!(locker.unlock(&one), GRANTED);
    locker.lock_soon(&two);
    assert_eq!(locker.unlock(&two), GRANTED);
    locker.lock_soon(&one);
    assert_eq!(table.count(), (1, 0));
}

#[test]
fn a_wait_can_be_cancelled_and_may_not_close_a_circle() {
    let table = Arc::new(LockTable::default());
    let world = world(&table, 1);
    let mut locker = Locker::new(&world);
    let (one, two) = (wanted("a", 1).part(0, 1), wanted("b", 2).part(1, 1));
    assert_eq!([locker.lock(&one), locker.lock(&two)], [GRANTED, GRANTED]);
    let crossing = wanted("b", 2).part(0, 1).waiting();
    assert_eq!(
        [locker.lock(&crossing), locker.lock(&wanted("a", 1).part(1, 1).waiting())],
        [BLOCKED, DEADLOCK]
    );
    assert_eq!([locker.ask(CANCEL, &crossing), locker.ask(CANCEL, &crossing)], [GRANTED, DENIED]);
    assert_eq!(table.count(), (2, 0));
    assert_eq!(locker.unlock(&one), GRANTED);
    assert_eq!(table.count(), (1, 0));
    assert_eq!(locker.lock(&crossing), GRANTED, "at once if nobody is in the way");
}

#[test]
fn a_host_that_restarted_holds_nothing() {
    let table = Arc::new(LockTable::default());
    let mut world = world(&table, 1);
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    datagrams.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let shared = table.clone();
    world.configure = Box::new(move |config| {
        config.locks = Some(shared.clone());
        config.portmapper = Some("127.0.0.1:0".parse().unwrap());
    });
    world.restart();
    let mut locker = Locker::new(&world);
    let again = Wanted {
        state: 5,
        ..wanted("a", 9).part(100, 1)
    };
    assert_eq!(
        [
            locker.lock(&wanted("a", 1)),
            locker.lock(&wanted("a", 2).waiting()),
            locker.lock(&again)
        ],
        [GRANTED, BLOCKED, GRANTED]
    );
    assert_eq!(table.count(), (1, 0), "a new state, and what was held and waited is gone");
    // By its status monitor: over TCP, and by a datagram to where the port mapper says.
    locker.call(NSM, 1, 6, &Words::new().bytes(b"a.example").int(7)).done();
    assert_eq!(table.count(), (0, 0));
    assert_eq!(locker.lock(&wanted("a", 1)), GRANTED);
    let mut results = locker.call(PORTMAP, 2, 3, &Words::new().int(NSM).int(1).int(17).int(0));
    let port = results.int() as u16;
    let call = locker.client.encode(NSM, 1, 6, &Words::new().bytes(b"a").int(9));
    datagrams.send_to(&call, ("127.0.0.1", port)).unwrap();
    let mut answer = [0; 100];
    assert_eq!(datagrams.recv_from(&mut answer).unwrap().0, 24);
    assert_eq!((&answer[..4], table.count()), (&call[..4], (0, 0)));
    let call = locker.client.encode(NFS, 3, 0, &Words::new());
    datagrams.send_to(&call, ("127.0.0.1", port)).unwrap();
    datagrams.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(datagrams.recv_from(&mut answer).is_err(), "no NFS by datagrams");
    assert_eq!(locker.lock(&wanted("a", 1)), GRANTED);
    locker.call(NLM, 4, 23, &Words::new().bytes(b"a").int(0)).done();
    assert_eq!(table.count(), (0, 0));
    let mut results = locker.call(PORTMAP, 4, 3, &Words::new().int(NLM).int(4).bytes(b"tcp").bytes(b"").bytes(b""));
    let port = world.address().port();
    assert_eq!(results.bytes(), format!("0.0.0.0.{}.{}", port >> 8, port & 255).into_bytes());
}

#[test]
fn a_server_that_stopped_holds_nothing() {
    let table = Arc::new(LockTable::default());
    let mut world = world(&table, 1);
    let mut locker = Locker::new(&world);
    assert_eq!(
        [locker.lock(&wanted("a", 1)), locker.lock(&wanted("b", 2).waiting())],
        [GRANTED, BLOCKED]
    );
    drop(locker);
    world.stop();
    assert_eq!(table.count(), (0, 0));
}

#[test]
fn after_a_restart_locks_are_reclaimed() {
    let folder = tempfile::tempdir().unwrap();
    let (port, calls) = callee(Words::new());
    let mut world = World::trusting();
    let file = folder.path().join("hosts");
    world.configure = Box::new(move |config| {
        config.locks = Some(Arc::new(LockTable::default()));
        config.lock_hosts = Some(file.clone());
        config.client_portmapper_port = port;
    });
    world.restart();
    let mut locker = Locker::new(&world);
    assert_eq!(locker.lock(&wanted("a", 1)), GRANTED);
    drop(locker);
    world.restart();
    let (program, procedure, body) = calls.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!((program, procedure), (NSM, 6));
    assert_eq!(body, Words::new().bytes(b"127.0.0.1").int(3).0);
    let mut locker = Locker::new(&world);
    assert_eq!([locker.lock(&wanted("b", 2)), locker.ask(TEST, &wanted("b", 2))], [GRACE, GRACE]);
    assert_eq!(
        locker.lock(&Wanted {
            reclaim: true,
            ..wanted("a", 1)
        }),
        GRANTED
    );
    assert_eq!(locker.unlock(&wanted("a", 1)), GRANTED);
}

#[test]
fn messages_are_answered_by_calls() {
    let table = Arc::new(LockTable::default());
    let (port, calls) = callee(Words::new());
    let world = world(&table, port);
    let mut locker = Locker::new(&world);
    let one = wanted("a", 1);
    for (procedure, expected) in [(7, GRANTED), (6, GRANTED), (9, GRANTED), (8, DENIED)] {
        let words = one.words(procedure - 5, &locker.handle);
        locker.call(NLM, 4, procedure, &words).done();
        let (program, answered, body) = calls.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(
            (program, answered, body),
            (NLM, procedure + 5, Words::new().bytes(b"cook").int(expected).0)
        );
    }
}

#[test]
fn without_a_table_there_are_no_locks() {
    let world = World::trusting();
    let mut client = world.client();
    for program in [NLM, NSM] {
        assert_eq!(client.call(PORTMAP, 3, Words::new().int(program).int(4).int(6).int(0)).int(), 0);
        let record = client.encode(program, 4, 0, &Words::new());
        client.send(&record);
        assert_eq!(client.receive().unwrap()[20..], [0, 0, 0, 1]);
    }
}
