//! Answers that come from callbacks of the store.

use crate::mailbox::Reply;
use crate::status::{Outcome, Status};
use std::sync::{Arc, Mutex, PoisonError};
use trefoil_core::block::Done;

/// Of an operation that is the whole command.
pub fn answer(reply: Reply) -> Done<()> {
    Box::new(move |result| reply.send(result.map(|()| Outcome::success())))
}

/// A command that is several operations: answered when the last of them is done, with the first failure. Without any it succeeds.
pub struct Several(Arc<Gathered>);

struct Gathered {
    result: Mutex<(Option<Reply>, Status)>,
}

impl Several {
    pub fn new(reply: Reply) -> Self {
        let result = Mutex::new((Some(reply), Status::SUCCESS));
        Self(Arc::new(Gathered { result }))
    }

    pub fn done(&self) -> Done<()> {
        let pending = Pending {
            gathered: self.0.clone(),
            status: Status::INTERNAL,
        };
        Box::new(move |result| {
            let mut pending = pending;
            pending.status = result.map_or_else(Status::from, |()| Status::SUCCESS);
        })
    }
}

/// One operation; without its callback having run it has failed.
struct Pending {
    gathered: Arc<Gathered>,
    status: Status,
}

impl Drop for Pending {
    fn drop(&mut self) {
        let mut result = self.gathered.result.lock().unwrap_or_else(PoisonError::into_inner);
        if result.1.is_success() {
            result.1 = self.status;
        }
    }
}

impl Drop for Gathered {
    fn drop(&mut self) {
        let result = self.result.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(reply) = result.0.take() {
            reply.send(result.1);
        }
    }
}
