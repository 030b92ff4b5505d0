use super::crypto::hmac;
use super::*;
use crate::wire::{put, u16_at, u32_at};
use proptest::prelude::*;

const SUBSYSTEM: &str = "nqn.2014-08.org.nvmexpress:uuid:trefoil";
const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:host";
/// Of bytes 0 to 31, with its CRC-32; made by nvme-cli's rules.
const SECRET: &str = "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:";

fn command(length: usize) -> Command {
    let mut bytes = [0; 64];
    (bytes[41], bytes[42], bytes[43]) = (1, 1, PROTOCOL);
    put(&mut bytes, 44, &(length as u32).to_le_bytes());
    Command { bytes }
}

fn target(access: &Access) -> Authentication {
    let host = Host {
        secret: Some(SECRET.parse().unwrap()),
        controller_secret: Some(SECRET.parse().unwrap()),
        ..Host::new(HOST)
    };
    Authentication::of(&host, access, SUBSYSTEM).unwrap()
}

fn offer(hashes: &[u8], groups: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 72];
    (bytes[4], bytes[7], bytes[8], bytes[10], bytes[11]) = (9, 1, 1, hashes.len() as u8, groups.len() as u8);
    put(&mut bytes, 12, hashes);
    put(&mut bytes, 42, groups);
    bytes
}

fn send(target: &mut Authentication, message: &[u8]) {
    target.send(&command(message.len()), message).unwrap();
}

fn receive(target: &mut Authentication) -> Vec<u8> {
    target.receive(&command(4096), 4096).unwrap()
}

/// What a host that knows `key` answers; `asks`: it wants a proof of the target's too. Its challenge's response comes with it.
fn answer(challenge: &[u8], key: &[u8], asks: bool) -> (Vec<u8>, Vec<u8>) {
    let (length, hash) = (usize::from(challenge[6]), Hash::new(challenge[8]).unwrap());
    let value = &challenge[16..16 + length];
    let pair = KeyPair::new(Group::new(challenge[9]).unwrap()).unwrap();
    let shared = pair.as_ref().map(|pair| pair.shared(&challenge[16 + length..]).unwrap());
    let public = pair.as_ref().map_or(vec![], |pair| pair.public().to_vec());
    let sequence = u32_at(challenge, 12).to_le_bytes();
    let mixed = augment(hash, shared.as_deref(), value);
    let proof = hmac(
        hash,
        key,
        &[
            &mixed,
            &sequence,
            &[9, 0, 0],
            b"HostHost",
            HOST.as_bytes(),
            &[0],
            SUBSYSTEM.as_bytes(),
        ],
    );
    let mut reply = vec![0; 16];
    (reply[0], reply[1], reply[4], reply[6], reply[8]) = (1, 2, 9, length as u8, asks.into());
    put(&mut reply, 10, &(public.len() as u16).to_le_bytes());
    put(&mut reply, 12, &77_u32.to_le_bytes());
    let mine = vec![5; length];
    reply.extend(proof);
    reply.extend(&mine);
    reply.extend(public);
    let mixed = augment(hash, shared.as_deref(), &mine);
    let names = [SUBSYSTEM.as_bytes(), HOST.as_bytes()];
    let expected = hmac(
        hash,
        key,
        &[&mixed, &77_u32.to_le_bytes(), &[9, 0, 0], b"Controller", names[0], &[0], names[1]],
    );
    (reply, expected)
}

fn key() -> Vec<u8> {
    (0..32).collect()
}

