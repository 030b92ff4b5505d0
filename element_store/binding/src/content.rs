//! Pinned content: what an element held when it was opened. Unpinned by `release` or when Python forgets it.

use crate::chunks::Chunks;
use crate::errors::raise;
use crate::pool::lock;
use crate::shared::Shared;
use crate::values::ToPython;
use pyo3::prelude::*;
use std::sync::{Arc, Mutex};
use trefoil_core::error::Error;
use trefoil_core::store::Content as Pinned;

/// Streams hold the pin only through this, so that `release` ends it for them too; what is being read keeps it until it has been read.
pub struct Pin(Mutex<Option<Arc<Pinned>>>);

impl Pin {
    pub fn get(&self) -> PyResult<Arc<Pinned>> {
        let pinned = lock(&self.0).clone();
        pinned.ok_or_else(|| raise(Error::Invalid("content was released".into())))
    }
}

#[pyclass(frozen, module = "element_store._core")]
pub struct Content {
    #[pyo3(get)]
    element: Py<PyAny>,
    shared: Arc<Shared>,
    pin: Arc<Pin>,
}

impl Content {
    pub fn wrap(py: Python<'_>, shared: Arc<Shared>, pinned: Pinned) -> PyResult<Py<PyAny>> {
        let element = pinned.element.clone().to_python(py)?;
        let content = Self {
            element,
            shared,
            pin: Arc::new(Pin(Mutex::new(Some(Arc::new(pinned))))),
        };
        Ok(Py::new(py, content)?.into_any())
    }

    /// Raises Invalid after `release`.
    pub fn pinned(&self) -> PyResult<Arc<Pinned>> {
        self.pin.get()
    }

    /// Raises Invalid for bytes that it does not have.
    pub fn checked(&self, start: u64, stop: u64) -> PyResult<Arc<Pinned>> {
        let pinned = self.pinned()?;
        let size = pinned.element.row.size;
        if start > stop || stop > size {
            return Err(raise(Error::Invalid(format!("bytes [{start}, {stop}) of {size}"))));
        }
        Ok(pinned)
    }
}

#[pymethods]
impl Content {
    fn chunks(&self, start: u64, stop: u64) -> PyResult<Chunks> {
        self.checked(start, stop)?;
        Ok(Chunks::new(self.shared.clone(), self.pin.clone(), start, stop))
    }

    fn release(&self) {
        // The lock is given back first: the last owner's drop may take a while.
        let pinned = lock(&self.pin.0).take();
        drop(pinned);
    }
}
