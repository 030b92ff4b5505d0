//! Volumes and the other faces: who may change what, and what each sees.

use super::*;
use crate::device::memory::MemoryDevice;
use crate::element::invariants;
use crate::filesystem::news;
use crate::filesystem::{Allocation, Changes, Errno, FileSystem, New, Owner, ROOT, Replace};
use crate::store::{Condition, Digests, ListQuery, OpenOptions, Removal, Terms, Versioning};
use std::collections::BTreeMap;

const USER: Owner = Owner { uid: 7, gid: 8 };
pub(super) const SIZE: u64 = 1 << 20;

pub(super) struct Place {
    pub store: Arc<Store>,
    pub view: u64,
    _state: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Self {
        let device = Arc::new(MemoryDevice::new("m", 256 << 20)) as Arc<dyn crate::device::Device>;
        let state = tempfile::tempdir().unwrap();
        let store = Store::open_on(vec![device], state.path(), OpenOptions::default()).unwrap();
        make_view(&store);
        let view = store.lookup_file(ROOT, b"volumes");
        Self {
            store,
            view,
            _state: state,
        }
    }

    pub fn create(&self, path: &str) -> VolumeInfo {
        self.store.create_volume(path, Attributes::default(), SIZE, 512).unwrap()
    }

    fn put(&self, key: &[u8], bytes: &[u8], terms: Terms) -> Result<crate::store::ElementInfo> {
        let digests = Digests::from([("md5".to_owned(), vec![0; 16])]);
        let mut staging = self.store.stage();
        staging.write(bytes).unwrap();
        let staged = staging.finish().unwrap();
        wait(|done| {
            self.store
                .publish("volumes", key, staged, Attributes::default(), digests, terms, done)
        })
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        let removal = Removal {
            key: key.to_vec(),
            ..Removal::default()
        };
        wait(|done| self.store.delete("volumes", removal, Versioning::Off, done)).map(|_| ())
    }

    pub fn object(&self, key: &[u8]) -> Vec<u8> {
        let content = self.store.open_content("volumes", key, None).unwrap();
        content.read(0, content.element.row.size).unwrap()
    }

    pub fn open(&self, id: VolumeId) -> block::Result<Arc<dyn BlockDevice>> {
        Volumes::open(self.store.as_ref(), id)
    }

    pub fn wait_detached(&self, id: VolumeId) {
        while self.store.volume(id).unwrap().handles > 0 {
            std::thread::yield_now();
        }
        // The count falls while the change runs; what it changed is seen with its record, so before a later change is answered.
        wait(|done| self.store.core.committer.submit(0, 64, done, |_| Ok(()))).unwrap();
    }

    pub fn check(&self) {
        let findings = invariants::check(&self.store.core.committer.meta.snapshot()).unwrap();
        assert_eq!(findings.count, 0, "{:?}", findings.sentences);
    }
}

impl Store {
    pub fn lookup_file(&self, directory: u64, name: &[u8]) -> u64 {
        FileSystem::lookup(self, directory, name).unwrap().inode
    }
}

pub(super) fn is_attached<T>(result: Result<T>) -> bool {
    matches!(result, Err(Error::Conflict(what)) if what == volumes::ATTACHED)
}

#[test]
fn a_new_volume_is_a_thin_file_that_all_faces_see() {
    let place = Place::new();
    let made = place.create("volumes/disk");
    assert_eq!((made.volume.id, made.volume.size_bytes, made.allocated_bytes), (1, SIZE, 0));
    assert_eq!(made.volume.path, "volumes/disk");
    let node = FileSystem::lookup(place.store.as_ref(), place.view, b"disk").unwrap();
    assert_eq!((node.size, node.allocated), (SIZE, 0));
    assert_eq!(place.object(b"disk"), vec![0; SIZE as usize]);
    let page = place
        .store
        .list(
            "volumes",
            &ListQuery {
                limit: 10,
                ..ListQuery::default()
            },
        )
        .unwrap();
    assert_eq!(page.elements.len(), 1);
    for (path, size, block) in [
        ("volumes/other", SIZE + 1, 512),
        ("volumes/other", SIZE, 1024),
        ("volumes/other", 0, 512),
        ("nowhere", SIZE, 512),
    ] {
        let refused = place.store.create_volume(path, Attributes::default(), size, block);
        assert!(matches!(refused, Err(Error::Invalid(_))), "{path} {size} {block}");
    }
    let there = place.store.create_volume("volumes/disk", Attributes::default(), SIZE, 512);
    assert!(matches!(there, Err(Error::Precondition(_))));
    assert!(matches!(
        place.store.create_volume("absent/disk", Attributes::default(), SIZE, 512),
        Err(Error::NotFound(_))
    ));
    place.check();
}

