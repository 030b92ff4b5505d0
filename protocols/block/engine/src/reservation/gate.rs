//! Counts commands under way in two generations, so that a change can wait for those that were let in before it and for no later ones.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

#[derive(Default)]
pub struct Gate {
    generation: AtomicUsize,
    inside: [AtomicUsize; 2],
    /// Somebody waits: without that, leaving costs no lock.
    awaited: AtomicBool,
    lock: Mutex<()>,
    left: Condvar,
}

pub struct Entered {
    gate: Arc<Gate>,
    generation: usize,
}

impl Gate {
    pub fn enter(gate: &Arc<Self>) -> Entered {
        loop {
            let generation = gate.generation.load(Ordering::SeqCst);
            gate.inside[generation % 2].fetch_add(1, Ordering::SeqCst);
            let entered = Entered {
                gate: gate.clone(),
                generation,
            };
            if gate.generation.load(Ordering::SeqCst) == generation {
                return entered;
            }
            // It turned meanwhile: nobody may count on this one having seen the old state.
        }
    }

    /// Waits for all that entered before. One thread at a time.
    pub fn turn(&self) {
        let old = self.generation.fetch_add(1, Ordering::SeqCst) % 2;
        self.awaited.store(true, Ordering::SeqCst);
        let mut guard = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.inside[old].load(Ordering::SeqCst) > 0 {
            guard = self.left.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        self.awaited.store(false, Ordering::SeqCst);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let before = self.gate.inside[self.generation % 2].fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.gate.awaited.load(Ordering::SeqCst) {
            let _guard = self.gate.lock.lock().unwrap_or_else(PoisonError::into_inner);
            self.gate.left.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_turn_waits_for_those_before_it_only() {
        let gate = Arc::new(Gate::default());
        gate.turn();
        let before = Gate::enter(&gate);
        let (sender, turned) = channel();
        let waiting = std::thread::spawn({
            let gate = gate.clone();
            move || {
                gate.turn();
                sender.send(()).unwrap();
            }
        });
        while !gate.awaited.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let after = Gate::enter(&gate);
        assert!(turned.try_recv().is_err());
        drop(before);
        turned.recv().unwrap();
        waiting.join().unwrap();
        drop(after);
    }
}
