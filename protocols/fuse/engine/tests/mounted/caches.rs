//! Caches stay right when another face (the test itself) changes what the mount shows.
//!
//! The kernel is let believe for ever what it was told, so that only news can show a change; a filesystem without news is the control.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::sync::atomic::{AtomicBool, Ordering};

use trefoil_core::filesystem::{Changes, FileSystem, New, Replace};
use trefoil_fuse::Timeouts;

use crate::faults::{Faulty, faulty};
use crate::rig::{FOR_EVER, ROOT_OWNER, Rig, soon};

fn for_ever(options: &mut trefoil_fuse::Options) {
    options.timeouts = Some(Timeouts::all(FOR_EVER));
}

fn remembering() -> Rig {
    Rig::with(for_ever)
}

/// What is mounted never says what others change.
fn untold() -> Rig {
    Rig::serving(for_ever, |model| Faulty::around(model))
}

fn mode(mode: u32) -> Changes {
    Changes {
        mode: Some(mode),
        ..Changes::default()
    }
}

fn text(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; 6];
    let length = file.read_at(&mut bytes, 0).unwrap();
    bytes.truncate(length);
    bytes
}

#[test]
fn content_written_elsewhere_is_seen_at_the_next_open() {
    let rig = Rig::serving(|options| options.timeouts = Some(Timeouts::NONE), |model| Faulty::around(model));
    fs::write(rig.path("f"), b"before").unwrap();
    assert_eq!(fs::read(rig.path("f")).unwrap(), b"before");
    rig.model.write(rig.model_node("f").inode, 0, b"after!", false).unwrap();
    assert_eq!(fs::read(rig.path("f")).unwrap(), b"after!");
}

#[test]
fn content_written_elsewhere_is_seen_by_who_has_it_open_and_looks() {
    let rig = Rig::serving(|options| options.timeouts = Some(Timeouts::NONE), |model| Faulty::around(model));
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
    for (rig, told) in [(remembering(), true), (untold(), false)] {
        fs::write(rig.path("f"), b"before").unwrap();
        let file = File::open(rig.path("f")).unwrap();
        assert_eq!(text(&file), b"before");
        let inode = file.metadata().unwrap().ino();
        rig.model.write(inode, 0, b"after!!", false).unwrap();
        if !told {
            assert_eq!((text(&file).as_slice(), file.metadata().unwrap().len()), (&b"before"[..], 6));
            rig.mount.as_ref().unwrap().invalidations().content(inode);
        }
        soon("told", || text(&file) == b"after!" && file.metadata().unwrap().len() == 7);
    }
}

#[test]
fn news_of_attributes_and_names() {
    for (rig, told) in [(remembering(), true), (untold(), false)] {
        fs::write(rig.path("f"), b"1").unwrap();
        fs::write(rig.path("kept"), b"1").unwrap();
        let file = fs::metadata(rig.path("kept")).unwrap().ino();
        assert!(rig.path("f").exists() && !rig.path("g").exists());
        rig.model.change(file, &mode(0o600)).unwrap();
        rig.model.create(rig.view, b"g", New::Directory, 0o755, ROOT_OWNER).unwrap();
        rig.model.unlink(rig.view, b"f").unwrap();
        let seen = || {
            let mode = fs::metadata(rig.path("kept")).unwrap().permissions().mode();
            (rig.path("f").exists(), rig.path("g").is_dir(), mode & 0o777)
        };
        if !told {
            assert_eq!(seen(), (true, false, 0o644), "nobody has told");
            let news = rig.mount.as_ref().unwrap().invalidations();
            news.attributes(file);
            news.entry(rig.view, b"f");
            news.entry(rig.view, b"g");
        }
        soon("told", || seen() == (false, true, 0o600));
    }
}

#[test]
fn a_renamed_directory_is_found_where_it_is_now() {
    let rig = remembering();
    fs::create_dir_all(rig.path("a/b")).unwrap();
    fs::write(rig.path("a/b/f"), b"1").unwrap();
    assert!(!rig.path("c/b/f").exists());
    rig.model.rename((rig.view, b"a"), (rig.view, b"c"), Replace::Yes).unwrap();
    soon("told", || rig.path("c/b/f").exists() && !rig.path("a").exists());
}

