use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{DirEntryExt, MetadataExt};

use rustix::fs::{Mode, OFlags};

use crate::rig::Rig;

fn names(rig: &Rig, directory: &str) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(rig.path(directory))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    names
}

#[test]
fn every_entry_is_listed_once_with_its_inode_and_type() {
    let rig = Rig::new();
    fs::create_dir(rig.path("d")).unwrap();
    for number in 0..3000 {
        fs::write(rig.path(format!("d/{number:0width$}", width = number % 200 + 4)), b"").unwrap();
    }
    fs::create_dir(rig.path("d/directory")).unwrap();
    let mut seen = BTreeMap::new();
    for entry in fs::read_dir(rig.path("d")).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().ino(), entry.ino());
        assert_eq!(entry.file_type().unwrap().is_dir(), entry.file_name() == "directory");
        assert!(seen.insert(entry.file_name(), entry.ino()).is_none());
    }
    assert_eq!(seen.len(), 3001);
}

#[test]
fn dots_are_the_directory_and_its_parent() {
    let rig = Rig::new();
    fs::create_dir_all(rig.path("a/b")).unwrap();
    let dots = |path: &str| {
        let file = rustix::fs::open(rig.path(path), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let entries: Vec<_> = rustix::fs::Dir::read_from(&file).unwrap().map(|entry| entry.unwrap()).collect();
        let inode = |name: &[u8]| entries.iter().find(|entry| entry.file_name().to_bytes() == name).unwrap().ino();
        (inode(b"."), inode(b".."))
    };
    let number = |path: &str| fs::metadata(rig.path(path)).unwrap().ino();
    assert_eq!(dots("a/b"), (number("a/b"), number("a")));
    assert_eq!(dots("a"), (number("a"), 1));
    assert_eq!(dots("").0, 1);
}

#[test]
fn a_listing_ends_though_names_are_renamed_all_the_while() {
    const NAMES: usize = 500;
    let rig = Rig::new();
    fs::create_dir(rig.path("d")).unwrap();
    (0..NAMES).for_each(|number| fs::write(rig.path(format!("d/{number}")), b"").unwrap());
    let mut listing = rustix::fs::Dir::read_from(fs::File::open(rig.path("d")).unwrap()).unwrap();
    for round in 0..2 {
        let mut seen = 0;
        while let Some(entry) = listing.read() {
            let name = entry.unwrap().file_name().to_str().unwrap().to_owned();
            seen += usize::from(!name.starts_with('.'));
            assert!(seen <= 2 * NAMES, "it goes on and on");
            if !name.starts_with('.') {
                fs::rename(rig.path(format!("d/{name}")), rig.path(format!("d/{name}+"))).unwrap();
            }
        }
        assert!(seen >= NAMES, "{seen} names in round {round}");
        listing.rewind();
    }
}

#[test]
fn what_stays_is_seen_once_while_all_else_changes() {
    let rig = Rig::new();
    fs::create_dir(rig.path("d")).unwrap();
    for number in 0..1000 {
        fs::write(rig.path(format!("d/stays-{number}")), b"").unwrap();
        fs::write(rig.path(format!("d/goes-{number}")), b"").unwrap();
    }
    let mut seen = BTreeMap::<OsString, u32>::new();
    for (count, entry) in fs::read_dir(rig.path("d")).unwrap().enumerate() {
        let name = entry.unwrap().file_name();
        if name.to_str().unwrap().starts_with("stays") {
            *seen.entry(name).or_default() += 1;
        }
        if count < 1000 {
            fs::remove_file(rig.path(format!("d/goes-{count}"))).unwrap();
            fs::write(rig.path(format!("d/new-{count}")), b"").unwrap();
        }
    }
    assert_eq!(seen.len(), 1000);
    assert!(seen.values().all(|&times| times == 1));
}

#[test]
fn a_listing_goes_on_where_it_was() {
    let rig = Rig::new();
    (0..500).for_each(|number| fs::write(rig.path(format!("{number}")), b"").unwrap());
    let file = rustix::fs::open(rig.root(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut room = vec![std::mem::MaybeUninit::uninit(); 32 << 10];
    let mut all = Vec::new();
    let mut raw = rustix::fs::RawDir::new(&file, &mut room);
    while let Some(entry) = raw.next() {
        let entry = entry.unwrap();
        all.push((entry.file_name().to_bytes().to_vec(), entry.next_entry_cookie()));
    }
    assert_eq!(all.len(), 502);
    for at in [0, 1, 2, 250, 500, 501] {
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(all[at].1)).unwrap();
        let mut room = vec![std::mem::MaybeUninit::uninit(); 32 << 10];
        let mut raw = rustix::fs::RawDir::new(&file, &mut room);
        let next = raw.next().map(|entry| entry.unwrap().file_name().to_bytes().to_vec());
        assert_eq!(next, all.get(at + 1).map(|(name, _)| name.clone()), "after {at}");
    }
}

#[test]
fn an_empty_directory_is_empty() {
    let rig = Rig::new();
    fs::create_dir(rig.path("d")).unwrap();
    assert!(names(&rig, "d").is_empty());
    fs::write(rig.path("d/f"), b"").unwrap();
    assert_eq!(names(&rig, "d"), ["f"]);
    fs::remove_file(rig.path("d/f")).unwrap();
    assert!(names(&rig, "d").is_empty());
}
