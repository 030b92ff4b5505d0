//! `element_store._core`: Python classes over the element store, and nothing else. `element_store/__init__.py` is their only user.

use pyo3::prelude::*;

mod arguments;
mod bridge;
mod chunks;
mod content;
mod errors;
mod memory;
mod pool;
mod shared;
mod staged;
mod store;
mod values;

/// The store's threads allocate buffers of mixed sizes that other threads free: what glibc's arenas are worst at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<store::Store>()?;
    module.add_class::<memory::MemoryDevices>()?;
    module.add_class::<content::Content>()?;
    module.add_class::<chunks::Chunks>()?;
    module.add_class::<staged::Staged>()
}
