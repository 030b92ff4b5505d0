//! One tree for keys and paths: whatever S3 writes files find, under its path or in `.keys`; owners, modes and metadata are the same for both.

mod aside;
mod metadata;
mod snapshots;

use super::*;
use crate::device::Device;
use crate::device::memory::MemoryDevice;
use crate::element::info::Naming;
use crate::element::invariants;
use crate::filesystem::{Errno, FileSystem, Inode, New, Owner, ROOT};
use std::collections::BTreeMap;

const DEVICE_BYTES: u64 = 256 << 20;
const VIEW: &str = "bucket";
const USER: Owner = Owner { uid: 7, gid: 8 };

pub(super) struct World {
    pub store: Arc<Store>,
    pub view: Inode,
    _state: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        Self::with(BTreeMap::new())
    }

    /// With these attributes of the view.
    fn with(xattrs: BTreeMap<String, Vec<u8>>) -> Self {
        Self::open(xattrs, OpenOptions::default())
    }

    /// Nothing happens but what the test does.
    fn without_background() -> Self {
        let options = OpenOptions {
            background: false,
            ..OpenOptions::default()
        };
        Self::open(BTreeMap::new(), options)
    }

    fn open(xattrs: BTreeMap<String, Vec<u8>>, options: OpenOptions) -> Self {
        let device = Arc::new(MemoryDevice::new("m", DEVICE_BYTES)) as Arc<dyn Device>;
        let state = tempfile::tempdir().unwrap();
        let store = Store::open_on(vec![device], state.path(), options).unwrap();
        let attributes = Attributes {
            mode: 0o755,
            xattrs,
            ..Attributes::default()
        };
        let view = wait(|done| store.create_view(VIEW, attributes, done)).unwrap().id;
        Self {
            store,
            view,
            _state: state,
        }
    }

    fn fs(&self) -> &dyn FileSystem {
        self.store.as_ref()
    }

    fn put_as(&self, key: &[u8], bytes: &[u8], attributes: Attributes, terms: Terms) -> Result<ElementInfo> {
        let digests = Digests::from([("md5".to_owned(), vec![0; 16])]);
        wait(|done| self.store.put(VIEW, key, bytes.to_vec(), attributes, digests, terms, done))
    }

    fn put(&self, key: &[u8], bytes: &[u8]) -> ElementInfo {
        self.put_as(key, bytes, Attributes::default(), Terms::default()).unwrap()
    }

    fn delete(&self, key: &[u8]) {
        let removal = Removal {
            key: key.to_vec(),
            ..Removal::default()
        };
        wait(|done| self.store.delete(VIEW, removal, Versioning::Off, done)).unwrap();
    }

    /// Keys with their content, as S3 lists and reads them.
    fn objects(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let query = ListQuery {
            limit: 10_000,
            ..ListQuery::default()
        };
        let page = self.store.list(VIEW, &query).unwrap();
        let read = |element: ElementInfo| {
            let content = self.store.open_content(VIEW, &element.key, None).unwrap();
            let bytes = content.read(0, content.element.row.size).unwrap();
            (element.key, bytes)
        };
        page.elements.into_iter().map(read).collect()
    }

    fn entries(&self, directory: Inode) -> Vec<crate::filesystem::Entry> {
        let (mut found, mut cookie) = (Vec::new(), 0);
        loop {
            // Small pages, so that going on is tried.
            let page = self.fs().list(directory, cookie, 3).unwrap();
            let Some(last) = page.last() else { return found };
            cookie = last.cookie;
            found.extend(page);
        }
    }

    fn find(&self, path: &[u8]) -> std::result::Result<Inode, Errno> {
        path.split(|byte| *byte == b'/')
            .try_fold(self.view, |at, name| self.fs().lookup(at, name).map(|node| node.inode))
    }

    fn check(&self) {
        let findings = invariants::check(&self.store.core.snapshot().raw).unwrap();
        assert_eq!(findings.count, 0, "{:?}", findings.sentences);
    }
}

