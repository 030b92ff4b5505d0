//! The core's values to the dataclasses of `element_store.types`. Runs on the loop's thread: whatever is slow here slows every call.

use crate::errors::Failure;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyBytes, PyDict, PyList, PyTuple};
use std::collections::BTreeMap;
use trefoil_core::element::info::{Deletion, ElementInfo, Page, PartInfo, UploadInfo, UploadedPart, VersionInfo, VersionPage, ViewInfo};
use trefoil_core::element::invariants::Findings;
use trefoil_core::element::rows::{Attributes, ElementRow, Etag, Kind};
use trefoil_core::error::Result;
use trefoil_core::store::{DeviceStatus, Part, Status, VolumeInfo};

/// A value that a call ends with.
pub trait ToPython: Send + 'static {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>>;
}

/// The classes, looked up once.
struct Types {
    element: Py<PyAny>,
    attributes: Py<PyAny>,
    view: Py<PyAny>,
    page: Py<PyAny>,
    version: Py<PyAny>,
    version_page: Py<PyAny>,
    deletion: Py<PyAny>,
    upload: Py<PyAny>,
    part: Py<PyAny>,
    device: Py<PyAny>,
    pool: Py<PyAny>,
    volume: Py<PyAny>,
    directory: Py<PyAny>,
    file: Py<PyAny>,
}

fn types(py: Python<'_>) -> PyResult<&Types> {
    static TYPES: PyOnceLock<Types> = PyOnceLock::new();
    TYPES.get_or_try_init(py, || {
        let module = py.import("element_store.types")?;
        let class = |name: &str| module.getattr(name).map(Bound::unbind);
        let kind = module.getattr("Kind")?;
        Ok(Types {
            element: class("Element")?,
            attributes: class("Attributes")?,
            view: class("View")?,
            page: class("Page")?,
            version: class("Version")?,
            version_page: class("VersionPage")?,
            deletion: class("Deletion")?,
            upload: class("UploadInfo")?,
            part: class("Part")?,
            device: class("DeviceStatus")?,
            pool: class("PoolStatus")?,
            volume: class("Volume")?,
            directory: kind.getattr("DIRECTORY")?.unbind(),
            file: kind.getattr("FILE")?.unbind(),
        })
    })
}

/// Text to bytes, in the order of names.
fn dict<'py>(py: Python<'py>, map: &BTreeMap<String, Vec<u8>>) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in map {
        dict.set_item(name, PyBytes::new(py, value))?;
    }
    Ok(dict)
}

pub fn digests(py: Python<'_>, digests: &BTreeMap<String, Vec<u8>>) -> PyResult<Py<PyAny>> {
    Ok(dict(py, digests)?.into_any().unbind())
}

fn list<T: ToPython>(py: Python<'_>, values: Vec<T>) -> PyResult<Bound<'_, PyList>> {
    let values = values.into_iter().map(|value| value.to_python(py)).collect::<PyResult<Vec<_>>>()?;
    PyList::new(py, values)
}

impl ToPython for () {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(py.None())
    }
}

impl ToPython for bool {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.into_pyobject(py)?.to_owned().into_any().unbind())
    }
}

impl ToPython for Vec<u8> {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(PyBytes::new(py, &self).into_any().unbind())
    }
}

impl ToPython for Option<Vec<u8>> {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.map_or_else(|| Ok(py.None()), |value| value.to_python(py))
    }
}

impl ToPython for BTreeMap<String, Vec<u8>> {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        digests(py, &self)
    }
}

impl ToPython for BTreeMap<String, u64> {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.into_pyobject(py)?.into_any().unbind())
    }
}

impl ToPython for BTreeMap<String, i64> {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.into_pyobject(py)?.into_any().unbind())
    }
}

/// What `StoredPart` is made of, in its order.
impl ToPython for Vec<Part> {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let fields = |part: Part| {
            let range = (part.offset, part.length, part.extent, part.kind);
            let chunk = (part.chunk, part.chunk_bytes, part.stored_bytes, part.bases, part.references);
            (range, chunk, (part.segment, part.shard, part.at))
        };
        Ok(PyList::new(py, self.into_iter().map(fields).collect::<Vec<_>>())?
            .into_any()
            .unbind())
    }
}

/// How many there are, and the sentences.
impl ToPython for Findings {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok((self.count, self.sentences).into_pyobject(py)?.into_any().unbind())
    }
}

/// One result per key: an exception object where it failed.
impl ToPython for Vec<Result<Deletion>> {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let one = |result: Result<Deletion>| match result {
            Ok(deletion) => deletion.to_python(py),
            Err(error) => Ok(PyErr::from(Failure::from(error)).into_value(py).into_any()),
        };
        let results = self.into_iter().map(one).collect::<PyResult<Vec<_>>>()?;
        Ok(PyList::new(py, results)?.into_any().unbind())
    }
}

impl ToPython for Vec<(String, Vec<u8>)> {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let records = self.iter().map(|(name, value)| (name, PyBytes::new(py, value)));
        Ok(PyList::new(py, records.collect::<Vec<_>>())?.into_any().unbind())
    }
}

fn attributes(py: Python<'_>, types: &Types, attributes: &Attributes) -> PyResult<Py<PyAny>> {
    types
        .attributes
        .call1(py, (attributes.uid, attributes.gid, attributes.mode, dict(py, &attributes.xattrs)?))
}

