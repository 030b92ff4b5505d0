//! The store as Python sees it. Arguments are converted while the interpreter's lock is held, everything else happens in the store's threads;
//! each call returns a future of the event loop that opened the store.

use crate::arguments::{self, check_key};
use crate::bridge::{Attached, Bridge};
use crate::chunks::PIECE_BYTES;
use crate::content::Content;
use crate::errors::{Failure, raise};
use crate::files::Files;
use crate::memory::MemoryDevices;
use crate::modes::Modes;
use crate::pool::Pool;
use crate::shared::Shared;
use crate::snapshots::Snapshots;
use crate::staged::Staged;
use crate::values::ToPython;
use crate::volumes::Volumes;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use trefoil_core::element::info::{Digests, ElementInfo, Removal, Terms};
use trefoil_core::element::rows::Attributes;
use trefoil_core::error::{Error, Result};
use trefoil_core::store::digest::{self, Hasher};
use trefoil_core::store::{self as core, Completion, Done, ListQuery, OpenOptions, SMALL_BYTES_MAX, VersionQuery};

/// Bytes that are hashed on the spot: about 25 µs of MD5, less than a trip through a thread costs a busy loop.
const INLINE_BYTES_MAX: usize = 16 * 1024;
/// Keys of one `delete_many`.
const DELETE_KEYS_MAX: usize = 1000;
/// Bytes of the row that says where an extent of staged content is.
const EXTENT_ROW_BYTES: usize = 400;
/// Bytes of staged content whose many extents the store may have to assemble before it can name them.
const ASSEMBLED_BYTES_MIN: u64 = 256 * 1024 * 1024;

type Future = PyResult<Py<PyAny>>;
type Object<'a, 'py> = &'a Bound<'py, PyAny>;
type Optional<'a, 'py> = Option<&'a Bound<'py, PyAny>>;

#[pyclass(frozen, module = "element_store._core")]
pub struct Store {
    shared: Arc<Shared>,
}

/// A small write whose digests are still to be computed.
struct Put {
    view: String,
    key: Vec<u8>,
    bytes: Vec<u8>,
    attributes: Attributes,
    names: Vec<String>,
    expected: BTreeMap<String, Vec<u8>>,
    terms: Terms,
}

impl Put {
    /// What is kept with the content. Raises Digest where it differs from what was announced.
    fn digests(&self) -> Result<Digests> {
        let names: Vec<&str> = self
            .names
            .iter()
            .chain(self.expected.keys())
            .map(String::as_str)
            .chain(["md5"])
            .collect();
        let mut digests = digest::digests(&names, &self.bytes)?;
        if let Some((name, _)) = self.expected.iter().find(|(name, value)| digests.get(*name) != Some(value)) {
            return Err(Error::Digest(name.clone()));
        }
        digests.retain(|name, _| name == "md5" || self.names.contains(name));
        Ok(digests)
    }

    fn commit(self, store: &core::Store, digests: Result<Digests>, done: Done<ElementInfo>) {
        match digests {
            Ok(digests) => store.put(&self.view, &self.key, self.bytes, self.attributes, digests, self.terms, done),
            Err(error) => done(Err(error)),
        }
    }
}

/// About what a change of a key writes in rows, besides what any change does: directories on the way, attributes twice.
fn row_bytes(key: &[u8], attributes: Option<&Attributes>) -> usize {
    const DIRECTORY_BYTES: usize = 160;
    let xattrs = attributes.map_or(0, |attributes| {
        attributes.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum()
    });
    3 * key.len() + DIRECTORY_BYTES * key.iter().filter(|byte| **byte == b'/').count() + 2 * xattrs
}

/// Runs something that may take long, and is not a call among calls, in a thread of its own.
pub fn aside(name: &str, work: impl FnOnce() + Send + 'static) -> PyResult<()> {
    std::thread::Builder::new().name(name.into()).spawn(work)?;
    Ok(())
}

