use super::*;

#[test]
fn names_have_limits() {
    let world = World::new();
    let model = &world.model;
    let long = [b'n'; NAME_BYTES_MAX + 1];
    assert_eq!(model.create(world.view, &long, New::File, 0, USER).unwrap_err(), Errno::NAMETOOLONG);
    assert!(model.create(world.view, &long[1..], New::File, 0, USER).is_ok());
    for name in [&b""[..], b".", b"..", b"a/b", b"a\0"] {
        assert_eq!(model.lookup(world.view, name).unwrap_err(), Errno::INVAL);
        assert_eq!(model.create(world.view, name, New::File, 0, USER).unwrap_err(), Errno::INVAL);
    }
    assert!(model.create(world.view, b"\xff\n", New::File, 0, USER).is_ok());
}

#[test]
fn targets_have_limits() {
    let world = World::new();
    let make = |target: &[u8]| world.model.create(world.view, b"s", New::Symlink(target), 0o777, USER);
    assert_eq!(make(&[b't'; TARGET_BYTES_MAX + 1]).unwrap_err(), Errno::NAMETOOLONG);
    assert_eq!(make(b"").unwrap_err(), Errno::NOENT);
    let made = make(&[b't'; TARGET_BYTES_MAX]).unwrap();
    assert_eq!(made.size, TARGET_BYTES_MAX as u64);
    assert_eq!(world.model.read_link(made.inode).unwrap(), [b't'; TARGET_BYTES_MAX]);
    assert_eq!(world.model.read_link(world.view).unwrap_err(), Errno::INVAL);
}

#[test]
fn the_root_holds_directories_only() {
    let world = World::new();
    let model = &world.model;
    assert_eq!(model.create(ROOT, b"f", New::File, 0, USER).unwrap_err(), Errno::PERM);
    assert_eq!(model.create(ROOT, b"view", New::File, 0, USER).unwrap_err(), Errno::EXIST);
    assert_eq!(model.create_unnamed(ROOT, 0, USER).unwrap_err(), Errno::PERM);
    let file = world.file(world.view, b"f");
    assert_eq!(model.link(file, ROOT, b"f").unwrap_err(), Errno::XDEV);
    assert_eq!(model.parent(ROOT).unwrap().inode, ROOT);
    assert_eq!(model.remove_directory(ROOT, b"view").unwrap_err(), Errno::NOTEMPTY);
}

#[test]
fn directories_count_their_directories() {
    let world = World::new();
    let inner = world.directory(world.view, b"inner");
    world.file(world.view, b"file");
    assert_eq!((world.stat(inner).links, world.stat(world.view).links), (2, 3));
    assert_eq!(world.model.unlink(world.view, b"inner").unwrap_err(), Errno::ISDIR);
    assert_eq!(world.model.remove_directory(world.view, b"file").unwrap_err(), Errno::NOTDIR);
    world.model.remove_directory(world.view, b"inner").unwrap();
    assert_eq!(world.stat(world.view).links, 2);
    assert_eq!(world.model.stat(inner).unwrap_err(), Errno::STALE);
    assert_eq!(world.model.lookup(world.view, b"inner").unwrap_err(), Errno::NOENT);
    assert_eq!(
        world
            .model
            .lookup(world.model.lookup(world.view, b"file").unwrap().inode, b"x")
            .unwrap_err(),
        Errno::NOTDIR
    );
}

#[test]
fn set_gid_directories_pass_their_group_on() {
    let world = World::new();
    let shared = Changes {
        mode: Some(0o2775),
        gid: Some(7),
        ..Changes::default()
    };
    world.model.change(world.view, &shared).unwrap();
    let file = world.stat(world.file(world.view, b"f"));
    let directory = world.stat(world.directory(world.view, b"d"));
    assert_eq!((file.gid, file.mode), (7, 0o755));
    assert_eq!((directory.gid, directory.mode), (7, 0o2755));
    assert_eq!(world.model.create_unnamed(world.view, 0o600, USER).unwrap().gid, 7);
}

#[test]
fn links_share_one_file() {
    let world = World::new();
    let file = world.file(world.view, b"a");
    let inner = world.directory(world.view, b"d");
    assert_eq!(world.model.link(file, inner, b"b").unwrap().links, 2);
    assert_eq!(world.model.link(file, inner, b"b").unwrap_err(), Errno::EXIST);
    assert_eq!(world.model.link(inner, inner, b"c").unwrap_err(), Errno::PERM);
    world.model.unlink(world.view, b"a").unwrap();
    assert_eq!(world.model.lookup(inner, b"b").unwrap().links, 1);
    let other = world.directory(ROOT, b"other");
    assert_eq!(world.model.link(file, other, b"b").unwrap_err(), Errno::XDEV);
}

#[test]
fn links_are_bounded() {
    let world = World::new();
    let file = world.file(world.view, b"f");
    for index in 1..LINKS_MAX {
        world.model.link(file, world.view, format!("{index}").as_bytes()).unwrap();
    }
    assert_eq!(world.model.link(file, world.view, b"last").unwrap_err(), Errno::MLINK);
    world.model.unlink(world.view, b"1").unwrap();
    assert_eq!(world.model.link(file, world.view, b"last").unwrap().links, LINKS_MAX);
}