#[test]
fn ids_return_and_uuids_do_not() {
    let place = Place::new();
    let (first, second) = (place.create("volumes/a"), place.create("volumes/b"));
    assert_eq!((first.volume.id, second.volume.id), (1, 2));
    place.store.delete_volume(1, false).unwrap();
    let third = place.create("volumes/c");
    assert_eq!(third.volume.id, 1);
    assert_ne!(third.volume.uuid, first.volume.uuid);
    assert!(matches!(place.store.volume(3), Err(Error::NotFound(_))));
    place.check();
}

#[test]
fn while_a_host_has_it_nobody_else_changes_it() {
    let place = Place::new();
    let (fs, id) = (place.store.as_ref() as &dyn FileSystem, place.create("volumes/disk").volume.id);
    let inode = place.store.lookup_file(place.view, b"disk");
    let other = fs.create(place.view, b"other", New::File, 0o644, USER).unwrap().inode;
    fs.write(other, 0, b"other", false).unwrap();
    let device = place.open(id).unwrap();
    write(device.as_ref(), 512, &[7; 512]);

    let size = |size| Changes {
        size: Some(size),
        ..Changes::default()
    };
    assert_eq!(fs.write(inode, 0, b"x", false).unwrap_err(), Errno::BUSY);
    assert_eq!(fs.append(inode, b"x", false).unwrap_err(), Errno::BUSY);
    assert_eq!(fs.change(inode, &size(0)).unwrap_err(), Errno::BUSY);
    assert_eq!(fs.change(inode, &size(SIZE)).unwrap_err(), Errno::BUSY);
    assert_eq!(fs.change(inode, &size(2 * SIZE)).unwrap_err(), Errno::BUSY);
    assert_eq!(fs.allocate(inode, Allocation::Punch, 0, 4096).unwrap_err(), Errno::BUSY);
    assert_eq!(fs.copy((other, 0), (inode, 0), 5).unwrap_err(), Errno::BUSY);
    assert_eq!(fs.unlink(place.view, b"disk").unwrap_err(), Errno::BUSY);
    assert_eq!(
        fs.rename((place.view, b"disk"), (place.view, b"new"), Replace::Yes).unwrap_err(),
        Errno::BUSY
    );
    assert_eq!(
        fs.rename((place.view, b"other"), (place.view, b"disk"), Replace::Yes).unwrap_err(),
        Errno::BUSY
    );
    assert_eq!(
        fs.rename((place.view, b"other"), (place.view, b"disk"), Replace::Exchange)
            .unwrap_err(),
        Errno::BUSY
    );
    assert_eq!(fs.link(inode, place.view, b"link").unwrap_err(), Errno::PERM);
    assert!(is_attached(place.put(b"disk", b"new", Terms::default())));
    let kept = Terms {
        versioning: Versioning::Enabled,
        ..Terms::default()
    };
    assert!(is_attached(place.put(b"disk", b"new", kept)));
    assert!(is_attached(place.delete(b"disk")));
    assert!(is_attached(place.store.delete_volume(id, false)));
    assert!(is_attached(place.store.volume_to_file(id, false)));

    // Reading is everybody's, and shows what was written last.
    let expected = [vec![0; 512], vec![7; 512]].concat();
    assert_eq!(fs.read(inode, 0, 1024).unwrap(), expected);
    assert_eq!(place.object(b"disk")[..1024], expected);
    fs.copy((inode, 512), (other, 0), 512).unwrap();
    assert_eq!(fs.read(other, 0, 512).unwrap(), vec![7; 512]);
    // So are attributes that are not the volume's.
    let mode = Changes {
        mode: Some(0o600),
        ..Changes::default()
    };
    fs.change(inode, &mode).unwrap();
    wait(|done| {
        place
            .store
            .set_attributes("volumes", b"disk", None, Attributes::default(), None, done)
    })
    .unwrap();
    assert_eq!(place.store.volume(id).unwrap().handles, 1);

    drop(device);
    place.wait_detached(id);
    fs.write(inode, 0, b"x", false).unwrap();
    fs.rename((place.view, b"disk"), (place.view, b"new"), Replace::Yes).unwrap();
    assert_eq!(place.store.volume(id).unwrap().volume.path, "volumes/new");
    place.check();
    assert_eq!(place.put(b"new", b"no volume", Terms::default()).unwrap().row.size, 9);
    assert!(matches!(place.store.volume(id), Err(Error::NotFound(_))));
    place.check();
}

