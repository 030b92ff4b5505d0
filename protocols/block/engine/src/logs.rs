//! Get Log Page (base specification, section 5.16).

use crate::budget::OUTPUT_BYTES_MAX;
use crate::command::{Command, admin, io};
use crate::controller::Role;
use crate::discovery;
use crate::events::{Event, Events};
use crate::features::Context;
use crate::identify::ANA_GROUP;
use crate::status::Status;
use crate::wire::{put, put_padded};
use std::net::SocketAddr;
use std::sync::{MutexGuard, PoisonError};

const ERRORS: u8 = 0x01;
const HEALTH: u8 = 0x02;
const FIRMWARE: u8 = 0x03;
const CHANGED_NAMESPACES: u8 = 0x04;
const EFFECTS: u8 = 0x05;
const ANA: u8 = 0x0c;
const DISCOVERY: u8 = 0x70;
const RESERVATION: u8 = 0x80;

const ALL_NAMESPACES: u32 = u32::MAX;
/// Of data unit counts in the health log: thousands of 512 bytes.
const DATA_UNIT_BYTES: u64 = 512_000;
const TEMPERATURE_KELVIN: u16 = 300;
const ANA_OPTIMIZED: u8 = 1;
/// Effects: supported; changes content.
const SUPPORTED: u32 = 1;
const CHANGES_CONTENT: u32 = 1 << 1;

/// What was asked for: part of one page.
pub fn page(context: &Context<'_>, command: &Command, local: SocketAddr) -> Result<Vec<u8>, Status> {
    let dwords = u64::from(command.word(10) >> 16) | u64::from(command.word(11) & 0xffff) << 16;
    let length = (dwords + 1) * 4;
    let offset = command.long(48);
    // Offsets that count entries are not on offer.
    if length > OUTPUT_BYTES_MAX as u64 || !offset.is_multiple_of(4) || command.word(14) >> 23 & 1 != 0 {
        return Err(Status::INVALID_FIELD);
    }
    let whole = whole(context, command, local)?;
    let (length, offset) = (length as usize, usize::try_from(offset).map_err(|_| Status::INVALID_FIELD)?);
    let mut part = whole.get(offset..).ok_or(Status::INVALID_FIELD)?.to_vec();
    part.resize(length, 0);
    Ok(part)
}

fn whole(context: &Context<'_>, command: &Command, local: SocketAddr) -> Result<Vec<u8>, Status> {
    let retain = command.word(10) >> 15 & 1 != 0;
    let id = command.namespace_id();
    match (command.word(10) as u8, context.controller.role) {
        (DISCOVERY, Role::Discovery) => {
            look(context, Event::Discovery, retain, |_| ());
            Ok(discovery::page(context.shared, &context.controller.peer.nqn, local))
        }
        (_, Role::Discovery) => Err(Status::INVALID_LOG_PAGE),
        (ERRORS, _) => Ok(errors(context)),
        (HEALTH, _) if id == 0 || id == ALL_NAMESPACES => Ok(health(context)),
        (HEALTH, _) => Err(Status::INVALID_FIELD),
        (FIRMWARE, _) => Ok(firmware()),
        (CHANGED_NAMESPACES, _) => Ok(look(context, Event::Namespaces, retain, |events| events.changed_page(!retain))),
        (EFFECTS, _) => Ok(effects()),
        (ANA, _) => Ok(ana(context, command.word(10) >> 8 & 1 != 0)),
        (RESERVATION, _) => Ok(look(context, Event::Reservation, retain, |events| events.reservation_page(!retain))),
        _ => Err(Status::INVALID_LOG_PAGE),
    }
}

/// Reads what an event told of; unless it is retained, the next one may be told.
fn look<T>(context: &Context<'_>, event: Event, retain: bool, read: impl FnOnce(&mut Events) -> T) -> T {
    let mut events: MutexGuard<'_, Events> = context.controller.events.lock().unwrap_or_else(PoisonError::into_inner);
    let page = read(&mut events);
    if !retain {
        events.looked(event);
        drop(events);
        context.controller.announce();
    }
    page
}

