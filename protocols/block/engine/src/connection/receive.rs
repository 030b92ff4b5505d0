//! From bytes to commands and data.

use super::{Connection, End, Started, Transfer, pairs};
use crate::budget::{CAPSULES_BYTES_MAX, OUTPUT_BYTES_MAX, Permit};
use crate::command::{Command, Direction, Place};
use crate::inbox::{Arrived, receive};
use crate::pdu::{self, ADMIN_CAPSULE_DATA_BYTES, CAPSULE_DATA_BYTES_MAX, COMMON_BYTES, DIGEST_BYTES, Fault, Header, Kind, Terms};
use crate::status::Status;
use crate::wire::{array_at, u32_at};
use std::time::Instant;
use trefoil_core::block::TRANSFER_BYTES_MAX;

/// Data of which more than this is missing is read to its place without a stop in the inbox.
const DIRECT_BYTES_MIN: usize = 16 << 10;
/// Before Connect, and after it until the depth is known.
const EARLY_COMMANDS_MAX: usize = 1;

/// What is being received.
pub enum Unit {
    Head,
    Capsule { command: Command, body: Body },
    Piece { tag: u16, offset: usize, body: Body },
}

/// Data of one unit. A piece's own bytes are those of its transfer.
pub struct Body {
    data: Vec<u8>,
    filled: usize,
    length: usize,
    digest: bool,
}

impl Connection {
    /// There is room for what a next unit may bring.
    pub(super) fn reads(&self) -> bool {
        let room = self.outbox.small_bytes() < OUTPUT_BYTES_MAX && self.capsules_bytes < CAPSULES_BYTES_MAX;
        let goes_on = !matches!(self.unit, Unit::Head);
        self.stopping.is_none() && !self.ends_after_flush && (room || goes_on)
    }

    fn capsule_data_bytes_max(&self) -> usize {
        let io = self.queue.as_ref().is_some_and(|queue| queue.id != 0);
        if io { CAPSULE_DATA_BYTES_MAX } else { ADMIN_CAPSULE_DATA_BYTES }
    }

    /// One read of the socket, to where its bytes belong.
    pub(super) fn pull(&mut self) -> std::io::Result<Arrived> {
        if self.inbox.is_empty()
            && let Some(into) = missing(&mut self.unit, &mut self.transfers)
            && into.len() >= DIRECT_BYTES_MIN
        {
            let arrived = receive(&self.socket, into)?;
            if let (Arrived::Bytes(bytes), Unit::Capsule { body, .. } | Unit::Piece { body, .. }) = (arrived, &mut self.unit) {
                body.filled += bytes;
            }
            return Ok(arrived);
        }
        self.inbox.fill(&self.socket)
    }

    /// All that can be done with what has arrived.
    pub(super) fn progress(&mut self) -> Result<(), End> {
        while self.reads() {
            let whole = match &self.unit {
                Unit::Head => self.head().map_err(End::Fault)?,
                Unit::Capsule { .. } | Unit::Piece { .. } => self.body()?,
            };
            if !whole {
                let partial = !self.inbox.is_empty() || !matches!(self.unit, Unit::Head);
                self.unit_began = partial.then(|| self.unit_began.unwrap_or_else(Instant::now));
                return Ok(());
            }
            if matches!(self.unit, Unit::Head) {
                self.unit_began = None;
            }
        }
        Ok(())
    }

    /// A header, if it is whole. What needs no data is done.
    fn head(&mut self) -> Result<bool, Fault> {
        let bytes = self.inbox.bytes();
        if bytes.len() < COMMON_BYTES {
            return Ok(false);
        }
        let terms = self.terms.unwrap_or_default();
        let header = Header::parse(&array_at(bytes, 0), terms, self.capsule_data_bytes_max())?;
        let initialized = self.terms.is_some();
        if initialized == (header.kind == Kind::InitializeRequest) {
            return Err(Fault::SEQUENCE);
        }
        let Some(head) = bytes.get(..header.head_bytes) else {
            return Ok(false);
        };
        header.check_digest(head)?;
        match header.kind {
            Kind::InitializeRequest => {
                let (terms, response) = pdu::initialize(head)?;
                self.terms = Some(terms);
                self.outbox.append(|out| out.extend(response));
            }
            Kind::Command => {
                let command = pdu::command(head);
                self.unit = Unit::Capsule {
                    command,
                    body: Body::new(&header, vec![0; header.data_bytes]),
                };
            }
            Kind::HostData => self.begin_piece(&header)?,
            // The peer ends it; whatever it complains of is for its own log.
            _ => self.ends_after_flush = true,
        }
        self.inbox.consume(header.head_bytes);
        Ok(true)
    }

