use super::*;

/// `view/a/b/c` and `view/f`.
fn tree() -> (World, Inode, Inode, Inode) {
    let world = World::new();
    let a = world.directory(world.view, b"a");
    let b = world.directory(a, b"b");
    let c = world.directory(b, b"c");
    world.file(world.view, b"f");
    (world, a, b, c)
}

#[test]
fn directories_take_their_links_along() {
    let (world, a, b, c) = tree();
    world.rename((b, b"c"), (world.view, b"moved")).unwrap();
    assert_eq!([a, b, c, world.view].map(|inode| world.stat(inode).links), [3, 2, 2, 4]);
    assert_eq!(world.model.parent(c).unwrap().inode, world.view);
    world.rename((world.view, b"moved"), (world.view, b"again")).unwrap();
    assert_eq!(world.stat(world.view).links, 4);
}

#[test]
fn an_empty_directory_is_replaced() {
    let (world, a, _, c) = tree();
    let empty = world.directory(world.view, b"empty");
    world.rename((world.view, b"a"), (world.view, b"empty")).unwrap();
    assert_eq!(world.model.stat(empty).unwrap_err(), Errno::STALE);
    assert_eq!(world.model.lookup(world.view, b"empty").unwrap().inode, a);
    assert_eq!(world.stat(world.view).links, 3);
    let full = world.directory(world.view, b"full");
    world.file(full, b"x");
    assert_eq!(
        world.rename((world.view, b"empty"), (world.view, b"full")).unwrap_err(),
        Errno::NOTEMPTY
    );
    assert_eq!(world.stat(c).links, 2);
}

#[test]
fn kinds_must_agree() {
    let (world, a, ..) = tree();
    world.directory(world.view, b"d");
    assert_eq!(world.rename((world.view, b"f"), (world.view, b"d")).unwrap_err(), Errno::ISDIR);
    assert_eq!(world.rename((world.view, b"d"), (world.view, b"f")).unwrap_err(), Errno::NOTDIR);
    assert_eq!(world.rename((world.view, b"none"), (world.view, b"f")).unwrap_err(), Errno::NOENT);
    assert_eq!(world.rename((a, b"b"), (world.view, b"a")).unwrap_err(), Errno::NOTEMPTY);
}

#[test]
fn a_directory_never_enters_itself() {
    let (world, a, b, c) = tree();
    for (place, name) in [(a, &b"x"[..]), (b, b"x"), (c, b"x"), (b, b"c")] {
        assert_eq!(world.rename((world.view, b"a"), (place, name)).unwrap_err(), Errno::INVAL);
    }
    assert_eq!(
        world.model.rename((b, b"c"), (world.view, b"a"), Replace::Exchange).unwrap_err(),
        Errno::INVAL
    );
    assert_eq!(
        world.model.rename((world.view, b"a"), (b, b"c"), Replace::Exchange).unwrap_err(),
        Errno::INVAL
    );
}

#[test]
fn a_file_replaces_a_file() {
    let (world, a, ..) = tree();
    let replaced = world.file(a, b"g");
    world.model.open(replaced).unwrap();
    world.model.link(replaced, a, b"h").unwrap();
    assert_eq!(world.moved(replaced, || world.rename((world.view, b"f"), (a, b"g")).unwrap()), "c");
    assert_eq!(world.stat(replaced).links, 1);
    world.rename((a, b"g"), (a, b"h")).unwrap();
    assert_eq!(world.stat(replaced).links, 0);
    world.model.close(replaced);
    assert_eq!(world.model.stat(replaced).unwrap_err(), Errno::STALE);
}

#[test]
fn two_names_of_one_file_stay() {
    let (world, a, ..) = tree();
    let file = world.model.lookup(world.view, b"f").unwrap().inode;
    world.model.link(file, a, b"g").unwrap();
    assert_eq!(world.moved(file, || world.rename((world.view, b"f"), (a, b"g")).unwrap()), "");
    assert_eq!(
        world.moved(a, || world.model.rename((world.view, b"f"), (a, b"g"), Replace::Exchange).unwrap()),
        ""
    );
    assert_eq!(
        world.model.rename((world.view, b"f"), (a, b"g"), Replace::No).unwrap_err(),
        Errno::EXIST
    );
    assert_eq!(world.stat(file).links, 2);
    world.rename((world.view, b"f"), (world.view, b"f")).unwrap();
}

