//! From commands to answers.

use super::{Connection, End, Started};
use crate::budget::{OUTPUT_BYTES_MAX, Permit};
use crate::command::{Command, Direction, FABRICS, Fuse, Place, admin, fabrics as kinds, io as opcodes};
use crate::counters::Operation;
use crate::fabrics;
use crate::features::Context;
use crate::io::{self, Io};
use crate::mailbox::Reply;
use crate::outbox::Data;
use crate::pdu::{self, C2H_BYTES_MAX, DIGEST_BYTES};
use crate::queue::{EVENT_REQUESTS_MAX, completion};
use crate::status::{Outcome, Status};
use std::sync::Arc;
use std::time::Instant;

/// A read of at most this many bytes may run here.
const INLINE_BYTES_MAX: usize = 128 << 10;
/// A read that takes longer is slow, and so are the next SLOW_READS taken to be.
const QUICK_MICROSECONDS_MAX: u128 = 300;
const SLOW_READS: u32 = 64;

impl Connection {
    /// A command whose data is there. What is left to others is answered by mail.
    pub(super) fn execute(&mut self, command: Command, data: Vec<u8>, permit: Option<Permit>) -> Result<(), End> {
        let Some(queue) = &self.queue else {
            self.connect(&command, &data);
            return Ok(());
        };
        let id = command.id();
        let fabric = command.opcode() == FABRICS;
        let authenticates = fabric && matches!(command.fabrics_type(), kinds::AUTHENTICATION_SEND | kinds::AUTHENTICATION_RECEIVE);
        if queue.is_locked() && !authenticates {
            self.respond(id, Status::AUTHENTICATION_REQUIRED.into(), None);
        } else if fabric {
            let outcome = self.fabrics(&command, &data);
            self.respond(id, outcome.into(), None);
        } else if queue.id == 0 {
            self.admin(&command, &data);
        } else {
            self.io(command, data, permit);
        }
        Ok(())
    }

    fn connect(&mut self, command: &Command, data: &[u8]) {
        let id = command.id();
        if !command.is_fabrics(kinds::CONNECT) {
            self.respond(id, Status::SEQUENCE_ERROR.into(), None);
            return;
        }
        match fabrics::connect(&self.shared, command, data, &self.mailbox, self.peer) {
            Ok((queue, outcome)) => {
                self.queue = Some(queue);
                self.respond(id, outcome, None);
            }
            Err(outcome) => self.respond(id, outcome, None),
        }
    }

    fn fabrics(&mut self, command: &Command, data: &[u8]) -> Result<Outcome, Status> {
        let length = self.wanted_bytes(command)?;
        let Some(queue) = &mut self.queue else {
            return Err(Status::SEQUENCE_ERROR);
        };
        match (command.fabrics_type(), &mut queue.authentication) {
            (kinds::PROPERTY_GET, _) if queue.id == 0 => fabrics::property_get(&self.shared, &queue.controller, command),
            (kinds::PROPERTY_SET, _) if queue.id == 0 => fabrics::property_set(&queue.controller, command),
            (kinds::DISCONNECT, _) if queue.id != 0 => {
                self.ends_after_flush = true;
                Ok(Outcome::success())
            }
            (kinds::DISCONNECT, _) => Err(Status::INVALID_QUEUE_TYPE),
            (kinds::AUTHENTICATION_SEND, Some(authentication)) => {
                authentication.send(command, data)?;
                self.ends_after_flush |= authentication.has_failed();
                Ok(Outcome::success())
            }
            (kinds::AUTHENTICATION_RECEIVE, Some(authentication)) => {
                let message = authentication.receive(command, length)?;
                if authentication.has_failed() {
                    self.shared.counters.authentication_failures.add(1);
                    self.ends_after_flush = true;
                }
                Ok(Outcome::data(message))
            }
            (kinds::CONNECT | kinds::AUTHENTICATION_SEND | kinds::AUTHENTICATION_RECEIVE, _) => Err(Status::SEQUENCE_ERROR),
            (kinds::PROPERTY_GET | kinds::PROPERTY_SET, _) => Err(Status::INVALID_FIELD),
            _ => Err(Status::INVALID_OPCODE),
        }
    }

    /// Bytes that the host wants, of a command that gives any. What is not a read's fits into the outbox.
    fn wanted_bytes(&self, command: &Command) -> Result<usize, Status> {
        if command.direction() != Direction::ToHost {
            return Ok(0);
        }
        match command.data_pointer()? {
            (Place::Capsule, _) => Err(Status::SGL_TYPE_INVALID),
            (Place::Transport, length) if length as usize > OUTPUT_BYTES_MAX => Err(Status::INVALID_FIELD),
            (Place::Transport, length) => Ok(length as usize),
        }
    }

