//! Volumes, snapshots and clones: what a host wrote before a snapshot is in it, a clone of a volume is a plain file, a restore takes the volume along.

use super::faces::{Place, SIZE, is_attached};
use super::*;
use crate::filesystem::FileSystem;

const BEFORE: [u8; 4096] = [0xa1; 4096];
const AFTER: [u8; 4096] = [0xb2; 4096];

impl Place {
    fn snapshot(&self, name: &str) {
        self.store.create_snapshot(b"/volumes", name, 0).unwrap();
    }

    fn object_in(&self, view: &str, key: &[u8]) -> Vec<u8> {
        let content = self.store.open_content(view, key, None).unwrap();
        content.read(0, content.element.row.size).unwrap()
    }
}

/// A volume with BEFORE at 8192 in the snapshot "s", AFTER since; attached.
fn written() -> (Place, VolumeId, Arc<dyn BlockDevice>) {
    let place = Place::new();
    let id = place.create("volumes/disk").volume.id;
    let device = place.open(id).unwrap();
    write(device.as_ref(), 8192, &BEFORE);
    place.snapshot("s");
    write(device.as_ref(), 8192, &AFTER);
    (place, id, device)
}

#[test]
fn a_snapshot_has_what_a_host_wrote_before_it() {
    let (place, _, device) = written();
    let seen = place.object_in("volumes--at--s", b"disk");
    assert_eq!((seen.len() as u64, &seen[8192..12288]), (SIZE, &BEFORE[..]));
    assert_eq!(read(device.as_ref(), 8192, 4096), AFTER);
    // The holes of both are counted right although no host flushed.
    place.check();
    drop(device);
    place.store.delete_snapshot(b"/volumes", "s").unwrap();
    place.check();
}

#[test]
fn a_clone_of_a_volume_is_a_plain_file() {
    let (place, id, device) = written();
    place.store.clone_path(b"/volumes/disk", Some("s"), b"/volumes/copy").unwrap();
    assert_eq!(place.object(b"copy")[8192..12288], BEFORE);
    assert_eq!(place.store.volumes().unwrap().len(), 1);
    let copy = place.store.lookup_file(place.view, b"copy");
    FileSystem::write(place.store.as_ref(), copy, 0, b"a file's own", false).unwrap();
    assert_eq!(read(device.as_ref(), 0, 512), [0; 512]);
    place.check();
    let made = place.store.volume_from_file("volumes/copy", 512).unwrap();
    assert_ne!((made.volume.id, made.volume.uuid), (id, device.volume().uuid));
    place.store.delete_volume(made.volume.id, false).unwrap();
    assert_eq!(place.store.volume(id).unwrap().volume.path, "volumes/disk");
    place.check();
}

#[test]
fn a_restore_takes_volumes_along_and_is_refused_while_a_host_has_one() {
    let (place, id, device) = written();
    let uuid = device.volume().uuid;
    assert!(is_attached(place.store.restore_snapshot(b"/volumes", "s", "undo")));
    drop(device);
    place.wait_detached(id);
    place.store.restore_snapshot(b"/volumes", "s", "undo").unwrap();
    place.check();
    let device = place.open(id).unwrap();
    assert_eq!((read(device.as_ref(), 8192, 4096), device.volume().uuid), (BEFORE.to_vec(), uuid));
    drop(device);
    place.wait_detached(id);
    place.store.restore_snapshot(b"/volumes", "undo", "again").unwrap();
    assert_eq!(read(place.open(id).unwrap().as_ref(), 8192, 4096), AFTER);
    place.check();
}

/// Made after the snapshot: the restored view does not have it.
#[test]
fn a_restore_forgets_volumes_that_the_snapshot_does_not_have() {
    let place = Place::new();
    place.snapshot("empty");
    let id = place.create("volumes/disk").volume.id;
    place.store.restore_snapshot(b"/volumes", "empty", "undo").unwrap();
    assert!(matches!(place.store.volume(id), Err(Error::NotFound(_))));
    assert!(place.store.volumes().unwrap().is_empty());
    place.check();
}
