//! Every procedure of NFS, MOUNT and the port mapper, as a client sees it.

mod support;

use support::World;
use support::client::*;
use trefoil_core::filesystem::FileSystem;

#[test]
fn the_port_mapper_knows_what_is_served() {
    let world = World::trusting();
    let mut client = world.client();
    client.call(PORTMAP, 0, Words::new()).done();
    let port = u32::from(world.address().port());
    for (program, transport, expected) in [(NFS, 6, port), (MOUNT, 6, port), (NFS, 17, 0), (100_227, 6, 0)] {
        let mut results = client.call(PORTMAP, 3, Words::new().int(program).int(3).int(transport).int(0));
        assert_eq!(results.int(), expected);
        results.done();
    }
    let mut results = client.call(PORTMAP, 4, Words::new());
    let mut programs = Vec::new();
    while results.int() == 1 {
        programs.push((results.int(), results.int(), results.int(), results.int()));
    }
    results.done();
    assert!(programs.contains(&(NFS, 3, 6, port)) && programs.contains(&(MOUNT, 3, 6, port)) && programs.contains(&(PORTMAP, 2, 6, port)));
}

#[test]
fn mounts_are_made_shown_and_forgotten() {
    let world = World::trusting();
    let mut client = world.client();
    client.call(MOUNT, 0, Words::new()).done();
    assert_eq!(client.mount("/view").unwrap(), client.mount("//view/./").unwrap());
    let mounts = |client: &mut Client| {
        let (mut results, mut mounts) = (client.call(MOUNT, 2, Words::new()), Vec::new());
        while results.int() == 1 {
            mounts.push((results.bytes(), results.bytes()));
        }
        mounts
    };
    assert_eq!(mounts(&mut client)[0], (b"127.0.0.1".to_vec(), b"/view".to_vec()));
    client.call(MOUNT, 3, Words::new().bytes(b"/view")).done();
    assert_eq!(mounts(&mut client).len(), 1);
    client.call(MOUNT, 4, Words::new()).done();
    assert!(mounts(&mut client).is_empty());
    let mut results = client.call(MOUNT, 5, Words::new());
    assert_eq!((results.int(), results.bytes()), (1, b"/view".to_vec()));
    assert_eq!((results.int(), results.bytes()), (1, b"127.0.0.0/8".to_vec()));
    assert_eq!((results.int(), results.bytes()), (1, b"::1/128".to_vec()));
    assert_eq!((results.int(), results.int()), (0, 0));
    results.done();
    assert_eq!(client.mount("/view/none"), Err(NOENT));
    assert_eq!(client.mount("/view/.."), Err(INVAL));
    assert_eq!(client.mount("/other"), Err(ACCES));
}

#[test]
fn a_directory_below_an_export_can_be_mounted() {
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let (closed, _) = client.mkdir(&root, "closed", 0o700).unwrap();
    let (inner, _) = client.mkdir(&closed, "inner", 0o777).unwrap();
    client.create(&closed, "file", &Set::default()).unwrap();
    assert_eq!(client.mount("/view/closed/inner").unwrap(), inner);
    assert_eq!(client.mount("/view/closed/file"), Err(NOTDIR));
    assert_eq!(world.client_as(5, 5, &[]).mount("/view/closed/inner"), Err(ACCES));
}