fn errors(context: &Context<'_>) -> Vec<u8> {
    let mut page = vec![0; crate::controller::ERRORS_MAX * 64];
    for (index, entry) in context.controller.errors().1.iter().enumerate() {
        let at = index * 64;
        put(&mut page, at, &entry.number.to_le_bytes());
        put(&mut page, at + 8, &entry.queue.to_le_bytes());
        put(&mut page, at + 10, &entry.command_id.to_le_bytes());
        put(&mut page, at + 12, &(entry.status.0 << 1).to_le_bytes());
        put(&mut page, at + 14, &u16::MAX.to_le_bytes());
        put(&mut page, at + 24, &entry.namespace_id.to_le_bytes());
        // TCP.
        page[at + 29] = 3;
    }
    page
}

fn health(context: &Context<'_>) -> Vec<u8> {
    let (controller, mut page) = (context.controller, vec![0; 512]);
    put(&mut page, 1, &TEMPERATURE_KELVIN.to_le_bytes());
    (page[3], page[4]) = (100, 10);
    let traffic = &controller.traffic;
    let units = |bytes: u64| u128::from(bytes.div_ceil(DATA_UNIT_BYTES));
    put(&mut page, 32, &units(traffic.read_bytes.value()).to_le_bytes());
    put(&mut page, 48, &units(traffic.write_bytes.value()).to_le_bytes());
    put(&mut page, 64, &u128::from(traffic.reads.value()).to_le_bytes());
    put(&mut page, 80, &u128::from(traffic.writes.value()).to_le_bytes());
    put(&mut page, 176, &u128::from(controller.errors().0).to_le_bytes());
    page
}

fn firmware() -> Vec<u8> {
    let mut page = vec![0; 512];
    page[0] = 1;
    put_padded(&mut page, 8, 8, env!("CARGO_PKG_VERSION"));
    page
}

fn effects() -> Vec<u8> {
    let mut page = vec![0; 4096];
    let mut set = |at: usize, opcode: u8, effect: u32| put(&mut page, at + usize::from(opcode) * 4, &effect.to_le_bytes());
    for opcode in [
        admin::GET_LOG_PAGE,
        admin::IDENTIFY,
        admin::ABORT,
        admin::SET_FEATURES,
        admin::GET_FEATURES,
        admin::EVENT_REQUEST,
        admin::KEEP_ALIVE,
    ] {
        set(0, opcode, SUPPORTED);
    }
    for opcode in [io::FLUSH, io::READ, io::COMPARE, io::VERIFY] {
        set(1024, opcode, SUPPORTED);
    }
    for opcode in [
        io::RESERVATION_REGISTER,
        io::RESERVATION_REPORT,
        io::RESERVATION_ACQUIRE,
        io::RESERVATION_RELEASE,
    ] {
        set(1024, opcode, SUPPORTED);
    }
    for opcode in [io::WRITE, io::WRITE_ZEROES, io::DATASET_MANAGEMENT, io::COPY] {
        set(1024, opcode, SUPPORTED | CHANGES_CONTENT);
    }
    page
}

/// All that the host sees is in one group, and every way to it is the best.
fn ana(context: &Context<'_>, groups_only: bool) -> Vec<u8> {
    let visible = context.controller.visible();
    let ids: Vec<u32> = if groups_only {
        Vec::new()
    } else {
        visible.keys().copied().collect()
    };
    let mut page = vec![0; 16 + 32];
    put(&mut page, 8, &1_u16.to_le_bytes());
    put(&mut page, 16, &ANA_GROUP.to_le_bytes());
    put(&mut page, 20, &(ids.len() as u32).to_le_bytes());
    page[32] = ANA_OPTIMIZED;
    page.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    page
}
