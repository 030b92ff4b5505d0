//! Commands of admin queues, without those that the connection itself keeps: event requests and aborts of them.

use crate::command::{Command, admin};
use crate::features::Context;
use crate::status::{Outcome, Status};
use crate::{identify, logs};
use std::net::SocketAddr;

pub fn run(context: &Context<'_>, command: &Command, data: &[u8], local: SocketAddr) -> Result<Outcome, Status> {
    if !context.controller.is_ready() {
        return Err(Status::SEQUENCE_ERROR);
    }
    if command.bytes[1] & 3 != 0 {
        return Err(Status::INVALID_FIELD);
    }
    match command.opcode() {
        admin::IDENTIFY => identify::identify(context, command).map(Outcome::data),
        admin::GET_LOG_PAGE => logs::page(context, command, local).map(Outcome::data),
        admin::GET_FEATURES => context.get(command),
        admin::SET_FEATURES => context.set(command, data),
        admin::KEEP_ALIVE => Ok(Outcome::success()),
        _ => Err(Status::INVALID_OPCODE),
    }
}
