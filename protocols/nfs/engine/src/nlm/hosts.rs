//! The hosts that lock: who they are, which state they last said to be in, and who is told of our restart.
//!
//! A host is its address and its own name for itself, hashed: several hosts may share an address. Who has locked is written down before the lock is
//! granted, in one small text file, so that it can be told after a restart; a host that gave all up is struck out again. Without a file nobody is told.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Hosts that are known at a time; further ones get no locks.
const HOSTS_MAX: usize = 4096;
const FILE_HEADING: &str = "trefoil nfs lock hosts 1";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub address: IpAddr,
    pub name: Vec<u8>,
    /// Ours, as the host knows it: what it listens for when it is told.
    pub server: IpAddr,
    /// 0: not known.
    state: u32,
}

pub struct Hosts {
    known: Mutex<HashMap<u64, Host>>,
    file: Option<PathBuf>,
    /// Ours: odd, and higher after each restart.
    state: u32,
    /// From before the restart, to be told.
    before: Vec<Host>,
}

/// What a host's locks are kept under.
fn identity(address: IpAddr, name: &[u8]) -> u64 {
    let hash = blake3::hash(&[address.to_string().as_bytes(), b"\0", name].concat());
    u64::from_le_bytes(std::array::from_fn(|index| hash.as_bytes()[index]))
}

/// What greeting a host found.
pub enum Greeting {
    Known,
    /// It restarted since: what it held is to be given up.
    Restarted(u64),
}

impl Hosts {
    /// Reads who had locks, and writes down the new state. A file that cannot be understood is an error: who knows who is not told then.
    pub fn open(file: Option<PathBuf>) -> io::Result<Self> {
        let (state, before) = match &file {
            Some(path) => read(path)?,
            None => (1, Vec::new()),
        };
        let this = Self {
            known: Mutex::default(),
            file,
            state,
            before,
        };
        this.write(&HashMap::new()).map_err(|error| match &this.file {
            Some(path) => io::Error::new(error.kind(), format!("cannot write {}: {error}", path.display())),
            None => error,
        })?;
        Ok(this)
    }

    pub fn state(&self) -> u32 {
        self.state
    }

    pub fn before(&self) -> &[Host] {
        &self.before
    }

    pub fn had_any(&self) -> bool {
        !self.before.is_empty()
    }

    /// Before a lock is granted. None: there are too many, or it could not be written down.
    pub fn greet(&self, address: IpAddr, name: &[u8], server: IpAddr, state: u32) -> Option<Greeting> {
        let client = identity(address, name);
        let mut known = self.known.lock().unwrap();
        if let Some(host) = known.get_mut(&client) {
            let before = std::mem::replace(&mut host.state, state);
            let restarted = before != 0 && state != 0 && before != state;
            return Some(if restarted { Greeting::Restarted(client) } else { Greeting::Known });
        }
        if known.len() >= HOSTS_MAX {
            return None;
        }
        known.insert(
            client,
            Host {
                address,
                name: name.to_vec(),
                server,
                state,
            },
        );
        if self.write(&known).is_err() {
            known.remove(&client);
            return None;
        }
        Some(Greeting::Known)
    }

    /// What the locks of those that have some are kept under.
    pub fn clients(&self) -> Vec<u64> {
        self.known.lock().unwrap().keys().copied().collect()
    }

    /// What this host's locks are kept under, whether it has any or not.
    pub fn identity(address: IpAddr, name: &[u8]) -> u64 {
        identity(address, name)
    }

    /// The host of this name at the address, or all at it if none has the name: a status monitor may write its name in another way.
    pub fn forget(&self, address: IpAddr, name: &[u8]) -> Vec<u64> {
        let mut known = self.known.lock().unwrap();
        let here: Vec<u64> = known
            .iter()
            .filter(|(_, host)| host.address == address)
            .map(|(&client, _)| client)
            .collect();
        let named: Vec<u64> = here
            .iter()
            .copied()
            .filter(|client| short(&known[client].name) == short(name))
            .collect();
        let gone = if named.is_empty() { here } else { named };
        gone.iter().for_each(|client| drop(known.remove(client)));
        // At worst a host without locks is told of a restart.
        let _ = self.write(&known);
        gone
    }

