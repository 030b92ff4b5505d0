//! What the faces see of snapshots: `.snapshot` in directories, a read-only bucket, clones at paths.

use super::*;
use crate::element::snapshots::ALIAS;
use crate::filesystem::{Changes, Replace};

fn names(world: &World, directory: Inode) -> Vec<String> {
    let entries = world.fs().list(directory, 0, 100).unwrap();
    entries
        .into_iter()
        .map(|entry| String::from_utf8_lossy(&entry.name).into_owned())
        .collect()
}

fn at(world: &World, path: &str) -> std::result::Result<Inode, Errno> {
    path.split('/')
        .filter(|name| !name.is_empty())
        .try_fold(ROOT, |at, name| world.fs().lookup(at, name.as_bytes()).map(|node| node.inode))
}

fn content(world: &World, path: &str) -> Vec<u8> {
    world.fs().read(at(world, path).unwrap(), 0, 1 << 20).unwrap()
}

fn key_in(world: &World, bucket: &str, key: &[u8]) -> Result<Vec<u8>> {
    let content = world.store.open_content(bucket, key, None)?;
    content.read(0, content.element.row.size)
}

fn snapshot(world: &World, path: &str, name: &str) {
    world.store.create_snapshot(path.as_bytes(), name, 0).unwrap();
}

#[test]
fn files_find_snapshots_in_every_directory() {
    let world = World::new();
    world.put(b"a/b", b"old");
    snapshot(&world, "/bucket", "one");
    world.put(b"a/b", b"new");
    world.put(b"a/c", b"later");
    snapshot(&world, "bucket/a", "two");
    assert_eq!(names(&world, world.view), ["a"], "no listing shows them");
    assert_eq!(names(&world, at(&world, "bucket/.snapshot").unwrap()), ["one"]);
    let shown = at(&world, "bucket/a/.snapshot").unwrap();
    assert_eq!(names(&world, shown), ["one", "two"]);
    assert_eq!(names(&world, at(&world, "bucket/a/.snapshot/one").unwrap()), ["b"]);
    assert_eq!(content(&world, "bucket/a/.snapshot/one/b"), b"old");
    assert_eq!(content(&world, "bucket/.snapshot/one/a/b"), b"old");
    assert_eq!(content(&world, "bucket/a/.snapshot/two/b"), b"new");
    assert_eq!(
        at(&world, "bucket/.snapshot/one/a").unwrap(),
        at(&world, "bucket/a/.snapshot/one").unwrap()
    );
    assert_eq!(at(&world, "bucket/.snapshot/two"), Err(Errno::NOENT));
    assert_eq!(at(&world, "bucket/.snapshot/one/a/.snapshot"), Err(Errno::NOENT));
    assert_eq!(world.fs().stat(shown).unwrap().inode, shown);
    assert_eq!(world.fs().parent(shown).unwrap().inode, at(&world, "bucket/a").unwrap());
    world.store.delete_snapshot(b"/bucket", "one").unwrap();
    assert_eq!(names(&world, shown), ["two"]);
    assert_eq!(at(&world, "bucket/a/.snapshot/one"), Err(Errno::NOENT));
    world.check();
}

