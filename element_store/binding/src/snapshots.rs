//! Snapshots and clones as Python sees them; `element_store/snapshots.py` is the one facade.

use crate::shared::Shared;
use crate::values::ToPython;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use std::sync::Arc;
use trefoil_core::element::snapshot_work::Held;
use trefoil_core::element::snapshots::{Removed, SnapshotInfo};
use trefoil_core::store::{Backlog, Job, SnapshotEntry};

type Future = PyResult<Py<PyAny>>;

#[pyclass(frozen, module = "element_store._core")]
pub struct Snapshots {
    shared: Arc<Shared>,
}

impl Snapshots {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

#[pymethods]
impl Snapshots {
    fn create(&self, py: Python<'_>, path: Vec<u8>, name: String, protected_until_ns: i64) -> Future {
        self.shared
            .call(py, move |store| store.create_snapshot(&path, &name, protected_until_ns))
    }

    fn list(&self, py: Python<'_>, path: Option<Vec<u8>>) -> Future {
        self.shared.call(py, move |store| store.snapshots(path.as_deref()).map(Entries))
    }

    fn space(&self, py: Python<'_>, path: Vec<u8>, name: String, older: bool) -> Future {
        self.shared.call(py, move |store| store.snapshot_space(&path, &name, older))
    }

    fn delete(&self, py: Python<'_>, path: Vec<u8>, name: String) -> Future {
        self.shared.call(py, move |store| store.delete_snapshot(&path, &name))
    }

    fn protect(&self, py: Python<'_>, path: Vec<u8>, name: String, until_ns: i64) -> Future {
        self.shared.call(py, move |store| store.protect_snapshot(&path, &name, until_ns))
    }

    fn clone_path(&self, py: Python<'_>, source: Vec<u8>, snapshot: Option<String>, target: Vec<u8>) -> Future {
        self.shared
            .call(py, move |store| store.clone_path(&source, snapshot.as_deref(), &target).map(Number))
    }

    fn restore(&self, py: Python<'_>, path: Vec<u8>, name: String, undo: String) -> Future {
        self.shared.call(py, move |store| store.restore_snapshot(&path, &name, &undo))
    }

    fn split(&self, py: Python<'_>, path: Vec<u8>) -> Future {
        self.shared.call(py, move |store| store.split_clone(&path))
    }

    fn backlog(&self, py: Python<'_>) -> Future {
        self.shared.call(py, |store| store.snapshot_backlog())
    }
}

struct Number(u64);
struct Entries(Vec<SnapshotEntry>);

impl ToPython for Number {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.0.into_pyobject(py)?.into_any().unbind())
    }
}

fn snapshot<'py>(py: Python<'py>, info: &SnapshotInfo, path: &[u8], clones: &[Vec<u8>]) -> PyResult<Bound<'py, PyAny>> {
    let clones = clones.iter().map(|path| PyBytes::new(py, path));
    let row = &info.row;
    let fields = (
        &info.name,
        PyBytes::new(py, path),
        row.epoch,
        row.created_ns,
        row.protected_until_ns,
        row.is_automatic,
        PyList::new(py, clones)?,
    );
    py.import("element_store.types")?.getattr("Snapshot")?.call1(fields)
}

impl ToPython for SnapshotInfo {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(snapshot(py, &self, &self.row.path, &[])?.unbind())
    }
}

impl ToPython for Entries {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let shown = self.0.iter().map(|entry| snapshot(py, &entry.info, &entry.path, &entry.clones));
        Ok(PyList::new(py, shown.collect::<PyResult<Vec<_>>>()?)?.into_any().unbind())
    }
}

impl ToPython for Held {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let fields = (self.rows, self.content_bytes, self.stored_bytes);
        Ok(py.import("element_store.types")?.getattr("SnapshotSpace")?.call1(fields)?.unbind())
    }
}

/// The number of clones that keep what it held.
impl ToPython for Removed {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.clones.len().into_pyobject(py)?.into_any().unbind())
    }
}

impl ToPython for Backlog {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let job = |job: &Job| {
            (
                job.kind.name(),
                PyBytes::new(py, &job.path),
                job.left.rows,
                job.left.bytes,
                job.total.rows,
            )
        };
        Ok(PyList::new(py, self.jobs.iter().map(job))?.into_any().unbind())
    }
}