#[test]
fn exchange_swaps_whatever_is_there() {
    let (world, a, b, c) = tree();
    let file = world.model.lookup(world.view, b"f").unwrap().inode;
    assert_eq!(
        world.model.rename((world.view, b"f"), (a, b"none"), Replace::Exchange).unwrap_err(),
        Errno::NOENT
    );
    world.model.rename((world.view, b"f"), (b, b"c"), Replace::Exchange).unwrap();
    assert_eq!(world.model.lookup(b, b"c").unwrap().inode, file);
    assert_eq!(world.model.parent(c).unwrap().inode, world.view);
    assert_eq!([world.view, b].map(|inode| world.stat(inode).links), [4, 2]);
    let d = world.directory(a, b"d");
    world.model.rename((world.view, b"f"), (a, b"d"), Replace::Exchange).unwrap();
    assert_eq!([c, d].map(|inode| world.model.parent(inode).unwrap().inode), [a, world.view]);
}

#[test]
fn view_roots_stay_apart_and_in_place() {
    let (world, ..) = tree();
    let other = world.directory(ROOT, b"other");
    world.directory(other, b"a");
    assert_eq!(world.rename((ROOT, b"view"), (ROOT, b"new")).unwrap_err(), Errno::PERM);
    assert_eq!(world.rename((ROOT, b"view"), (other, b"new")).unwrap_err(), Errno::PERM);
    assert_eq!(world.rename((world.view, b"f"), (other, b"f")).unwrap_err(), Errno::XDEV);
    assert_eq!(world.rename((world.view, b"a"), (ROOT, b"a")).unwrap_err(), Errno::XDEV);
    assert_eq!(world.rename((world.view, b"a"), (ROOT, b"other")).unwrap_err(), Errno::XDEV);
    assert_eq!(
        world
            .model
            .rename((world.view, b"a"), (other, b"a"), Replace::Exchange)
            .unwrap_err(),
        Errno::XDEV
    );
}

#[test]
fn renames_move_times() {
    let (world, a, b, c) = tree();
    assert_eq!(world.moved(c, || world.rename((b, b"c"), (a, b"c")).unwrap()), "c");
    assert_eq!(world.moved(a, || world.rename((a, b"c"), (b, b"c")).unwrap()), "mc");
    assert_eq!(world.moved(a, || world.rename((b, b"c"), (a, b"c")).unwrap()), "mc");
    let file = world.model.lookup(world.view, b"f").unwrap().inode;
    let exchange = || world.model.rename((world.view, b"f"), (a, b"c"), Replace::Exchange).unwrap();
    assert_eq!(world.moved(file, exchange), "c");
    assert_eq!(world.moved(c, exchange), "c");
    assert_eq!(world.moved(world.view, exchange), "mc");
    assert_eq!(world.moved(a, exchange), "mc");
    assert_eq!(world.moved(b, exchange), "");
}

#[test]
fn a_renamed_entry_is_listed_after_all_others() {
    let (world, ..) = tree();
    let first = world.model.list(world.view, 0, 1).unwrap();
    world.rename((world.view, b"a"), (world.view, b"z")).unwrap();
    let rest = world.model.list(world.view, first[0].cookie, 9).unwrap();
    assert_eq!(rest.iter().map(|entry| &entry.name[..]).collect::<Vec<_>>(), [b"f", b"z"]);
}

#[test]
fn a_rename_needs_no_room() {
    let world = World::with_room(3 << 10);
    let mut made = 0_u32;
    while world
        .model
        .create(world.view, format!("{made}").as_bytes(), New::File, 0, USER)
        .is_ok()
    {
        made += 1;
    }
    assert!(world.rename((world.view, b"0"), (world.view, &[b'n'; NAME_BYTES_MAX])).is_ok());
}