#[test]
fn nothing_in_a_snapshot_changes() {
    let world = World::new();
    world.put(b"a/b", b"old");
    snapshot(&world, "/bucket", "one");
    let (fs, shown) = (world.fs(), at(&world, "bucket/.snapshot").unwrap());
    let (directory, file) = (
        at(&world, "bucket/.snapshot/one/a").unwrap(),
        at(&world, "bucket/.snapshot/one/a/b").unwrap(),
    );
    let live = at(&world, "bucket/a").unwrap();
    for place in [shown, directory] {
        assert_eq!(fs.create(place, b"x", New::File, 0o644, USER).unwrap_err(), Errno::ROFS);
        assert_eq!(fs.create(place, b"x", New::Directory, 0o755, USER).unwrap_err(), Errno::ROFS);
        assert_eq!(fs.create_unnamed(place, 0o644, USER).unwrap_err(), Errno::ROFS);
        assert_eq!(fs.unlink(place, b"b").unwrap_err(), Errno::ROFS);
        assert_eq!(
            fs.set_xattr(place, b"user.a", b"b", crate::filesystem::XattrMode::Any),
            Err(Errno::ROFS)
        );
        let changes = Changes {
            mode: Some(0o700),
            ..Changes::default()
        };
        assert_eq!(fs.change(place, &changes).unwrap_err(), Errno::ROFS);
    }
    assert_eq!(fs.write(file, 0, b"x", false).unwrap_err(), Errno::ROFS);
    assert_eq!(fs.rename((directory, b"b"), (directory, b"c"), Replace::Yes), Err(Errno::ROFS));
    assert_eq!(fs.rename((directory, b"b"), (live, b"c"), Replace::Yes), Err(Errno::XDEV));
    assert_eq!(fs.link(file, live, b"c").unwrap_err(), Errno::XDEV);
    assert_eq!(
        fs.create(live, b".snapshot", New::Directory, 0o755, USER).unwrap_err(),
        Errno::EXIST
    );
    let copy = fs.create(live, b"copy", New::File, 0o644, USER).unwrap().inode;
    assert_eq!(fs.copy((file, 0), (copy, 0), 3), Ok(3));
    assert_eq!(content(&world, "bucket/a/copy"), b"old");
    let alias = format!("{VIEW}{ALIAS}one");
    let refused = |result: Result<()>| assert!(matches!(result, Err(Error::File(Errno::ROFS))));
    let digests = Digests::from([("md5".to_owned(), vec![0; 16])]);
    let (attributes, terms) = (Attributes::default(), Terms::default());
    refused(
        wait(|done| {
            world
                .store
                .put(&alias, b"x", b"y".to_vec(), attributes.clone(), digests, terms, done)
        })
        .map(drop),
    );
    refused(wait(|done| world.store.create_upload(&alias, b"x", attributes.clone(), BTreeMap::new(), done)).map(drop));
    refused(wait(|done| world.store.set_view_attributes(&alias, attributes, done)).map(drop));
    refused(world.store.delete_view(&alias));
    let removal = Removal {
        key: b"a/b".to_vec(),
        ..Removal::default()
    };
    refused(wait(|done| world.store.delete(&alias, removal, Versioning::Off, done)).map(drop));
    world.check();
}

#[test]
fn a_snapshot_of_a_bucket_is_a_bucket() {
    let world = World::new();
    world.put(b"a/b", b"old");
    world.put(b"a//b", b"aside");
    snapshot(&world, "/bucket", "one");
    world.put(b"a/b", b"new");
    world.delete(b"a//b");
    let alias = format!("{VIEW}{ALIAS}one");
    assert_eq!(key_in(&world, &alias, b"a/b").unwrap(), b"old");
    assert_eq!(key_in(&world, &alias, b"a//b").unwrap(), b"aside");
    let query = ListQuery {
        limit: 10,
        ..ListQuery::default()
    };
    let keys = |bucket: &str| {
        let page = world.store.list(bucket, &query).unwrap();
        page.elements.into_iter().map(|element| element.key).collect::<Vec<_>>()
    };
    assert_eq!(keys(&alias), [&b"a//b"[..], b"a/b"]);
    assert_eq!(keys(VIEW), [b"a/b"]);
    assert_eq!(names(&world, at(&world, "bucket/.snapshot/one/.keys").unwrap()), ["a%2F%2Fb"]);
    assert_eq!(world.store.views().unwrap().len(), 1, "no listing of buckets shows it");
    assert!(matches!(world.store.view("bucket--at--none"), Err(Error::NotFound(_))));
    world.check();
}

