//! Fabrics commands: a connection becomes a queue, and the queue's registers (NVM Express base specification 2.0, section 6).

use crate::access::NQN_BYTES_MAX;
use crate::auth::Authentication;
use crate::command::Command;
use crate::controller::{Controller, Peer, Role, registers};
use crate::mailbox::Mailbox;
use crate::queue::Queue;
use crate::shared::Shared;
use crate::status::{Outcome, Status};
use crate::wire::{array_at, text_at, u16_at};
use std::net::SocketAddr;
use std::sync::Arc;

pub const DISCOVERY_NQN: &str = "nqn.2014-08.org.nvmexpress.discovery";
pub const CONNECT_BYTES: usize = 1024;
const ADMIN_DEPTH_MIN: u16 = 32;
const ANY_CONTROLLER: u16 = 0xffff;
/// The host does not want to be told how far its queue was read.
const NO_FLOW_CONTROL: u8 = 1 << 2;
const AUTHENTICATION_REQUIRED: u64 = 1 << 17;
/// In 500 ms: it is ready at once, but a host that waits shall not give up on a busy machine.
const READY_TIMEOUT: u64 = 40;

/// Where a Connect is wrong: in its data, or in the command.
fn wrong(in_data: bool, at: u16) -> Outcome {
    Outcome {
        result: u64::from(in_data) << 16 | u64::from(at),
        ..Status::CONNECT_PARAMETER.into()
    }
}

struct Connect<'a> {
    queue: u16,
    depth: u16,
    flow_control: bool,
    keep_alive_milliseconds: u32,
    controller: u16,
    host_id: [u8; 16],
    subsystem: &'a str,
    host: &'a str,
}

fn parse<'a>(command: &Command, data: &'a [u8], shared: &Shared) -> Result<Connect<'a>, Outcome> {
    if data.len() < CONNECT_BYTES {
        return Err(Status::SGL_LENGTH_INVALID.into());
    }
    if command.short(40) != 0 {
        return Err(Status::CONNECT_FORMAT.into());
    }
    let (queue, last) = (command.short(42), command.short(44));
    let last_max = shared.limits.queue_depth - 1;
    if last == 0 || last > last_max {
        return Err(wrong(false, 44));
    }
    let name = |at| text_at(data, at, NQN_BYTES_MAX + 1).filter(|name| !name.is_empty());
    Ok(Connect {
        queue,
        depth: last + 1,
        flow_control: command.bytes[46] & NO_FLOW_CONTROL == 0,
        keep_alive_milliseconds: command.word(12),
        controller: u16_at(data, 16),
        host_id: array_at(data, 0),
        subsystem: name(256).ok_or(wrong(true, 256))?,
        host: name(512).ok_or(wrong(true, 512))?,
    })
}

/// A queue, and what the host is told of it.
pub fn connect(
    shared: &Shared,
    command: &Command,
    data: &[u8],
    mailbox: &Arc<Mailbox>,
    address: SocketAddr,
) -> Result<(Queue, Outcome), Outcome> {
    let connect = parse(command, data, shared)?;
    let role = match connect.subsystem {
        DISCOVERY_NQN => Role::Discovery,
        name if name == shared.nqn => Role::Io,
        _ => return Err(wrong(true, 256)),
    };
    let access = shared.access();
    let host = access.host(connect.host);
    if role == Role::Io && host.is_none() {
        shared.counters.hosts_refused.add(1);
        return Err(Status::CONNECT_HOST.into());
    }
    let controller = if connect.queue == 0 {
        admin(shared, &connect, role, address)?
    } else {
        existing(shared, &connect, role)?
    };
    if !controller.add_queue(connect.queue, mailbox) {
        return Err(Status::SEQUENCE_ERROR.into());
    }
    if connect.queue != 0 && !controller.is_ready() {
        // It ended, or was reset, while this queue was added: nobody would close it.
        controller.remove_queue(connect.queue, mailbox);
        return Err(Status::SEQUENCE_ERROR.into());
    }
    let authentication = host.filter(|_| role == Role::Io);
    let authentication = authentication.and_then(|host| Authentication::of(&host, &access, &shared.nqn));
    let required = if authentication.is_some() { AUTHENTICATION_REQUIRED } else { 0 };
    let outcome = Outcome::result(u64::from(controller.id) | required);
    controller.hear();
    Ok((
        Queue::new(connect.queue, connect.depth, connect.flow_control, controller, authentication),
        outcome,
    ))
}

fn admin(shared: &Shared, connect: &Connect<'_>, role: Role, address: SocketAddr) -> Result<Arc<Controller>, Outcome> {
    if connect.controller != ANY_CONTROLLER {
        return Err(wrong(true, 16));
    }
    if connect.depth < ADMIN_DEPTH_MIN {
        return Err(wrong(false, 44));
    }
    let peer = Peer {
        nqn: connect.host.into(),
        id: connect.host_id,
        address,
    };
    Ok(shared.create_controller(role, peer, connect.keep_alive_milliseconds)?)
}

fn existing(shared: &Shared, connect: &Connect<'_>, role: Role) -> Result<Arc<Controller>, Outcome> {
    if role == Role::Discovery || connect.queue > shared.limits.io_queues {
        return Err(wrong(false, 42));
    }
    let controller = shared
        .controller(connect.controller)
        .filter(|controller| controller.role == Role::Io);
    let controller = controller.ok_or(wrong(true, 16))?;
    if controller.peer.nqn != connect.host {
        return Err(wrong(true, 512));
    }
    if controller.peer.id != connect.host_id {
        return Err(wrong(true, 0));
    }
    if !controller.is_ready() {
        return Err(Status::SEQUENCE_ERROR.into());
    }
    Ok(controller)
}

pub fn property_get(shared: &Shared, controller: &Controller, command: &Command) -> Result<Outcome, Status> {
    let (eight, offset) = (command.bytes[40] & 7 == 1, command.word(11));
    let capabilities = u64::from(shared.limits.queue_depth - 1) | 1 << 16 | READY_TIMEOUT << 24 | 1 << 37;
    Ok(Outcome::result(match (offset, eight) {
        (registers::CAPABILITIES, true) => capabilities,
        (registers::VERSION, false) => registers::VERSION_NUMBER.into(),
        (registers::CONFIGURATION, false) => controller.configuration().into(),
        (registers::STATUS, false) => controller.status().into(),
        _ => return Err(Status::INVALID_FIELD),
    }))
}

pub fn property_set(controller: &Arc<Controller>, command: &Command) -> Result<Outcome, Status> {
    let (eight, offset) = (command.bytes[40] & 7 == 1, command.word(11));
    if eight || offset != registers::CONFIGURATION {
        return Err(Status::INVALID_FIELD);
    }
    controller.configure(command.word(12));
    Ok(Outcome::success())
}