/// As the kernel's target does: hosts' writes come by one mount.
#[test]
fn a_volume_that_is_lent_to_a_mount_changes_by_that_alone() {
    let place = Place::new();
    let (fs, id) = (place.store.as_ref() as &dyn FileSystem, place.create("volumes/disk").volume.id);
    let inode = place.store.lookup_file(place.view, b"disk");
    assert_eq!(fs.stat(inode).unwrap().block_bytes, 512);
    assert_eq!(fs.stat(place.view).unwrap().block_bytes, 0);
    let mount = fs.subscribe().unwrap();
    let lent = place.store.lend_volume(id, mount.origin()).unwrap();
    assert_eq!(fs.write(inode, 0, &[1; 512], false).unwrap_err(), Errno::BUSY);
    news::speak_as(mount.origin());
    fs.write(inode, 0, &[1; 512], false).unwrap();
    fs.allocate(inode, Allocation::Zero { keep_size: true }, 512, 512).unwrap();
    news::speak_as(0);
    assert!(is_attached(place.put(b"disk", b"new", Terms::default())));
    drop(lent);
    place.wait_detached(id);
    fs.write(inode, 0, &[2; 512], false).unwrap();
    assert!(matches!(place.store.lend_volume(9, mount.origin()), Err(Error::NotFound(_))));
    place.check();
}

/// Of several keys, the volume's alone is refused.
#[test]
fn deleting_many_keys_leaves_the_attached_volume_alone() {
    let place = Place::new();
    let id = place.create("volumes/a/disk").volume.id;
    place.put(b"a/other", b"x", Terms::default()).unwrap();
    let device = place.open(id).unwrap();
    let removal = |key: &[u8]| Removal {
        key: key.to_vec(),
        ..Removal::default()
    };
    let removals = vec![removal(b"a/disk"), removal(b"a/other")];
    let mut done = place.store.delete_many("volumes", removals, Versioning::Off).unwrap();
    assert!(done.pop().unwrap().unwrap().existed);
    assert!(is_attached(done.pop().unwrap()));
    place.check();
    assert_eq!(read(device.as_ref(), 0, 512), vec![0; 512]);
}

#[test]
fn an_operator_can_do_it_all_the_same() {
    let place = Place::new();
    let (fs, id) = (place.store.as_ref() as &dyn FileSystem, place.create("volumes/disk").volume.id);
    let inode = place.store.lookup_file(place.view, b"disk");
    assert!(matches!(place.store.unlock_volume(id), Err(Error::Conflict(_))));
    let device = place.open(id).unwrap();
    write(device.as_ref(), 0, &[1; 8192]);
    place.store.unlock_volume(id).unwrap();
    assert!(place.store.volume(id).unwrap().is_unlocked);
    fs.write(inode, 4096, &[2; 512], false).unwrap();
    fs.allocate(inode, Allocation::Punch, 0, 512).unwrap();
    write(device.as_ref(), 0, &[3; 512]);
    assert_eq!(read(device.as_ref(), 4096, 512), vec![2; 512]);
    place.check();
    place.store.delete_volume(id, true).unwrap();
    assert_eq!(device.read(0, &mut [0; 512]), Err(BlockError::OutOfRange));
    let refused = done(|done| device.write(0, vec![0; 512], false, done));
    assert_eq!((refused, device.volume().size_bytes), (Err(BlockError::OutOfRange), 0));
    assert!(matches!(place.open(id), Err(BlockError::OutOfRange)));
    drop(device);
    assert_eq!(fs.lookup(place.view, b"disk").unwrap_err(), Errno::NOENT);
    place.check();
}

#[test]
fn what_a_host_wrote_is_other_content_for_s3() {
    let place = Place::new();
    let id = place.create("volumes/disk").volume.id;
    let etag = || place.store.lookup("volumes", b"disk", None).unwrap().etag();
    let first = etag();
    let device = place.open(id).unwrap();
    assert_eq!(etag(), first, "nothing was written");
    write(device.as_ref(), 0, &[1; 512]);
    let second = etag();
    assert_ne!(second, first);
    write(device.as_ref(), 0, &[2; 512]);
    place.store.core.settle_volumes();
    drop(device);
    place.wait_detached(id);
    let third = etag();
    assert_ne!(third, second);
    drop(place.open(id).unwrap());
    place.wait_detached(id);
    assert_eq!(etag(), third);
    place.check();
}

