//! Modes of reduction as Python sets and asks for them.

use crate::errors::raise;
use crate::shared::Shared;
use crate::values::ToPython;
use pyo3::prelude::*;
use std::sync::Arc;
use std::time::Duration;
use trefoil_core::error::Error;
use trefoil_core::store::{Mode, ReductionSettings};

type Future = PyResult<Py<PyAny>>;

#[pyclass(frozen, module = "element_store._core")]
pub struct Modes {
    shared: Arc<Shared>,
}

impl Modes {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

fn named(name: &str) -> PyResult<Mode> {
    Mode::from_name(name).ok_or_else(|| raise(Error::Invalid(format!("{name} is no mode of reduction"))))
}

/// Mode, seconds after which content is cold, bytes of the index in memory.
pub fn settings((mode, cold_seconds, index_bytes): &(String, Option<u64>, usize)) -> PyResult<ReductionSettings> {
    Ok(ReductionSettings {
        mode: named(mode)?,
        hook_bytes_max: *index_bytes,
        cold_after: cold_seconds.map(Duration::from_secs),
        ..ReductionSettings::default()
    })
}

#[pymethods]
impl Modes {
    fn get(&self, py: Python<'_>, path: Option<Vec<u8>>) -> Future {
        self.shared.call(py, move |store| store.reduction_mode(path.as_deref()).map(Name))
    }

    fn set(&self, py: Python<'_>, path: Vec<u8>, mode: Option<String>) -> Future {
        let mode = mode.as_deref().map(named).transpose()?;
        self.shared.call(py, move |store| store.set_reduction_mode(&path, mode))
    }
}

struct Name(Mode);

impl ToPython for Name {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.0.name().into_pyobject(py)?.into_any().unbind())
    }
}