#[test]
fn clones_and_restores_go_by_path() {
    let world = World::new();
    world.put(b"a/b", b"old");
    snapshot(&world, "/bucket", "one");
    world.put(b"a/b", b"new");
    let store = &world.store;
    store.clone_path(b"/bucket", Some("one"), b"/view").unwrap();
    store.clone_path(b"/bucket/a", Some("one"), b"/bucket/inner").unwrap();
    store.clone_path(b"/bucket/a/b", None, b"/bucket/file").unwrap();
    assert_eq!(content(&world, "view/a/b"), b"old");
    assert_eq!(content(&world, "bucket/inner/b"), b"old");
    assert_eq!(content(&world, "bucket/file"), b"new");
    assert_eq!(key_in(&world, "view", b"a/b").unwrap(), b"old");
    assert_eq!(key_in(&world, VIEW, b"inner/b").unwrap(), b"old");
    assert!(matches!(store.clone_path(b"/bucket", None, b"/view"), Err(Error::Conflict(_))));
    assert!(matches!(store.clone_path(b"/nothing", None, b"/x"), Err(Error::NotFound(_))));
    let listed = store.snapshots(Some(b"/bucket")).unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].clones.len(), 2);
    store.restore_snapshot(b"/bucket", "one", "undo").unwrap();
    assert_eq!(content(&world, "bucket/a/b"), b"old");
    assert_eq!(at(&world, "bucket/inner"), Err(Errno::NOENT));
    store.restore_snapshot(b"/bucket", "undo", "redo").unwrap();
    assert_eq!(content(&world, "bucket/a/b"), b"new");
    assert_eq!(content(&world, "bucket/inner/b"), b"old");
    let listed: Vec<String> = store
        .snapshots(Some(b"/bucket"))
        .unwrap()
        .into_iter()
        .map(|entry| entry.info.name)
        .collect();
    assert_eq!(listed, ["one", "redo", "undo"]);
    world.check();
}

#[test]
fn a_bucket_that_was_deleted_comes_back_from_its_snapshot() {
    let world = World::new();
    world.put(b"a/b", b"old");
    snapshot(&world, "/bucket", "one");
    world.delete(b"a/b");
    world.store.delete_view(VIEW).unwrap();
    assert_eq!(world.store.snapshots(None).unwrap()[0].path, b"/bucket");
    world.store.clone_path(b"/bucket", Some("one"), b"/bucket").unwrap();
    assert_eq!(key_in(&world, VIEW, b"a/b").unwrap(), b"old");
    world.store.delete_snapshot(b"/bucket", "one").unwrap();
    assert_eq!(key_in(&world, VIEW, b"a/b").unwrap(), b"old");
    world.check();
}

/// Each clone of a file took those along that lay beside it, so that they doubled.
#[test]
fn a_clone_takes_along_only_what_lies_below() {
    let world = World::new();
    world.put(b"a/file", b"x");
    let spaces = || world.store.core.committer.shared.spaces().iter().count();
    for number in 0..6 {
        let before = spaces();
        let target = format!("/bucket/a/file-{number}");
        world.store.clone_path(b"/bucket/a/file", None, target.as_bytes()).unwrap();
        assert_eq!(spaces(), before + 1);
    }
    let before = spaces();
    world.store.clone_path(b"/bucket/a", None, b"/bucket/b").unwrap();
    assert_eq!(spaces(), before + 7);
    snapshot(&world, "/bucket", "one");
    let before = spaces();
    world.store.clone_path(b"/bucket/a/file", Some("one"), b"/bucket/c").unwrap();
    assert_eq!(spaces(), before + 1);
    world.check();
}

#[test]
fn what_is_protected_stays_and_what_a_snapshot_holds_is_counted() {
    let world = World::new();
    let space = |older| world.store.snapshot_space(b"/bucket", "one", older).unwrap();
    world.put(b"a", &[1; 5000]);
    world.put(b"b", &[2; 7000]);
    snapshot(&world, "/bucket", "one");
    assert_eq!(space(false).content_bytes, 0);
    world.delete(b"a");
    assert_eq!((space(false).content_bytes, space(false).stored_bytes), (5000, 5000));
    snapshot(&world, "/bucket", "two");
    world.delete(b"b");
    assert_eq!(
        (space(false).content_bytes, space(true).content_bytes),
        (5000, 5000),
        "the second sees b too"
    );
    world.store.protect_snapshot(b"/bucket", "one", i64::MAX).unwrap();
    assert!(matches!(world.store.delete_snapshot(b"/bucket", "one"), Err(Error::Conflict(_))));
    assert!(matches!(world.store.create_snapshot(b"/bucket", "one", 0), Err(Error::Conflict(_))));
    assert!(matches!(world.store.create_snapshot(b"/bucket", "a/b", 0), Err(Error::Invalid(_))));
    assert!(matches!(world.store.create_snapshot(b"/", "x", 0), Err(Error::NotFound(_))));
    world.check();
}

