//! Caches stay right when another face (the test itself) changes what the mount shows.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::Ordering;

use trefoil_core::filesystem::{Changes, FileSystem, New};

use crate::faults::faulty;
use crate::rig::{FOR_EVER, ROOT_OWNER, Rig, soon};

fn remembering() -> Rig {
    Rig::with(|options| {
        options.attribute_timeout = FOR_EVER;
        options.entry_timeout = FOR_EVER;
        options.negative_timeout = FOR_EVER;
    })
}

fn text(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; 6];
    let length = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(length);
    bytes
}

#[test]
fn content_written_elsewhere_is_seen_at_the_next_open() {
    let rig = Rig::with(|options| options.attribute_timeout = std::time::Duration::ZERO);
    fs::write(rig.path("f"), b"before").unwrap();
    assert_eq!(fs::read(rig.path("f")).unwrap(), b"before");
    rig.model.write(rig.model_node("f").inode, 0, b"after!", false).unwrap();
    assert_eq!(fs::read(rig.path("f")).unwrap(), b"after!");
}

#[test]
fn content_written_elsewhere_is_seen_by_who_has_it_open_and_looks() {
    let rig = Rig::with(|options| options.attribute_timeout = std::time::Duration::ZERO);
    fs::write(rig.path("f"), b"before").unwrap();
    let file = File::open(rig.path("f")).unwrap();
    assert_eq!(text(&file), b"before");
    for content in [b"after!", b"later!"] {
        rig.model.write(rig.model_node("f").inode, 0, content, false).unwrap();
        file.metadata().unwrap();
        soon("the pages are dropped", || text(&file) == content);
    }
}

#[test]
fn news_of_content_reach_an_open_file() {
    let rig = remembering();
    fs::write(rig.path("f"), b"before").unwrap();
    let file = File::open(rig.path("f")).unwrap();
    assert_eq!(text(&file), b"before");
    let inode = file.metadata().unwrap().ino();
    rig.model.write(inode, 0, b"after!", false).unwrap();
    assert_eq!(text(&file), b"before", "nobody has told");
    rig.mount.as_ref().unwrap().invalidations().content(inode);
    soon("told", || text(&file) == b"after!");
}

#[test]
fn news_of_attributes_and_names() {
    let rig = remembering();
    fs::write(rig.path("f"), b"1").unwrap();
    let inode = fs::metadata(rig.path("f")).unwrap().ino();
    assert!(!rig.path("g").exists());
    rig.model
        .change(
            inode,
            &Changes {
                mode: Some(0o600),
                ..Changes::default()
            },
        )
        .unwrap();
    rig.model.create(rig.view, b"g", New::Directory, 0o755, ROOT_OWNER).unwrap();
    rig.model.unlink(rig.view, b"f").unwrap();
    assert!(rig.path("f").exists() && !rig.path("g").exists(), "nobody has told");
    let news = rig.mount.as_ref().unwrap().invalidations();
    news.attributes(inode);
    news.entry(rig.view, b"f");
    news.entry(rig.view, b"g");
    soon("told", || !rig.path("f").exists() && rig.path("g").is_dir());
}

#[test]
fn pages_outlive_a_close_only_of_an_unchanged_file() {
    let (rig, store) = faulty();
    let reads = || {
        let before = store.reads.load(Ordering::SeqCst);
        assert_eq!(fs::read(rig.path("f")).unwrap().len(), 1 << 20);
        store.reads.load(Ordering::SeqCst) - before
    };
    fs::write(rig.path("f"), vec![5; 1 << 20]).unwrap();
    assert_eq!(reads(), 0, "what was written here is here");
    rig.model.write(rig.model_node("f").inode, 0, b"x", false).unwrap();
    assert!(reads() > 0, "dropped");
    assert_eq!(reads(), 0, "kept");
    fs::write(rig.path("f"), vec![6; 1 << 20]).unwrap();
    assert_eq!(reads(), 0, "what was written here is here");
}