impl Store {
    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Opens in a thread of its own, and attaches to the running event loop.
    fn open_with(py: Python<'_>, open: impl FnOnce() -> Result<Arc<core::Store>> + Send + 'static) -> Future {
        let bridge = Attached(Bridge::attach(py)?);
        let (future, ticket) = bridge.0.begin(py)?;
        aside("store-open", move || {
            // The bridge must last until a failure was told.
            let opened = match Pool::new().and_then(|pool| Ok((open()?, pool))) {
                Ok((store, pool)) => Ok(Shared::new(store, pool, bridge)),
                Err(error) => Err((error, bridge)),
            };
            // If nobody waits any more, what was opened is dropped with the completion, and closes.
            ticket.finish(|py| match opened {
                Ok(shared) => Ok(Py::new(py, Store { shared: Arc::new(shared) })?.into_any()),
                Err((error, _bridge)) => Err(raise(error)),
            });
        })?;
        Ok(future)
    }

    /// Commits staged content.
    fn place<T: ToPython>(
        &self,
        py: Python<'_>,
        content: core::Staged,
        bytes: usize,
        start: impl FnOnce(&core::Store, core::Staged, Done<T>) + Send + 'static,
    ) -> Future {
        if content.size() >= ASSEMBLED_BYTES_MIN {
            return self.shared.commit_aside(py, move |store, done| start(store, content, done));
        }
        // Small content is still in memory and goes into the journal now; of larger, only rows do.
        let bytes = bytes + (content.size() as usize).min(SMALL_BYTES_MAX) + content.runs() * EXTENT_ROW_BYTES;
        self.shared.commit(py, bytes, move |store, done| start(store, content, done))
    }
}

fn limit(what: &str) -> PyErr {
    raise(Error::Limit(what.into()))
}

#[pymethods]
impl Store {
    #[staticmethod]
    fn open(
        py: Python<'_>,
        devices: Vec<PathBuf>,
        state: PathBuf,
        code: Option<(u8, u8)>,
        format_block_devices: bool,
        allow_degraded: bool,
        reduction: (String, Option<u64>, usize),
    ) -> Future {
        let options = OpenOptions {
            code,
            format_block_devices,
            allow_degraded,
            reduction: crate::modes::settings(&reduction)?,
            ..OpenOptions::default()
        };
        Self::open_with(py, move || core::Store::open(&devices, &state, options))
    }

    /// On devices in memory.
    #[staticmethod]
    fn open_memory(py: Python<'_>, devices: &MemoryDevices, state: PathBuf, code: Option<(u8, u8)>, allow_degraded: bool) -> Future {
        let devices = devices.devices();
        let options = OpenOptions {
            code,
            allow_degraded,
            ..OpenOptions::default()
        };
        Self::open_with(py, move || {
            std::fs::create_dir_all(&state).map_err(|error| Error::Refused(format!("state directory {}: {error}", state.display())))?;
            core::Store::open_on(devices, &state, options)
        })
    }

    /// `detach` is to follow when the future is settled.
    fn close(&self, py: Python<'_>) -> Future {
        let (future, ticket) = self.shared.begin(py)?;
        let (store, pool) = (self.shared.take_store(), self.shared.pool.clone());
        aside("store-close", move || {
            let closed = store.as_ref().map_or(Ok(()), |store| store.close());
            pool.close();
            // Devices are closed when the future is settled, unless content or staged content is still held.
            drop(store);
            ticket.settle(closed);
        })?;
        Ok(future)
    }

    fn detach(&self, py: Python<'_>) -> PyResult<()> {
        self.shared.bridge.0.detach(py)
    }

    /// The same namespace as files.
    fn files(&self, strict: bool) -> Files {
        Files::new(self.shared.clone(), strict)
    }

    fn volumes(&self) -> Volumes {
        Volumes::new(self.shared.clone())
    }

    fn modes(&self) -> Modes {
        Modes::new(self.shared.clone())
    }

    fn snapshots(&self) -> Snapshots {
        Snapshots::new(self.shared.clone())
    }

    // Views
    fn create_view(&self, py: Python<'_>, name: String, attributes: Object) -> Future {
        let attributes = arguments::attributes(attributes)?;
        self.shared
            .commit_aside(py, move |store, done| store.create_view(&name, attributes, done))
    }

    fn set_view_attributes(&self, py: Python<'_>, name: String, attributes: Object) -> Future {
        let attributes = arguments::attributes(attributes)?;
        self.shared
            .commit_aside(py, move |store, done| store.set_view_attributes(&name, attributes, done))
    }

    fn delete_view(&self, py: Python<'_>, name: String) -> Future {
        self.shared.call(py, move |store| store.delete_view(&name))
    }

    fn view(&self, py: Python<'_>, name: String) -> Future {
        self.shared.call(py, move |store| store.view(&name))
    }

