//! Serves a file system in memory, to point clients at: `model_export [ADDRESS [NETWORK...]]`, `127.0.0.1:22049` if none is given.
//!
//! It has one view, `/view`, that anyone may write to, and serves it to root as root.

use std::sync::Arc;
use trefoil_core::filesystem::model::{Model, system_clock};
use trefoil_core::filesystem::{FileSystem, New, Owner, ROOT};
use trefoil_nfs::{Config, Export, Limits, Network, Server, Squash};

const BYTES_MAX: u64 = 8 << 30;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let listen = arguments.next().unwrap_or_else(|| "127.0.0.1:22049".into()).parse()?;
    let networks = arguments.map(|network| network.parse::<Network>()).collect::<Result<Vec<_>, _>>()?;
    let fs = Model::new(BYTES_MAX, system_clock());
    fs.create(ROOT, b"view", New::Directory, 0o1777, Owner { uid: 0, gid: 0 })?;
    let mut export = Export {
        squash: Squash::None,
        ..Export::new("/view")
    };
    export.networks.extend(networks);
    let config = Config {
        listen,
        exports: vec![export],
        fsid: 0x7265_666f_696c,
        key: [7; 32],
        limits: Limits::default(),
    };
    let server = Server::start(Arc::new(fs), config)?;
    let port = server.address().port();
    println!(
        "mount -t nfs -o vers=3,tcp,port={port},mountport={port},nolock,hard {}:/view /mnt",
        server.address().ip()
    );
    loop {
        std::thread::park();
    }
}
