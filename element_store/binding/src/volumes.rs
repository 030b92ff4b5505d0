//! Volumes as operators handle them. `element_store/volumes.py` is its only user.

use crate::arguments;
use crate::shared::Shared;
use pyo3::prelude::*;
use std::sync::Arc;

type Future = PyResult<Py<PyAny>>;

#[pyclass(frozen, module = "element_store._core")]
pub struct Volumes {
    shared: Arc<Shared>,
}

impl Volumes {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[pymethods]
impl Volumes {
    fn create(&self, py: Python<'_>, path: String, attributes: &Bound<'_, PyAny>, size: u64, block_size: u32) -> Future {
        let attributes = arguments::attributes(attributes)?;
        self.shared
            .call(py, move |store| store.create_volume(&path, attributes, size, block_size))
    }

    #[pyo3(name = "from_file")]
    fn adopt(&self, py: Python<'_>, path: String, block_size: u32) -> Future {
        self.shared.call(py, move |store| store.volume_from_file(&path, block_size))
    }

    fn show(&self, py: Python<'_>, path: String, snapshot: String) -> Future {
        self.shared.call(py, move |store| store.show_snapshot_of_volume(&path, &snapshot))
    }

    fn to_file(&self, py: Python<'_>, id: u32, force: bool) -> Future {
        self.shared.call(py, move |store| store.volume_to_file(id, force))
    }

    fn resize(&self, py: Python<'_>, id: u32, size: u64, shrink: bool) -> Future {
        self.shared.call(py, move |store| store.resize_volume(id, size, shrink))
    }

    fn unlock(&self, py: Python<'_>, id: u32) -> Future {
        self.shared.call(py, move |store| store.unlock_volume(id))
    }

    fn delete(&self, py: Python<'_>, id: u32, force: bool) -> Future {
        self.shared.call(py, move |store| store.delete_volume(id, force))
    }

    fn list(&self, py: Python<'_>) -> Future {
        self.shared.call(py, |store| store.volumes())
    }
}
