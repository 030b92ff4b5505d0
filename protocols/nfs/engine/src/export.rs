//! What is exported, to whom, and as whom they act.
//!
//! An export is a directory by its path from ROOT; its first part names a view root. Several exports may name one path: the first whose networks hold
//! the client's address counts. Paths are resolved when they are asked for and again after RESOLVED_SECONDS, so an export means what its path names
//! now; handles carry the root's inode and stay good for as long as that is the case.

use std::collections::HashMap;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};
use trefoil_core::filesystem::{Errno, FileSystem, Inode, Node, ROOT, Type};

/// "nobody" of Linux.
pub const ANONYMOUS: u32 = 65534;
/// How old a path's resolution may be.
const RESOLVED_SECONDS: u64 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u32,
}

impl Network {
    pub fn new(address: IpAddr, prefix_bits: u32) -> Option<Self> {
        let most = if address.is_ipv4() { 32 } else { 128 };
        (prefix_bits <= most).then_some(Self { address, prefix_bits })
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => (ours.to_bits() ^ theirs.to_bits()).leading_zeros() >= self.prefix_bits,
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => (ours.to_bits() ^ theirs.to_bits()).leading_zeros() >= self.prefix_bits,
            _ => false,
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix_bits)
    }
}

impl FromStr for Network {
    type Err = String;

    /// `10.1.0.0/16`, `fd00::/8`, or an address alone.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is no network: write an address, or address/bits");
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address = address.parse::<IpAddr>().map_err(|_| wrong())?;
        let bits = match bits {
            None if address.is_ipv4() => 32,
            None => 128,
            Some(bits) => bits.parse().map_err(|_| wrong())?,
        };
        Self::new(address, bits).ok_or_else(wrong)
    }
}

/// Whose word about who they are is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Squash {
    /// Uid and gid 0 become the anonymous ones.
    Root,
    /// All do.
    All,
    None,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// `/` is ROOT with all views in it, `/view` a view root, `/view/a/b` a directory below.
    pub path: String,
    pub networks: Vec<Network>,
    pub read_only: bool,
    pub squash: Squash,
    pub anonymous_uid: u32,
    pub anonymous_gid: u32,
    /// Only calls from ports below 1024 are served, which on most clients only root can use.
    pub privileged_ports: bool,
}

impl Export {
    /// Readable and writable, from this machine only, root squashed.
    pub fn new(path: impl Into<String>) -> Self {
        let loopback = [(IpAddr::from([127, 0, 0, 0]), 8), (IpAddr::from(1_u128.to_be_bytes()), 128)];
        Self {
            path: path.into(),
            networks: loopback.map(|(address, prefix_bits)| Network { address, prefix_bits }).to_vec(),
            read_only: false,
            squash: Squash::Root,
            anonymous_uid: ANONYMOUS,
            anonymous_gid: ANONYMOUS,
            privileged_ports: false,
        }
    }

    pub fn admits(&self, client: Client) -> bool {
        (!self.privileged_ports || client.port < 1024) && self.networks.iter().any(|network| network.contains(client.address))
    }
}

/// Where a call comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client {
    pub address: IpAddr,
    pub port: u16,
    /// Our own address, as the client knows it.
    pub server: IpAddr,
}

/// The parts of a path; empty ones and `.` do not count, as in any Unix path.
pub fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// Follows `path` from ROOT; symlinks are not followed, `..` is refused. `enter` is asked before each directory is searched.
pub fn walk<'a>(
    fs: &dyn FileSystem,
    path: impl Iterator<Item = &'a [u8]>,
    from: Inode,
    enter: impl Fn(&Node) -> Result<(), Errno>,
) -> Result<Node, Errno> {
    let mut node = fs.stat(from)?;
    for part in path {
        if node.kind != Type::Directory {
            return Err(Errno::NOTDIR);
        }
        if part == b".." {
            return Err(Errno::INVAL);
        }
        enter(&node)?;
        node = fs.lookup(node.inode, part)?;
    }
    if node.kind == Type::Directory {
        Ok(node)
    } else {
        Err(Errno::NOTDIR)
    }
}

struct Resolved {
    at: Instant,
    /// By root, in the order of the configuration.
    exports: HashMap<Inode, Vec<Arc<Export>>>,
}

pub struct Exports {
    fs: Arc<dyn FileSystem>,
    list: RwLock<Vec<Arc<Export>>>,
    resolved: RwLock<Arc<Resolved>>,
    /// One thread at a time looks again; the others go on with what is known.
    resolving: Mutex<()>,
}

impl Exports {
    pub fn new(fs: Arc<dyn FileSystem>, exports: Vec<Export>) -> Self {
        let nothing = Resolved {
            at: Instant::now(),
            exports: HashMap::new(),
        };
        let this = Self {
            fs,
            list: RwLock::default(),
            resolved: RwLock::new(Arc::new(nothing)),
            resolving: Mutex::default(),
        };
        this.replace(exports);
        this
    }

