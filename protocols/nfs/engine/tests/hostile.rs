//! Clients that are broken, slow or mean: they harm themselves only. A program of its own, because it looks at the memory that it takes.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};
use support::World;
use support::client::*;
use trefoil_nfs::Limits;

/// What the whole program may come to have taken at most, for all its tests together.
const MEMORY_KIB_MAX: u64 = 400 << 10;

fn world(limits: Limits) -> World {
    let mut world = World::trusting();
    world.configure = Box::new(move |config| config.limits = limits.clone());
    world.restart();
    world
}

fn memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Until the server closes; how long that took.
fn closed(stream: &mut TcpStream) -> Duration {
    let began = Instant::now();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut bytes = [0; 65536];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return began.elapsed(),
            Ok(_) => {}
            Err(error) => {
                assert!(
                    !matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut),
                    "it was not closed"
                );
                return began.elapsed();
            }
        }
    }
}

fn short() -> Limits {
    Limits {
        record: Duration::from_millis(700),
        send: Duration::from_millis(700),
        idle: Duration::from_secs(2),
        ..Limits::default()
    }
}

#[test]
fn what_is_no_record_ends_the_connection() {
    let world = world(short());
    let too_long = (1_u32 << 31 | 2 << 20).to_be_bytes();
    let mut fragments: Vec<u8> = Vec::new();
    (0..100).for_each(|_| fragments.extend([0; 4]));
    let mut sum: Vec<u8> = Vec::new();
    (0..8).for_each(|_| sum.extend([&(200_000_u32.to_be_bytes())[..], &[0; 200_000]].concat()));
    let reply = [&(1_u32 << 31 | 24).to_be_bytes()[..], &[0, 0, 0, 1, 0, 0, 0, 1], &[0; 16]].concat();
    for bytes in [
        &too_long[..],
        &fragments,
        &sum,
        &reply,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0x80, 0, 0, 0],
    ] {
        let mut stream = TcpStream::connect(world.address()).unwrap();
        let _ = stream.write_all(bytes);
        assert!(closed(&mut stream) < Duration::from_secs(2));
    }
    world.client().mount("/view").unwrap();
}

#[test]
fn records_in_fragments_and_pieces_are_records() {
    let world = world(Limits::default());
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let record = client.encode(NFS, 3, 1, &Words::new().bytes(&root));
    for piece in [1, 3, 50] {
        let chunks: Vec<&[u8]> = record.chunks(record.len() / 10 + piece).collect();
        let mut bytes = Vec::new();
        for (index, chunk) in chunks.iter().enumerate() {
            let last = u32::from(index + 1 == chunks.len()) << 31;
            bytes.extend((chunk.len() as u32 | last).to_be_bytes());
            bytes.extend(*chunk);
        }
        for part in bytes.chunks(piece) {
            client.stream.write_all(part).unwrap();
        }
        assert_eq!(Client::results(client.receive().unwrap(), client.xid).int(), OK);
    }
}

#[test]
fn half_a_record_is_waited_for_only_so_long() {
    let world = world(short());
    let mut slow = TcpStream::connect(world.address()).unwrap();
    slow.write_all(&(1_u32 << 31 | 1 << 20).to_be_bytes()).unwrap();
    let mut trickling = TcpStream::connect(world.address()).unwrap();
    trickling.write_all(&(1_u32 << 31 | 1 << 20).to_be_bytes()).unwrap();
    let trickle = std::thread::spawn({
        let mut stream = trickling.try_clone().unwrap();
        move || {
            while stream.write_all(&[0]).is_ok() {
                std::thread::sleep(Duration::from_millis(20))
            }
        }
    });
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    assert!(closed(&mut slow) < Duration::from_secs(5) && closed(&mut trickling) < Duration::from_secs(5));
    trickle.join().unwrap();
    client.getattr(&root).unwrap();
    let mut idle = TcpStream::connect(world.address()).unwrap();
    assert!(closed(&mut idle) > Duration::from_secs(1));
}

