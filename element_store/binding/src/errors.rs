//! The one table from the core's error kinds to the exceptions of `element_store.types`.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use trefoil_core::error::Error;
use trefoil_core::filesystem::Errno;

/// An error that can be kept and raised more than once: the name of an exception class and its `args[0]`.
#[derive(Debug, Clone)]
pub struct Failure {
    class: &'static str,
    text: String,
}

impl Failure {
    pub fn closed() -> Self {
        Self {
            class: "Closed",
            text: "store".into(),
        }
    }

    /// Our bug: its message is on standard error.
    pub fn internal() -> Self {
        Self {
            class: "StoreError",
            text: "the store failed inside".into(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (class, text) = match error {
            Error::NotFound(what) => ("NotFound", what),
            Error::Conflict(text) => ("Conflict", text),
            Error::Precondition(text) => ("PreconditionFailed", text),
            Error::Digest(name) => ("DigestMismatch", name),
            Error::File(Errno::ROFS) => ("ReadOnly", "a snapshot never changes".into()),
            // A view that is a snapshot went.
            Error::File(Errno::STALE) => ("NotFound", "view".into()),
            Error::File(errno) => ("StoreError", errno.to_string()),
            Error::Invalid(text) => ("Invalid", text),
            Error::Limit(text) => ("LimitExceeded", text),
            Error::OutOfSpace(text) => ("OutOfSpace", text),
            Error::Damaged(text) => ("Damaged", text),
            Error::Refused(text) => ("Refused", text),
            Error::Closed(text) => ("Closed", text),
            // The store hides what it can of a device's trouble; what is left cannot be served.
            Error::Io(error) => ("Closed", format!("device: {error}")),
        };
        Self { class, text }
    }
}

impl From<Failure> for PyErr {
    fn from(failure: Failure) -> Self {
        Python::attach(|py| match class(py, failure.class) {
            Ok(class) => PyErr::from_type(class, (failure.text,)),
            Err(error) => error,
        })
    }
}

/// `element_store.types` is imported at first use: it must not be needed to load this module.
fn class<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyType>> {
    static TYPES: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let types = TYPES.get_or_try_init(py, || PyModule::import(py, "element_store.types").map(Bound::unbind))?;
    Ok(types.bind(py).getattr(name)?.cast_into::<PyType>()?)
}

/// The exception for an error of the core.
pub fn raise(error: Error) -> PyErr {
    Failure::from(error).into()
}
