//! `.keys`.

use super::*;
use crate::device::random::Seeded;
use crate::element::aside::{POLICY, POLICY_POSIX};
use crate::filesystem::{Changes, Replace, Type, XattrMode};

fn keys_of(world: &World) -> Inode {
    world.find(b".keys").unwrap()
}

fn names(world: &World, directory: Inode) -> Vec<String> {
    let entries = world.entries(directory);
    let mut names: Vec<String> = entries
        .iter()
        .map(|entry| String::from_utf8_lossy(&entry.name).into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn what_has_no_path_is_found_in_keys() {
    let world = World::new();
    let fs = world.fs();
    let long = [b"dir/".as_slice(), &[b'n'; 256]].concat();
    let odd: [&[u8]; 9] = [b"a//b", b"./x", b"..", b"/lead", b"x/../y", b".keys/z", b".keys", b"a//", &long];
    for key in odd {
        world.put(key, key);
    }
    world.put(b"a/b", b"plain");
    world.put(b"a/", b"");
    world.put(b"b/", b"a marker with content");
    assert_eq!(names(&world, world.view), ["a", "b", "dir", "x"].map(String::from));
    // What holds only keys without a path looks empty, and cannot be removed: nothing is lost by a name that nobody sees.
    assert_eq!(names(&world, world.find(b"dir").unwrap()), Vec::<String>::new());
    assert_eq!(fs.remove_directory(world.view, b"dir"), Err(Errno::NOTEMPTY));
    let aside = keys_of(&world);
    let node = fs.stat(aside).unwrap();
    assert_eq!((node.kind, node.links), (Type::Directory, 2));
    assert_eq!(fs.parent(aside).unwrap().inode, world.view);
    let found = world.entries(aside);
    let mut contents: Vec<Vec<u8>> = found.iter().map(|entry| fs.read(entry.node.inode, 0, 4096).unwrap()).collect();
    contents.sort();
    let mut expected: Vec<Vec<u8>> = odd.iter().map(|key| key.to_vec()).collect();
    expected.push(b"a marker with content".to_vec());
    expected.sort();
    assert_eq!(contents, expected);
    for entry in found {
        assert_eq!(fs.lookup(aside, &entry.name).unwrap(), entry.node);
    }
    assert!(names(&world, aside).contains(&"a%2F%2Fb".to_owned()));
    // A mere marker is not listed, but it is there; what has a path is not.
    assert_eq!(fs.lookup(aside, b"a%2F").unwrap().size, 0);
    assert_eq!(fs.lookup(aside, b"a%2Fb"), Err(Errno::NOENT));
    world.check();
}

#[test]
fn a_file_behind_a_directory_of_its_name_comes_back() {
    let world = World::new();
    let fs = world.fs();
    let object = world.put(b"a", b"object");
    world.put(b"a/b", b"below");
    assert_eq!(names(&world, keys_of(&world)), ["a"].map(String::from));
    assert_eq!(fs.lookup(world.view, b"a").unwrap().kind, Type::Directory);
    assert_eq!(fs.lookup(keys_of(&world), b"a").unwrap().inode, object.id);
    // The directory goes by another name, and comes again.
    fs.rename((world.view, b"a"), (world.view, b"z"), Replace::Yes).unwrap();
    assert_eq!(fs.lookup(world.view, b"a").unwrap().inode, object.id);
    assert_eq!(names(&world, keys_of(&world)), Vec::<String>::new());
    world.check();
    world.put(b"a/", b"");
    assert_eq!(names(&world, keys_of(&world)), ["a"].map(String::from));
    world.delete(b"a/");
    assert_eq!(fs.lookup(world.view, b"a").unwrap().inode, object.id);
    // A symlink that S3 puts a directory before is not lost either.
    fs.create(world.view, b"link", New::Symlink(b"a"), 0o777, USER).unwrap();
    world.put(b"link/x", b"");
    assert_eq!(names(&world, keys_of(&world)), ["link"].map(String::from));
    world.delete(b"link/x");
    assert_eq!(fs.lookup(world.view, b"link").unwrap().kind, Type::Symlink);
    world.check();
}

#[test]
fn files_in_keys_are_files() {
    let world = World::new();
    let fs = world.fs();
    world.put(b"a//b", b"before");
    let aside = keys_of(&world);
    let inode = fs.lookup(aside, b"a%2F%2Fb").unwrap().inode;
    fs.write(inode, 0, b"after!", false).unwrap();
    fs.set_xattr(inode, b"user.s3.meta.colour", b"blue", XattrMode::Any).unwrap();
    assert_eq!(world.objects()[&b"a//b"[..]], b"after!");
    // Linked under a path, it outlives its key.
    fs.link(inode, world.view, b"linked").unwrap();
    fs.unlink(aside, b"a%2F%2Fb").unwrap();
    assert_eq!(world.objects().into_keys().collect::<Vec<_>>(), [b"linked".to_vec()]);
    assert_eq!(names(&world, world.view), ["linked"].map(String::from));
    assert_eq!(fs.unlink(aside, b"a%2F%2Fb"), Err(Errno::NOENT));
    world.check();
}

#[test]
fn nothing_is_made_or_moved_in_keys() {
    let world = World::new();
    let fs = world.fs();
    world.put(b"a//b", b"x");
    let (aside, view) = (keys_of(&world), world.view);
    let file = fs.create(view, b"file", New::File, 0o644, USER).unwrap().inode;
    let name: &[u8] = b"a%2F%2Fb";
    assert_eq!(fs.create(aside, b"new", New::Directory, 0o755, USER), Err(Errno::PERM));
    assert_eq!(fs.create(aside, b"new", New::File, 0o644, USER), Err(Errno::PERM));
    assert_eq!(fs.create_unnamed(aside, 0o644, USER), Err(Errno::PERM));
    assert_eq!(fs.link(file, aside, b"new"), Err(Errno::PERM));
    assert_eq!(fs.remove_directory(aside, name), Err(Errno::NOTDIR));
    assert_eq!(fs.rename((aside, name), (view, b"out"), Replace::Yes), Err(Errno::PERM));
    assert_eq!(fs.rename((view, b"file"), (aside, b"in"), Replace::Yes), Err(Errno::PERM));
    assert_eq!(fs.rename((view, b"file"), (view, b".keys"), Replace::Yes), Err(Errno::PERM));
    assert_eq!(fs.rename((view, b".keys"), (view, b"other"), Replace::Yes), Err(Errno::PERM));
    assert_eq!(fs.create(view, b".keys", New::Directory, 0o755, USER), Err(Errno::EXIST));
    assert_eq!(fs.link(file, view, b".keys"), Err(Errno::EXIST));
    assert_eq!(fs.unlink(view, b".keys"), Err(Errno::ISDIR));
    assert_eq!(fs.remove_directory(view, b".keys"), Err(Errno::PERM));
    assert_eq!(
        fs.change(
            aside,
            &Changes {
                mode: Some(0),
                ..Changes::default()
            }
        ),
        Err(Errno::PERM)
    );
    assert_eq!(fs.set_xattr(aside, b"user.a", b"", XattrMode::Any), Err(Errno::PERM));
    // Elsewhere it is a name like others.
    let below = fs.create(view, b"d", New::Directory, 0o755, USER).unwrap().inode;
    fs.create(below, b".keys", New::Directory, 0o755, USER).unwrap();
    assert_eq!(fs.lookup(ROOT, b".keys"), Err(Errno::NOENT));
    world.check();
}

#[test]
fn a_view_of_posix_names_refuses_what_has_no_path() {
    let world = World::with(BTreeMap::from([(POLICY.to_owned(), POLICY_POSIX.to_vec())]));
    let put = |key: &[u8], bytes: &[u8]| match world.put_as(key, bytes, Attributes::default(), Terms::default()) {
        Ok(_) => String::new(),
        Err(Error::Invalid(what) | Error::Conflict(what)) => what,
        Err(other) => panic!("{other}"),
    };
    for key in [&b"a//b"[..], b"./x", b"..", b"/lead", b".keys/z", b".keys", b"d//", &[b'n'; 256]] {
        assert_eq!(put(key, b"x"), "no path", "{}", String::from_utf8_lossy(key));
    }
    assert_eq!(put(b"marker/", b"content"), "no path");
    for key in [&b"marker/"[..], b"a", b"d/e/f", b"d/.keys/x", b"marker/"] {
        assert_eq!(put(key, b""), "");
    }
    assert_eq!(put(b"a/b", b""), "parent is file");
    assert_eq!(put(b"a/", b""), "parent is file");
    assert_eq!(put(b"d/e", b""), "is directory");
    world
        .store
        .as_ref()
        .create(world.view, b"made", New::Directory, 0o755, USER)
        .unwrap();
    assert_eq!(put(b"made", b""), "is directory");
    assert!(world.entries(keys_of(&world)).is_empty());
    world.check();
}

/// Parts of keys that meet each other, and what files and S3 do with them.
const PARTS: [&[u8]; 8] = [b"a", b"b", b"", b".", b"..", b".keys", b"a", b"nnnnnn"];

fn key(random: &mut Seeded) -> Vec<u8> {
    loop {
        let parts: Vec<&[u8]> = (0..=random.below(3)).map(|_| PARTS[random.below(8) as usize]).collect();
        let key = parts.join(&b'/');
        if !key.is_empty() {
            // Now and then a part that is too long for a file.
            return if random.chance(10) {
                [key.as_slice(), &[b'n'; 260]].concat()
            } else {
                key
            };
        }
    }
}

/// Every file below a directory with what leads to it.
fn walk(world: &World, directory: Inode, path: &[u8], into: &mut BTreeMap<Vec<u8>, Vec<u8>>) {
    for entry in world.entries(directory) {
        let below = [path, &entry.name].concat();
        match entry.node.kind {
            Type::Directory => walk(world, entry.node.inode, &[&below, &b"/"[..]].concat(), into),
            Type::File => drop(into.insert(below, world.fs().read(entry.node.inode, 0, 1 << 16).unwrap())),
            _ => {}
        }
    }
}

/// What S3 lists is what files find, under their paths or in `.keys`, each once.
fn compare(world: &World) {
    let mut reached = BTreeMap::new();
    walk(world, world.view, b"", &mut reached);
    let mut objects = world.objects();
    for (path, bytes) in reached {
        assert_eq!(objects.remove(&path), Some(bytes), "{}", String::from_utf8_lossy(&path));
    }
    let mut aside: Vec<Vec<u8>> = Vec::new();
    for entry in world.entries(keys_of(world)) {
        aside.push(world.fs().read(entry.node.inode, 0, 1 << 16).unwrap());
    }
    // Content is its key, so that it names itself; mere markers are directories.
    let mut left: Vec<Vec<u8>> = objects.into_values().filter(|bytes| !bytes.is_empty()).collect();
    aside.retain(|bytes| !bytes.is_empty());
    aside.sort();
    left.sort();
    let shown = |all: &[Vec<u8>]| {
        all.iter()
            .map(|key| String::from_utf8_lossy(&key[..key.len().min(20)]).into_owned())
            .collect::<Vec<_>>()
    };
    assert!(aside == left, "{:?} in .keys, {:?} without a path", shown(&aside), shown(&left));
}

#[test]
fn whatever_s3_and_files_do_every_key_is_reached_once() {
    for seed in 0..6 {
        let (world, mut random) = (World::new(), Seeded::new(seed));
        let fs = world.fs();
        for step in 0..400 {
            let one = key(&mut random);
            match random.below(10) {
                0..4 => drop(world.put(&one, &one)),
                4 => drop(world.put(&[one.as_slice(), b"/"].concat(), if random.chance(2) { b"" } else { &one })),
                5..7 => world.delete(&one),
                7 => {
                    let (from, to) = (PARTS[random.below(2) as usize], PARTS[random.below(2) as usize]);
                    let into = world.find(b"a").unwrap_or(world.view);
                    let _may_fail = fs.rename((world.view, from), (into, to), Replace::Yes);
                }
                8 => {
                    let aside = keys_of(&world);
                    let entries = world.entries(aside);
                    if !entries.is_empty() {
                        fs.unlink(aside, &entries[random.below(entries.len() as u64) as usize].name)
                            .unwrap();
                    }
                }
                _ => {
                    let _may_fail = fs.unlink(world.view, b"a").or_else(|_| fs.remove_directory(world.view, b"b"));
                    let _may_fail = fs.create(world.view, b"b", New::Directory, 0o755, USER);
                }
            }
            if step % 20 == 0 {
                world.check();
                compare(&world);
            }
        }
        world.check();
        compare(&world);
    }
}
