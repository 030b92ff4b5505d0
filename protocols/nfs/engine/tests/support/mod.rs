//! What the tests share: a file system that can be watched, a server on it, and a small client that encodes and decodes on its own.

#![allow(dead_code, reason = "each test file is a program of its own and needs only a part")]

pub mod client;
pub mod through;
pub mod watched;

use client::Client;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use trefoil_core::filesystem::{FileSystem, Inode, New, Owner, ROOT};
use trefoil_nfs::{Config, Export, Server, Squash};
use watched::Watched;

pub const FSID: u64 = 77;
pub const KEY: [u8; 32] = [9; 32];

pub struct World {
    pub fs: Arc<Watched>,
    pub server: Option<Server>,
    pub exports: Vec<Export>,
    /// What a start changes in its configuration.
    pub configure: Box<dyn Fn(&mut Config) + Send>,
}

/// Root stays root.
pub fn trusting(path: &str) -> Export {
    Export {
        squash: Squash::None,
        ..Export::new(path)
    }
}

impl World {
    /// `/view` exists, belongs to root, and is for all to write to.
    pub fn new(exports: Vec<Export>) -> Self {
        let fs = Arc::new(Watched::default());
        fs.create(ROOT, b"view", New::Directory, 0o777, Owner { uid: 0, gid: 0 }).unwrap();
        let mut world = Self {
            fs,
            server: None,
            exports,
            configure: Box::new(|_| ()),
        };
        world.start(KEY, FSID);
        world
    }

    pub fn trusting() -> Self {
        Self::new(vec![trusting("/view")])
    }

    pub fn start(&mut self, key: [u8; 32], fsid: u64) {
        self.stop();
        let listen = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        let mut config = Config::new(listen, self.exports.clone(), fsid, key);
        (self.configure)(&mut config);
        self.server = Some(Server::start(self.fs.clone(), config).unwrap());
    }

    pub fn restart(&mut self) {
        self.start(KEY, FSID);
    }

    pub fn stop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }

    pub fn server(&self) -> &Server {
        self.server.as_ref().unwrap()
    }

    pub fn address(&self) -> SocketAddr {
        self.server().address()
    }

    pub fn client(&self) -> Client {
        Client::connect(self.address())
    }

    pub fn client_as(&self, uid: u32, gid: u32, groups: &[u32]) -> Client {
        Client {
            user: Some((uid, gid, groups.to_vec())),
            ..self.client()
        }
    }

    pub fn view(&self) -> Inode {
        self.fs.lookup(ROOT, b"view").unwrap().inode
    }
}