    fn views(&self, py: Python<'_>) -> Future {
        self.shared.call(py, |store| store.views())
    }

    // Elements by key
    fn lookup(&self, py: Python<'_>, view: String, key: Vec<u8>, version: Option<u64>) -> Future {
        self.shared.call(py, move |store| store.lookup(&view, &key, version))
    }

    fn version(&self, py: Python<'_>, view: String, key: Vec<u8>, version: Option<u64>) -> Future {
        self.shared.call(py, move |store| store.version(&view, &key, version))
    }

    #[expect(clippy::too_many_arguments, reason = "they are those of the interface")]
    fn put(
        &self,
        py: Python<'_>,
        view: String,
        key: &[u8],
        data: Object,
        attributes: Object,
        digests: Object,
        expected: Optional,
        condition: Optional,
        versioning: &str,
        naming: Object,
    ) -> Future {
        if arguments::content_bytes(data)? > SMALL_BYTES_MAX {
            return Err(limit("small content"));
        }
        check_key(key)?;
        let put = Put {
            view,
            key: key.to_vec(),
            bytes: arguments::content(data)?,
            attributes: arguments::attributes(attributes)?,
            names: arguments::names(digests)?,
            expected: expected.map(arguments::mapping).transpose()?.unwrap_or_default(),
            terms: arguments::terms(condition, versioning, naming)?,
        };
        if put.bytes.len() <= INLINE_BYTES_MAX {
            let digests = put.digests().map_err(raise)?;
            let bytes = put.bytes.len() + row_bytes(&put.key, Some(&put.attributes));
            return self
                .shared
                .commit(py, bytes, move |store, done| put.commit(store, Ok(digests), done));
        }
        self.shared.commit_aside(py, move |store, done| {
            let digests = put.digests();
            put.commit(store, digests, done);
        })
    }

    fn stage(&self, digests: Object) -> PyResult<Staged> {
        self.shared.pool.admit().map_err(raise)?;
        let hasher = Hasher::new(&arguments::names(digests)?).map_err(raise)?;
        Ok(Staged::new(self.shared.clone(), self.shared.store()?.stage(), hasher))
    }

    #[expect(clippy::too_many_arguments, reason = "they are those of the interface")]
    fn publish(
        &self,
        py: Python<'_>,
        view: String,
        key: Vec<u8>,
        staged: &Staged,
        attributes: Object,
        digests: Object,
        condition: Optional,
        versioning: &str,
        naming: Object,
    ) -> Future {
        check_key(&key)?;
        let (attributes, digests) = (arguments::attributes(attributes)?, arguments::digests(digests)?);
        let (terms, content) = (arguments::terms(condition, versioning, naming)?, staged.take()?);
        let bytes = row_bytes(&key, Some(&attributes));
        self.place(py, content, bytes, move |store, content, done| {
            store.publish(&view, &key, content, attributes, digests, terms, done);
        })
    }

    /// The future has a Content.
    fn open_content(&self, py: Python<'_>, view: String, key: Vec<u8>, version: Option<u64>) -> Future {
        self.shared.pool.admit().map_err(raise)?;
        let (shared, store) = (self.shared.clone(), self.shared.store()?);
        let (future, ticket) = self.shared.begin(py)?;
        self.shared.pool.submit(move || {
            let opened = store.open_content(&view, &key, version);
            ticket.finish(move |py| Content::wrap(py, shared, opened.map_err(Failure::from)?));
        });
        Ok(future)
    }

    fn delete(&self, py: Python<'_>, view: String, key: Vec<u8>, version: Option<u64>, condition: Optional, versioning: &str) -> Future {
        let (condition, versioning) = (arguments::condition(condition)?, arguments::versioning(versioning)?);
        let removal = Removal { key, version, condition };
        self.shared.commit(py, row_bytes(&removal.key, None), move |store, done| {
            store.delete(&view, removal, versioning, done)
        })
    }

