//! What a connection is after Connect: a submission queue and its completion queue.

use crate::auth::Authentication;
use crate::controller::Controller;
use crate::wire::put;
use std::collections::VecDeque;
use std::sync::Arc;

/// Asynchronous event requests that may be outstanding.
pub const EVENT_REQUESTS_MAX: usize = 4;

pub struct Queue {
    pub id: u16,
    pub depth: u16,
    head: u16,
    /// Else the host is not told how far its queue was read.
    pub flow_control: bool,
    pub controller: Arc<Controller>,
    pub authentication: Option<Authentication>,
    /// Asynchronous event requests that wait, by command id.
    pub event_requests: VecDeque<u16>,
}

impl Queue {
    pub fn new(id: u16, depth: u16, flow_control: bool, controller: Arc<Controller>, authentication: Option<Authentication>) -> Self {
        Self {
            id,
            depth,
            head: 1 % depth,
            flow_control,
            controller,
            authentication,
            event_requests: VecDeque::new(),
        }
    }

    /// The host must prove who it is before anything else.
    pub fn is_locked(&self) -> bool {
        self.authentication.as_ref().is_some_and(|authentication| !authentication.is_done())
    }

    pub fn advance(&mut self) {
        self.head = (self.head + 1) % self.depth;
    }

    pub fn head(&self) -> u16 {
        if self.flow_control { self.head } else { u16::MAX }
    }
}

/// A completion queue entry.
pub fn completion(result: u64, head: u16, queue: u16, command_id: u16, status: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    put(&mut bytes, 0, &result.to_le_bytes());
    put(&mut bytes, 8, &head.to_le_bytes());
    put(&mut bytes, 10, &queue.to_le_bytes());
    put(&mut bytes, 12, &command_id.to_le_bytes());
    put(&mut bytes, 14, &(status << 1).to_le_bytes());
    bytes
}
