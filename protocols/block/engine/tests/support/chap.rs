//! The host's side of DH-HMAC-CHAP, without and with the null group only where no key is exchanged: the exchange's arithmetic is tested beside it.

use super::host::{Completion, Connection, Entry, short, word};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

pub const KEY: [u8; 32] = *b"0123456789abcdef0123456789abcdef";
/// KEY as `nvme gen-dhchap-key` prints it.
pub const SECRET: &str = "DHHC-1:00:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWYOtVl3:";

pub fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().to_vec()
}

pub fn send(queue: &mut Connection, message: Vec<u8>) -> Completion {
    let entry = Entry::new(0x7f).byte(4, 0x05).byte(41, 1).byte(42, 1).byte(43, 0xe9);
    queue.run(entry.word(11, message.len() as u32), message, 0)
}

pub fn receive(queue: &mut Connection) -> Completion {
    let entry = Entry::new(0x7f).byte(4, 0x06).byte(41, 1).byte(42, 1).byte(43, 0xe9);
    queue.run(entry.word(11, 4096), vec![], 4096)
}

pub fn negotiate(queue: &mut Connection, groups: &[u8]) -> Vec<u8> {
    let mut message = vec![0; 72];
    (message[4], message[7], message[8], message[10], message[11]) = (3, 1, 1, 1, groups.len() as u8);
    message[12] = 1;
    message[42..42 + groups.len()].copy_from_slice(groups);
    assert_eq!(send(queue, message).status, 0);
    receive(queue).good().data
}

/// The proof for a challenge of the null group.
pub fn reply(challenge: &[u8], key: &[u8], host: &str, subsystem: &str) -> Vec<u8> {
    assert_eq!(
        (challenge[0], challenge[1], challenge[6], challenge[8], challenge[9]),
        (1, 1, 32, 1, 0)
    );
    assert_eq!(short(challenge, 10), 0);
    let sequence = word(challenge, 12).to_le_bytes();
    let names = (host.as_bytes(), subsystem.as_bytes());
    let proof = hmac(
        key,
        &[&challenge[16..48], &sequence, &[3, 0, 0], b"HostHost", names.0, &[0], names.1],
    );
    let mut message = vec![0; 16];
    (message[0], message[1], message[4], message[6]) = (1, 2, 3, 32);
    message.extend(proof);
    message.extend([0; 32]);
    message
}
