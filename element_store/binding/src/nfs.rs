//! An NFS server over an open store. `protocols/nfs/__init__.py` is its only user.

use crate::errors::raise;
use crate::pool::lock;
use crate::shared::Shared;
use crate::store::{Store, aside};
use pyo3::prelude::*;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use trefoil_core::error::{Error, Result};
use trefoil_nfs::{Config, Export, Limits, Network, Server, Squash};

/// Path, networks, read only, squash, anonymous uid and gid, privileged ports only.
type Rules = (String, Vec<String>, bool, String, u32, u32, bool);

#[pyclass(frozen, module = "element_store._core")]
pub struct NfsServer {
    shared: Arc<Shared>,
    server: Mutex<Option<Server>>,
    address: SocketAddr,
}

fn address(text: &str) -> Result<SocketAddr> {
    text.parse()
        .map_err(|_| Error::Invalid(format!("'{text}' is no address: NFS listens on IP:PORT")))
}

fn export((path, networks, read_only, squash, anonymous_uid, anonymous_gid, privileged_ports): Rules) -> Result<Export> {
    let networks = networks
        .iter()
        .map(|text| text.parse::<Network>())
        .collect::<std::result::Result<_, _>>();
    let squash = match squash.as_str() {
        "root" => Squash::Root,
        "all" => Squash::All,
        "none" => Squash::None,
        _ => return Err(Error::Invalid(format!("'{squash}' is none of root, all, none"))),
    };
    Ok(Export {
        path,
        networks: networks.map_err(Error::Invalid)?,
        read_only,
        squash,
        anonymous_uid,
        anonymous_gid,
        privileged_ports,
    })
}

#[pymethods]
impl NfsServer {
    /// `lock_hosts` remembers who holds locks; without it none are served.
    #[staticmethod]
    fn start(
        py: Python<'_>,
        store: &Store,
        listen: &str,
        exports: Vec<Rules>,
        fsid: u64,
        key: [u8; 32],
        lock_hosts: Option<PathBuf>,
        portmapper: Option<&str>,
        connections_max: usize,
    ) -> PyResult<Py<PyAny>> {
        let shared = store.shared().clone();
        let files = shared.store()?;
        let exports = exports.into_iter().map(export).collect::<Result<_>>().map_err(raise)?;
        let config = Config {
            locks: lock_hosts.is_some().then(|| shared.locks.clone()),
            lock_hosts,
            portmapper: portmapper.map(address).transpose().map_err(raise)?,
            limits: Limits {
                connections: connections_max,
                ..Limits::default()
            },
            ..Config::new(address(listen).map_err(raise)?, exports, fsid, key)
        };
        let (future, ticket) = shared.begin(py)?;
        aside("nfs-start", move || match Server::start(files, config) {
            Ok(server) => ticket.finish(move |py| {
                let (address, server) = (server.address(), Mutex::new(Some(server)));
                Ok(Py::new(py, NfsServer { shared, server, address })?.into_any())
            }),
            Err(error) => ticket.fail(Error::Refused(format!("NFS: {error}")).into()),
        })?;
        Ok(future)
    }

    /// Where it listens.
    #[getter]
    fn address(&self) -> String {
        self.address.to_string()
    }

    fn metrics(&self) -> HashMap<String, f64> {
        let mut samples: HashMap<String, f64> = lock(&self.server).iter().flat_map(Server::metrics).collect();
        let (held, waiting) = self.shared.locks.count();
        samples.insert("file_locks_held".into(), held as f64);
        samples.insert("file_locks_waiting".into(), waiting as f64);
        samples
    }

    fn stop(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let server = lock(&self.server).take();
        let server = server.ok_or_else(|| raise(Error::Invalid("the server was stopped".into())))?;
        let (future, ticket) = self.shared.begin(py)?;
        aside("nfs-stop", move || {
            server.stop();
            ticket.finish(|py| Ok(py.None()));
        })?;
        Ok(future)
    }
}
