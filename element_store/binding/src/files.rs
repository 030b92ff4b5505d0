//! The namespace as files for faces that are written in Python: every call of the core's `FileSystem`, on the thread that calls, which waits for it
//! without the interpreter's lock. Errors are OSError with their errno; a store that closes is EIO, as for any other face.

use crate::shared::Shared;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyList, PyTuple};
use std::ffi::c_int;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use trefoil_core::filesystem::news::{self, Listener, News};
use trefoil_core::filesystem::{
    self, Allocation, Changes, Errno, FileSystem, Inode, New, Owner, Replace, Seek, Strict, Time, Type, XattrMode,
};

/// `S_IFMT` and what it holds.
const FORMAT: u32 = 0o170_000;
const FIFO: u32 = 0o010_000;
const CHARACTER_DEVICE: u32 = 0o020_000;
const DIRECTORY: u32 = 0o040_000;
const BLOCK_DEVICE: u32 = 0o060_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const SOCKET: u32 = 0o140_000;
const PERMISSIONS: u32 = 0o7777;
/// `renameat2(2)`
const RENAME_NOREPLACE: u32 = 1;
const RENAME_EXCHANGE: u32 = 2;
/// `fallocate(2)`
const KEEP_SIZE: u32 = 1;
const PUNCH_HOLE: u32 = 2;
const ZERO_RANGE: u32 = 16;
/// `lseek(2)`
const SEEK_DATA: u32 = 3;
const SEEK_HOLE: u32 = 4;
/// `setxattr(2)`
const XATTR_CREATE: u32 = 1;
const XATTR_REPLACE: u32 = 2;

#[pyclass(frozen, module = "element_store._core")]
pub struct Files {
    shared: Arc<Shared>,
    strict: bool,
    /// Of whoever keeps copies: what is done by this object is no news to them.
    listener: OnceLock<Arc<Listener>>,
}

/// An error number on its way to Python.
struct Failed(Errno);

impl From<Errno> for Failed {
    fn from(errno: Errno) -> Self {
        Self(errno)
    }
}

impl From<Failed> for PyErr {
    fn from(failed: Failed) -> Self {
        let number: c_int = failed.0.raw_os_error();
        let text = io::Error::from_raw_os_error(number).to_string();
        let sentence = text.split(" (os error").next().unwrap_or_default().to_owned();
        PyOSError::new_err((number, sentence))
    }
}

impl Files {
    /// `strict`: changes are durable when they return.
    pub fn new(shared: Arc<Shared>, strict: bool) -> Self {
        Self {
            shared,
            strict,
            listener: OnceLock::new(),
        }
    }

    /// The call may wait for devices: the interpreter goes on meanwhile.
    fn call<T: Send>(&self, py: Python<'_>, work: impl FnOnce(&dyn FileSystem) -> filesystem::Result<T> + Send) -> PyResult<T> {
        let store = self.shared.store().map_err(|_| Failed(Errno::IO))?;
        let strict = self.strict;
        let origin = self.listener.get().map_or(0, |listener| listener.origin());
        py.detach(|| {
            news::speak_as(origin);
            let done = if strict { work(&Strict(store)) } else { work(&*store) };
            news::speak_as(0);
            done
        })
        .map_err(|errno| Failed(errno).into())
    }

    fn node<'py>(
        &self,
        py: Python<'py>,
        work: impl FnOnce(&dyn FileSystem) -> filesystem::Result<filesystem::Node> + Send,
    ) -> PyResult<Bound<'py, PyAny>> {
        node(py, &self.call(py, work)?)
    }

    fn bytes<'py>(
        &self,
        py: Python<'py>,
        work: impl FnOnce(&dyn FileSystem) -> filesystem::Result<Vec<u8>> + Send,
    ) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.call(py, work)?))
    }
}