    fn begin_piece(&mut self, header: &Header) -> Result<(), Fault> {
        let piece = pdu::host_data(&self.inbox.bytes()[..header.head_bytes]);
        let transfer = self.transfers.get(&piece.tag).ok_or(Fault::header(10))?;
        if piece.command_id != piece.tag {
            return Err(Fault::header(8));
        }
        if piece.length != header.data_bytes || piece.length == 0 {
            return Err(Fault::header(16));
        }
        if piece.offset != transfer.received || piece.length > transfer.data.len() - transfer.received {
            return Err(Fault::OUT_OF_RANGE);
        }
        if piece.last != (piece.offset + piece.length == transfer.data.len()) {
            return Err(Fault::header(1));
        }
        self.unit = Unit::Piece {
            tag: piece.tag,
            offset: piece.offset,
            body: Body::new(header, Vec::new()),
        };
        Ok(())
    }

    /// Takes data from the inbox; true if the unit was whole, and it is done.
    fn body(&mut self) -> Result<bool, End> {
        if let Some(into) = missing(&mut self.unit, &mut self.transfers) {
            let taken = self.inbox.take(into);
            if let Unit::Capsule { body, .. } | Unit::Piece { body, .. } = &mut self.unit {
                body.filled += taken;
                if body.filled < body.length {
                    return Ok(false);
                }
            }
        }
        let digest = match &self.unit {
            Unit::Capsule { body, .. } | Unit::Piece { body, .. } if body.digest => {
                let Some(bytes) = self.inbox.bytes().get(..DIGEST_BYTES) else {
                    return Ok(false);
                };
                let digest = u32_at(bytes, 0);
                self.inbox.consume(DIGEST_BYTES);
                Some(digest)
            }
            _ => None,
        };
        match std::mem::replace(&mut self.unit, Unit::Head) {
            Unit::Capsule { command, body } => {
                let damaged = digest.is_some_and(|digest| digest != pdu::crc32c(&body.data));
                self.command(command, body.data, damaged)?;
            }
            Unit::Piece { tag, offset, body } => self.end_piece(tag, offset, body.length, digest)?,
            Unit::Head => {}
        }
        Ok(true)
    }

    fn end_piece(&mut self, tag: u16, offset: usize, length: usize, digest: Option<u32>) -> Result<(), End> {
        let Some(transfer) = self.transfers.get_mut(&tag) else {
            return Ok(());
        };
        let end = offset + length;
        transfer.damaged |= digest.is_some_and(|digest| digest != pdu::crc32c(&transfer.data[offset..end]));
        transfer.received = end;
        if end < transfer.data.len() {
            return Ok(());
        }
        if let (Some(transfer), Some(started)) = (self.transfers.remove(&tag), self.started.get_mut(&tag)) {
            started.began = Instant::now();
            let command = started.command;
            if let Some(pair) = self.pairs.of(tag) {
                self.fill_half(pair, tag, transfer);
            } else if transfer.damaged {
                self.refuse_damaged(tag);
            } else {
                self.execute(command, transfer.data, Some(transfer.permit))?;
            }
        }
        Ok(())
    }

    pub(super) fn refuse_damaged(&mut self, command_id: u16) {
        self.shared.counters.digest_errors.add(1);
        self.respond(command_id, Status::TRANSIENT_TRANSPORT.into(), None);
    }

