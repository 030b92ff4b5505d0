//! What the block face asks for that must wait and that no thread of a host's waits for: done by one thread, in order.

use crate::error::Result;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

type Work = Box<dyn FnOnce() + Send>;

/// Bounded by what hosts have under way, as each of their commands waits here once at most.
#[derive(Default)]
pub struct Later(Mutex<Option<(Sender<Work>, JoinHandle<()>)>>);

fn serve(work: &Receiver<Work>) {
    work.iter().for_each(|one| one());
}

impl Later {
    pub fn start(&self) -> Result<()> {
        let (sender, receiver) = channel();
        let thread = std::thread::Builder::new().name("later".into()).spawn(move || serve(&receiver))?;
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((sender, thread));
        Ok(())
    }

    /// Once it is stopped: at once, as nothing makes it wait any more.
    pub fn run(&self, work: impl FnOnce() + Send + 'static) {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*running {
            Some((sender, _)) => {
                let _panicked = sender.send(Box::new(work));
            }
            None => {
                drop(running);
                work();
            }
        }
    }

    /// Ends it after what waits. The store must refuse changes by then.
    pub fn stop(&self) {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((sender, thread)) = running {
            drop(sender);
            let _panicked = thread.join();
        }
    }
}
