//! Serves a file system in memory, to point clients at: `model_export [ADDRESS [SECONDS [NETWORK...]]]`, `127.0.0.1:22049` if none is given.
//!
//! It has one view, `/view`, that anyone may write to, and serves it to root as root. With SECONDS other than 0 the server is stopped and started
//! again that often, over the same file system: clients must not notice. The
//! environment's PORTMAPPER is an address for a port mapper (clients with locks ask at port 111), LOCK_HOSTS a file for the hosts that
//! hold some, CLIENT_PORTMAPPER the port to call them back by.

use std::sync::Arc;
use std::thread::{park, sleep};
use std::time::Duration;
use trefoil_core::filesystem::locks::LockTable;
use trefoil_core::filesystem::model::{Model, system_clock};
use trefoil_core::filesystem::{FileSystem, New, Owner, ROOT};
use trefoil_nfs::{Config, Export, Network, Server, Squash};

const BYTES_MAX: u64 = 8 << 30;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:22049".into()).parse()?;
    let seconds = arguments.next().map_or(Ok(0), |seconds| seconds.parse())?;
    let networks = arguments.map(|network| network.parse::<Network>()).collect::<Result<Vec<_>, _>>()?;
    let model = Model::new(BYTES_MAX, system_clock());
    model.create(ROOT, b"view", New::Directory, 0o1777, Owner { uid: 0, gid: 0 })?;
    let fs = Arc::new(model);
    let mut export = Export {
        squash: Squash::None,
        ..Export::new("/view")
    };
    export.networks.extend(networks);
    let mut config = Config::new(listen, vec![export], 0x7265_666f_696c, [7; 32]);
    let mut locks = Arc::new(LockTable::default());
    config.locks = Some(locks.clone());
    config.portmapper = std::env::var("PORTMAPPER").ok().map(|address| address.parse()).transpose()?;
    if let Ok(port) = std::env::var("CLIENT_PORTMAPPER") {
        config.client_portmapper_port = port.parse()?;
    }
    config.lock_hosts = std::env::var("LOCK_HOSTS").ok().map(Into::into);
    let mut server = Server::start(fs.clone(), config.clone())?;
    let (host, port) = (server.address().ip(), server.address().port());
    println!("mount -t nfs -o vers=3,tcp,port={port},mountport={port},nolock,hard {host}:/view /mnt");
    config.listen = server.address();
    loop {
        if seconds == 0 {
            park();
            continue;
        }
        sleep(Duration::from_secs(seconds));
        println!("stopping; {} ranges are locked", locks.count().0);
        server.stop();
        locks = Arc::new(LockTable::default());
        config.locks = Some(locks.clone());
        server = Server::start(fs.clone(), config.clone())?;
        println!("restarted");
    }
}
