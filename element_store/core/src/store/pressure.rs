//! Back-pressure: as the landing area gets short, what lands in segments is slowed to the pace of the reducer, bit by bit; nothing is refused while the reducer
//! still makes room.
//!
//! Invariants: while more than SLOW_PERCENT of the space is free nobody waits; a wait is at most WAIT_MAX for each row, so a writer always gets on; only
//! users' content waits, never what makes room. Does no I/O.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Of the space for users: below the first, writers are slowed; at the second they get a twentieth of the reducer's pace.
const SLOW_PERCENT: f64 = 20.0;
const LAST_PERCENT: f64 = 2.0;
/// Where slowing begins, writers may be so many times as fast as the reducer was.
const PACES_MAX: f64 = 4.0;
const PACES_MIN: f64 = 0.05;
/// Of one row.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Bytes a second of a reducer whose pace is not known.
const PACE_UNKNOWN: f64 = 32e6;
const PACE_MIN: f64 = 1e6;
/// A new measurement counts so much.
const PACE_SHARE: f64 = 0.3;
/// Passes of the reducer that move nothing after which a full pool is full.
const IDLE_PASSES: u64 = 3;
/// A full pool is full if nothing was freed for so long, whatever the reducer does.
const PATIENCE: Duration = Duration::from_secs(60);
/// It is not before so long: what was given up may wait for its last readers.
const PATIENCE_MIN: Duration = Duration::from_secs(1);
const RECHECK: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub struct Pressure {
    /// Nobody would make room: background work is stepped by hand.
    is_off: bool,
    inner: Mutex<Inner>,
    passed: Condvar,
    idle_passes: AtomicU64,
    /// One more than the segments freed when the pool was found to be full; 0: it was not.
    full_at: AtomicU64,
    stopped: AtomicBool,
    /// Rows that waited, and how long.
    pub waits: AtomicU64,
    pub wait_ns: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    /// Of the reducer, bytes a second while it works.
    pace: f64,
    /// When the next row may land.
    next: Instant,
}

/// Since when somebody waits for room, and what was seen then.
#[derive(Debug)]
pub struct Patience {
    begun: Instant,
    idle_passes: u64,
    freed: u64,
}

/// How fast writers may be, in paces of the reducer; None: as fast as they like.
fn paces(free_percent: f64) -> Option<f64> {
    let left = (free_percent - LAST_PERCENT) / (SLOW_PERCENT - LAST_PERCENT);
    (left < 1.0).then(|| (PACES_MAX * left).max(PACES_MIN))
}

impl Pressure {
    pub fn new(is_off: bool) -> Self {
        let inner = Inner {
            pace: PACE_UNKNOWN,
            next: Instant::now(),
        };
        Self {
            is_off,
            inner: Mutex::new(inner),
            passed: Condvar::new(),
            idle_passes: AtomicU64::new(0),
            full_at: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            waits: AtomicU64::new(0),
            wait_ns: AtomicU64::new(0),
        }
    }