    pub fn replace(&self, exports: Vec<Export>) {
        let _alone = self.resolving.lock().unwrap();
        *self.list.write().unwrap() = exports.into_iter().map(Arc::new).collect();
        self.resolve();
    }

    fn resolve(&self) {
        let known = self.resolved.read().unwrap().clone();
        let mut exports: HashMap<Inode, Vec<Arc<Export>>> = HashMap::new();
        for export in self.list.read().unwrap().iter() {
            let root = match walk(&*self.fs, parts(export.path.as_bytes()), ROOT, |_| Ok(())) {
                Ok(node) => Some(node.inode),
                Err(Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::INVAL) => None,
                // A store in trouble says nothing about what is exported.
                Err(_) => known
                    .exports
                    .iter()
                    .find(|(_, exports)| exports.contains(export))
                    .map(|(&root, _)| root),
            };
            if let Some(root) = root {
                exports.entry(root).or_default().push(export.clone());
            }
        }
        *self.resolved.write().unwrap() = Arc::new(Resolved {
            at: Instant::now(),
            exports,
        });
    }

    fn resolved(&self) -> Arc<Resolved> {
        let resolved = self.resolved.read().unwrap().clone();
        if resolved.at.elapsed() < Duration::from_secs(RESOLVED_SECONDS) {
            return resolved;
        }
        if let Ok(_alone) = self.resolving.try_lock() {
            self.resolve();
        }
        self.resolved.read().unwrap().clone()
    }

    /// The rules for what a handle under `root` names: ESTALE if it is no export's root any more, EACCES if none admits the client.
    pub fn rules(&self, root: Inode, client: Client) -> Result<Arc<Export>, Errno> {
        let resolved = self.resolved();
        let exports = resolved.exports.get(&root).ok_or(Errno::STALE)?;
        exports.iter().find(|export| export.admits(client)).cloned().ok_or(Errno::ACCESS)
    }

    /// The export whose path is the longest beginning of `path`, its root, and the rest of `path`.
    pub fn containing<'a>(&self, path: &'a [u8], client: Client) -> Result<(Arc<Export>, Inode, Vec<&'a [u8]>), Errno> {
        let wanted: Vec<&[u8]> = parts(path).collect();
        let list = self.list.read().unwrap().clone();
        let length = |export: &Export| parts(export.path.as_bytes()).count();
        let holds = |export: &Export| parts(export.path.as_bytes()).eq(wanted.iter().copied().take(length(export)));
        let longest = list
            .iter()
            .filter(|export| holds(export))
            .map(|export| length(export))
            .max()
            .ok_or(Errno::ACCESS)?;
        let mut candidates = list.iter().filter(|export| holds(export) && length(export) == longest);
        let export = candidates.find(|export| export.admits(client)).cloned().ok_or(Errno::ACCESS)?;
        let _alone = self.resolving.lock().unwrap();
        self.resolve();
        let resolved = self.resolved.read().unwrap().clone();
        let root = resolved
            .exports
            .iter()
            .find(|(_, exports)| exports.contains(&export))
            .map(|(&root, _)| root)
            .ok_or(Errno::NOENT)?;
        Ok((export, root, wanted[longest..].to_vec()))
    }

    /// In the order of the configuration.
    pub fn list(&self) -> Vec<Arc<Export>> {
        self.list.read().unwrap().clone()
    }

    /// Some export does, if the port is right.
    pub fn admits_address(&self, address: IpAddr) -> bool {
        let list = self.list.read().unwrap();
        list.iter()
            .any(|export| export.networks.iter().any(|network| network.contains(address)))
    }

    pub fn admits(&self, client: Client) -> bool {
        self.list.read().unwrap().iter().any(|export| export.admits(client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses() {
        let network: Network = "10.1.0.0/16".parse().unwrap();
        assert!(network.contains("10.1.255.3".parse().unwrap()));
        assert!(network.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!network.contains("10.2.0.1".parse().unwrap()));
        assert!("0.0.0.0/0".parse::<Network>().unwrap().contains("1.2.3.4".parse().unwrap()));
        assert!(!"0.0.0.0/0".parse::<Network>().unwrap().contains("fd00::1".parse().unwrap()));
        assert!("fd00::/8".parse::<Network>().unwrap().contains("fd12::1".parse().unwrap()));
        for wrong in ["10.0.0.0/33", "10.0.0", "10.0.0.0/", "host", "::/129", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_new_export_admits_this_machine_only() {
        let export = Export::new("/view");
        let client = |address: &str| Client {
            address: address.parse().unwrap(),
            port: 2000,
            server: address.parse().unwrap(),
        };
        assert!(export.admits(client("127.0.0.1")) && export.admits(client("::1")));
        assert!(!export.admits(client("192.168.0.1")) && !export.admits(client("::2")));
        let strict = Export {
            privileged_ports: true,
            ..export
        };
        assert!(!strict.admits(client("127.0.0.1")));
    }
}
