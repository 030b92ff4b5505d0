//! The pool's erasure code: k data and m parity shards.

use crate::error::{Error, Result};

/// Data shards at most; more gain little space and cost every degraded read.
pub const DATA_SHARDS_MAX: u8 = 32;
/// Parity shards at most.
pub const PARITY_SHARDS_MAX: u8 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    pub k: u8,
    pub m: u8,
}

impl Code {
    /// For a pool whose operator chose none.
    pub fn for_device_count(count: usize) -> Self {
        let (k, m) = match count {
            0 | 1 => (1, 0),
            2 => (1, 1),
            3 => (2, 1),
            4 | 5 => (2, 2),
            6 | 7 => (4, 2),
            8 | 9 => (6, 2),
            _ => (8, 2),
        };
        Self { k, m }
    }

    pub fn width(self) -> usize {
        usize::from(self.k) + usize::from(self.m)
    }

    /// Raises Refused.
    pub fn check(self, device_count: usize) -> Result<()> {
        if self.k == 0 || self.k > DATA_SHARDS_MAX || self.m > PARITY_SHARDS_MAX {
            return Err(Error::Refused(format!(
                "code {self} is out of bounds; choose 1 to {DATA_SHARDS_MAX} data and 0 to {PARITY_SHARDS_MAX} parity shards"
            )));
        }
        if self.width() > device_count {
            return Err(Error::Refused(format!(
                "code {self} needs {} devices, there are {device_count}; add devices or choose a narrower code",
                self.width()
            )));
        }
        Ok(())
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}+{}", self.k, self.m)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_fits_its_devices() {
        for count in 1..40 {
            Code::for_device_count(count).check(count).unwrap();
        }
        assert_eq!(Code::for_device_count(6), Code { k: 4, m: 2 });
        assert!(Code { k: 4, m: 2 }.check(5).is_err() && Code { k: 0, m: 1 }.check(5).is_err());
    }
}