    /// A pass of the reducer is over, in which so many bytes were reduced.
    pub fn note_pass(&self, bytes: u64, spent: Duration, has_moved: bool) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if bytes > 0 {
            let pace = (bytes as f64 / spent.as_secs_f64().max(1e-6)).max(PACE_MIN);
            inner.pace += PACE_SHARE * (pace - inner.pace);
        }
        if !has_moved {
            self.idle_passes.fetch_add(1, Ordering::SeqCst);
        }
        self.passed.notify_all();
    }

    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.passed.notify_all();
    }

    /// How long a row must wait that arrives now.
    fn turn(&self, bytes: usize, free_percent: f64, now: Instant) -> Option<Duration> {
        let paces = paces(free_percent)?;
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = inner.next.clamp(now, now + WAIT_MAX);
        inner.next = turn + Duration::from_secs_f64(bytes as f64 / (inner.pace * paces));
        Some(turn - now)
    }

    /// Waits for a row's turn.
    pub fn admit(&self, bytes: usize, free_percent: f64) {
        if self.is_off {
            return;
        }
        let now = Instant::now();
        let Some(wait) = self.turn(bytes, free_percent, now).filter(|wait| !wait.is_zero()) else {
            return;
        };
        self.waits.fetch_add(1, Ordering::Relaxed);
        self.wait_ns.fetch_add(wait.as_nanos() as u64, Ordering::Relaxed);
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(left) = (now + wait).checked_duration_since(Instant::now()) {
            if self.stopped.load(Ordering::SeqCst) {
                return;
            }
            inner = self.passed.wait_timeout(inner, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// There was no room for something, for the first time.
    pub fn patience(&self, freed: u64) -> Patience {
        Patience {
            begun: Instant::now(),
            idle_passes: self.idle_passes.load(Ordering::SeqCst),
            freed,
        }
    }

    /// Waits a moment, after which it may be tried again; false once the pool is full. `freed`: segments so far.
    pub fn wait_for_room(&self, patience: &mut Patience, freed: u64) -> bool {
        if self.is_off || self.stopped.load(Ordering::SeqCst) {
            return false;
        }
        if patience.freed != freed {
            *patience = self.patience(freed);
        }
        let (spent, passes) = (patience.begun.elapsed(), self.idle_passes.load(Ordering::SeqCst));
        let is_idle = passes - patience.idle_passes >= IDLE_PASSES && spent >= PATIENCE_MIN;
        if is_idle || spent >= PATIENCE || self.full_at.load(Ordering::SeqCst) == freed + 1 {
            self.full_at.store(freed + 1, Ordering::SeqCst);
            return false;
        }
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let _passed = self.passed.wait_timeout(inner, RECHECK).unwrap_or_else(PoisonError::into_inner);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writers_are_slowed_bit_by_bit() {
        assert_eq!((paces(100.0), paces(20.0)), (None, None));
        let all: Vec<f64> = (0..200).filter_map(|tenth| paces(f64::from(tenth) / 10.0)).collect();
        assert_eq!(all.len(), 200);
        assert!(
            all.windows(2).all(|pair| pair[0] <= pair[1] && pair[1] - pair[0] < 0.05),
            "no cliff"
        );
        assert!(all[0] == PACES_MIN && all[199] > 3.9);
    }

    #[test]
    fn the_pace_is_the_reducers_and_a_wait_is_bounded() {
        let pressure = Pressure::new(false);
        for _ in 0..50 {
            pressure.note_pass(10_000_000, Duration::from_secs(1), true);
        }
        let (now, one_pace) = (Instant::now(), LAST_PERCENT + (SLOW_PERCENT - LAST_PERCENT) / PACES_MAX);
        assert_eq!(pressure.turn(1_000_000, one_pace, now), Some(Duration::ZERO));
        let second = pressure.turn(1_000_000, one_pace, now).unwrap().as_secs_f64();
        assert!((second - 0.1).abs() < 0.01, "{second}");
        for _ in 0..100 {
            assert!(pressure.turn(1_000_000, 0.0, now).unwrap() <= WAIT_MAX);
        }
        assert_eq!(pressure.turn(1_000_000, 50.0, now), None);
    }

    #[test]
    fn a_full_pool_is_full_once_nothing_moves_any_more() {
        let pressure = Pressure::new(false);
        let mut patience = pressure.patience(7);
        assert!(pressure.wait_for_room(&mut patience, 7));
        while pressure.wait_for_room(&mut patience, 7) {
            pressure.note_pass(0, Duration::ZERO, false);
        }
        assert!(!pressure.wait_for_room(&mut pressure.patience(7), 7), "it is known to be full");
        assert!(pressure.wait_for_room(&mut patience, 8), "something was freed");
        pressure.stop();
        assert!(!pressure.wait_for_room(&mut patience, 9));
        let off = Pressure::new(true);
        assert!(!off.wait_for_room(&mut off.patience(0), 0), "nobody would make room");
    }
}
