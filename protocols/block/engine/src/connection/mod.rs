//! One TCP connection and the thread that owns it: units in, commands begun, answers out.
//!
//! The thread sleeps until the socket, its mailbox or a deadline has something for it, then does all that there is and sends all answers in one call. Nothing
//! here waits for another host: what a connection cannot get (memory, room for answers) holds up itself only.
//!
//! - `receive`: units become commands and pieces of data.
//! - `pairs`: halves of fused pairs find each other.
//! - `execute`: commands become answers, at once or by mail.
//! - here: the loop, deadlines, the end.

mod execute;
mod pairs;
mod receive;

use crate::budget::{Account, Permit};
use crate::command::Command;
use crate::counters::Operation;
use crate::inbox::{Arrived, Inbox};
use crate::mailbox::{Mail, Mailbox};
use crate::namespace::Namespace;
use crate::outbox::Outbox;
use crate::pdu::{self, Fault, Terms};
use crate::queue::Queue;
use crate::shared::Shared;
use pairs::Pairs;
use receive::Unit;
use std::collections::{HashMap, VecDeque};
use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// For outstanding commands at a stop.
const STOP_SECONDS: u64 = 10;
/// For a peer to close after its last message.
const FAREWELL_MILLISECONDS: u64 = 500;
/// A transfer may take as many times the patience for one unit.
const TRANSFER_PATIENCE: u32 = 2;

/// Why a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The peer closed, or the socket failed.
    Gone,
    /// The peer broke the protocol and is told so.
    Fault(Fault),
    /// It took too long.
    Timeout,
    KeepAlive,
    /// We want it so.
    Closed,
}

/// A command that was not answered.
struct Started {
    command: Command,
    began: Instant,
    operation: Option<(Arc<Namespace>, Operation)>,
    /// That the host takes, or sent.
    bytes: usize,
    /// Of its data that came in its capsule.
    capsule_bytes: usize,
}

/// Data that the host was asked for.
struct Transfer {
    data: Vec<u8>,
    received: usize,
    permit: Permit,
    damaged: bool,
    began: Instant,
}

pub struct Connection {
    shared: Arc<Shared>,
    socket: TcpStream,
    peer: SocketAddr,
    local: SocketAddr,
    mailbox: Arc<Mailbox>,
    account: Arc<Account>,
    inbox: Inbox,
    outbox: Outbox,
    terms: Option<Terms>,
    unit: Unit,
    /// When the unit that is not whole yet began.
    unit_began: Option<Instant>,
    queue: Option<Queue>,
    started: HashMap<u16, Started>,
    /// By command id, which is also the tag that the host sends with the data.
    transfers: HashMap<u16, Transfer>,
    pairs: Pairs,
    /// Commands that wait for memory, in their order; a pair by its second half.
    parked: VecDeque<u16>,
    capsules_bytes: usize,
    /// Replies that others hold.
    executing: usize,
    accepted: Instant,
    stopping: Option<Instant>,
    /// After what is in the outbox.
    ends_after_flush: bool,
    /// A deadline had passed when it last woke up.
    overdue: bool,
    /// Reads that are to go to the pool because reads took long.
    slow_reads: u32,
}

