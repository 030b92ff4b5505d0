//! What survives what: restarts, repetitions, lost connections, and a disk that fails.

mod support;

use std::sync::atomic::Ordering;
use std::thread;
use support::World;
use support::client::*;
use trefoil_core::filesystem::FileSystem;

#[test]
fn handles_and_cookies_survive_a_restart() {
    let mut world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    for number in 0..50 {
        client.create(&root, format!("file{number}"), &Set::default()).unwrap();
    }
    let (file, attributes) = client.lookup(&root, "file7").unwrap();
    let (entries, _) = client.readdirplus(&root, 0, 4096, 4096).unwrap();
    let cookie = entries.last().unwrap().cookie;
    world.restart();
    let mut client = world.client();
    assert_eq!(client.getattr(&file).unwrap(), attributes);
    assert_eq!(client.mount("/view").unwrap(), root);
    let rest = client.readdirplus(&root, cookie, 32768, 32768).unwrap().0;
    assert_eq!(entries.len() + rest.len(), 52);
    client.remove(&root, "file7");
    assert_eq!(client.getattr(&file), Err(STALE));
    for (key, fsid) in [([1; 32], support::FSID), (support::KEY, 5)] {
        world.start(key, fsid);
        assert_eq!(world.client().getattr(&root), Err(BADHANDLE), "another key, or another file system");
    }
}

#[test]
fn the_write_verifier_changes_with_each_start() {
    let mut world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let (file, _) = client.create(&root, "file", &Set::default()).unwrap();
    let (how, verifier, _) = client.write(&file, 0, b"bytes", 0).unwrap();
    assert_eq!((how, client.commit(&file).unwrap()), (0, verifier));
    world.restart();
    let mut client = world.client();
    let again = client.commit(&file).unwrap();
    assert_ne!(again, verifier);
    assert_eq!(client.write(&file, 0, b"bytes", 2).unwrap().1, again);
}

#[test]
fn an_exclusive_create_is_done_once_by_whoever_began_it() {
    let mut world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let verifier = [0xff, 0xee, 0, 1, 2, 3, 0xf4, 5];
    let (file, attributes) = client.create_exclusive(&root, "file", verifier).unwrap();
    assert_eq!((attributes.size, attributes.kind), (0, 1));
    assert_eq!(client.create_exclusive(&root, "file", verifier).unwrap().0, file);
    assert_eq!(client.create_exclusive(&root, "file", [9; 8]).map(drop), Err(EXIST));
    world.restart();
    let mut client = world.client();
    assert_eq!(client.create_exclusive(&root, "file", verifier).unwrap().0, file);
    client.setattr(
        &file,
        &Set {
            accessed: Some(None),
            modified: Some(None),
            ..Set::mode(0o644)
        },
        None,
    );
    assert_eq!(client.create_exclusive(&root, "file", verifier).map(drop), Err(EXIST));
}

#[test]
fn a_repeated_call_is_done_once() {
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    client.create(&root, "file", &Set::default()).unwrap();
    client.xid = 500;
    let record = client.encode(NFS, 3, 12, &Words::new().entry(&root, "file"));
    client.send(&record);
    let first = client.receive().unwrap();
    client.send(&record);
    assert_eq!(client.receive().unwrap(), first);
    // By another connection of the same client, as after a broken one.
    let mut other = world.client();
    other.send(&record);
    assert_eq!(other.receive().unwrap(), first);
    assert_eq!(world.fs.unlinks.load(Ordering::SeqCst), 1);
    // The same xid for something else is something else.
    let record = client.encode(NFS, 3, 12, &Words::new().entry(&root, "other"));
    client.send(&record);
    assert_eq!(Client::results(client.receive().unwrap(), 500).int(), NOENT);
    let record = Client {
        user: Some((1, 1, Vec::new())),
        ..world.client()
    }
    .encode(NFS, 3, 12, &Words::new().entry(&root, "file"));
    client.send(&record);
    assert_eq!(Client::results(client.receive().unwrap(), 1).int(), NOENT);
}

#[test]
fn a_call_repeated_while_it_is_under_way_is_answered_with_it() {
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    client.create(&root, "file", &Set::default()).unwrap();
    world.fs.close_gate();
    let record = client.encode(NFS, 3, 12, &Words::new().entry(&root, "file"));
    client.send(&record);
    world.fs.sync_waits();
    let mut other = world.client();
    other.xid = 900;
    other.send(&record);
    // An idempotent call behind it is answered at once: by then the repetition is known to be one.
    other.getattr(&root).unwrap();
    world.fs.open_gate();
    let answers = [client.receive().unwrap(), other.receive().unwrap()];
    assert_eq!(answers[0], answers[1]);
    assert_eq!(world.fs.unlinks.load(Ordering::SeqCst), 1);
}

#[test]
fn nothing_is_called_stable_before_it_is() {
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let (file, _) = client.create(&root, "file", &Set::default()).unwrap();
    let mut counted = |expected: u64, act: &mut dyn FnMut(&mut Client)| {
        let before = world.fs.syncs();
        act(&mut client);
        assert_eq!(world.fs.syncs() - before, expected);
    };
    counted(0, &mut |client| _ = client.write(&file, 0, b"x", 0).unwrap());
    counted(1, &mut |client| _ = client.write(&file, 0, b"x", 1).unwrap());
    counted(1, &mut |client| _ = client.write(&file, 0, b"x", 2).unwrap());
    counted(1, &mut |client| _ = client.commit(&file).unwrap());
    counted(1, &mut |client| _ = client.setattr(&file, &Set::mode(0o600), None));
    counted(1, &mut |client| _ = client.mkdir(&root, "directory", 0o755).unwrap());
    counted(1, &mut |client| _ = client.symlink(&root, "symlink", "x").unwrap());
    counted(1, &mut |client| _ = client.mknod(&root, "fifo", 7, (0, 0)).unwrap());
    counted(1, &mut |client| _ = client.link(&file, &root, "link"));
    counted(1, &mut |client| _ = client.rename((&root, "link"), (&root, "renamed")));
    counted(1, &mut |client| _ = client.remove(&root, "renamed"));
    counted(1, &mut |client| _ = client.rmdir(&root, "directory"));
    counted(1, &mut |client| _ = client.create_exclusive(&root, "exclusive", [1; 8]).unwrap());
    counted(0, &mut |client| _ = client.read(&file, 0, 1).unwrap());
    counted(0, &mut |client| _ = client.remove(&root, "none"));
}

