use super::*;

fn change(world: &World, inode: Inode, changes: Changes) -> Node {
    world.model.change(inode, &changes).unwrap()
}

#[test]
fn changes_touch_what_they_name() {
    let world = World::new();
    let file = world.file(world.view, b"f");
    let node = change(
        &world,
        file,
        Changes {
            mode: Some(0o104_711),
            ..Changes::default()
        },
    );
    assert_eq!((node.mode, node.uid, node.gid), (0o4711, 1000, 100));
    let node = change(
        &world,
        file,
        Changes {
            uid: Some(1),
            accessed: Some(Time::At(-5)),
            ..Changes::default()
        },
    );
    assert_eq!((node.mode, node.uid, node.gid, node.accessed_ns), (0o4711, 1, 100, -5));
    assert_eq!(
        world.moved(file, || change(
            &world,
            file,
            Changes {
                gid: Some(2),
                ..Changes::default()
            }
        )),
        "c"
    );
    assert_eq!(
        world.moved(file, || change(
            &world,
            file,
            Changes {
                modified: Some(Time::Now),
                ..Changes::default()
            }
        )),
        "mc"
    );
    assert_eq!(
        world.moved(file, || change(
            &world,
            file,
            Changes {
                size: Some(9),
                ..Changes::default()
            }
        )),
        "mc"
    );
    assert_eq!(world.moved(file, || change(&world, file, Changes::default())), "");
}

#[test]
fn privileges_go_with_the_owner() {
    let world = World::new();
    let file = world.file(world.view, b"f");
    let directory = world.directory(world.view, b"d");
    let strip = Changes {
        uid: Some(5),
        strip_privileges: true,
        ..Changes::default()
    };
    for (before, after) in [(0o6755, 0o755), (0o6745, 0o2745), (0o6711, 0o711), (0o1755, 0o1755)] {
        change(
            &world,
            file,
            Changes {
                mode: Some(before),
                ..Changes::default()
            },
        );
        assert_eq!(change(&world, file, strip.clone()).mode, after);
    }
    change(
        &world,
        directory,
        Changes {
            mode: Some(0o6755),
            ..Changes::default()
        },
    );
    assert_eq!(change(&world, directory, strip).mode, 0o6755);
}

#[test]
fn a_size_is_for_files() {
    let world = World::new();
    let changes = Changes {
        size: Some(1),
        mode: Some(0),
        ..Changes::default()
    };
    assert_eq!(world.model.change(world.view, &changes).unwrap_err(), Errno::ISDIR);
    assert_eq!(world.stat(world.view).mode, 0o755);
    let fifo = world.make(world.view, b"p", New::Fifo);
    assert_eq!(world.model.change(fifo, &changes).unwrap_err(), Errno::INVAL);
    let file = world.file(world.view, b"f");
    let far = Changes {
        size: Some(FILE_BYTES_MAX + 1),
        ..changes
    };
    assert_eq!(world.model.change(file, &far).unwrap_err(), Errno::FBIG);
    assert_eq!(world.stat(file).mode, 0o755);
}

#[test]
fn xattrs_have_modes() {
    let world = World::new();
    let file = world.file(world.view, b"f");
    let model = &world.model;
    assert_eq!(model.xattr(file, b"user.a").unwrap_err(), Errno::NODATA);
    assert_eq!(
        model.set_xattr(file, b"user.a", b"1", XattrMode::Replace).unwrap_err(),
        Errno::NODATA
    );
    assert_eq!(
        world.moved(file, || model.set_xattr(file, b"user.a", b"1", XattrMode::Create).unwrap()),
        "c"
    );
    assert_eq!(model.set_xattr(file, b"user.a", b"2", XattrMode::Create).unwrap_err(), Errno::EXIST);
    model.set_xattr(file, b"user.a", b"", XattrMode::Any).unwrap();
    assert_eq!(model.xattr(file, b"user.a").unwrap(), b"");
    assert_eq!(model.xattrs(file).unwrap(), [b"user.a"]);
    assert_eq!(model.set_xattr(file, b"user.\xff", b"", XattrMode::Any).unwrap_err(), Errno::INVAL);
    assert_eq!(world.moved(file, || model.remove_xattr(file, b"user.a").unwrap()), "c");
    assert_eq!(model.remove_xattr(file, b"user.a").unwrap_err(), Errno::NODATA);
}

#[test]
fn xattrs_are_bounded_together() {
    let world = World::new();
    let half = vec![1; XATTR_BYTES_MAX / 2];
    let set = |name: &[u8]| world.model.set_xattr(world.view, name, &half, XattrMode::Any);
    set(b"user.a").unwrap();
    assert_eq!(set(b"user.b").unwrap_err(), Errno::NOSPC);
    set(b"user.a").unwrap();
}