impl Connection {
    pub fn new(shared: Arc<Shared>, socket: TcpStream, mailbox: Arc<Mailbox>) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let (peer, local) = (socket.peer_addr()?, socket.local_addr()?);
        Ok(Self {
            account: shared.budget.account(),
            shared,
            socket,
            peer,
            local,
            mailbox,
            inbox: Inbox::new(),
            outbox: Outbox::new(),
            terms: None,
            unit: Unit::Head,
            unit_began: None,
            queue: None,
            started: HashMap::new(),
            transfers: HashMap::new(),
            pairs: Pairs::default(),
            parked: VecDeque::new(),
            capsules_bytes: 0,
            executing: 0,
            accepted: Instant::now(),
            stopping: None,
            ends_after_flush: false,
            overdue: false,
            slow_reads: 0,
        })
    }

    /// The thread's life.
    pub fn run(mut self) {
        let end = loop {
            if let Err(end) = self.turn() {
                break end;
            }
        };
        self.note(end);
        self.leave();
        self.say_farewell(end);
    }

    fn leave(&mut self) {
        if let Some(queue) = self.queue.take() {
            queue.controller.remove_queue(queue.id, &self.mailbox);
            if queue.id == 0 {
                self.shared.remove_controller(&queue.controller);
            }
        }
    }

    fn turn(&mut self) -> Result<(), End> {
        self.take_mail()?;
        self.progress()?;
        let held_up = !self.reads();
        let sent = self.outbox.flush(&self.socket).map_err(|_| End::Gone)?;
        if sent && self.ends_after_flush {
            return Err(End::Closed);
        }
        if self.stopping.is_some() && sent && self.executing == 0 {
            return Err(End::Closed);
        }
        let reads = self.reads();
        if held_up && reads {
            // What arrived before waits in the inbox, where the socket does not tell of it.
            return Ok(());
        }
        let deadline = self.passed_again()?;
        let woken = self.mailbox.sleep(&self.socket, reads, !sent, deadline);
        let woken = woken.map_err(|_| End::Gone)?;
        self.overdue = deadline.is_some_and(|at| Instant::now() >= at);
        if woken.readable && reads { self.receive_some() } else { Ok(()) }
    }

    /// The next deadline. One that has passed ends the connection only after another look at what has arrived: it may have been there in time.
    fn passed_again(&mut self) -> Result<Option<Instant>, End> {
        match self.deadline() {
            Some((at, end)) if self.overdue && Instant::now() >= at => Err(end),
            deadline => Ok(deadline.map(|(at, _)| at)),
        }
    }

    fn take_mail(&mut self) -> Result<(), End> {
        let mut memory = false;
        for mail in self.mailbox.take() {
            match mail {
                Mail::Done(command_id, outcome, permit) => {
                    self.executing -= 1;
                    self.respond(command_id, outcome, permit);
                }
                Mail::Events => self.tell_events(),
                Mail::Memory => memory = true,
                Mail::Stop => self.stop(),
                // Its controller ends at a stop too, but what was begun is answered.
                Mail::Close if self.shared.stopping.load(Ordering::SeqCst) => self.stop(),
                Mail::Close => return Err(End::Closed),
            }
        }
        if memory { self.unpark() } else { Ok(()) }
    }

    /// Nothing more is begun, and what waits for its host's data never will be.
    fn stop(&mut self) {
        self.stopping.get_or_insert_with(Instant::now);
        self.parked.clear();
        self.transfers.clear();
        // Unanswered, so that the host sends them again to whoever comes next.
        self.pairs = Pairs::default();
    }

    /// The nearest deadline, and what it means if it passes.
    fn deadline(&self) -> Option<(Instant, End)> {
        let limits = &self.shared.limits;
        let mut nearest: Option<(Instant, End)> = None;
        let mut consider = |at: Instant, end: End| {
            if nearest.is_none_or(|(nearest, _)| at < nearest) {
                nearest = Some((at, end));
            }
        };
        if self.queue.as_ref().is_none_or(Queue::is_locked) {
            consider(self.accepted + limits.handshake, End::Timeout);
        }
        if let Some(began) = self.unit_began.filter(|_| self.reads()) {
            consider(began + limits.unit, End::Timeout);
        }
        if let Some(began) = self.transfers.values().map(|transfer| transfer.began).min() {
            consider(began + limits.unit * TRANSFER_PATIENCE, End::Timeout);
        }
        if !self.outbox.is_empty() {
            consider(self.outbox.progressed + limits.send, End::Timeout);
        }
        if let Some(stopping) = self.stopping {
            consider(stopping + Duration::from_secs(STOP_SECONDS), End::Closed);
        }
        if let Some(queue) = self.queue.as_ref().filter(|queue| queue.id == 0)
            && let Some(at) = queue.controller.lost_at(limits.idle)
        {
            consider(at, End::KeepAlive);
        }
        nearest
    }

    fn note(&self, end: End) {
        let counters = &self.shared.counters;
        match end {
            End::Fault(fault) => {
                counters.protocol_errors.add(1);
                if fault.status == Fault::digest(0).status {
                    counters.digest_errors.add(1);
                }
            }
            End::Timeout => counters.timeouts.add(1),
            End::KeepAlive => counters.keep_alive_timeouts.add(1),
            End::Gone | End::Closed => {}
        }
    }

    /// Whoever broke the protocol is told; then the peer gets a moment to read what was sent last, because a socket that is closed over unread input
    /// takes it back.
    fn say_farewell(mut self, end: End) {
        if end == End::Gone {
            return;
        }
        if let End::Fault(fault) = end {
            let bytes = self.inbox.bytes();
            let message = pdu::termination(fault, bytes);
            self.outbox.append(|out| out.extend(message));
        }
        let _ = self.outbox.flush(&self.socket);
        let _ = self.socket.shutdown(Shutdown::Write);
        let _ = self.socket.set_nonblocking(false);
        let deadline = Instant::now() + Duration::from_millis(FAREWELL_MILLISECONDS);
        let mut rest = [0; 4096];
        while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            let _ = self.socket.set_read_timeout(Some(left));
            if !matches!((&self.socket).read(&mut rest), Ok(1..)) {
                break;
            }
        }
    }

    fn receive_some(&mut self) -> Result<(), End> {
        match self.pull().map_err(|_| End::Gone)? {
            Arrived::End => Err(End::Gone),
            Arrived::Bytes(_) | Arrived::Nothing => Ok(()),
        }
    }
}

/// Also after a panic.
impl Drop for Connection {
    fn drop(&mut self) {
        self.leave();
    }
}
