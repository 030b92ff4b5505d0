//! `element_store._core`: Python classes over the element store and its native faces, and nothing else. One facade uses each of them:
//! `element_store/__init__.py`, `element_store/testing.py`, `protocols/fuse/__init__.py`,
//! `protocols/nfs/__init__.py`, `protocols/block/__init__.py`, `element_store/volumes.py`.

use pyo3::prelude::*;

mod arguments;
mod block;
mod bridge;
mod chunks;
mod content;
mod errors;
mod files;
mod memory;
mod modes;
mod mount;
mod nfs;
mod pool;
mod shared;
mod snapshots;
mod staged;
mod store;
mod values;
mod volumes;

/// The store's threads allocate buffers of mixed sizes that other threads free, and then sleep: `docs/decisions/0001-dependencies.md` has what allocators make of it.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by jemalloc at its start: freed pages go back to the kernel after five seconds, also those of threads that sleep.
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static ALLOCATOR_CONF: &[u8] = b"background_thread:true,dirty_decay_ms:5000,muzzy_decay_ms:0\0";

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<store::Store>()?;
    module.add_class::<memory::MemoryDevices>()?;
    module.add_class::<files::Files>()?;
    module.add_class::<modes::Modes>()?;
    module.add_class::<snapshots::Snapshots>()?;
    module.add_class::<mount::FuseMount>()?;
    module.add_class::<nfs::NfsServer>()?;
    module.add_class::<block::BlockTarget>()?;
    module.add_class::<volumes::Volumes>()?;
    module.add_function(wrap_pyfunction!(block::check_host_secret, module)?)?;
    module.add_class::<content::Content>()?;
    module.add_class::<chunks::Chunks>()?;
    module.add_class::<staged::Staged>()
}