#[test]
fn files_and_objects_become_volumes_and_back_without_a_copy() {
    let place = Place::new();
    let image: Vec<u8> = (0..700 * 512_u32).map(|at| (at / 512) as u8).collect();
    let object = place.put(b"images/one", &image, Terms::default()).unwrap();
    let made = place.store.volume_from_file("volumes/images/one", 512).unwrap();
    assert_eq!(
        (made.volume.size_bytes, made.allocated_bytes),
        (image.len() as u64, image.len() as u64)
    );
    let after = place.store.lookup("volumes", b"images/one", None).unwrap();
    assert_eq!((after.id, after.etag()), (object.id, object.etag()), "it is still the same object");
    assert!(matches!(
        place.store.volume_from_file("volumes/images/one", 512),
        Err(Error::Conflict(_))
    ));
    let device = place.open(made.volume.id).unwrap();
    assert_eq!(read(device.as_ref(), 0, image.len() as u64), image);
    write(device.as_ref(), 1024, &[9; 512]);
    assert!(is_attached(place.store.volume_to_file(made.volume.id, false)));
    drop(device);
    place.wait_detached(made.volume.id);
    place.store.volume_to_file(made.volume.id, false).unwrap();
    assert_eq!(place.object(b"images/one")[1024..1536], [9; 512]);
    assert!(place.store.volumes().unwrap().is_empty());

    place.put(b"odd", &image[..1000], Terms::default()).unwrap();
    assert!(matches!(place.store.volume_from_file("volumes/odd", 512), Err(Error::Invalid(_))));
    assert!(matches!(
        place.store.volume_from_file("volumes/absent", 512),
        Err(Error::NotFound(_))
    ));
    place.put(b"linked", &image, Terms::default()).unwrap();
    let inode = place.store.lookup_file(place.view, b"linked");
    FileSystem::link(place.store.as_ref(), inode, place.view, b"again").unwrap();
    assert!(matches!(
        place.store.volume_from_file("volumes/linked", 512),
        Err(Error::Conflict(_))
    ));
    place.check();
}

#[test]
fn a_copy_or_a_version_of_a_volume_is_a_plain_object() {
    let place = Place::new();
    let id = place.create("volumes/disk").volume.id;
    let device = place.open(id).unwrap();
    write(device.as_ref(), 0, &[5; 4096]);
    drop(device);
    place.wait_detached(id);
    let content = place.store.open_content("volumes", b"disk", None).unwrap();
    let attributes = content.element.row.attributes.clone();
    let digests = Digests::from([("md5".to_owned(), vec![0; 16])]);
    let copy = place
        .store
        .copy(&content, "volumes", b"copy", attributes, digests, Terms::default())
        .unwrap();
    assert!(copy.row.attributes.xattrs.is_empty());
    let terms = Terms {
        versioning: Versioning::Enabled,
        condition: Some(Condition {
            if_match: vec![place.store.lookup("volumes", b"disk", None).unwrap().etag()],
            ..Condition::default()
        }),
        ..Terms::default()
    };
    place.put(b"disk", b"new", terms).unwrap();
    assert!(place.store.volumes().unwrap().is_empty());
    place.check();
    assert_eq!(
        place.store.lookup("volumes", b"copy", None).unwrap().row.attributes.xattrs,
        BTreeMap::new()
    );
}

#[test]
fn zeroing_gives_space_back_and_says_so() {
    let place = Place::new();
    let id = place.create("volumes/disk").volume.id;
    let device = place.open(id).unwrap();
    write(device.as_ref(), 64 << 10, &[1; 256 << 10]);
    let allocated = || place.store.volume(id).unwrap().allocated_bytes;
    assert_eq!(allocated(), 256 << 10);
    assert_eq!(device.allocated(0..SIZE).unwrap(), vec![64 << 10..320 << 10]);
    done(|done| device.zero(128 << 10, 64 << 10, true, done)).unwrap();
    assert_eq!(allocated(), 192 << 10);
    assert_eq!(device.allocated(0..SIZE).unwrap(), vec![64 << 10..128 << 10, 192 << 10..320 << 10]);
    assert_eq!(
        device.allocated(100 << 10..200 << 10).unwrap(),
        vec![100 << 10..128 << 10, 192 << 10..200 << 10]
    );
    // More runs than one step takes.
    for block in 0..1500 {
        write(device.as_ref(), block * 512, &[2; 512]);
    }
    done(|done| device.zero(0, SIZE, false, done)).unwrap();
    assert_eq!((allocated(), device.allocated(0..SIZE).unwrap()), (0, Vec::new()));
    assert_eq!(read(device.as_ref(), 0, SIZE), vec![0; SIZE as usize]);
    place.check();
}