#[test]
fn a_directory_and_a_file_are_restored_in_place() {
    let world = World::new();
    world.put(b"a/b", b"old");
    world.put(b"a/c/d", b"deep");
    world.put(b"beside", b"stays");
    snapshot(&world, "/bucket", "one");
    world.put(b"a/b", b"new");
    world.delete(b"a/c/d");
    world.put(b"a/later", b"later");
    let store = &world.store;
    store.restore_snapshot(b"/bucket/a", "one", "undo").unwrap();
    assert_eq!(
        (content(&world, "bucket/a/b"), content(&world, "bucket/a/c/d")),
        (b"old".to_vec(), b"deep".to_vec())
    );
    assert!(matches!(key_in(&world, VIEW, b"a/later"), Err(Error::NotFound(_))));
    assert_eq!(key_in(&world, VIEW, b"beside").unwrap(), b"stays");
    world.check();
    // Snapshots of the bucket show it as before, and what it was is found by its path.
    assert_eq!(content(&world, "bucket/a/.snapshot/one/b"), b"old");
    let listed = |path: &[u8]| {
        let found = store.snapshots(Some(path)).unwrap();
        found.into_iter().map(|entry| entry.info.name).collect::<Vec<_>>()
    };
    assert_eq!(listed(b"/bucket/a"), ["one", "undo"]);
    while !store.snapshot_backlog().unwrap().jobs.is_empty() {
        store.core.work_on_snapshots().unwrap();
    }
    world.check();
    store.restore_snapshot(b"/bucket/a", "undo", "redo").unwrap();
    assert_eq!(
        (content(&world, "bucket/a/b"), content(&world, "bucket/a/later")),
        (b"new".to_vec(), b"later".to_vec())
    );
    assert_eq!(at(&world, "bucket/a/c/d"), Err(Errno::NOENT));
    store.restore_snapshot(b"/bucket/beside", "one", "undo-beside").unwrap();
    world.put(b"beside", b"changed");
    store.restore_snapshot(b"/bucket/beside", "one", "again").unwrap();
    assert_eq!(key_in(&world, VIEW, b"beside").unwrap(), b"stays");
    store.restore_snapshot(b"/bucket/beside", "again", "more").unwrap();
    assert_eq!(content(&world, "bucket/beside"), b"changed");
    while !store.snapshot_backlog().unwrap().jobs.is_empty() {
        store.core.work_on_snapshots().unwrap();
    }
    world.check();
}

#[test]
fn what_cannot_take_the_place_of_another_is_refused() {
    let world = World::new();
    world.put(b"a", b"file");
    world.put(b"b/c", b"old");
    world.put(b"d/e", b"old");
    snapshot(&world, "/bucket", "one");
    snapshot(&world, "/bucket/d", "part");
    world.delete(b"a");
    world.put(b"a/b", b"now a directory");
    world.put(b"new/x", b"later");
    let refused = |path: &str, name: &str| world.store.restore_snapshot(path.as_bytes(), name, "undo").unwrap_err();
    assert!(matches!(refused("/bucket/a", "one"), Error::Invalid(_)));
    assert!(matches!(refused("/bucket/new", "one"), Error::NotFound(_)));
    assert!(matches!(refused("/bucket/b", "none"), Error::NotFound(_)));
    // A snapshot of something else.
    assert!(matches!(refused("/bucket/b", "part"), Error::NotFound(_)));
    assert!(matches!(refused("/bucket", "part"), Error::Invalid(_)));
    assert!(matches!(
        world.store.clone_path(b"/bucket/b", Some("part"), b"/bucket/x"),
        Err(Error::NotFound(_))
    ));
    assert!(matches!(refused("/bucket/gone", "one"), Error::NotFound(_)));
    assert_eq!(
        world.store.snapshots(None).unwrap().len(),
        2,
        "nothing was kept of what was refused"
    );
    world.check();
}