#[test]
fn files_are_written_and_read() {
    let world = World::trusting();
    let mut client = world.client();
    client.nfs(0, Words::new()).done();
    let root = client.mount("/view").unwrap();
    let (file, attributes) = client.create(&root, "file", &Set::mode(0o640)).unwrap();
    assert_eq!(
        (attributes.kind, attributes.mode, attributes.links, attributes.size),
        (1, 0o640, 1, 0)
    );
    assert_eq!(attributes.fsid, support::FSID);
    let content: Vec<u8> = (0..100_001_u32).map(|index| (index * 7 % 251) as u8).collect();
    let (how, _, wcc) = client.write(&file, 0, &content, 0).unwrap();
    assert_eq!((how, wcc.before.unwrap().0, wcc.after.unwrap().size), (0, 0, 100_001));
    assert_eq!(client.write(&file, 5, b"12345", 2).unwrap().0, 2);
    assert_eq!(client.write(&file, 100_001, b"", 1).unwrap().0, 2);
    let (bytes, end) = client.read(&file, 0, 1 << 20).unwrap();
    assert!(end && bytes[5..10] == *b"12345" && bytes[10..] == content[10..]);
    for (offset, count, length, ended) in [
        (0, 10, 10, false),
        (100_000, 1, 1, true),
        (99_999, 10, 2, true),
        (100_001, 9, 0, true),
        (7, 0, 0, false),
    ] {
        let (bytes, end) = client.read(&file, offset, count).unwrap();
        assert_eq!((bytes.len(), end), (length, ended), "{offset} {count}");
    }
    assert_eq!(client.read(&file, u64::MAX, 10).unwrap(), (Vec::new(), true));
    assert!(client.write(&file, u64::MAX - 3, b"12345", 0).is_err());
    assert_eq!(client.read(&root, 0, 10), Err(ISDIR));
    assert_eq!(client.write(&root, 0, b"x", 0).map(drop), Err(ISDIR));
    assert_eq!(client.commit(&root), Err(ISDIR));
}

#[test]
fn a_transfer_has_its_largest_size() {
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let (file, _) = client.create(&root, "file", &Set::default()).unwrap();
    let content: Vec<u8> = (0..1 << 20_u32).map(|index: u32| (index % 253) as u8).collect();
    for number in 0..4 {
        client.write(&file, number << 20, &content, 0).unwrap();
    }
    for number in 0..4 {
        assert_eq!(client.read(&file, number << 20, u32::MAX).unwrap(), (content.clone(), number == 3));
    }
}

#[test]
fn names_are_looked_up() {
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let (directory, attributes) = client.mkdir(&root, "directory", 0o755).unwrap();
    assert_eq!((attributes.kind, attributes.links), (2, 2));
    let (file, _) = client.create(&directory, "file", &Set::default()).unwrap();
    assert_eq!(client.lookup(&directory, "file").unwrap().0, file);
    assert_eq!(client.lookup(&directory, ".").unwrap().0, directory);
    assert_eq!(client.lookup(&directory, "..").unwrap().0, root);
    assert_eq!(client.lookup(&root, "..").unwrap().0, root, "nothing above the export");
    assert_eq!(client.lookup(&root, "none").map(drop), Err(NOENT));
    assert_eq!(client.lookup(&file, "x").map(drop), Err(NOTDIR));
    assert_eq!(client.lookup(&root, "x".repeat(256)).map(drop), Err(NAMETOOLONG));
    assert_eq!(client.lookup(&root, "x".repeat(255)).map(drop), Err(NOENT));
    assert_eq!(client.lookup(&root, "a/b").map(drop), Err(INVAL));
    assert_eq!(client.lookup(&root, "").map(drop), Err(INVAL));
}

#[test]
fn every_kind_of_thing_is_made() {
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let (link, attributes) = client.symlink(&root, "symlink", "to/where").unwrap();
    assert_eq!((attributes.kind, attributes.size), (5, 8));
    assert_eq!(client.readlink(&link).unwrap(), b"to/where");
    assert_eq!(client.readlink(&root), Err(INVAL));
    for (name, kind, device) in [
        ("block", 3, (8, 17)),
        ("character", 4, (1, 3)),
        ("socket", 6, (0, 0)),
        ("fifo", 7, (0, 0)),
    ] {
        let (_, attributes) = client.mknod(&root, name, kind, device).unwrap();
        assert_eq!((attributes.kind, attributes.device, attributes.mode), (kind, device, 0o644));
        assert_eq!(client.mknod(&root, name, kind, device).map(drop), Err(EXIST));
    }
    assert_eq!(client.mknod(&root, "x", 1, (0, 0)).map(drop), Err(BADTYPE));
    for name in [".", ".."] {
        assert_eq!(client.mkdir(&root, name, 0o755).map(drop), Err(EXIST));
        assert_eq!(client.create(&root, name, &Set::default()).map(drop), Err(EXIST));
    }
    let mut other = world.client_as(5, 5, &[]);
    assert_eq!(other.mknod(&root, "device", 4, (1, 3)).map(drop), Err(PERM));
    assert_eq!(other.mknod(&root, "pipe", 7, (0, 0)).unwrap().1.uid, 5);
}

