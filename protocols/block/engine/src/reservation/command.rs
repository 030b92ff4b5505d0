//! The four reservation commands on the wire (base specification, sections 7.2, 7.4 to 7.6).

use super::rules::{Asker, Kind, Notice, Register};
use super::{Keep, Reservations};
use crate::command::Command;
use crate::status::Status;
use crate::wire::{put, u64_at};

const IGNORE_KEY: u32 = 1 << 3;
const REPORT_HEAD_BYTES: usize = 64;
const REPORT_REGISTRANT_BYTES: usize = 64;

/// Keys that come with a command, from its data.
fn keys<const N: usize>(data: &[u8]) -> Result<[u64; N], Status> {
    if data.len() < N * 8 {
        return Err(Status::SGL_LENGTH_INVALID);
    }
    Ok(std::array::from_fn(|index| u64_at(data, index * 8)))
}

fn kind(word: u32) -> Result<Kind, Status> {
    Kind::new((word >> 8) as u8).ok_or(Status::INVALID_FIELD)
}

pub fn register(on: &Reservations, asker: Asker, command: &Command, data: &[u8], keep: &mut Keep<'_>) -> Result<Vec<Notice>, Status> {
    let word = command.word(10);
    let [current, new] = keys(data)?;
    let action = match word & 7 {
        0 => Register::Add,
        1 => Register::Remove,
        2 => Register::Replace,
        _ => return Err(Status::INVALID_FIELD),
    };
    let persists = match word >> 30 {
        0 => None,
        2 => Some(false),
        3 => Some(true),
        _ => return Err(Status::INVALID_FIELD),
    };
    let ignore_key = word & IGNORE_KEY != 0;
    on.change(keep, |state| state.register(asker, action, ignore_key, current, new, persists))
}

pub fn acquire(on: &Reservations, asker: Asker, command: &Command, data: &[u8], keep: &mut Keep<'_>) -> Result<Vec<Notice>, Status> {
    let word = command.word(10);
    let [key, preempted] = keys(data)?;
    let kind = kind(word)?;
    if word & IGNORE_KEY != 0 {
        return Err(Status::INVALID_FIELD);
    }
    match word & 7 {
        0 => on.change(keep, |state| state.acquire(asker, key, kind)),
        // Aborting is waiting: what the preempted host began is done, and what it begins is refused.
        1 | 2 => on.change(keep, |state| state.preempt(asker, key, preempted, kind)),
        _ => Err(Status::INVALID_FIELD),
    }
}

pub fn release(on: &Reservations, asker: Asker, command: &Command, data: &[u8], keep: &mut Keep<'_>) -> Result<Vec<Notice>, Status> {
    let word = command.word(10);
    let [key] = keys(data)?;
    if word & IGNORE_KEY != 0 {
        return Err(Status::INVALID_FIELD);
    }
    match word & 7 {
        0 => {
            let kind = kind(word)?;
            on.change(keep, |state| state.release(asker, key, kind))
        }
        1 => on.change(keep, |state| state.clear(asker, key)),
        _ => Err(Status::INVALID_FIELD),
    }
}

/// The extended form: hosts are known by 128 bits here. Cut to what was asked for.
pub fn report(on: &Reservations, command: &Command) -> Result<Vec<u8>, Status> {
    if command.word(11) & 1 == 0 {
        return Err(Status::HOST_ID_FORMAT);
    }
    let state = on.state();
    let mut bytes = vec![0; REPORT_HEAD_BYTES + state.registrants.len() * REPORT_REGISTRANT_BYTES];
    put(&mut bytes, 0, &state.generation.to_le_bytes());
    bytes[4] = state.kind.map_or(0, |kind| kind as u8);
    put(&mut bytes, 5, &(state.registrants.len() as u16).to_le_bytes());
    bytes[9] = u8::from(state.persists);
    for (index, (host, registrant)) in state.registrants.iter().enumerate() {
        let at = REPORT_HEAD_BYTES + index * REPORT_REGISTRANT_BYTES;
        put(&mut bytes, at, &registrant.controller.to_le_bytes());
        bytes[at + 2] = u8::from(state.holds(host));
        put(&mut bytes, at + 8, &registrant.key.to_le_bytes());
        put(&mut bytes, at + 16, host);
    }
    Ok(bytes)
}