/// `st_mode` without permissions, and `st_rdev`.
fn format_of(kind: Type) -> (u32, u64) {
    match kind {
        Type::Fifo => (FIFO, 0),
        Type::CharacterDevice(number) => (CHARACTER_DEVICE, number),
        Type::Directory => (DIRECTORY, 0),
        Type::BlockDevice(number) => (BLOCK_DEVICE, number),
        Type::File => (FILE, 0),
        Type::Symlink => (SYMLINK, 0),
        Type::Socket => (SOCKET, 0),
    }
}

/// An `element_store.files.Node`: a tuple of 13 is taken apart in 63 ns, where each attribute of an object would cost 51.
fn node<'py>(py: Python<'py>, node: &filesystem::Node) -> PyResult<Bound<'py, PyAny>> {
    static MAKE: PyOnceLock<(Py<PyAny>, Py<PyAny>)> = PyOnceLock::new();
    let (make, class) = MAKE.get_or_try_init(py, || {
        let class = py.import("element_store.files")?.getattr("Node")?;
        PyResult::Ok((py.get_type::<PyTuple>().getattr("__new__")?.unbind(), class.unbind()))
    })?;
    let (format, device) = format_of(node.kind);
    let identity = [
        node.inode,
        u64::from(format | node.mode),
        device,
        u64::from(node.links),
        u64::from(node.uid),
        u64::from(node.gid),
    ];
    let sizes = [node.size, node.allocated];
    let times = [node.accessed_ns, node.modified_ns, node.changed_ns, node.created_ns];
    let number = |value: u64| value.into_pyobject(py).map(Bound::into_any);
    let mut fields = Vec::with_capacity(identity.len() + sizes.len() + times.len() + 1);
    for value in identity.into_iter().chain(sizes) {
        fields.push(number(value)?);
    }
    for value in times {
        fields.push(value.into_pyobject(py)?.into_any());
    }
    fields.push(number(node.version)?);
    make.bind(py).call1((class.bind(py), PyTuple::new(py, fields)?))
}

/// One of the news: what kind, the inode, and the name of an entry.
struct Told(News);

impl<'py> IntoPyObject<'py> for Told {
    type Target = PyTuple;
    type Output = Bound<'py, PyTuple>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        let (kind, inode, name) = match self.0 {
            News::Content(inode) => ("content", inode, Vec::new()),
            News::Attributes(inode) => ("attributes", inode, Vec::new()),
            News::Entry(directory, name) => ("entry", directory, name),
        };
        (kind, inode, PyBytes::new(py, &name)).into_pyobject(py)
    }
}

/// A time to be set: nanoseconds since 1970, or `element_store.files.NOW`.
fn time(value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Time>> {
    let Some(value) = value else { return Ok(None) };
    if value.extract::<&str>().is_ok_and(|word| word == "now") {
        return Ok(Some(Time::Now));
    }
    Ok(Some(Time::At(value.extract()?)))
}

fn new_of(mode: u32, device: u64) -> Result<New<'static>, Failed> {
    match mode & FORMAT {
        DIRECTORY => Ok(New::Directory),
        0 | FILE => Ok(New::File),
        FIFO => Ok(New::Fifo),
        SOCKET => Ok(New::Socket),
        CHARACTER_DEVICE => Ok(New::CharacterDevice(device)),
        BLOCK_DEVICE => Ok(New::BlockDevice(device)),
        _ => Err(Failed(Errno::INVAL)),
    }
}

