//! Modes of views, folders and files: which one holds, and that it does.

use super::*;
use crate::filesystem::{FileSystem, New, Owner};

const OWNER: Owner = Owner { uid: 0, gid: 0 };

fn text(seed: u64, length: usize) -> Vec<u8> {
    noise(seed, length)
        .iter()
        .map(|byte| b"etaoin shrdlu"[*byte as usize % 13])
        .collect()
}

fn mode(world: &World, path: &str) -> Mode {
    world.store.reduction_mode(Some(path.as_bytes())).unwrap()
}

fn set(world: &World, path: &str, mode: Option<Mode>) {
    world.store.set_reduction_mode(path.as_bytes(), mode).unwrap();
}

/// What a key takes, of what it is long.
fn share(world: &World, key: &str, bytes: &[u8]) -> f64 {
    world.put(key, bytes);
    // What is kept as it landed stays landed by its own row.
    let core = &world.store.core;
    while core.reduce_journal(u64::MAX, MERGE).unwrap() + core.reduce_raw(u64::MAX).unwrap() > 0 {}
    assert_eq!(world.store.check().unwrap().count, 0);
    assert!(world.read(key).unwrap() == bytes);
    let found = world.store.accounting_of("v", key.as_bytes()).unwrap();
    assert_eq!(found.stored_bytes, found.expected_stored_bytes());
    found.stored_bytes as f64 / bytes.len() as f64
}

#[test]
fn a_views_mode_holds_at_once_and_a_keys_own_before_it() {
    let mut world = World::balanced();
    assert_eq!(mode(&world, "/v"), Mode::Balanced);
    set(&world, "/v", Some(Mode::Off));
    for length in [100_000, 700_000] {
        assert!(share(&world, &format!("off-{length}"), &text(length as u64, length)) >= 1.0);
    }
    set(&world, "/v/off-100000", Some(Mode::Deep));
    world.reopen();
    assert_eq!(
        (mode(&world, "/v/off-700000"), mode(&world, "/v/off-100000")),
        (Mode::Off, Mode::Deep)
    );
    // Its own mark outlives its content.
    assert!(share(&world, "off-100000", &text(9, 100_000)) < 0.6);
    set(&world, "/v", None);
    assert!(share(&world, "reduced", &text(10, 700_000)) < 0.6);
    assert!(matches!(
        world.store.set_reduction_mode(b"/v/absent", None),
        Err(Error::NotFound(_))
    ));
}

#[test]
fn what_is_made_in_a_folder_has_its_mode() {
    let world = World::balanced();
    world.put("a/b/old", &text(1, 1000));
    set(&world, "/v/a", Some(Mode::Off));
    assert_eq!(mode(&world, "/v/a/b/old"), Mode::Balanced, "it was made before");
    assert!(share(&world, "a/b/c/d/new", &text(2, 700_000)) >= 1.0);
    assert!(share(&world, "b/new", &text(3, 700_000)) < 0.6);
    let folder = crate::element::snapshot_paths::resolve(&world.store.core.snapshot(), b"/v/a/b")
        .unwrap()
        .element;
    let made = world.store.create(folder, b"made", New::Directory, 0o755, OWNER).unwrap();
    world.store.create(made.inode, b"file", New::File, 0o644, OWNER).unwrap();
    assert_eq!(mode(&world, "/v/a/b/made/file"), Mode::Off);
    assert!(world.store.xattrs(made.inode).unwrap().is_empty(), "nobody sees it");
    set(&world, "/v/a", None);
    world.put("a/b/made/other", b"1");
    assert_eq!(
        (mode(&world, "/v/a/b/made/other"), mode(&world, "/v/a/b/made/file")),
        (Mode::Balanced, Mode::Off)
    );
}

#[test]
fn parts_of_uploads_and_volumes_have_their_views() {
    let world = World::balanced();
    set(&world, "/v", Some(Mode::Off));
    let upload = wait(|done| {
        world
            .store
            .create_upload("v", b"parts", Attributes::default(), Default::default(), done)
    })
    .unwrap();
    let mut staging = world.store.stage();
    staging.write(&text(1, 600_000)).unwrap();
    let digests = digest::digests(&["md5".to_owned()], b"").unwrap();
    let staged = staging.finish().unwrap();
    wait(|done| world.store.put_part("v", b"parts", &upload.id, 1, staged, digests, done)).unwrap();
    let core = &world.store.core;
    while core.reduce_raw(u64::MAX).unwrap() > 0 {}
    assert!(core.reduction_counters.compressed_bytes.load(Ordering::Relaxed) == 0);
    let made = world.store.create_volume("v/disk", Attributes::default(), 1 << 20, 4096).unwrap();
    set(&world, "/v/disk", Some(Mode::Fast));
    assert_eq!(mode(&world, "/v/disk"), Mode::Fast);
    assert_eq!(world.store.volume(made.volume.id).unwrap().volume.path, made.volume.path);
}