#[test]
fn create_has_three_ways() {
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let (file, _) = client.create_guarded(&root, "file", &Set::mode(0o600)).unwrap();
    client.write(&file, 0, b"content", 2).unwrap();
    assert_eq!(client.create_guarded(&root, "file", &Set::default()).map(drop), Err(EXIST));
    let (again, attributes) = client.create(&root, "file", &Set::mode(0o777)).unwrap();
    assert_eq!((again, attributes.mode, attributes.size), (file.clone(), 0o600, 7));
    assert_eq!(client.create(&root, "file", &Set::size(0)).unwrap().1.size, 0);
    client.mkdir(&root, "directory", 0o755).unwrap();
    assert_eq!(client.create(&root, "directory", &Set::default()).map(drop), Err(ISDIR));
    let times = Set {
        size: Some(10),
        uid: Some(3),
        modified: Some(Some((5, 6))),
        accessed: Some(None),
        ..Set::mode(0o4755)
    };
    let (_, attributes) = client.create(&root, "complete", &times).unwrap();
    assert_eq!(
        (attributes.size, attributes.uid, attributes.mode, attributes.modified),
        (10, 3, 0o4755, (5, 6))
    );
    assert!(attributes.accessed.0 > 1_500_000_000);
    assert_eq!(client.create_guarded(&root, "complete", &times).map(drop), Err(EXIST));
}

#[test]
fn attributes_are_set() {
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let (file, _) = client.create(&root, "file", &Set::mode(0o644)).unwrap();
    let all = Set {
        uid: Some(7),
        gid: Some(8),
        size: Some(4097),
        accessed: Some(Some((1, 2))),
        modified: Some(Some((u32::MAX, 4))),
        ..Set::mode(0o711)
    };
    let (status, wcc) = client.setattr(&file, &all, None);
    assert_eq!((status, wcc.before.unwrap().0), (OK, 0));
    let attributes = client.getattr(&file).unwrap();
    assert_eq!(wcc.after, Some(attributes.clone()));
    assert_eq!(
        (attributes.uid, attributes.gid, attributes.size, attributes.mode),
        (7, 8, 4097, 0o711)
    );
    assert_eq!((attributes.accessed, attributes.modified), ((1, 2), (u32::MAX, 4)));
    let stale = (attributes.changed.0, attributes.changed.1 ^ 1);
    assert_eq!(client.setattr(&file, &Set::mode(0o600), Some(stale)).0, NOT_SYNC);
    assert_eq!(client.setattr(&file, &Set::mode(0o600), Some(attributes.changed)).0, OK);
    assert_eq!(client.getattr(&file).unwrap().mode, 0o600);
    assert_eq!(client.setattr(&root, &Set::size(0), None).0, ISDIR);
}

#[test]
fn names_are_removed_moved_and_added() {
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let (directory, _) = client.mkdir(&root, "directory", 0o755).unwrap();
    let (file, _) = client.create(&root, "file", &Set::default()).unwrap();
    let (status, attributes, wcc) = client.link(&file, &directory, "second");
    assert_eq!((status, attributes.unwrap().links, wcc.before.is_some()), (OK, 2, true));
    assert_eq!(client.link(&file, &directory, "second").0, EXIST);
    assert_eq!(client.link(&directory, &directory, "loop").0, PERM);
    let (status, [from, to]) = client.rename((&root, "file"), (&directory, "third"));
    assert_eq!((status, from.before.is_some(), to.before.is_some()), (OK, true, true));
    assert_eq!(client.lookup(&directory, "third").unwrap().0, file);
    assert_eq!(client.rename((&root, "none"), (&directory, "x")).0, NOENT);
    assert_eq!(client.rename((&root, "directory"), (&directory, "x")).0, INVAL);
    assert_eq!(client.rmdir(&root, "directory").0, NOTEMPTY);
    assert_eq!(client.remove(&root, "directory").0, ISDIR);
    assert_eq!(client.rmdir(&directory, "third").0, NOTDIR);
    let (status, wcc) = client.remove(&directory, "third");
    assert_eq!((status, wcc.before.is_some()), (OK, true));
    assert_eq!(client.remove(&directory, "third").0, NOENT);
    assert_eq!(client.getattr(&file).unwrap().links, 1);
    assert_eq!(client.remove(&directory, "second").0, OK);
    assert_eq!(client.getattr(&file), Err(STALE));
    assert_eq!(client.rmdir(&root, "directory").0, OK);
    assert_eq!(client.lookup(&directory, "x").map(drop), Err(STALE));
    assert_eq!(client.names(&root, 4096), [".", ".."]);
}