#[test]
fn what_the_mount_does_itself_is_no_news_to_it() {
    let rig = remembering();
    let listener = rig.model.subscribe().unwrap();
    let path = rig.path("f");
    fs::write(&path, b"1").unwrap();
    let file = File::open(&path).unwrap();
    assert!(!listener.hear(None).unwrap().news.is_empty(), "others hear of it");
    let news = rig.mount.as_ref().unwrap().invalidations();
    let before = format!("{news:?}");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, b"more").unwrap();
    fs::rename(&path, rig.path("g")).unwrap();
    fs::remove_file(rig.path("g")).unwrap();
    drop(file);
    assert_eq!(before, format!("{news:?}"));
}

/// What the mount shows of the model's files, by every cache that the kernel has.
fn differences(rig: &Rig, names: &[String]) -> Vec<String> {
    let differs = |name: &&String| {
        let shown = fs::metadata(rig.path(name)).ok();
        let node = rig.model.lookup(rig.view, name.as_bytes()).ok();
        let content = shown.as_ref().and_then(|_| fs::read(rig.path(name)).ok());
        let expected = node.as_ref().and_then(|node| rig.model.read(node.inode, 0, 100).ok());
        let shown = shown.map(|shown| (shown.ino(), shown.len(), shown.mode() & 0o777, shown.nlink()));
        let node = node.map(|node| (node.inode, node.size, node.mode, u64::from(node.links)));
        shown != node || content != expected
    };
    names.iter().filter(differs).cloned().collect()
}

/// Creates, overwrites, replaces, links, changes modes and removes, over and over.
fn churn(rig: &Rig, names: &[String], rounds: usize, seed: usize) {
    for round in 0..rounds {
        let mix = (round + seed).wrapping_mul(2_654_435_761) >> 7;
        let name = names[mix % names.len()].as_bytes();
        let other = names[(mix / 7) % names.len()].as_bytes();
        let found = rig.model.lookup(rig.view, name);
        // Another thread may have been faster.
        let _ = match (found, mix % 6) {
            (Err(_), _) => rig.model.create(rig.view, name, New::File, 0o600, ROOT_OWNER).map(|_| ()),
            (Ok(node), 0 | 1) => rig.model.write(node.inode, 0, format!("{mix:06}").as_bytes(), false).map(|_| ()),
            (Ok(node), 2) => rig.model.change(node.inode, &mode(0o600 + mix as u32 % 0o100)).map(|_| ()),
            (Ok(_), 3) => rig.model.rename((rig.view, name), (rig.view, other), Replace::Yes),
            (Ok(node), 4) => rig.model.link(node.inode, rig.view, other).map(|_| ()),
            (Ok(_), _) => rig.model.unlink(rig.view, name),
        };
    }
}

/// `lists`: a listing renews what the kernel knows of names.
fn stormed(rig: &Rig, lists: bool) -> Vec<String> {
    let names: Vec<String> = (0..40).map(|number| format!("file-{number}")).collect();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let churners: Vec<_> = (0..2)
            .map(|seed| {
                scope.spawn({
                    let names = &names;
                    move || churn(rig, names, 20_000, seed)
                })
            })
            .collect();
        let look = || {
            while !over.load(Ordering::SeqCst) {
                differences(rig, &names);
                if lists {
                    fs::read_dir(rig.root()).unwrap().for_each(|entry| drop(entry.unwrap().metadata()));
                }
            }
        };
        let lookers = [scope.spawn(look), scope.spawn(look)];
        churners.into_iter().for_each(|churner| churner.join().unwrap());
        over.store(true, Ordering::SeqCst);
        lookers.into_iter().for_each(|looker| looker.join().unwrap());
    });
    names
}

#[test]
fn caches_are_right_after_a_storm_of_changes() {
    let rig = remembering();
    let names = stormed(&rig, true);
    soon("all is told", || differences(&rig, &names).is_empty());
}

#[test]
fn the_storm_is_seen_through_without_news() {
    let rig = untold();
    let names = stormed(&rig, false);
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(!differences(&rig, &names).is_empty(), "a storm that leaves no trace proves nothing");
}

/// Names too, so this needs a kernel that can be told to look up every name again; with another one names are believed for a second only.
#[test]
fn news_that_were_lost_are_made_up_for() {
    let rig = Rig::serving(|options| options.timeouts = None, |model| Faulty::telling(model, Some(3)));
    let names = stormed(&rig, true);
    soon("all is told", || differences(&rig, &names).is_empty());
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
