//! Python arguments to the core's values. What a caller gets wrong is Invalid, or the TypeError of the conversion.

use crate::errors::raise;
use pyo3::buffer::PyBuffer;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyMapping, PyString};
use std::collections::BTreeMap;
use trefoil_core::element::info::{Condition, Digests, Naming, Terms, Versioning};
use trefoil_core::element::rows::Attributes;
use trefoil_core::error::Error;

/// Bytes of the longest key.
const KEY_BYTES_MAX: usize = 1024;

/// Raises Invalid for what can never be a key.
pub fn check_key(key: &[u8]) -> PyResult<()> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX || key.contains(&0) {
        return Err(raise(Error::Invalid("key".into())));
    }
    Ok(())
}

/// A copy of `bytes`, `bytearray` or any contiguous buffer of bytes.
pub fn content(data: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    match data.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.as_bytes().to_vec()),
        Err(_) => PyBuffer::<u8>::get(data)?.to_vec(data.py()),
    }
}

/// Length in bytes, without touching them.
pub fn content_bytes(data: &Bound<'_, PyAny>) -> PyResult<usize> {
    match data.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.as_bytes().len()),
        Err(_) => Ok(PyBuffer::<u8>::get(data)?.len_bytes()),
    }
}

/// A mapping of text to bytes.
pub fn mapping(given: &Bound<'_, PyAny>) -> PyResult<BTreeMap<String, Vec<u8>>> {
    if let Ok(dict) = given.cast::<PyDict>() {
        return dict.iter().map(|(name, value)| entry(&name, &value)).collect();
    }
    given
        .cast::<PyMapping>()?
        .items()?
        .iter()
        .map(|item| item.extract().and_then(|(name, value)| entry(&name, &value)))
        .collect()
}

fn entry(name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<(String, Vec<u8>)> {
    Ok((name.cast::<PyString>()?.to_str()?.to_owned(), content(value)?))
}

/// A collection of names.
pub fn names(given: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    given.try_iter()?.map(|name| name?.extract()).collect()
}

/// Digests to keep with content. Raises Invalid without MD5, which becomes the ETag.
pub fn digests(given: &Bound<'_, PyAny>) -> PyResult<Digests> {
    let digests = mapping(given)?;
    if digests.get("md5").is_none_or(|md5| md5.len() != 16) {
        return Err(raise(Error::Invalid("digests lack md5".into())));
    }
    Ok(digests)
}

pub fn attributes(given: &Bound<'_, PyAny>) -> PyResult<Attributes> {
    let py = given.py();
    let number = |name: &Bound<'_, PyString>| {
        let value = given.getattr(name)?.extract::<i64>()?;
        u32::try_from(value).map_err(|_| raise(Error::Invalid(format!("attribute {name} is out of range"))))
    };
    Ok(Attributes {
        uid: number(intern!(py, "uid"))?,
        gid: number(intern!(py, "gid"))?,
        mode: number(intern!(py, "mode"))?,
        xattrs: mapping(&given.getattr(intern!(py, "xattrs"))?)?,
    })
}

/// By the values of `element_store.types.Versioning`.
pub fn versioning(name: &str) -> PyResult<Versioning> {
    match name {
        "off" => Ok(Versioning::Off),
        "enabled" => Ok(Versioning::Enabled),
        "suspended" => Ok(Versioning::Suspended),
        other => Err(raise(Error::Invalid(format!("versioning {other}")))),
    }
}

pub fn terms(condition_given: Option<&Bound<'_, PyAny>>, versioning_name: &str, naming: &Bound<'_, PyAny>) -> PyResult<Terms> {
    let py = naming.py();
    Ok(Terms {
        condition: condition(condition_given)?,
        versioning: versioning(versioning_name)?,
        naming: Naming {
            directory_mode: naming.getattr(intern!(py, "directory_mode"))?.extract()?,
            inherit: naming.getattr(intern!(py, "inherit"))?.extract()?,
        },
    })
}

/// None also where nothing is asked.
pub fn condition(given: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Condition>> {
    let Some(given) = given else { return Ok(None) };
    let etags = |name| given.getattr(name)?.extract::<Vec<String>>();
    let condition = Condition {
        if_match: etags(intern!(given.py(), "if_match"))?,
        if_none_match: etags(intern!(given.py(), "if_none_match"))?,
    };
    Ok((condition != Condition::default()).then_some(condition))
}