#[test]
fn a_split_clone_frees_its_snapshot() {
    let world = World::new();
    let bytes = vec![7; 50_000];
    world.put(b"a/b", &bytes);
    world.put(b"a/c", b"gone later");
    world.put(b"x", b"beside");
    snapshot(&world, "/bucket", "one");
    let store = &world.store;
    store.clone_path(b"/bucket/a", Some("one"), b"/bucket/clone").unwrap();
    let clone = at(&world, "bucket/clone").unwrap();
    world.fs().unlink(clone, b"c").unwrap();
    world.delete(b"a/b");
    assert!(matches!(store.split_clone(b"/bucket/a"), Err(Error::Invalid(_))));
    store.split_clone(b"/bucket/clone").unwrap();
    let finish = || {
        while !store.snapshot_backlog().unwrap().jobs.is_empty() {
            store.core.work_on_snapshots().unwrap();
            world.check();
        }
    };
    finish();
    assert!(store.snapshots(Some(b"/bucket")).unwrap()[0].clones.is_empty());
    assert!(matches!(store.split_clone(b"/bucket/clone"), Err(Error::Invalid(_))));
    assert_eq!(names(&world, clone), ["b"]);
    store.delete_snapshot(b"/bucket", "one").unwrap();
    finish();
    assert_eq!(content(&world, "bucket/clone/b"), bytes);
    let rows = store.core.committer.meta.snapshot();
    let (from, to) = keys::table(keys::HISTORY);
    assert!(
        rows.get_range(&from, &to, 1, false).unwrap().is_empty(),
        "nothing is kept for the clone's sake"
    );
    world.fs().unlink(clone, b"b").unwrap();
    world.check();
}

/// Rows and bytes, before a deletion is begun, on the way, and at the end.
#[test]
fn what_is_left_to_be_freed_is_known() {
    let world = World::without_background();
    for number in 0..40 {
        world.put(format!("a/{number}").as_bytes(), &[number; 3000]);
    }
    snapshot(&world, "/bucket", "one");
    for number in 0..20 {
        world.put(format!("a/{number}").as_bytes(), b"new");
    }
    let store = &world.store;
    assert!(store.snapshot_backlog().unwrap().jobs.is_empty());
    store.delete_snapshot(b"/bucket", "one").unwrap();
    let begun = store.snapshot_backlog().unwrap();
    let (job, total) = (begun.jobs[0].clone(), begun.left());
    assert_eq!(
        (begun.jobs.len(), job.kind, job.path.as_slice()),
        (1, JobKind::Free, &b"/bucket"[..])
    );
    assert_eq!((total.bytes, job.total), (20 * 3000, total));
    let metric = |name: &str| store.metrics().into_iter().find(|(known, _)| known == name).unwrap().1 as u64;
    let mut last = total;
    let mut steps = 0;
    while store.core.step_on_snapshots(16).unwrap() {
        let left = store.snapshot_backlog().unwrap().left();
        assert!(left.rows < last.rows && left.bytes <= last.bytes);
        assert_eq!(
            (metric("snapshot_backlog_rows"), metric("snapshot_backlog_bytes")),
            (left.rows, left.bytes)
        );
        (last, steps) = (left, steps + 1);
    }
    assert!(steps > 2);
    assert_eq!(
        (metric("snapshot_backlog_jobs"), store.snapshot_backlog().unwrap().left().rows),
        (0, 0)
    );
    // A directory that a restore replaced, and what is split.
    snapshot(&world, "/bucket", "two");
    store.restore_snapshot(b"/bucket/a", "two", "undo").unwrap();
    store.split_clone(b"/bucket/a").unwrap();
    let jobs = store.snapshot_backlog().unwrap().jobs;
    assert_eq!(
        jobs.iter().map(|job| (job.kind, job.total.bytes)).collect::<Vec<_>>(),
        [(JobKind::Drop, 20 * 3000 + 20 * 3), (JobKind::Split, 0),]
    );
    // What ends may leave something else to be done.
    while !store.snapshot_backlog().unwrap().jobs.is_empty() {
        store.core.step_on_snapshots(7).unwrap();
    }
    world.check();
}