    fn admin(&mut self, command: &Command, data: &[u8]) {
        let id = command.id();
        let Some(queue) = &mut self.queue else { return };
        let ready = queue.controller.is_ready();
        match command.opcode() {
            admin::EVENT_REQUEST if ready => {
                if queue.event_requests.len() == EVENT_REQUESTS_MAX {
                    self.respond(id, Status::TOO_MANY_EVENT_REQUESTS.into(), None);
                } else {
                    queue.event_requests.push_back(id);
                    self.tell_events();
                }
            }
            admin::ABORT if ready => self.abort(command),
            _ => {
                let controller = queue.controller.clone();
                let context = Context {
                    shared: &self.shared,
                    controller: &controller,
                };
                let outcome = self
                    .wanted_bytes(command)
                    .and_then(|_| crate::admin::run(&context, command, data, self.local));
                self.respond(id, outcome.into(), None);
            }
        }
    }

    /// Only event requests can be: everything else ends by itself. Bit 0 of the result: it was not aborted.
    fn abort(&mut self, command: &Command) {
        let (queue_id, aborted) = (command.word(10) as u16, (command.word(10) >> 16) as u16);
        let Some(queue) = &mut self.queue else { return };
        let position = queue.event_requests.iter().position(|&id| queue_id == 0 && id == aborted);
        if let Some(position) = position {
            queue.event_requests.remove(position);
            self.respond(aborted, Status::ABORTED.into(), None);
        }
        let result = u64::from(position.is_none());
        self.respond(command.id(), Outcome::result(result), None);
    }

    pub(super) fn tell_events(&mut self) {
        while let Some(queue) = &mut self.queue
            && let Some(&id) = queue.event_requests.front()
        {
            let next = {
                let mut events = queue.controller.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                events.next()
            };
            let Some(event) = next else { return };
            queue.event_requests.pop_front();
            self.respond(id, Outcome::result(event.into()), None);
        }
    }

    fn io(&mut self, command: Command, data: Vec<u8>, permit: Option<Permit>) {
        let Some(queue) = &mut self.queue else { return };
        let controller = queue.controller.clone();
        let shared = self.shared.clone();
        let io = Io {
            shared: &shared,
            controller: &controller,
        };
        let id = command.id();
        if let Some(started) = self.started.get_mut(&id)
            && let Some(operation) = io::operation(&command)
        {
            let namespace = controller.namespace(command.namespace_id()).ok();
            started.operation = namespace.map(|namespace| (namespace, operation));
        }
        match command.opcode() {
            opcodes::READ if command.fuse() == Ok(Fuse::None) => self.read(&io, command),
            opcodes::RESERVATION_REPORT if self.wanted_bytes(&command).is_err() => {
                self.respond(id, Status::INVALID_FIELD.into(), None);
            }
            _ => {
                let reply = self.reply(id, permit);
                io.run(&command, data, reply);
            }
        }
    }

    pub(super) fn reply(&mut self, id: u16, permit: Option<Permit>) -> Reply {
        self.executing += 1;
        Reply::new(&self.mailbox, id, permit)
    }

    /// Here if it is likely to be quick or nothing else is to be done meanwhile; else in the pool, as soon as there is memory.
    fn read(&mut self, io: &Io<'_>, command: Command) {
        let id = command.id();
        let length = match command.data_pointer() {
            Ok((Place::Transport, length)) => length as usize,
            Ok((Place::Capsule, _)) => return self.respond(id, Status::SGL_TYPE_INVALID.into(), None),
            Err(status) => return self.respond(id, status.into(), None),
        };
        let plan = match io.plan_read(&command, length) {
            Ok(plan) => plan,
            Err(status) => return self.respond(id, status.into(), None),
        };
        if let Some(started) = self.started.get_mut(&id) {
            started.bytes = length;
        }
        let alone = self.started.len() == 1 && self.inbox.is_empty();
        if length <= INLINE_BYTES_MAX && (alone || self.slow_reads == 0) {
            return self.read_here(id, &plan);
        }
        let Some(permit) = self.account.take(length, &self.mailbox) else {
            return self.park(id);
        };
        self.slow_reads = self.slow_reads.saturating_sub(1);
        let mut reply = self.reply(id, Some(permit));
        self.shared.pool.push(Box::new(move || {
            let mut data = vec![0; plan.length];
            let result = plan.attached.device.read(plan.offset, &mut data);
            reply.enter(plan.entered);
            reply.send(result.map(|()| Outcome::data(data)));
        }));
    }

    /// Straight into the outbox.
    fn read_here(&mut self, id: u16, plan: &io::Read) {
        let began = Instant::now();
        let (terms, success) = (self.terms(), self.tells_success());
        let result = self.outbox.append(|out| {
            let start = out.len();
            pdu::put_data_header(out, terms, id, 0, plan.length, true, success);
            let data = out.len();
            out.resize(data + plan.length, 0);
            let result = plan.attached.device.read(plan.offset, &mut out[data..]);
            match result {
                Ok(()) if terms.data_digest => {
                    let digest = pdu::crc32c(&out[data..]);
                    out.extend(digest.to_le_bytes());
                }
                Ok(()) => {}
                Err(_) => out.truncate(start),
            }
            result
        });
        if began.elapsed().as_micros() > QUICK_MICROSECONDS_MAX {
            self.slow_reads = SLOW_READS;
        }
        match result {
            Ok(()) => self.finish(id, &Outcome::success(), success),
            Err(error) => self.respond(id, Status::from(error).into(), None),
        }
    }

