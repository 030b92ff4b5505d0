//! Who may connect, and what they see.
//!
//! A host is known by its NQN, which is its word alone unless it has a secret. What a host may not see does not exist for it.

use crate::auth::{Group, Hash, Secret};
use std::collections::BTreeSet;
use trefoil_core::block::VolumeId;

/// Bytes of an NQN without its final zero (base specification, section 4.5).
pub const NQN_BYTES_MAX: usize = 223;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub nqn: String,
    /// None: all of them.
    pub volumes: Option<BTreeSet<VolumeId>>,
    /// What it must prove to know, on every queue, before any command.
    pub secret: Option<Secret>,
    /// What the target proves to know if the host asks.
    pub controller_secret: Option<Secret>,
}

impl Host {
    /// It sees everything and need not prove anything.
    pub fn new(nqn: &str) -> Self {
        Self {
            nqn: nqn.into(),
            volumes: None,
            secret: None,
            controller_secret: None,
        }
    }

    fn sees(&self, id: VolumeId) -> bool {
        self.volumes.as_ref().is_none_or(|volumes| volumes.contains(&id))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Hosts that are not named may connect too, and see everything.
    pub any_host: bool,
    pub hosts: Vec<Host>,
    /// What is taken of what a host offers: the first that it does.
    pub hashes: Vec<Hash>,
    pub groups: Vec<Group>,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            any_host: false,
            hosts: Vec::new(),
            hashes: vec![Hash::Sha256, Hash::Sha384, Hash::Sha512],
            groups: vec![
                Group::Ffdhe2048,
                Group::Ffdhe3072,
                Group::Ffdhe4096,
                Group::Ffdhe6144,
                Group::Ffdhe8192,
                Group::Null,
            ],
        }
    }
}

impl Access {
    /// The rules for a host; none: it may not connect.
    pub fn host(&self, nqn: &str) -> Option<Host> {
        let named = self.hosts.iter().find(|host| host.nqn == nqn).cloned();
        named.or_else(|| self.any_host.then(|| Host::new(nqn)))
    }

    pub fn sees(&self, nqn: &str, id: VolumeId) -> bool {
        self.hosts
            .iter()
            .find(|host| host.nqn == nqn)
            .map_or(self.any_host, |host| host.sees(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_host_is_held_to_its_rules_even_if_anybody_may_come() {
        let narrow = Host {
            volumes: Some(BTreeSet::from([2])),
            ..Host::new("nqn.a")
        };
        let mut access = Access {
            hosts: vec![narrow],
            ..Access::default()
        };
        assert!(access.sees("nqn.a", 2) && !access.sees("nqn.a", 1) && !access.sees("nqn.b", 2));
        assert!(access.host("nqn.b").is_none());
        access.any_host = true;
        assert!(access.sees("nqn.b", 1) && !access.sees("nqn.a", 1));
        assert!(access.host("nqn.b").is_some());
    }
}
