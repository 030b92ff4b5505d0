//! How long ago an id was given out, about: ids rise, so a few samples of the newest one say what was written since when.

use crate::codec::{Reader, Writer};
use crate::error::Result;
use std::collections::VecDeque;
use std::time::Duration;

/// More are forgotten, the oldest first.
const SAMPLES_MAX: usize = 128;

#[derive(Debug)]
pub struct Ages {
    /// Samples are at least so far apart.
    spacing_ns: i64,
    /// (ns since 1970, the next id then), oldest first.
    samples: VecDeque<(i64, u64)>,
}

impl Ages {
    pub fn every(spacing: Duration) -> Self {
        Self {
            spacing_ns: i64::try_from(spacing.as_nanos()).unwrap_or(i64::MAX),
            samples: VecDeque::new(),
        }
    }

    /// True if that is a new sample.
    pub fn note(&mut self, now_ns: i64, next: u64) -> bool {
        // A clock that was set back makes what was known useless.
        if self.samples.back().is_some_and(|(at, _)| *at > now_ns) {
            self.samples.clear();
        }
        let is_new = self
            .samples
            .back()
            .is_none_or(|(at, _)| now_ns.saturating_sub(*at) >= self.spacing_ns);
        if is_new {
            self.samples.push_back((now_ns, next));
        }
        if self.samples.len() > SAMPLES_MAX {
            self.samples.pop_front();
        }
        is_new
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.varint(self.samples.len() as u64);
        for (at, next) in &self.samples {
            writer.i64(*at).varint(*next);
        }
        writer.bytes
    }

    /// What `encode` gave. Raises Damaged.
    pub fn read(&mut self, bytes: &[u8]) -> Result<()> {
        let mut reader = Reader::new(bytes);
        let count = reader.varint()?.min(SAMPLES_MAX as u64);
        self.samples = (0..count).map(|_| Ok((reader.i64()?, reader.varint()?))).collect::<Result<_>>()?;
        reader.finish()
    }

    /// Ids below it are older than that for certain.
    pub fn older_than(&self, age: Duration, now_ns: i64) -> u64 {
        let before = now_ns.saturating_sub(i64::try_from(age.as_nanos()).unwrap_or(i64::MAX));
        let known = self.samples.iter().rev().find(|(at, _)| *at <= before);
        known.map_or(0, |(_, next)| *next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_is_known_by_its_id() {
        let mut ages = Ages::every(Duration::from_secs(1));
        assert_eq!(ages.older_than(Duration::ZERO, 5), 0, "nothing is known");
        for second in 0..200 {
            ages.note(second * 1_000_000_000, 10 * second as u64);
            ages.note(second * 1_000_000_000 + 1, 10 * second as u64 + 5);
        }
        assert_eq!(ages.older_than(Duration::from_secs(9), 199_500_000_000), 1900);
        assert_eq!(ages.older_than(Duration::from_secs(190), 199_500_000_000), 0, "it is forgotten");
        let mut read = Ages::every(Duration::from_secs(1));
        read.read(&ages.encode()).unwrap();
        assert_eq!(read.samples, ages.samples);
        ages.note(0, 3000);
        assert_eq!(
            ages.older_than(Duration::from_secs(1), 1_000_000_000),
            3000,
            "the clock was set back"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_samples_or_an_error(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
            let _either = Ages::every(Duration::ZERO).read(&bytes);
        }
    }
}
