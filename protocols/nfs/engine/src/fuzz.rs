//! Calls that nobody sane would send, straight into the parsers and procedures: no panic, no answer that cannot be, nothing long.

use crate::counters::Counters;
use crate::dispatch::{CALL_BYTES_MAX, Locking, Programs, Reply};
use crate::export::{Client, Export, Exports, Squash};
use crate::handle::{Handle, Handles};
use crate::mount::Mounts;
use crate::nfs::{Service, Status};
use crate::nlm::callback::Callbacks;
use crate::nlm::{Hosts, Locks};
use crate::portmap::Ports;
use crate::rpc::{Call, Refused, fragment};
use crate::xdr::Encoder;
use crate::{mount, nfs, nlm, nsm, portmap};
use std::net::IpAddr;
use std::sync::Arc;
use trefoil_core::filesystem::locks::LockTable;
use trefoil_core::filesystem::model::{Model, system_clock};
use trefoil_core::filesystem::{FileSystem, Inode, New, Owner, ROOT, TRANSFER_BYTES_MAX};

const CALLS: u32 = 200_000;
const INTERESTING: [u32; 12] = [0, 1, 2, 3, 4, 64, 255, 256, 1 << 20, i32::MAX as u32, 1 << 31, u32::MAX];

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % bound.max(1)
    }
}

fn programs() -> (Programs, Inode) {
    let fs = Arc::new(Model::new(64 << 20, system_clock()));
    let view = fs
        .create(ROOT, b"view", New::Directory, 0o777, Owner { uid: 0, gid: 0 })
        .unwrap()
        .inode;
    let exports = Exports::new(
        fs.clone(),
        vec![Export {
            squash: Squash::None,
            ..Export::new("/view")
        }],
    );
    let (hosts, callbacks) = (Arc::new(Hosts::open(None).unwrap()), Callbacks::new(1));
    let locking = Locking {
        locks: Locks::new(Arc::new(LockTable::default()), hosts.clone(), callbacks),
        hosts,
    };
    let service = Service {
        fs,
        exports,
        handles: Handles::new(1, [1; 32]),
        counters: Counters::default(),
        verifier: [2; 8],
    };
    (
        Programs {
            service,
            mounts: Mounts::default(),
            ports: Ports {
                tcp: 2049,
                udp: Some(111),
                locks: true,
            },
            locking: Some(locking),
        },
        view,
    )
}

fn client() -> Client {
    let address = IpAddr::from([127, 0, 0, 1]);
    Client {
        address,
        port: 700,
        server: address,
    }
}

/// A call with arguments that are right for one procedure or another.
fn sane(random: &mut Random, handles: &[Vec<u8>]) -> Vec<u8> {
    let mut call = Encoder::default();
    let programs = [
        nfs::PROGRAM,
        nfs::PROGRAM,
        nfs::PROGRAM,
        nfs::PROGRAM,
        nlm::PROGRAM,
        mount::PROGRAM,
        portmap::PROGRAM,
        nsm::PROGRAM,
    ];
    let program = programs[random.below(programs.len())];
    let version = match program {
        nlm::PROGRAM => nlm::VERSION,
        portmap::PROGRAM => 2 + random.below(3) as u32,
        nsm::PROGRAM => nsm::VERSION,
        _ => 3,
    };
    let procedure = random.below(if matches!(program, nfs::PROGRAM | nlm::PROGRAM) { 24 } else { 7 }) as u32;
    call.words(&[random.below(1000) as u32, 0, 2, program, version, procedure]);
    call.words(&[1, 24, 0, 0, random.below(3) as u32, 0, 1, 5, 0, 0]);
    let names: [&[u8]; 6] = [b"a", b"b", b"directory", b".", b"..", b"name\0"];
    let mut parts: Vec<u8> = Vec::new();
    for _ in 0..random.below(8) {
        let mut part = Encoder::default();
        match random.below(5) {
            0 | 1 => part.opaque(&handles[random.below(handles.len())]),
            2 => part.opaque(names[random.below(names.len())]),
            3 => part.words(&[0, 0, 0, 0, 0, 0]),
            _ => part.words(&[INTERESTING[random.below(4)], INTERESTING[random.below(9)]]),
        }
        parts.extend(part.into_bytes());
    }
    call.opaque(b"/view");
    let mut call = call.into_bytes();
    call.truncate(call.len() - if program == mount::PROGRAM { 0 } else { 12 });
    call.extend(parts);
    call
}

fn mutate(random: &mut Random, call: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        let at = random.below(call.len());
        match random.below(5) {
            0 if !call.is_empty() => call[at] ^= 1 << random.below(8),
            1 => call.truncate(at),
            2 => call.extend((0..random.below(64)).map(|byte| byte as u8)),
            _ if call.len() >= 4 => {
                let word = random.below(call.len() / 4) * 4;
                call[word..word + 4].copy_from_slice(&INTERESTING[random.below(INTERESTING.len())].to_be_bytes());
            }
            _ => {}
        }
    }
}

fn check(Reply { head, payload }: &Reply, xid: u32) {
    let (length, last) = fragment([head[0], head[1], head[2], head[3]]);
    assert!(last && length == head.len() + payload.len() - 4 && head.len() % 4 == 0);
    assert_eq!(head[4..8], xid.to_be_bytes());
    assert_ne!(
        head.get(28..32),
        Some(&Status::SERVER_FAULT.0.to_be_bytes()[..]),
        "a procedure panicked"
    );
    assert!(head.len() <= TRANSFER_BYTES_MAX + CALL_BYTES_MAX && payload.len() <= TRANSFER_BYTES_MAX);
}

#[test]
fn no_call_does_harm() {
    let (programs, view) = programs();
    let client = client();
    let handle = |inode| programs.service.handles.encode(Handle { export_root: view, inode }).to_vec();
    let fs = &programs.service.fs;
    let file = fs.create(view, b"a", New::File, 0o644, Owner { uid: 0, gid: 0 }).unwrap().inode;
    let handles = [handle(view), handle(file), handle(view), handle(9999), vec![7; 44]];
    let (mut random, mut answered) = (Random(0x5eed), 0);
    for _ in 0..CALLS {
        let mut record = sane(&mut random, &handles);
        mutate(&mut random, &mut record);
        match Call::parse(&record) {
            Ok(call) => {
                let answer = programs.answer(client, &call);
                check(&answer.reply, call.xid);
                answered += 1;
            }
            Err(Refused::Answer(head)) => check(&head.into(), u32::from_be_bytes([record[0], record[1], record[2], record[3]])),
            Err(Refused::NotACall) => {}
        }
        // So that the tree stays a tree to try things on.
        let _ = fs.create(view, b"directory", New::Directory, 0o755, Owner { uid: 0, gid: 0 });
    }
    assert!(answered > CALLS / 3, "{answered} calls were calls");
}

#[test]
fn no_bytes_do_harm() {
    let (programs, _) = programs();
    let client = client();
    let mut random = Random(0xbad);
    for _ in 0..CALLS {
        let record: Vec<u8> = (0..random.below(300)).map(|_| random.below(256) as u8).collect();
        if let Ok(call) = Call::parse(&record) {
            check(&programs.answer(client, &call).reply, call.xid);
        }
    }
}
