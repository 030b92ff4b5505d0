//! An NVMe/TCP target over the volumes of an open store. `protocols/block/__init__.py` is its only user.

use crate::errors::raise;
use crate::pool::lock;
use crate::shared::Shared;
use crate::store::{Store, aside};
use pyo3::prelude::*;
use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use trefoil_core::error::{Error, Result};
use trefoil_nvme::{Access, CONNECTION_BYTES_MAX, Config, Host, Limits, Secret, Session, Target};

/// NQN, ids of volumes (None: all), the host's secret, the target's secret.
type Rule = (String, Option<BTreeSet<u32>>, Option<String>, Option<String>);
/// NQN, address, controller, discovery only, connections, paths of volumes.
type Shown = (String, String, u16, bool, usize, Vec<String>);

#[pyclass(frozen, module = "element_store._core")]
pub struct BlockTarget {
    shared: Arc<Shared>,
    target: Mutex<Option<Target>>,
    addresses: Vec<SocketAddr>,
}

fn address(text: &String) -> Result<SocketAddr> {
    text.parse()
        .map_err(|_| Error::Invalid(format!("'{text}' is no address: NVMe/TCP listens on IP:PORT")))
}

fn secret(text: Option<String>) -> Result<Option<Secret>> {
    text.map(|text| text.parse::<Secret>().map_err(Error::Invalid)).transpose()
}

fn host((nqn, volumes, host_secret, controller_secret): Rule) -> Result<Host> {
    Ok(Host {
        volumes,
        secret: secret(host_secret)?,
        controller_secret: secret(controller_secret)?,
        ..Host::new(&nqn)
    })
}

fn access(any_host: bool, hosts: Vec<Rule>) -> Result<Access> {
    Ok(Access {
        any_host,
        hosts: hosts.into_iter().map(host).collect::<Result<_>>()?,
        ..Access::default()
    })
}

/// Each connection has its share of memory, and those that are busy have this besides.
fn limits(connections: usize) -> Limits {
    const SHARED_BYTES: usize = 128 << 20;
    Limits {
        connections,
        memory_bytes: connections * CONNECTION_BYTES_MAX + SHARED_BYTES,
        ..Limits::default()
    }
}

fn shown(session: Session) -> Shown {
    let address = session.address.to_string();
    (
        session.host,
        address,
        session.controller,
        session.discovery,
        session.queues,
        session.volumes,
    )
}

impl BlockTarget {
    fn target(&self) -> MutexGuard<'_, Option<Target>> {
        lock(&self.target)
    }
}

#[pymethods]
impl BlockTarget {
    #[staticmethod]
    fn start(
        py: Python<'_>,
        store: &Store,
        listen: Vec<String>,
        advertise: Vec<String>,
        nqn: &str,
        serial: &str,
        any_host: bool,
        hosts: Vec<Rule>,
        connections_max: usize,
    ) -> PyResult<Py<PyAny>> {
        let shared = store.shared().clone();
        let volumes = shared.store()?;
        let addresses = |texts: &[String]| texts.iter().map(address).collect::<Result<Vec<_>>>();
        let config = Config {
            listen: addresses(&listen).map_err(raise)?,
            advertise: addresses(&advertise).map_err(raise)?,
            nqn: nqn.into(),
            serial: serial.into(),
            access: access(any_host, hosts).map_err(raise)?,
            limits: limits(connections_max),
        };
        let (future, ticket) = shared.begin(py)?;
        aside("nvme-start", move || match Target::start(volumes, config) {
            Ok(target) => ticket.finish(move |py| {
                let (addresses, target) = (target.addresses().to_vec(), Mutex::new(Some(target)));
                let target = BlockTarget { shared, target, addresses };
                Ok(Py::new(py, target)?.into_any())
            }),
            Err(error) => ticket.fail(Error::Refused(format!("NVMe/TCP: {error}")).into()),
        })?;
        Ok(future)
    }

    /// Where it listens.
    #[getter]
    fn addresses(&self) -> Vec<String> {
        self.addresses.iter().map(SocketAddr::to_string).collect()
    }

    /// Other rules from now on.
    fn set_access(&self, py: Python<'_>, any_host: bool, hosts: Vec<Rule>) -> PyResult<()> {
        let access = access(any_host, hosts).map_err(raise)?;
        py.detach(|| {
            if let Some(target) = &*self.target() {
                target.set_access(access);
            }
        });
        Ok(())
    }

    /// Hosts that are connected.
    fn sessions(&self, py: Python<'_>) -> Vec<Shown> {
        let sessions = py.detach(|| self.target().as_ref().map(Target::sessions).unwrap_or_default());
        sessions.into_iter().map(shown).collect()
    }

    fn metrics(&self, py: Python<'_>) -> HashMap<String, f64> {
        py.detach(|| self.target().iter().flat_map(Target::metrics).collect())
    }

    fn stop(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let target = self.target().take();
        let target = target.ok_or_else(|| raise(Error::Invalid("the target was stopped".into())))?;
        let (future, ticket) = self.shared.begin(py)?;
        aside("nvme-stop", move || {
            target.stop();
            ticket.finish(|py| Ok(py.None()));
        })?;
        Ok(future)
    }
}

/// Is it a secret as `nvme gen-dhchap-key` prints it? Raises Invalid.
#[pyfunction]
pub fn check_host_secret(text: String) -> PyResult<()> {
    secret(Some(text)).map(drop).map_err(raise)
}