    /// A command with what came in its capsule.
    fn command(&mut self, command: Command, data: Vec<u8>, damaged: bool) -> Result<(), End> {
        let id = command.id();
        let depth = match &mut self.queue {
            Some(queue) => {
                queue.advance();
                queue.controller.hear();
                usize::from(queue.depth)
            }
            None => EARLY_COMMANDS_MAX,
        };
        if self.started.contains_key(&id) {
            self.respond_plainly(id, Status::ID_CONFLICT);
            return Ok(());
        }
        if self.started.len() >= depth {
            return Err(End::Fault(Fault::SEQUENCE));
        }
        self.capsules_bytes += data.len();
        let started = Started {
            command,
            began: Instant::now(),
            operation: None,
            bytes: data.len(),
            capsule_bytes: data.len(),
        };
        self.started.insert(id, started);
        let fuse = self.queue.as_ref().and_then(|queue| pairs::fuse(queue, &command));
        if let Some(fuse) = fuse {
            self.take_half(fuse, command, data, damaged);
            return Ok(());
        }
        if damaged {
            self.refuse_damaged(id);
            return Ok(());
        }
        self.place(command, data)
    }

    /// Executes it, or asks the host for its data first.
    fn place(&mut self, command: Command, data: Vec<u8>) -> Result<(), End> {
        let id = command.id();
        match self.missing_bytes(&command, &data) {
            Ok(0) => return self.execute(command, data, None),
            Ok(length) if self.request(id, length) => {}
            Ok(_) => self.park(id),
            Err(status) => self.respond(id, status.into(), None),
        }
        Ok(())
    }

    /// Of a command's data, those that the host is to be asked for: all or none.
    pub(super) fn missing_bytes(&self, command: &Command, data: &[u8]) -> Result<usize, Status> {
        match command.direction() {
            Direction::ToController => {}
            // A read that waits for memory would hold its capsule's meanwhile, and so the reading of the connection.
            Direction::ToHost if !data.is_empty() => return Err(Status::SGL_TYPE_INVALID),
            Direction::ToHost | Direction::None => return Ok(0),
        }
        match command.data_pointer()? {
            (Place::Capsule, length) if length as usize == data.len() => Ok(0),
            (Place::Capsule, _) => Err(Status::SGL_LENGTH_INVALID),
            (Place::Transport, 0) => Ok(0),
            (Place::Transport, length) => {
                let (open, length) = (self.queue.as_ref().is_some_and(|queue| !queue.is_locked()), length as usize);
                if !open || !data.is_empty() {
                    return Err(Status::SGL_TYPE_INVALID);
                }
                if length > TRANSFER_BYTES_MAX || length % 4 != 0 {
                    return Err(Status::INVALID_FIELD);
                }
                Ok(length)
            }
        }
    }

    /// Asks for data, if there is memory for it.
    pub(super) fn request(&mut self, id: u16, length: usize) -> bool {
        let permit = self.account.take(length, &self.mailbox);
        permit.is_some_and(|permit| {
            self.request_with(id, length, permit);
            true
        })
    }

    pub(super) fn request_with(&mut self, id: u16, length: usize, permit: Permit) {
        let transfer = Transfer {
            data: vec![0; length],
            received: 0,
            permit,
            damaged: false,
            began: Instant::now(),
        };
        self.transfers.insert(id, transfer);
        if let Some(started) = self.started.get_mut(&id) {
            started.bytes = length;
        }
        let terms = self.terms();
        self.outbox.append(|out| pdu::put_ready(out, terms, id, id, 0, length));
    }

    pub(super) fn terms(&self) -> Terms {
        self.terms.unwrap_or_default()
    }
}

impl Body {
    fn new(header: &Header, data: Vec<u8>) -> Self {
        Self {
            data,
            filled: 0,
            length: header.data_bytes,
            digest: header.data_digest,
        }
    }
}

/// Where the next bytes of a unit's data belong; none if all have come.
fn missing<'a>(unit: &'a mut Unit, transfers: &'a mut std::collections::HashMap<u16, Transfer>) -> Option<&'a mut [u8]> {
    let into = match unit {
        Unit::Head => return None,
        Unit::Capsule { body, .. } => &mut body.data[body.filled..],
        Unit::Piece { tag, offset, body } => &mut transfers.get_mut(tag)?.data[*offset + body.filled..*offset + body.length],
    };
    if into.is_empty() { None } else { Some(into) }
}
