//! A mount of a model, gone with the value.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use trefoil_core::filesystem::locks::LockTable;
use trefoil_core::filesystem::model::{Model, system_clock};
use trefoil_core::filesystem::{FileSystem, Inode, New, Owner, ROOT};
use trefoil_fuse::{Locks, Mount, Options};

pub const ROOT_OWNER: Owner = Owner { uid: 0, gid: 0 };
pub const BYTES_MAX: u64 = 256 << 20;
/// What this mount is called in the lock table.
pub const CLIENT: u64 = 7;

pub struct Rig {
    // Dropped first: the directory below cannot be removed while it is mounted on.
    pub mount: Option<Mount>,
    pub model: Arc<Model>,
    pub view: Inode,
    pub table: Arc<LockTable>,
    directory: TempDir,
}

impl Rig {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(adapt: impl FnOnce(&mut Options)) -> Self {
        Self::serving(adapt, |model| model)
    }

    /// Another filesystem around the model is what is mounted.
    pub fn serving(adapt: impl FnOnce(&mut Options), wrap: impl FnOnce(Arc<Model>) -> Arc<dyn FileSystem>) -> Self {
        let model = Arc::new(Model::new(BYTES_MAX, system_clock()));
        let view = model.create(ROOT, b"view", New::Directory, 0o755, ROOT_OWNER).unwrap().inode;
        let table = Arc::new(LockTable::default());
        let locks = Some(Locks {
            table: table.clone(),
            client: CLIENT,
        });
        let mut options = Options {
            root: view,
            locks,
            ..Options::default()
        };
        adapt(&mut options);
        let directory = TempDir::new().unwrap();
        let mount = Mount::start(wrap(model.clone()), directory.path(), options).expect("these tests need root and /dev/fuse");
        Self {
            mount: Some(mount),
            model,
            view,
            table,
            directory,
        }
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    pub fn end(&mut self) {
        self.mount.take().unwrap().end().unwrap();
    }
}

/// Long enough that only news of another face's change can show it.
pub const FOR_EVER: Duration = Duration::from_secs(3600);

/// Within a generous time.
pub fn soon(what: &str, mut holds: impl FnMut() -> bool) {
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(std::time::Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn errno<T>(result: std::io::Result<T>) -> i32 {
    result.err().and_then(|error| error.raw_os_error()).unwrap_or(0)
}

impl Rig {
    /// What the store says of an entry of the view.
    pub fn model_node(&self, name: &str) -> trefoil_core::filesystem::Node {
        self.model.lookup(self.view, name.as_bytes()).unwrap()
    }
}
