//! The discovery log: where a host finds the subsystem (NVM Express base specification 2.0, section 5.16.1.23). A host that may not connect finds nothing.

use crate::shared::Shared;
use crate::wire::put;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

const ENTRY_BYTES: usize = 1024;
const HEAD_BYTES: usize = 1024;
const TCP: u8 = 3;
const NVM_SUBSYSTEM: u8 = 2;
const ANY_CONTROLLER: u16 = 0xffff;
const ADMIN_DEPTH: u16 = 32;
/// Nothing is said of secure channels: libnvme takes "not required" for "try TLS", and there is none.
const SECURITY: u8 = 0;

pub fn page(shared: &Shared, host: &str, local: SocketAddr) -> Vec<u8> {
    let admitted = shared.access().host(host).is_some();
    let addresses: Vec<SocketAddr> = match () {
        () if !admitted => Vec::new(),
        () if shared.advertise.is_empty() => vec![local],
        () => shared.advertise.clone(),
    };
    let mut page = vec![0; HEAD_BYTES];
    put(&mut page, 0, &shared.generation.load(Ordering::SeqCst).to_le_bytes());
    put(&mut page, 8, &(addresses.len() as u64).to_le_bytes());
    for (index, address) in addresses.iter().enumerate() {
        page.extend(entry(&shared.nqn, index as u16 + 1, *address));
    }
    page
}

fn entry(nqn: &str, port: u16, address: SocketAddr) -> [u8; ENTRY_BYTES] {
    let mut entry = [0; ENTRY_BYTES];
    entry[..4].copy_from_slice(&[TCP, if address.is_ipv4() { 1 } else { 2 }, NVM_SUBSYSTEM, SECURITY]);
    put(&mut entry, 4, &port.to_le_bytes());
    put(&mut entry, 6, &ANY_CONTROLLER.to_le_bytes());
    put(&mut entry, 8, &ADMIN_DEPTH.to_le_bytes());
    put(&mut entry, 32, address.port().to_string().as_bytes());
    put(&mut entry, 256, nqn.as_bytes());
    put(&mut entry, 512, address.ip().to_canonical().to_string().as_bytes());
    entry
}