    fn delete_many(
        &self,
        py: Python<'_>,
        view: String,
        keys: Vec<Vec<u8>>,
        versions: Vec<Option<u64>>,
        conditions: Vec<Option<Bound<'_, PyAny>>>,
        versioning: &str,
    ) -> Future {
        if keys.len() > DELETE_KEYS_MAX || keys.len() != conditions.len() || keys.len() != versions.len() {
            return Err(limit("keys"));
        }
        let versioning = arguments::versioning(versioning)?;
        let removals = keys.into_iter().zip(versions).zip(&conditions);
        let removals = removals
            .map(|((key, version), condition)| {
                let condition = arguments::condition(condition.as_ref())?;
                Ok(Removal { key, version, condition })
            })
            .collect::<PyResult<Vec<_>>>()?;
        self.shared.call(py, move |store| store.delete_many(&view, removals, versioning))
    }

    #[expect(clippy::too_many_arguments, reason = "they are those of the interface")]
    fn copy(
        &self,
        py: Python<'_>,
        source: &Content,
        view: String,
        key: Vec<u8>,
        attributes: Object,
        digests: Object,
        condition: Optional,
        versioning: &str,
        naming: Object,
    ) -> Future {
        check_key(&key)?;
        let (attributes, digests) = (arguments::attributes(attributes)?, arguments::digests(digests)?);
        let (source, terms) = (source.pinned()?, arguments::terms(condition, versioning, naming)?);
        self.shared
            .call(py, move |store| store.copy(&source, &view, &key, attributes, digests, terms))
    }

    fn digest(&self, py: Python<'_>, source: &Content, start: u64, stop: u64, digests: Object) -> Future {
        let source = source.checked(start, stop)?;
        let mut hasher = Hasher::new(&arguments::names(digests)?).map_err(raise)?;
        self.shared.call(py, move |_| {
            let mut at = start;
            while at < stop {
                let to = ((at / PIECE_BYTES + 1) * PIECE_BYTES).min(stop);
                hasher.update(&source.read(at, to)?);
                at = to;
            }
            Ok(hasher.finish())
        })
    }

    fn set_attributes(
        &self,
        py: Python<'_>,
        view: String,
        key: Vec<u8>,
        version: Option<u64>,
        attributes: Object,
        condition: Optional,
    ) -> Future {
        let (attributes, condition) = (arguments::attributes(attributes)?, arguments::condition(condition)?);
        self.shared.commit(py, row_bytes(&key, Some(&attributes)), move |store, done| {
            store.set_attributes(&view, &key, version, attributes, condition, done)
        })
    }

    fn list(&self, py: Python<'_>, view: String, prefix: Vec<u8>, delimiter: Vec<u8>, start_after: Vec<u8>, limit: usize) -> Future {
        let query = ListQuery {
            prefix,
            delimiter,
            start_after,
            limit,
        };
        self.shared.call(py, move |store| store.list(&view, &query))
    }

    fn list_versions(
        &self,
        py: Python<'_>,
        view: String,
        prefix: Vec<u8>,
        delimiter: Vec<u8>,
        after_key: Vec<u8>,
        after_version: Option<u64>,
        limit: usize,
    ) -> Future {
        let list = ListQuery {
            prefix,
            delimiter,
            start_after: after_key,
            limit,
        };
        let query = VersionQuery { list, after_version };
        self.shared.call(py, move |store| store.list_versions(&view, &query))
    }

    // Multipart uploads
    fn create_upload(&self, py: Python<'_>, view: String, key: Vec<u8>, attributes: Object, extra: Object) -> Future {
        check_key(&key)?;
        let (attributes, extra) = (arguments::attributes(attributes)?, arguments::mapping(extra)?);
        self.shared
            .commit_aside(py, move |store, done| store.create_upload(&view, &key, attributes, extra, done))
    }

    fn upload(&self, py: Python<'_>, view: String, key: Vec<u8>, upload_id: String) -> Future {
        self.shared.call(py, move |store| store.upload(&view, &key, &upload_id))
    }

    fn put_part(
        &self,
        py: Python<'_>,
        view: String,
        key: Vec<u8>,
        upload_id: String,
        number: u32,
        staged: &Staged,
        digests: Object,
    ) -> Future {
        let (digests, content) = (arguments::digests(digests)?, staged.take()?);
        self.place(py, content, row_bytes(&key, None), move |store, content, done| {
            store.put_part(&view, &key, &upload_id, number, content, digests, done);
        })
    }