fn part_digests<'py>(py: Python<'py>, parts: &[PartInfo]) -> PyResult<Bound<'py, PyTuple>> {
    if parts.iter().any(|part| part.digest.is_none()) {
        return Ok(PyTuple::empty(py));
    }
    PyTuple::new(
        py,
        parts
            .iter()
            .flat_map(|part| &part.digest)
            .map(|digest| PyBytes::new(py, digest))
            .collect::<Vec<_>>(),
    )
}

/// Digests kept with the content: those of the row, and the MD5 that is its ETag.
fn kept<'py>(py: Python<'py>, row: &ElementRow) -> PyResult<Bound<'py, PyDict>> {
    let digests = dict(py, &row.digests)?;
    if let Etag::Md5(md5) = &row.etag {
        digests.set_item(intern!(py, "md5"), PyBytes::new(py, md5))?;
    }
    Ok(digests)
}

impl ToPython for ElementInfo {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let (types, row) = (types(py)?, &self.row);
        let kind = match row.kind {
            Kind::Directory => &types.directory,
            _ => &types.file,
        };
        let sizes = self.parts.iter().map(|part| part.size).collect::<Vec<_>>();
        // Twelve is the longest tuple that can be arguments.
        let version = (row.version != 0)
            .then(|| [("version_id", row.version)].into_py_dict(py))
            .transpose()?;
        types.element.call(
            py,
            (
                self.id,
                kind,
                PyBytes::new(py, &self.key),
                row.size,
                self.etag(),
                row.content_version,
                row.modified_ns,
                attributes(py, types, &row.attributes)?,
                kept(py, row)?,
                row.composite,
                PyTuple::new(py, sizes)?,
                part_digests(py, &self.parts)?,
            ),
            version.as_ref(),
        )
    }
}

impl ToPython for ViewInfo {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let types = types(py)?;
        let attributes = attributes(py, types, &self.attributes)?;
        types
            .view
            .call1(py, (self.name, self.id, self.created_ns, attributes, self.snapshot_of))
    }
}

impl ToPython for Vec<ViewInfo> {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(list(py, self)?.into_any().unbind())
    }
}

impl ToPython for Page {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let prefixes = self.prefixes.iter().map(|prefix| PyBytes::new(py, prefix)).collect::<Vec<_>>();
        let next_after = self.next_after.to_python(py)?;
        types(py)?
            .page
            .call1(py, (list(py, self.elements)?, PyList::new(py, prefixes)?, next_after))
    }
}

impl ToPython for Deletion {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        types(py)?.deletion.call1(py, (self.existed, self.marker, self.version))
    }
}

impl ToPython for VersionInfo {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let element = self.element.map_or_else(|| Ok(py.None()), |element| element.to_python(py))?;
        types(py)?.version.call1(
            py,
            (PyBytes::new(py, &self.key), self.version, self.is_latest, self.modified_ns, element),
        )
    }
}

impl ToPython for VersionPage {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let prefixes = self.prefixes.iter().map(|prefix| PyBytes::new(py, prefix)).collect::<Vec<_>>();
        let (key, version) = self.next_after.map_or((None, None), |(key, version)| (Some(key), version));
        types(py)?.version_page.call1(
            py,
            (list(py, self.versions)?, PyList::new(py, prefixes)?, key.to_python(py)?, version),
        )
    }
}

impl ToPython for UploadInfo {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let types = types(py)?;
        let attributes = attributes(py, types, &self.attributes)?;
        types.upload.call1(
            py,
            (
                self.id,
                PyBytes::new(py, &self.key),
                self.created_ns,
                attributes,
                dict(py, &self.extra)?,
            ),
        )
    }
}

impl ToPython for Vec<UploadInfo> {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(list(py, self)?.into_any().unbind())
    }
}

impl ToPython for UploadedPart {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        types(py)?
            .part
            .call1(py, (self.number, self.size, self.etag, self.modified_ns, dict(py, &self.digests)?))
    }
}

impl ToPython for Vec<UploadedPart> {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(list(py, self)?.into_any().unbind())
    }
}

impl ToPython for DeviceStatus {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        types(py)?.device.call1(
            py,
            (self.index, self.name, self.state, self.bytes_total, self.bytes_used, self.reason),
        )
    }
}

impl ToPython for Status {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        types(py)?.pool.call1(
            py,
            (
                self.uuid,
                self.code,
                self.protected,
                self.membership_epoch,
                list(py, self.devices)?,
                self.bytes_total,
                self.bytes_used,
                PyList::new(py, self.advice)?,
            ),
        )
    }
}

fn uuid_text(uuid: &[u8; 16]) -> String {
    let hex: String = uuid.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

impl ToPython for VolumeInfo {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let volume = self.volume;
        let arguments = (
            volume.id,
            volume.path,
            uuid_text(&volume.uuid),
            volume.size_bytes,
            volume.block_bytes,
            self.allocated_bytes,
            self.handles,
            self.is_unlocked,
            volume.read_only,
        );
        types(py)?.volume.call1(py, arguments)
    }
}

impl ToPython for Vec<VolumeInfo> {
    fn to_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(list(py, self)?.into_any().unbind())
    }
}
