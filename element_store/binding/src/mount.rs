//! A FUSE mount of an open store. `protocols/fuse/__init__.py` is its only user.

use crate::errors::{Failure, raise};
use crate::pool::lock;
use crate::shared::Shared;
use crate::store::{Store, aside};
use pyo3::prelude::*;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use trefoil_core::error::Error;
use trefoil_core::filesystem::{FileSystem, Inode, Strict};
use trefoil_core::store::Lent;
use trefoil_fuse::{Locks, Mount, MountError, Options};

/// Names mounts in the table of locks; NFS clients have hashes for names there.
static MOUNTS: AtomicU64 = AtomicU64::new(1);

#[pyclass(frozen, module = "element_store._core")]
pub struct FuseMount {
    shared: Arc<Shared>,
    mount: Mutex<Option<Mount>>,
    /// Volumes by their ids, which the kernel's block target has by this mount.
    lent: Mutex<HashMap<u32, Lent>>,
}

fn refused(error: &MountError) -> Failure {
    Error::Refused(error.to_string()).into()
}

#[pymethods]
impl FuseMount {
    /// `root`: the directory that is mounted. `rights`: other users, set-id bits and devices; None is as root, or any other user, usually wants it.
    /// `shared_locks`: locks are those of all faces, not the kernel's own among its processes.
    #[staticmethod]
    fn start(
        py: Python<'_>,
        store: &Store,
        directory: PathBuf,
        root: Inode,
        read_only: bool,
        strict: bool,
        rights: [Option<bool>; 3],
        shared_locks: bool,
    ) -> PyResult<Py<PyAny>> {
        let shared = store.shared().clone();
        let files: Arc<dyn FileSystem> = shared.store()?;
        let files = if strict { Arc::new(Strict(files)) } else { files };
        let locks = shared_locks.then(|| Locks {
            table: shared.locks.clone(),
            client: MOUNTS.fetch_add(1, Ordering::Relaxed),
        });
        let [allow_other, set_id, devices] = rights;
        let (future, ticket) = shared.begin(py)?;
        aside("fuse-start", move || {
            let usual = Options::default();
            let options = Options {
                root,
                read_only,
                allow_other: allow_other.unwrap_or(usual.allow_other),
                set_id: set_id.unwrap_or(usual.set_id),
                devices: devices.unwrap_or(usual.devices),
                locks,
                ..usual
            };
            match Mount::start(files, &directory, options) {
                Ok(mount) => ticket.finish(move |py| {
                    let mount = Mutex::new(Some(mount));
                    let lent = Mutex::default();
                    Ok(Py::new(py, FuseMount { shared, mount, lent })?.into_any())
                }),
                Err(error) => ticket.fail(refused(&error)),
            }
        })?;
        Ok(future)
    }

    /// Until `take_back`, or until the mount ends, this mount alone may change the volume.
    fn lend(slf: &Bound<'_, Self>, id: u32) -> PyResult<Py<PyAny>> {
        let (py, this) = (slf.py(), slf.clone().unbind());
        let origin = lock(&slf.get().mount).as_ref().map(Mount::origin);
        let origin = origin.ok_or_else(|| raise(Error::Invalid("the mount was ended".into())))?;
        slf.get().shared.call(py, move |store| {
            let lent = store.lend_volume(id, origin)?;
            lock(&this.get().lent).insert(id, lent);
            Ok(())
        })
    }

    fn take_back(&self, id: u32) {
        lock(&self.lent).remove(&id);
    }

    fn end(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let mount = lock(&self.mount).take();
        let mount = mount.ok_or_else(|| raise(Error::Invalid("the mount was ended".into())))?;
        let (future, ticket) = self.shared.begin(py)?;
        let lent = std::mem::take(&mut *lock(&self.lent));
        aside("fuse-end", move || {
            let ended = mount.end();
            drop(lent);
            match ended {
                Ok(()) => ticket.finish(|py| Ok(py.None())),
                Err(error) => ticket.fail(refused(&error)),
            }
        })?;
        Ok(future)
    }
}