#[pymethods]
impl Files {
    fn lookup<'py>(&self, py: Python<'py>, directory: Inode, name: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        self.node(py, |fs| fs.lookup(directory, name))
    }

    fn parent<'py>(&self, py: Python<'py>, directory: Inode) -> PyResult<Bound<'py, PyAny>> {
        self.node(py, |fs| fs.parent(directory))
    }

    fn stat<'py>(&self, py: Python<'py>, inode: Inode) -> PyResult<Bound<'py, PyAny>> {
        self.node(py, |fs| fs.stat(inode))
    }

    #[expect(clippy::too_many_arguments, reason = "they are those of the interface")]
    #[pyo3(signature = (inode, *, mode=None, uid=None, gid=None, size=None, accessed=None, modified=None, strip_privileges=false))]
    fn change<'py>(
        &self,
        py: Python<'py>,
        inode: Inode,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        accessed: Option<&Bound<'py, PyAny>>,
        modified: Option<&Bound<'py, PyAny>>,
        strip_privileges: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let changes = Changes {
            mode: mode.map(|mode| mode & PERMISSIONS),
            uid,
            gid,
            size,
            accessed: time(accessed)?,
            modified: time(modified)?,
            strip_privileges,
        };
        self.node(py, |fs| fs.change(inode, &changes))
    }

    fn create<'py>(
        &self,
        py: Python<'py>,
        directory: Inode,
        name: &[u8],
        mode: u32,
        device: u64,
        uid: u32,
        gid: u32,
    ) -> PyResult<Bound<'py, PyAny>> {
        let new = new_of(mode, device)?;
        self.node(py, |fs| fs.create(directory, name, new, mode & PERMISSIONS, Owner { uid, gid }))
    }

    fn symlink<'py>(
        &self,
        py: Python<'py>,
        directory: Inode,
        name: &[u8],
        target: &[u8],
        uid: u32,
        gid: u32,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.node(py, |fs| fs.create(directory, name, New::Symlink(target), 0o777, Owner { uid, gid }))
    }

    fn create_unnamed<'py>(&self, py: Python<'py>, directory: Inode, mode: u32, uid: u32, gid: u32) -> PyResult<Bound<'py, PyAny>> {
        self.node(py, |fs| fs.create_unnamed(directory, mode & PERMISSIONS, Owner { uid, gid }))
    }

    fn link<'py>(&self, py: Python<'py>, inode: Inode, directory: Inode, name: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        self.node(py, |fs| fs.link(inode, directory, name))
    }

    fn unlink(&self, py: Python<'_>, directory: Inode, name: &[u8]) -> PyResult<()> {
        self.call(py, |fs| fs.unlink(directory, name))
    }

    fn remove_directory(&self, py: Python<'_>, directory: Inode, name: &[u8]) -> PyResult<()> {
        self.call(py, |fs| fs.remove_directory(directory, name))
    }

    fn rename(
        &self,
        py: Python<'_>,
        from_directory: Inode,
        from_name: &[u8],
        to_directory: Inode,
        to_name: &[u8],
        flags: u32,
    ) -> PyResult<()> {
        let replace = match flags {
            0 => Replace::Yes,
            RENAME_NOREPLACE => Replace::No,
            RENAME_EXCHANGE => Replace::Exchange,
            _ => return Err(Failed(Errno::INVAL).into()),
        };
        self.call(py, |fs| fs.rename((from_directory, from_name), (to_directory, to_name), replace))
    }

    fn read_link<'py>(&self, py: Python<'py>, inode: Inode) -> PyResult<Bound<'py, PyBytes>> {
        self.bytes(py, |fs| fs.read_link(inode))
    }

    fn open<'py>(&self, py: Python<'py>, inode: Inode) -> PyResult<Bound<'py, PyAny>> {
        self.node(py, |fs| fs.open(inode))
    }

    /// A store that is closed has nothing open any more.
    fn close(&self, py: Python<'_>, inode: Inode) {
        let _ = self.call(py, |fs| {
            fs.close(inode);
            Ok(())
        });
    }

    fn read<'py>(&self, py: Python<'py>, inode: Inode, offset: u64, length: usize) -> PyResult<Bound<'py, PyBytes>> {
        self.bytes(py, |fs| fs.read(inode, offset, length))
    }

    fn write<'py>(&self, py: Python<'py>, inode: Inode, offset: u64, data: &[u8], strip_privileges: bool) -> PyResult<Bound<'py, PyAny>> {
        self.node(py, |fs| fs.write(inode, offset, data, strip_privileges))
    }

    fn append<'py>(&self, py: Python<'py>, inode: Inode, data: &[u8], strip_privileges: bool) -> PyResult<Bound<'py, PyAny>> {
        self.node(py, |fs| fs.append(inode, data, strip_privileges))
    }

    fn sync(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, |fs| fs.sync())
    }

    fn allocate<'py>(&self, py: Python<'py>, inode: Inode, mode: u32, offset: u64, length: u64) -> PyResult<Bound<'py, PyAny>> {
        let keep_size = mode & KEEP_SIZE != 0;
        let how = match mode & !KEEP_SIZE {
            0 => Allocation::Reserve { keep_size },
            PUNCH_HOLE if keep_size => Allocation::Punch,
            ZERO_RANGE => Allocation::Zero { keep_size },
            _ => return Err(Failed(Errno::OPNOTSUPP).into()),
        };
        self.node(py, |fs| fs.allocate(inode, how, offset, length))
    }

    fn seek(&self, py: Python<'_>, inode: Inode, offset: u64, whence: u32) -> PyResult<u64> {
        let what = match whence {
            SEEK_DATA => Seek::Data,
            SEEK_HOLE => Seek::Hole,
            _ => return Err(Failed(Errno::INVAL).into()),
        };
        self.call(py, |fs| fs.seek(inode, offset, what))
    }

    fn copy(&self, py: Python<'_>, from_inode: Inode, from_offset: u64, to_inode: Inode, to_offset: u64, length: u64) -> PyResult<u64> {
        self.call(py, |fs| fs.copy((from_inode, from_offset), (to_inode, to_offset), length))
    }

    fn list<'py>(&self, py: Python<'py>, directory: Inode, cookie: u64, limit: usize) -> PyResult<Bound<'py, PyList>> {
        let entries = self.call(py, |fs| fs.list(directory, cookie, limit))?;
        let shown = |entry: filesystem::Entry| Ok((PyBytes::new(py, &entry.name), entry.cookie, node(py, &entry.node)?));
        PyList::new(py, entries.into_iter().map(shown).collect::<PyResult<Vec<_>>>()?)
    }

    fn xattr<'py>(&self, py: Python<'py>, inode: Inode, name: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        self.bytes(py, |fs| fs.xattr(inode, name))
    }

    fn set_xattr(&self, py: Python<'_>, inode: Inode, name: &[u8], value: &[u8], flags: u32) -> PyResult<()> {
        let mode = match flags {
            0 => XattrMode::Any,
            XATTR_CREATE => XattrMode::Create,
            XATTR_REPLACE => XattrMode::Replace,
            _ => return Err(Failed(Errno::INVAL).into()),
        };
        self.call(py, |fs| fs.set_xattr(inode, name, value, mode))
    }

    fn xattrs<'py>(&self, py: Python<'py>, inode: Inode) -> PyResult<Bound<'py, PyList>> {
        let names = self.call(py, |fs| fs.xattrs(inode))?;
        PyList::new(py, names.iter().map(|name| PyBytes::new(py, name)))
    }

    fn remove_xattr(&self, py: Python<'_>, inode: Inode, name: &[u8]) -> PyResult<()> {
        self.call(py, |fs| fs.remove_xattr(inode, name))
    }

    /// False if the store has no news.
    fn listen(&self, py: Python<'_>) -> PyResult<bool> {
        let listener = self.call(py, |fs| Ok(fs.subscribe()))?;
        Ok(listener.is_some_and(|listener| self.listener.set(listener).is_ok()))
    }

    fn hear(&self, py: Python<'_>, seconds: f64) -> PyResult<Option<(Vec<Told>, bool)>> {
        let Some(listener) = self.listener.get() else { return Ok(None) };
        let limit = Duration::try_from_secs_f64(seconds).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let heard = py.detach(|| listener.hear(Some(limit)));
        Ok(heard.map(|heard| (heard.news.into_iter().map(Told).collect(), heard.everything)))
    }

    fn stop_listening(&self) {
        if let Some(listener) = self.listener.get() {
            listener.close();
        }
    }

    fn statistics(&self, py: Python<'_>) -> PyResult<(u64, u64, u64)> {
        let found = self.call(py, |fs| fs.statistics())?;
        Ok((found.total_bytes, found.free_bytes, found.elements))
    }
}