#[test]
fn every_hash_and_group_works_both_ways() {
    for (hash, group) in [(1, 0), (2, 1), (3, 2), (1, 1)] {
        let mut access = Access::default();
        access.groups.retain(|known| *known as u8 == group);
        for asks in [false, true] {
            let mut target = target(&access);
            send(&mut target, &offer(&[hash], &[0, 1, 2]));
            let challenge = receive(&mut target);
            assert_eq!((challenge[..2].to_vec(), challenge[8], challenge[9]), (vec![1, 1], hash, group));
            let (reply, expected) = answer(&challenge, &key(), asks);
            send(&mut target, &reply);
            let success = receive(&mut target);
            assert_eq!((success[..2].to_vec(), u16_at(&success, 4)), (vec![1, 3], 9));
            assert_eq!(target.is_done(), !asks);
            if asks {
                assert_eq!(success[16..], expected);
                send(&mut target, &[1, 4, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            }
            assert!(target.is_done() && !target.has_failed());
        }
    }
}

#[test]
fn a_wrong_key_fails_and_ends() {
    let mut target = target(&Access::default());
    send(&mut target, &offer(&[1, 2, 3], &[0, 1]));
    let challenge = receive(&mut target);
    let (reply, _) = answer(&challenge, &[9; 32], false);
    send(&mut target, &reply);
    assert_eq!(receive(&mut target)[..8], [0, 0xf1, 0, 0, 9, 0, 1, 1]);
    assert!(target.has_failed() && !target.is_done());
}

#[test]
fn nothing_in_common_fails() {
    for (offer, explanation) in [
        (offer(&[4], &[0]), 4),
        (offer(&[1], &[9]), 5),
        (offer(&[], &[0]), 4),
        (vec![0; 72], 6),
    ] {
        let mut target = target(&Access::default());
        send(&mut target, &offer);
        assert_eq!(receive(&mut target)[6..8], [1, explanation]);
        assert!(target.has_failed());
    }
}

#[test]
fn an_old_answer_is_none() {
    let access = Access {
        groups: vec![Group::Null],
        ..Access::default()
    };
    let mut target = target(&access);
    send(&mut target, &offer(&[1], &[0]));
    let (reply, _) = answer(&receive(&mut target), &key(), false);
    send(&mut target, &reply);
    receive(&mut target);
    assert!(target.is_done());
    send(&mut target, &offer(&[1], &[0]));
    receive(&mut target);
    send(&mut target, &reply);
    assert_eq!(receive(&mut target)[1], 0xf1);
    assert!(target.has_failed() && !target.is_done());
}

#[test]
fn messages_out_of_turn_end_it() {
    let mut target = target(&Access::default());
    assert_eq!(target.receive(&command(4096), 4096), Err(Status::SEQUENCE_ERROR));
    send(&mut target, &[1, 4, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(!target.is_done());
    assert_eq!(receive(&mut target)[6..8], [1, 7]);
}

#[test]
fn secrets_are_checked() {
    let plain: Secret = SECRET.parse().unwrap();
    assert_eq!(plain.transformed(HOST), key());
    let bound: Secret = SECRET.replace(":00:", ":01:").parse().unwrap();
    assert_eq!(
        bound.transformed(HOST),
        hmac(Hash::Sha256, &key(), &[HOST.as_bytes(), b"NVMe-over-Fabrics"])
    );
    assert_eq!(format!("{plain:?}"), "Secret(32 bytes)");
    for wrong in [
        "",
        "DHHC-1:00:",
        "DHHC-1:00::",
        "DHHC-1:04:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:",
        "DHHC-1:02:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:",
        "DHHC-1:00:BAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:",
        "DHHC-1:00:AAECAwQF:",
        "DHHC-1:00:AAEC?wQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:",
    ] {
        assert!(wrong.parse::<Secret>().is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn nothing_that_a_host_says_harms(messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..6), start: bool) {
        let access = Access { groups: vec![Group::Null], ..Access::default() };
        let mut target = target(&access);
        if start {
            send(&mut target, &offer(&[1], &[0]));
            receive(&mut target);
        }
        for mut message in messages {
            if message.len() > 8 {
                (message[0], message[1], message[4], message[5]) = (message[0] & 1, message[1] & 7, 9, 0);
            }
            send(&mut target, &message);
            let _ = target.receive(&command(4096), 4096);
            prop_assert!(!target.is_done());
        }
    }
}