#[test]
fn what_cannot_be_made_durable_is_not_called_so() {
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let (file, _) = client.create(&root, "file", &Set::default()).unwrap();
    world.fs.sync_fails.store(true, Ordering::SeqCst);
    assert_eq!(client.write(&file, 0, b"x", 2).map(drop), Err(IO));
    assert_eq!(client.commit(&file), Err(IO));
    assert_eq!(client.create(&root, "other", &Set::default()).map(drop), Err(IO));
    assert_eq!(client.remove(&root, "file").0, IO);
    assert_eq!(client.rename((&root, "other"), (&root, "third")).0, IO);
    let (first, _) = client.lookup(&root, "third").unwrap();
    assert_eq!(client.link(&first, &root, "fourth").0, IO);
    assert_eq!(client.setattr(&first, &Set::mode(0o600), None).0, IO);
}

#[test]
fn many_changes_share_a_sync() {
    let world = World::trusting();
    let root = world.client().mount("/view").unwrap();
    world.fs.close_gate();
    let before = world.fs.syncs();
    let mut client = world.client();
    for number in 0..60 {
        client.xid = 1000 + number;
        let record = client.encode(
            NFS,
            3,
            9,
            &Words::new()
                .entry(&root, format!("d{number}"))
                .int(0)
                .int(0)
                .int(0)
                .int(0)
                .int(0)
                .int(0),
        );
        client.send(&record);
    }
    // All are done though none is durable: none of them holds a thread.
    let mut other = world.client();
    while other.names(&root, 32768).len() < 62 {
        thread::yield_now();
    }
    world.fs.open_gate();
    for _ in 0..60 {
        let reply = client.receive().unwrap();
        let xid = u32::from_be_bytes(reply[..4].try_into().unwrap());
        assert_eq!(Client::results(reply, xid).int(), OK);
    }
    assert!(world.fs.syncs() - before <= 4, "{} syncs", world.fs.syncs() - before);
}

#[test]
fn a_stop_answers_what_was_begun() {
    let mut world = World::trusting();
    let root = world.client().mount("/view").unwrap();
    world.fs.close_gate();
    let mut client = world.client();
    let record = client.encode(
        NFS,
        3,
        9,
        &Words::new().entry(&root, "directory").int(0).int(0).int(0).int(0).int(0).int(0),
    );
    client.send(&record);
    world.fs.sync_waits();
    let fs = world.fs.clone();
    let (sender, stopping) = std::sync::mpsc::channel();
    let stopped = thread::spawn(move || {
        sender.send(()).unwrap();
        world.stop();
        world
    });
    stopping.recv().unwrap();
    fs.open_gate();
    assert_eq!(Client::results(client.receive().unwrap(), 1).int(), OK);
    assert!(client.receive().is_err(), "then it closes");
    drop(client);
    let world = stopped.join().unwrap();
    assert!(world.fs.lookup(world.view(), b"directory").is_ok());
}

#[test]
fn many_calls_at_once_are_all_answered() {
    let world = World::trusting();
    let root = world.client().mount("/view").unwrap();
    let workers: Vec<_> = (0..8)
        .map(|worker| {
            let (mut client, root) = (world.client(), root.clone());
            thread::spawn(move || {
                let (directory, _) = client.mkdir(&root, format!("worker{worker}"), 0o755).unwrap();
                for number in 0..60 {
                    let name = format!("file{number}");
                    let (file, _) = client.create(&directory, &name, &Set::default()).unwrap();
                    let content = vec![number as u8; 5000 * number + 1];
                    client.write(&file, 0, &content, (number % 3) as u32).unwrap();
                    assert_eq!(client.read(&file, 0, 1 << 20).unwrap().0, content);
                    if number % 2 == 0 {
                        assert_eq!(client.remove(&directory, &name).0, OK);
                    }
                }
                assert_eq!(client.names(&directory, 2000).len(), 32);
            })
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
}

#[test]
fn pipelined_calls_are_all_answered() {
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let (file, _) = client.create(&root, "file", &Set::default()).unwrap();
    client.write(&file, 0, &vec![3; 1 << 20], 0).unwrap();
    let mut sender = Client {
        stream: client.stream.try_clone().unwrap(),
        xid: 0,
        user: client.user.clone(),
    };
    let calls = 300;
    let writer = thread::spawn(move || {
        for xid in 0..calls {
            sender.xid = 10_000 + xid;
            let record = sender.encode(NFS, 3, 6, &Words::new().bytes(&file).long(0).int(1 << 20));
            sender.send(&record);
        }
    });
    let mut answered = vec![false; calls as usize];
    for _ in 0..calls {
        let reply = client.receive().unwrap();
        let xid = u32::from_be_bytes(reply[..4].try_into().unwrap());
        assert_eq!(reply.len(), 24 + 4 + 88 + 12 + (1 << 20));
        assert!(!std::mem::replace(&mut answered[(xid - 10_000) as usize], true));
    }
    writer.join().unwrap();
}