    pub(super) fn park(&mut self, id: u16) {
        self.shared.counters.memory_waits.add(1);
        self.parked.push_back(id);
    }

    /// There may be memory for what waits.
    pub(super) fn unpark(&mut self) -> Result<(), End> {
        for id in std::mem::take(&mut self.parked) {
            let Some(command) = self.started.get(&id).map(|started| started.command) else {
                continue;
            };
            if !self.parked.is_empty() {
                // In their order.
                self.parked.push_back(id);
            } else if self.pairs.is_second(id) {
                if !self.request_pair(id) {
                    self.parked.push_back(id);
                }
            } else if command.direction() == Direction::ToHost {
                self.execute(command, Vec::new(), None)?;
            } else if let Ok((_, length)) = command.data_pointer()
                && !self.request(id, length as usize)
            {
                self.parked.push_back(id);
            }
        }
        Ok(())
    }

    /// Data and success are one message.
    fn tells_success(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| !queue.flow_control)
    }

    /// The answer to a command, and the end of it here.
    pub(super) fn respond(&mut self, id: u16, outcome: Outcome, permit: Option<Permit>) {
        let Some(command) = self.started.get(&id).map(|started| started.command) else {
            return;
        };
        let mut outcome = outcome;
        let success = self.tells_success() && outcome.result == 0;
        let mut told = false;
        if let Some(mut data) = outcome.data.take().filter(|_| outcome.status.is_success()) {
            let wanted = command.data_pointer().map_or(0, |(_, length)| length as usize);
            data.resize(wanted, 0);
            if !data.is_empty() {
                self.send(id, data, permit, success);
                told = success;
            }
        }
        self.finish(id, &outcome, told);
    }

    fn send(&mut self, id: u16, data: Vec<u8>, permit: Option<Permit>, success: bool) {
        let (terms, length) = (self.terms(), data.len());
        let counted = permit.is_some();
        let data = Arc::new(Data {
            bytes: data,
            _permit: permit,
        });
        for start in (0..length).step_by(C2H_BYTES_MAX) {
            let range = start..length.min(start + C2H_BYTES_MAX);
            let last = range.end == length;
            self.outbox
                .append(|out| pdu::put_data_header(out, terms, id, start, range.len(), last, success));
            if counted {
                self.outbox.push(&data, range.clone());
            } else {
                self.outbox.append(|out| out.extend(&data.bytes[range.clone()]));
            }
            if terms.data_digest {
                let digest = pdu::crc32c(&data.bytes[range]).to_le_bytes();
                self.outbox.append(|out| out.extend(digest));
                debug_assert_eq!(digest.len(), DIGEST_BYTES);
            }
        }
    }

    /// `told`: its data said already that it succeeded.
    fn finish(&mut self, id: u16, outcome: &Outcome, told: bool) {
        let Some(started) = self.started.remove(&id) else { return };
        self.capsules_bytes -= started.capsule_bytes;
        self.count(&started, outcome.status);
        if !told {
            self.put_completion(id, outcome.result, outcome.status);
        }
    }

    /// For a command that was never begun.
    pub(super) fn respond_plainly(&mut self, id: u16, status: Status) {
        self.put_completion(id, 0, status);
    }

    fn put_completion(&mut self, id: u16, result: u64, status: Status) {
        let terms = self.terms();
        let (head, queue) = self.queue.as_ref().map_or((1, 0), |queue| (queue.head(), queue.id));
        let entry = completion(result, head, queue, id, status.0);
        self.outbox.append(|out| pdu::put_response(out, terms, &entry));
    }

    fn count(&self, started: &Started, status: Status) {
        let Some(queue) = &self.queue else { return };
        let controller = &queue.controller;
        if !status.is_success() {
            let command = &started.command;
            controller.note_error(queue.id, command.id(), command.namespace_id(), status);
        }
        let Some((namespace, operation)) = &started.operation else { return };
        let bytes = started.bytes as u64;
        namespace
            .counters
            .done(*operation, bytes, status.is_success(), started.began.elapsed());
        let traffic = &controller.traffic;
        match operation {
            Operation::Read => {
                traffic.reads.add(1);
                traffic.read_bytes.add(bytes);
            }
            Operation::Write | Operation::CompareAndWrite => {
                traffic.writes.add(1);
                traffic.write_bytes.add(bytes);
            }
            _ => {}
        }
    }
}