#[test]
fn what_changed_beside_an_operation_is_not_hidden_from_the_client() {
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let (_, wcc) = client.remove(&root, "none");
    let (before, after) = (wcc.before.unwrap(), wcc.after.unwrap());
    assert_eq!((before.1, before.2), (after.modified, after.changed));
    client.create(&root, "file", &Set::default()).unwrap();
    let (status, wcc) = client.remove(&root, "file");
    assert_eq!((status, wcc.before.is_some(), wcc.after.is_some()), (OK, true, true));
}

#[test]
fn directories_are_listed_in_pieces_of_any_size() {
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let mut expected: Vec<String> = (0..700).map(|number| format!("{}{number}", "n".repeat(number % 90))).collect();
    for name in &expected {
        client.create(&root, name, &Set::default()).unwrap();
    }
    expected.extend([".".to_owned(), "..".to_owned()]);
    expected.sort();
    for bytes in [600, 1000, 4096, 32768, u32::MAX] {
        let mut names = client.names(&root, bytes);
        names.sort();
        assert_eq!(names, expected, "{bytes}");
    }
    let (mut names, mut cookie) = (Vec::new(), 0);
    loop {
        let (entries, end) = client.readdir(&root, cookie, 512).unwrap();
        cookie = entries.last().unwrap().cookie;
        names.extend(entries.into_iter().map(Listed::text));
        if end {
            break;
        }
    }
    names.sort();
    assert_eq!(names, expected);
    let (entries, _) = client.readdirplus(&root, 0, 4096, 32768).unwrap();
    assert_eq!(entries.iter().take(2).map(|entry| entry.cookie).collect::<Vec<_>>(), [1, 2]);
    for entry in &entries {
        let attributes = client.getattr(entry.handle.as_ref().unwrap()).unwrap();
        assert_eq!((Some(&attributes), attributes.inode), (entry.attributes.as_ref(), entry.inode));
    }
    assert_eq!(client.readdir(&root, 0, 100).map(drop), Err(TOOSMALL));
    assert_eq!(
        client.readdirplus(&root, 0, 0, 4096).unwrap().0.len(),
        1,
        "a hint of nothing still lists something"
    );
    let (file, _) = client.create(&root, "file", &Set::default()).unwrap();
    assert_eq!(client.readdir(&file, 0, 4096).map(drop), Err(NOTDIR));
}

#[test]
fn a_listing_goes_on_where_it_was_while_entries_come_and_go() {
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let staying: Vec<String> = (0..200).map(|number| format!("stays{number}")).collect();
    for (number, name) in staying.iter().enumerate() {
        client.create(&root, name, &Set::default()).unwrap();
        client.create(&root, format!("goes{number}"), &Set::default()).unwrap();
    }
    let (mut seen, mut cookie, mut round) = (Vec::new(), 0, 0);
    loop {
        let (entries, end) = client.readdirplus(&root, cookie, 8192, 2048).unwrap();
        cookie = entries.last().map_or(cookie, |entry| entry.cookie);
        // What was listed last is removed too: its cookie still says where to go on.
        for entry in entries.iter().filter(|entry| entry.name.starts_with(b"goes")) {
            client.remove(&root, &entry.name);
        }
        client.remove(&root, format!("goes{}", 199 - round));
        client.create(&root, format!("comes{round}"), &Set::default()).unwrap();
        seen.extend(
            entries
                .into_iter()
                .map(|entry| entry.name)
                .filter(|name| name.starts_with(b"stays")),
        );
        round += 1;
        if end || round > 500 {
            break;
        }
    }
    assert_eq!(seen.len(), 200);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 200);
}