#[test]
fn what_is_open_outlives_its_names() {
    let world = World::new();
    let file = world.file(world.view, b"f");
    world.model.write(file, 0, b"kept", false).unwrap();
    world.model.open(file).unwrap();
    world.model.open(file).unwrap();
    world.model.unlink(world.view, b"f").unwrap();
    world.model.close(file);
    assert_eq!(world.stat(file).links, 0);
    assert_eq!(world.model.read(file, 0, 10).unwrap(), b"kept");
    world.model.close(file);
    assert_eq!(world.model.read(file, 0, 10).unwrap_err(), Errno::STALE);
    world.model.close(file);
}

#[test]
fn a_removed_directory_that_is_open_stays_empty() {
    let world = World::new();
    let inner = world.directory(world.view, b"d");
    let file = world.file(world.view, b"f");
    world.model.open(inner).unwrap();
    world.model.remove_directory(world.view, b"d").unwrap();
    assert_eq!(world.stat(inner).links, 0);
    assert!(world.names(inner).is_empty());
    assert_eq!(world.model.create(inner, b"x", New::File, 0, USER).unwrap_err(), Errno::NOENT);
    assert_eq!(world.model.create_unnamed(inner, 0, USER).unwrap_err(), Errno::NOENT);
    assert_eq!(world.model.link(file, inner, b"x").unwrap_err(), Errno::NOENT);
    assert_eq!(world.rename((world.view, b"f"), (inner, b"x")).unwrap_err(), Errno::NOENT);
    world.model.close(inner);
    assert_eq!(world.model.stat(inner).unwrap_err(), Errno::STALE);
}

#[test]
fn an_unnamed_file_lives_by_its_open_or_its_link() {
    let world = World::new();
    let gone = world.model.create_unnamed(world.view, 0o600, USER).unwrap();
    assert_eq!(gone.links, 0);
    world.model.close(gone.inode);
    assert_eq!(world.model.stat(gone.inode).unwrap_err(), Errno::STALE);
    let kept = world.model.create_unnamed(world.view, 0o600, USER).unwrap().inode;
    assert_eq!(world.model.link(kept, world.view, b"kept").unwrap().links, 1);
    world.model.close(kept);
    assert_eq!(world.model.lookup(world.view, b"kept").unwrap().inode, kept);
}

#[test]
fn a_listing_goes_on_after_its_cookie_whatever_happens() {
    let world = World::new();
    for name in [b"a", b"b", b"c", b"d"] {
        world.file(world.view, name);
    }
    let first = world.model.list(world.view, 0, 2).unwrap();
    world.model.unlink(world.view, b"b").unwrap();
    world.model.unlink(world.view, b"c").unwrap();
    world.file(world.view, b"b");
    let rest = world.model.list(world.view, first[1].cookie, 10).unwrap();
    assert_eq!(rest.iter().map(|entry| &entry.name[..]).collect::<Vec<_>>(), [b"d", b"b"]);
    assert_eq!(world.stat(rest[0].node.inode), rest[0].node);
    assert!(world.model.list(world.view, rest[1].cookie, 10).unwrap().is_empty());
}

#[test]
fn names_move_times() {
    let world = World::new();
    let file = world.file(world.view, b"f");
    assert_eq!(world.moved(world.view, || world.file(world.view, b"g")), "mc");
    assert_eq!(world.moved(world.view, || world.model.link(file, world.view, b"h")), "mc");
    assert_eq!(world.moved(file, || world.model.link(file, world.view, b"i")), "c");
    assert_eq!(world.moved(file, || world.model.unlink(world.view, b"i").unwrap()), "c");
    assert_eq!(world.moved(world.view, || world.model.unlink(world.view, b"h").unwrap()), "mc");
    assert_eq!(world.moved(world.view, || world.names(world.view)), "");
    assert_eq!(world.moved(world.view, || world.model.note_access(world.view)), "a");
    world.directory(world.view, b"d");
    assert_eq!(
        world.moved(world.view, || world.model.remove_directory(world.view, b"d").unwrap()),
        "mc"
    );
    assert_eq!(world.moved(world.view, || world.model.unlink(world.view, b"nothing")), "");
}

#[test]
fn room_ends_and_comes_back() {
    let world = World::with_room(64 << 10);
    let file = world.file(world.view, b"f");
    let before = world.model.statistics().unwrap();
    assert_eq!(world.model.write(file, 0, &[1; 64 << 10], false).unwrap_err(), Errno::NOSPC);
    assert_eq!(world.model.statistics().unwrap(), before);
    world.model.write(file, 0, &[1; 56 << 10], false).unwrap();
    let mut made = 0_u32;
    while world
        .model
        .create(world.view, format!("{made}").as_bytes(), New::File, 0, USER)
        .is_ok()
    {
        made += 1;
    }
    assert!(made > 4);
    assert_eq!(
        world
            .model
            .change(
                file,
                &Changes {
                    size: Some(0),
                    ..Changes::default()
                }
            )
            .unwrap()
            .allocated,
        0
    );
    for index in 0..made {
        world.model.unlink(world.view, format!("{index}").as_bytes()).unwrap();
    }
    assert_eq!(world.model.statistics().unwrap(), before);
}

#[test]
fn a_fork_goes_its_own_way() {
    let world = World::new();
    let file = world.file(world.view, b"f");
    let fork = world.model.fork();
    world.model.write(file, 0, b"changed", false).unwrap();
    assert_eq!(fork.stat(file).unwrap().size, 0);
}