#[test]
fn sizes_change_and_hosts_hear_of_it() {
    let place = Place::new();
    let id = place.create("volumes/disk").volume.id;
    let device = place.open(id).unwrap();
    let seen = place.store.wait_changed(0, Duration::ZERO);
    write(device.as_ref(), SIZE - 512, &[1; 512]);
    assert_eq!(place.store.wait_changed(seen, Duration::ZERO), seen, "content is no news");
    let past = |offset| done(|done| device.write(offset, vec![2; 512], false, done));
    assert_eq!(past(SIZE), Err(BlockError::OutOfRange));
    assert_eq!(past(u64::MAX - 511), Err(BlockError::OutOfRange));
    place.store.resize_volume(id, 2 * SIZE, false).unwrap();
    assert_ne!(place.store.wait_changed(seen, Duration::from_secs(60)), seen);
    assert_eq!(device.volume().size_bytes, 2 * SIZE);
    past(SIZE).unwrap();
    assert!(matches!(place.store.resize_volume(id, SIZE, false), Err(Error::Conflict(_))));
    assert!(matches!(place.store.resize_volume(id, SIZE + 1, true), Err(Error::Invalid(_))));
    place.store.resize_volume(id, 4096, true).unwrap();
    place.store.resize_volume(id, SIZE, false).unwrap();
    assert_eq!(
        read(device.as_ref(), 0, SIZE),
        vec![0; SIZE as usize],
        "what was cut does not come back"
    );
    place.check();
}

#[test]
fn reservations_last_as_long_as_the_volume() {
    let place = Place::new();
    let id = place.create("volumes/disk").volume.id;
    assert_eq!(place.store.reservation(id), Ok(None));
    place.store.keep_reservation(id, Some(b"mine".to_vec())).unwrap();
    assert_eq!(place.store.reservation(id), Ok(Some(b"mine".to_vec())));
    place.store.keep_reservation(id, None).unwrap();
    assert_eq!(place.store.reservation(id), Ok(None));
    place.store.keep_reservation(id, Some(vec![1; RESERVATION_BYTES_MAX])).unwrap();
    assert!(place.store.keep_reservation(id, Some(vec![1; RESERVATION_BYTES_MAX + 1])).is_err());
    place.store.delete_volume(id, false).unwrap();
    assert_eq!(place.store.keep_reservation(id, Some(Vec::new())), Err(BlockError::OutOfRange));
    place.create("volumes/next");
    assert_eq!(place.store.reservation(id), Ok(None), "it was another volume's");
    place.check();
}

/// Counters that several hosts raise by comparing and writing: none is lost, while S3 reads and the reducer moves what lies under them.
#[test]
fn comparing_and_writing_is_one_step() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = 100;
    let place = Place::new();
    let id = place.create("volumes/disk").volume.id;
    let raise = |device: &dyn BlockDevice| {
        loop {
            let old = read(device, 4096, 512);
            let mut new = old.clone();
            let value = u64::from_le_bytes(new[..8].try_into().unwrap()) + 1;
            new[..8].copy_from_slice(&value.to_le_bytes());
            if done(|done| device.compare_and_write(4096, old, new, value % 32 == 0, done)).unwrap() {
                return;
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            let device = place.open(id).unwrap();
            scope.spawn(move || (0..ROUNDS).for_each(|_| raise(device.as_ref())));
        }
        scope.spawn(|| {
            for _ in 0..20 {
                let content = place.store.open_content("volumes", b"disk", None).unwrap();
                let first = content.read(4096, 4608).unwrap();
                place.store.core.reduce_journal(u64::MAX, crate::store::reduce::MERGE).unwrap();
                assert_eq!(content.read(4096, 4608).unwrap(), first);
            }
        });
    });
    let device = place.open(id).unwrap();
    assert_eq!(read(device.as_ref(), 4096, 8), (THREADS * ROUNDS).to_le_bytes());
    drop(device);
    place.check();
}