#[test]
fn the_file_system_says_how_it_is() {
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let statistics = world.fs.statistics().unwrap();
    let mut results = client.nfs(18, Words::new().bytes(&root));
    assert_eq!(results.int(), OK);
    assert!(results.maybe_attributes().is_some());
    assert_eq!(
        (results.long(), results.long(), results.long()),
        (statistics.total_bytes, statistics.free_bytes, statistics.free_bytes)
    );
    assert!((0..3).all(|_| results.long() > 0));
    assert_eq!(results.int(), 0);
    results.done();
    let mut results = client.nfs(19, Words::new().bytes(&root));
    assert_eq!((results.int(), results.maybe_attributes().is_some()), (OK, true));
    assert_eq!(
        (0..7).map(|_| results.int()).collect::<Vec<_>>(),
        [1 << 20, 1 << 20, 4096, 1 << 20, 1 << 20, 4096, 1 << 20]
    );
    assert_eq!((results.long(), results.int(), results.int(), results.int()), (1 << 60, 0, 1, 0x1b));
    results.done();
    let mut results = client.nfs(20, Words::new().bytes(&root));
    assert_eq!((results.int(), results.maybe_attributes().is_some()), (OK, true));
    assert_eq!((0..6).map(|_| results.int()).collect::<Vec<_>>(), [65_000, 255, 1, 1, 0, 1]);
    results.done();
}

#[test]
fn handles_that_are_none_are_bad() {
    let world = World::trusting();
    let mut client = world.client();
    let root = client.mount("/view").unwrap();
    let mut forged = root.clone();
    forged[27] ^= 1;
    for bad in [&forged[..], &root[..40], b"", &[0; 64]] {
        assert_eq!(client.getattr(bad), Err(BADHANDLE));
        assert_eq!(client.lookup(bad, "x").map(drop), Err(BADHANDLE));
        assert_eq!(client.write(bad, 0, b"x", 0).map(drop), Err(BADHANDLE));
        assert_eq!(client.rename((bad, "x"), (&root, "y")).0, BADHANDLE);
        assert_eq!(client.link(bad, &root, "y").0, BADHANDLE);
        assert_eq!(client.readdir(bad, 0, 4096).map(drop), Err(BADHANDLE));
    }
}

#[test]
fn what_is_not_served_is_said_not_to_be() {
    let world = World::trusting();
    let mut client = world.client();
    let mut answer = |program, version, procedure, arguments: &Words| {
        let record = client.encode(program, version, procedure, arguments);
        client.send(&record);
        client.receive().unwrap()[20..]
            .chunks(4)
            .map(|word| u32::from_be_bytes(word.try_into().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(answer(1, 1, 0, &Words::new()), [1]);
    assert_eq!(answer(NFS, 4, 0, &Words::new()), [2, 3, 3]);
    assert_eq!(answer(MOUNT, 1, 0, &Words::new()), [2, 3, 3]);
    assert_eq!(answer(NFS, 3, 22, &Words::new()), [3]);
    assert_eq!(answer(NFS, 3, 1, &Words::new().int(99)), [4]);
    let denied = |flavor: u32, version: u32| {
        let mut client = world.client();
        client.send(
            &Words::new()
                .int(1)
                .int(0)
                .int(version)
                .int(NFS)
                .int(3)
                .int(0)
                .int(flavor)
                .int(0)
                .int(0)
                .int(0)
                .0,
        );
        client.receive().unwrap()[8..]
            .chunks(4)
            .map(|word| u32::from_be_bytes(word.try_into().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(denied(6, 2), [1, 1, 2]);
    assert_eq!(denied(1, 2), [1, 1, 1]);
    assert_eq!(denied(0, 3), [1, 0, 2, 2]);
}
