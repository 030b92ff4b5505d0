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

fn show(place: &Place, path: &str, snapshot: &str) -> VolumeInfo {
    place.store.show_snapshot_of_volume(path, snapshot).unwrap()
}

#[test]
fn a_snapshot_of_a_volume_is_attached_read_only() {
    let (place, id, device) = written();
    let shown = show(&place, "volumes/disk", "s");
    assert_eq!((shown.volume.read_only, shown.volume.size_bytes), (true, SIZE));
    assert_eq!(shown.volume.path, "volumes/disk@s");
    assert_ne!((shown.volume.id, shown.volume.uuid), (id, device.volume().uuid));
    assert_eq!(
        show(&place, "volumes/disk", "s").volume,
        shown.volume,
        "asked for again, it is the same"
    );
    let image = place.open(shown.volume.id).unwrap();
    assert_eq!(image.volume(), shown.volume);
    let refused = |result: block::Result<()>| assert_eq!(result, Err(BlockError::ReadOnly));
    refused(done(|done| image.write(8192, AFTER.to_vec(), true, done)));
    refused(done(|done| image.write(0, vec![1; 512 << 10], false, done)));
    refused(done(|done| image.zero(8192, 4096, false, done)));
    refused(done(|done| image.copy(8192, 0, 4096, false, done)));
    refused(done(|done| image.compare_and_write(8192, BEFORE.to_vec(), AFTER.to_vec(), false, done)).map(drop));
    done(|done| image.flush(done)).unwrap();
    write(device.as_ref(), 0, &AFTER);
    place.store.create_snapshot(b"/volumes/disk", "t", 0).unwrap();
    assert_eq!(read(image.as_ref(), 8192, 4096), BEFORE);
    assert_eq!(read(image.as_ref(), 0, 4096), [0; 4096]);
    let allocated = image.allocated(0..SIZE).unwrap();
    assert_eq!((allocated.len(), allocated[0].clone()), (1, 8192..12288));
    place.check();
    let later = show(&place, "volumes/disk", "t");
    assert_eq!(read(place.open(later.volume.id).unwrap().as_ref(), 8192, 4096), AFTER);
    for change in [
        place.store.resize_volume(shown.volume.id, 2 * SIZE, true).map(drop),
        place.store.volume_to_file(shown.volume.id, true),
        place.store.lend_volume(shown.volume.id, 1).map(drop),
        place.store.show_snapshot_of_volume("volumes/other", "s").map(drop),
        place.store.show_snapshot_of_volume("volumes/disk", "u").map(drop),
    ] {
        assert!(matches!(change, Err(Error::Invalid(_) | Error::NotFound(_))), "{change:?}");
    }
    place.check();
}

#[test]
fn a_snapshot_that_a_host_has_attached_is_not_deleted_and_takes_its_namespace_along() {
    let (place, id, device) = written();
    let shown = show(&place, "volumes/disk", "s").volume.id;
    let image = place.open(shown).unwrap();
    assert!(is_attached(place.store.delete_snapshot(b"/volumes", "s")));
    assert!(is_attached(place.store.delete_volume(shown, false)));
    assert_eq!(read(image.as_ref(), 8192, 4096), BEFORE);
    drop(image);
    place.wait_detached(shown);
    let seen = Volumes::wait_changed(place.store.as_ref(), 0, Duration::ZERO);
    place.store.delete_snapshot(b"/volumes", "s").unwrap();
    assert_ne!(
        Volumes::wait_changed(place.store.as_ref(), seen, Duration::ZERO),
        seen,
        "hosts are told"
    );
    assert!(matches!(place.store.volume(shown), Err(Error::NotFound(_))));
    assert_eq!(place.open(shown).err(), Some(BlockError::OutOfRange));
    assert_eq!(
        (place.store.volumes().unwrap().len(), read(device.as_ref(), 8192, 4096)),
        (1, AFTER.to_vec())
    );
    place.store.core.work_on_snapshots().unwrap();
    place.check();
    assert_eq!(place.store.volume(id).unwrap().volume.path, "volumes/disk");
}

/// By force: what a host still has of it reads no more, as the snapshot may go at any time.
#[test]
fn what_is_shown_of_a_snapshot_can_be_hidden() {
    let (place, _, device) = written();
    let shown = show(&place, "volumes/disk", "s");
    let image = place.open(shown.volume.id).unwrap();
    place.store.delete_volume(shown.volume.id, true).unwrap();
    assert_eq!(image.read(8192, &mut [0; 512]), Err(BlockError::OutOfRange));
    assert_eq!(show(&place, "volumes/disk", "s").volume, shown.volume);
    drop((image, device));
    place.wait_detached(shown.volume.id);
    place.store.delete_snapshot(b"/volumes", "s").unwrap();
    place.check();
}

#[test]
fn a_snapshot_stays_attached_while_the_view_is_restored_or_the_volume_goes() {
    let (place, id, device) = written();
    drop(device);
    place.wait_detached(id);
    let image = place.open(show(&place, "volumes/disk", "s").volume.id).unwrap();
    place.store.restore_snapshot(b"/volumes", "s", "undo").unwrap();
    place.store.delete_volume(id, false).unwrap();
    place.store.core.work_on_snapshots().unwrap();
    assert_eq!(read(image.as_ref(), 8192, 4096), BEFORE);
    // Its volume's number is given to another, which is not it.
    let other = place.create("volumes/other");
    assert_ne!(other.volume.uuid, image.volume().uuid);
    let undone = show(&place, "volumes/disk", "undo");
    assert_eq!(read(place.open(undone.volume.id).unwrap().as_ref(), 8192, 4096), AFTER);
    place.check();
}