    #[expect(clippy::too_many_arguments, reason = "they are those of the interface")]
    fn copy_part(
        &self,
        py: Python<'_>,
        view: String,
        key: Vec<u8>,
        upload_id: String,
        number: u32,
        source: &Content,
        start: u64,
        stop: u64,
        digests: Object,
    ) -> Future {
        let (source, digests) = (source.checked(start, stop)?, arguments::digests(digests)?);
        self.shared.call(py, move |store| {
            store.copy_part(&view, &key, &upload_id, number, &source, start, stop, digests)
        })
    }

    fn list_parts(&self, py: Python<'_>, view: String, key: Vec<u8>, upload_id: String, after: u32, limit: usize) -> Future {
        self.shared
            .call(py, move |store| store.list_parts(&view, &key, &upload_id, after, limit))
    }

    fn list_uploads(&self, py: Python<'_>, view: String, prefix: Vec<u8>, after_key: Vec<u8>, after_id: String, limit: usize) -> Future {
        self.shared
            .call(py, move |store| store.list_uploads(&view, &prefix, &after_key, &after_id, limit))
    }

    #[expect(clippy::too_many_arguments, reason = "they are those of the interface")]
    fn complete_upload(
        &self,
        py: Python<'_>,
        view: String,
        key: Vec<u8>,
        upload_id: String,
        parts: Vec<(u32, String)>,
        etag_digest: &[u8],
        digests: Object,
        composite: bool,
        condition: Optional,
        versioning: &str,
        naming: Object,
    ) -> Future {
        let etag_digest = etag_digest.try_into().map_err(|_| raise(Error::Invalid("etag digest".into())))?;
        let (digests, terms) = (arguments::mapping(digests)?, arguments::terms(condition, versioning, naming)?);
        let completion = Completion {
            parts,
            etag_digest,
            digests,
            composite,
            terms,
        };
        self.shared
            .call(py, move |store| store.complete_upload(&view, &key, &upload_id, completion))
    }

    fn abort_upload(&self, py: Python<'_>, view: String, key: Vec<u8>, upload_id: String) -> Future {
        self.shared
            .commit_aside(py, move |store, done| store.abort_upload(&view, &key, &upload_id, done))
    }

    // Records
    fn get_record(&self, py: Python<'_>, kind: String, name: String) -> Future {
        self.shared.call(py, move |store| store.get_record(&kind, &name))
    }

    fn put_record(&self, py: Python<'_>, kind: String, name: String, value: Vec<u8>, must_be_new: bool) -> Future {
        self.shared
            .commit_aside(py, move |store, done| store.put_record(&kind, &name, value, must_be_new, done))
    }

    fn delete_record(&self, py: Python<'_>, kind: String, name: String) -> Future {
        self.shared
            .commit_aside(py, move |store, done| store.delete_record(&kind, &name, done))
    }

    fn list_records(&self, py: Python<'_>, kind: String) -> Future {
        self.shared.call(py, move |store| store.list_records(&kind))
    }

    // The store itself
    fn status(&self, py: Python<'_>) -> Future {
        self.shared.call(py, |store| Ok(store.status()))
    }

    fn metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let store = self.shared.store()?;
        let metrics = py.detach(|| store.metrics());
        let dict = PyDict::new(py);
        metrics.iter().try_for_each(|(name, value)| dict.set_item(name, value))?;
        Ok(dict)
    }

    fn check(&self, py: Python<'_>) -> Future {
        self.shared.call(py, |store| store.check())
    }

    fn scrub(&self, py: Python<'_>) -> Future {
        self.shared.call(py, |store| store.scrub())
    }

    /// Of the whole pool, with where the devices' bytes are, or of what the keys with a prefix name.
    fn reduction(&self, py: Python<'_>, view: Option<String>, prefix: Vec<u8>) -> Future {
        self.shared.call(py, move |store| {
            let (found, usage) = match &view {
                Some(view) => (store.accounting_of(view, &prefix)?, None),
                None => (store.accounting()?, Some(store.usage()?)),
            };
            let named = found.named().into_iter().map(|(name, value)| (name.to_owned(), value));
            let used = usage.map(|usage| usage.named()).into_iter().flatten();
            Ok(named
                .chain(used.map(|(name, value)| (name.to_owned(), value as i64)))
                .collect::<BTreeMap<_, _>>())
        })
    }

    /// Where a key's bytes are, part by part.
    fn why(&self, py: Python<'_>, view: String, key: Vec<u8>) -> Future {
        check_key(&key)?;
        self.shared.call(py, move |store| store.why(&view, &key))
    }
}