#[test]
fn who_does_not_read_replies_is_left_behind() {
    let world = world(short());
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let (file, _) = client.create(&root, "file", &Set::default()).unwrap();
    client.write(&file, 0, &vec![1; 1 << 20], 0).unwrap();
    let mut deaf = world.client();
    let record = deaf.encode(NFS, 3, 6, &Words::new().bytes(&file).long(0).int(1 << 20));
    let mut bytes = (record.len() as u32 | 1 << 31).to_be_bytes().to_vec();
    bytes.extend(record);
    let sender = std::thread::spawn(move || (0..100_000).any(|_| deaf.stream.write_all(&bytes).is_err()));
    while !sender.is_finished() {
        let began = Instant::now();
        client.read(&file, 0, 4096).unwrap();
        assert!(began.elapsed() < Duration::from_secs(2), "somebody else waits for the deaf one");
    }
    assert!(sender.join().unwrap(), "it was cut off");
    assert!(memory_kib() < MEMORY_KIB_MAX, "{} KiB", memory_kib());
}

#[test]
fn a_stop_does_not_wait_for_the_deaf() {
    let mut world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let (file, _) = client.create(&root, "file", &Set::default()).unwrap();
    client.write(&file, 0, &vec![1; 1 << 20], 0).unwrap();
    let mut deaf = world.client();
    for _ in 0..200 {
        let record = deaf.encode(NFS, 3, 6, &Words::new().bytes(&file).long(0).int(1 << 20));
        deaf.send(&record);
    }
    let began = Instant::now();
    world.stop();
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn connections_are_counted() {
    let world = world(Limits {
        connections_per_client: 3,
        ..Limits::default()
    });
    let mut clients: Vec<Client> = (0..3).map(|_| world.client()).collect();
    clients.iter_mut().for_each(|client| drop(client.mount("/view").unwrap()));
    assert!(closed(&mut world.client().stream) < Duration::from_secs(1));
    clients.pop();
    let began = Instant::now();
    let again = || {
        let mut client = world.client();
        let record = client.encode(NFS, 3, 0, &Words::new());
        client
            .stream
            .write_all(&[&(record.len() as u32 | 1 << 31).to_be_bytes()[..], &record].concat())
            .is_ok()
            && client.receive().is_ok()
    };
    while !again() {
        assert!(began.elapsed() < Duration::from_secs(5), "a connection that ended is still counted");
    }
}

#[test]
fn who_is_not_served_has_nothing_large_to_say() {
    let world = world(Limits::default());
    world.server().set_exports(Vec::new());
    let mut stream = TcpStream::connect(world.address()).unwrap();
    stream.write_all(&(1_u32 << 31 | 8192).to_be_bytes()).unwrap();
    assert!(closed(&mut stream) < Duration::from_secs(2));
    assert_eq!(world.client().mount("/view"), Err(ACCES));
}

#[test]
fn random_bytes_break_nothing() {
    let world = world(short());
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..300 {
        let mut stream = TcpStream::connect(world.address()).unwrap();
        let length = random() as usize % 3000;
        let mut bytes: Vec<u8> = (0..length).map(|_| random() as u8).collect();
        // Half of them begin like a record, with a call in it.
        if round % 2 == 0 && length > 100 {
            bytes[..4].copy_from_slice(&((length as u32 - 4) | (1 << 31)).to_be_bytes());
            bytes[8..16].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, 2]);
            bytes[16..28].copy_from_slice(&[0, 1, 0x86, 0xa3, 0, 0, 0, 3, 0, 0, 0, (round % 22) as u8]);
            bytes[28..44].copy_from_slice(&[0; 16]);
        }
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        closed(&mut stream);
    }
    world.client().mount("/view").unwrap();
    assert!(memory_kib() < MEMORY_KIB_MAX, "{} KiB", memory_kib());
}