#[test]
fn s3_writes_have_an_owner_and_modes() {
    let world = World::new();
    let fs = world.fs();
    let by = |uid, mode| Attributes {
        uid,
        gid: uid + 1,
        mode,
        ..Attributes::default()
    };
    let terms = |directory_mode| Terms {
        naming: Naming {
            directory_mode,
            inherit: true,
        },
        ..Terms::default()
    };
    world.put_as(b"a/b/file", b"x", by(500, 0o640), terms(0o750)).unwrap();
    let stat = |path: &[u8]| {
        let node = fs.stat(world.find(path).unwrap()).unwrap();
        (node.uid, node.gid, node.mode)
    };
    assert_eq!(stat(b"a"), (500, 501, 0o750));
    assert_eq!(stat(b"a/b"), (500, 501, 0o750));
    assert_eq!(stat(b"a/b/file"), (500, 501, 0o640));
    // Who overwrites does not take over; set-id bits of other content do not survive.
    let changes = crate::filesystem::Changes {
        mode: Some(0o6755),
        uid: Some(600),
        ..Default::default()
    };
    fs.change(world.find(b"a/b/file").unwrap(), &changes).unwrap();
    world.put_as(b"a/b/file", b"y", by(700, 0o600), terms(0o700)).unwrap();
    assert_eq!(stat(b"a/b/file"), (600, 501, 0o755));
    // A directory with the set-group-id bit hands its group on, to directories with the bit.
    let shared = fs
        .create(world.view, b"shared", New::Directory, 0o2775, Owner { uid: 1, gid: 99 })
        .unwrap();
    world.put_as(b"shared/x/y", b"", by(500, 0o640), terms(0o750)).unwrap();
    assert_eq!((stat(b"shared/x"), stat(b"shared/x/y")), ((500, 99, 0o2750), (500, 99, 0o640)));
    assert_eq!(fs.parent(world.find(b"shared/x").unwrap()).unwrap().inode, shared.inode);
    world.check();
}

#[test]
fn copies_of_many_runs_count_their_holes() {
    const RUN: u64 = 4096;
    const RUNS: u64 = SHARED_RUNS_MAX as u64 + 10;
    let world = World::new();
    let fs = world.fs();
    let file = fs.create(world.view, b"file", New::File, 0o644, USER).unwrap().inode;
    for run in 0..RUNS {
        fs.write(file, 2 * run * RUN, &[1; RUN as usize], false).unwrap();
    }
    let source = world.store.open_content(VIEW, b"file", None).unwrap();
    let digests = || Digests::from([("md5".to_owned(), vec![0; 16])]);
    let (attributes, terms) = (Attributes::default(), Terms::default());
    world
        .store
        .copy(&source, VIEW, b"copy", attributes.clone(), digests(), terms.clone())
        .unwrap();
    let upload = wait(|done| world.store.create_upload(VIEW, b"parts", attributes, BTreeMap::new(), done)).unwrap();
    let size = source.element.row.size;
    let part = |number, start, stop| {
        let part = world
            .store
            .copy_part(VIEW, b"parts", &upload.id, number, &source, start, stop, digests());
        (number, part.unwrap().etag)
    };
    let completion = crate::element::upload::Completion {
        parts: vec![part(1, 0, size - RUN), part(2, size - RUN, size)],
        etag_digest: [0; 16],
        composite: false,
        digests: digests(),
        terms,
    };
    world.store.complete_upload(VIEW, b"parts", &upload.id, completion).unwrap();
    world.check();
    for name in [b"copy".as_slice(), b"parts"] {
        let copy = world.find(name).unwrap();
        assert_eq!(fs.stat(copy).unwrap().allocated, RUNS * RUN);
        assert_eq!(
            fs.allocate(copy, crate::filesystem::Allocation::Punch, 0, 8 * RUN)
                .unwrap()
                .allocated,
            (RUNS - 4) * RUN
        );
    }
    world.check();
}