    /// Those from before stay until the next restart: they may not have been told yet.
    fn write(&self, known: &HashMap<u64, Host>) -> io::Result<()> {
        let Some(path) = &self.file else { return Ok(()) };
        let mut text = format!("{FILE_HEADING}\nstate {}\n", self.state);
        let before = self
            .before
            .iter()
            .filter(|host| !known.contains_key(&identity(host.address, &host.name)));
        for host in known.values().chain(before) {
            let name: String = host.name.iter().map(|byte| format!("{byte:02x}")).collect();
            text += &format!("host {} {} {name}\n", host.address, host.server);
        }
        let beside = path.with_extension("new");
        let mut file = fs::File::create(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        fs::File::open(
            path.parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or(Path::new(".")),
        )?
        .sync_all()
    }
}

/// A host's name without its domain.
fn short(name: &[u8]) -> &[u8] {
    name.split(|&byte| byte == b'.').next().unwrap_or(name)
}

/// The state to be in now, and the hosts.
fn read(path: &Path) -> io::Result<(u32, Vec<Host>)> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((1, Vec::new())),
        Err(error) => return Err(io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))),
    };
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged: remove it", path.display())))
}

fn parse(text: &str) -> Option<(u32, Vec<Host>)> {
    let mut lines = text.lines();
    if lines.next()? != FILE_HEADING {
        return None;
    }
    let state: u32 = lines.next()?.strip_prefix("state ")?.parse().ok()?;
    let hosts = lines.take(2 * HOSTS_MAX).map(parse_host).collect::<Option<Vec<_>>>()?;
    Some((state.wrapping_add(2) | 1, hosts))
}

fn parse_host(line: &str) -> Option<Host> {
    let mut words = line.strip_prefix("host ")?.split(' ');
    let (address, server, name) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?, words.next()?);
    let name = name
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect::<Option<_>>()?;
    Some(Host {
        address,
        name,
        server,
        state: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn who_locked_is_known_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hosts");
        let hosts = Hosts::open(Some(file.clone())).unwrap();
        assert!(!hosts.had_any());
        hosts.greet(address(1), b"one name", address(9), 3).unwrap();
        hosts.greet(address(2), b"two.example", address(9), 3).unwrap();
        assert_eq!(hosts.forget(address(2), b"two").len(), 1);
        let again = Hosts::open(Some(file.clone())).unwrap();
        assert!(again.state() > hosts.state() && again.state() % 2 == 1);
        assert_eq!(
            again.before(),
            [Host {
                address: address(1),
                name: b"one name".to_vec(),
                server: address(9),
                state: 0
            }]
        );
        // Not told yet, and restarted once more.
        again.greet(address(3), b"", address(9), 0).unwrap();
        assert_eq!(Hosts::open(Some(file.clone())).unwrap().before().len(), 2);
        fs::write(&file, "nonsense").unwrap();
        assert!(Hosts::open(Some(file)).is_err());
    }

    #[test]
    fn another_state_is_a_restart() {
        let hosts = Hosts::open(None).unwrap();
        let restarted = |state| matches!(hosts.greet(address(1), b"host", address(9), state), Some(Greeting::Restarted(_)));
        assert_eq!([0, 5, 5, 7, 7].map(restarted), [false, false, false, true, false]);
    }

    #[test]
    fn hosts_at_one_address_are_told_apart_if_they_can_be() {
        let hosts = Hosts::open(None).unwrap();
        hosts.greet(address(1), b"a", address(9), 0).unwrap();
        hosts.greet(address(1), b"b", address(9), 0).unwrap();
        hosts.greet(address(2), b"a", address(9), 0).unwrap();
        assert_eq!(hosts.forget(address(1), b"a.example"), [identity(address(1), b"a")]);
        assert_eq!(hosts.forget(address(1), b"unknown"), [identity(address(1), b"b")]);
        assert_eq!(hosts.forget(address(2), b"x").len(), 1);
    }
}
