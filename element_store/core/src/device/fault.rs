//! A script of faults for a `MemoryDevice`: which operation goes wrong, and how.
//!
//! Text form, for tests in any language: steps separated by `;`, each `OPERATION NTH EFFECT`.
//! OPERATION is `read`, `write` or `flush`; NTH counts those operations from 1 since the script was installed, `*` means every one.
//! EFFECT is `fail` (an I/O error, nothing done), `tear` (a write's first half is done, then an I/O error), `full` (no space), `lose` (the device is
//! gone from now on), `lie` (success, but nothing becomes durable), `slow MILLISECONDS`, `flip OFFSET BIT` (bit rot before the operation).

use crate::error::{Error, Result};

/// Steps of one script at most.
pub const STEPS_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Read,
    Write,
    Flush,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Fail,
    Tear,
    Full,
    Lose,
    Lie,
    Slow { milliseconds: u64 },
    Flip { offset: u64, bit: u8 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub operation: Operation,
    /// None: every one.
    pub nth: Option<u64>,
    pub effect: Effect,
}

#[derive(Debug, Clone, Default)]
pub struct FaultScript {
    steps: Vec<Step>,
    seen: [u64; 3],
}

impl FaultScript {
    pub fn new(steps: Vec<Step>) -> Self {
        Self { steps, seen: [0; 3] }
    }

    /// The text form above. Raises Invalid.
    pub fn parse(text: &str) -> Result<Self> {
        let steps: Vec<Step> = text
            .split(';')
            .map(str::trim)
            .filter(|step| !step.is_empty())
            .map(parse_step)
            .collect::<Result<_>>()?;
        if steps.len() > STEPS_MAX {
            return Err(Error::Limit(format!("a fault script has at most {STEPS_MAX} steps")));
        }
        Ok(Self::new(steps))
    }

    /// Counts one operation and returns what is to happen to it, in the script's order.
    pub fn next(&mut self, operation: Operation) -> Vec<Effect> {
        if self.steps.is_empty() {
            return Vec::new();
        }
        let seen = &mut self.seen[operation as usize];
        *seen += 1;
        let matches = |step: &&Step| step.operation == operation && step.nth.is_none_or(|nth| nth == *seen);
        self.steps.iter().filter(matches).map(|step| step.effect).collect()
    }
}

fn parse_step(text: &str) -> Result<Step> {
    let invalid = || Error::Invalid(format!("not a fault step: {text}"));
    let number = |word: &str| word.parse::<u64>().map_err(|_| invalid());
    let words: Vec<&str> = text.split_whitespace().collect();
    let [operation, nth, effect @ ..] = words.as_slice() else {
        return Err(invalid());
    };
    let operation = match *operation {
        "read" => Operation::Read,
        "write" => Operation::Write,
        "flush" => Operation::Flush,
        _ => return Err(invalid()),
    };
    let nth = if *nth == "*" { None } else { Some(number(nth)?) };
    let effect = match effect {
        ["fail"] => Effect::Fail,
        ["tear"] => Effect::Tear,
        ["full"] => Effect::Full,
        ["lose"] => Effect::Lose,
        ["lie"] => Effect::Lie,
        ["slow", milliseconds] => Effect::Slow {
            milliseconds: number(milliseconds)?,
        },
        ["flip", offset, bit] => Effect::Flip {
            offset: number(offset)?,
            bit: (number(bit)? % 8) as u8,
        },
        _ => return Err(invalid()),
    };
    Ok(Step { operation, nth, effect })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_hits_the_operation_that_it_names() {
        let mut script = FaultScript::parse("write 2 fail; flush * lie; read 1 flip 4096 3;").unwrap();
        assert_eq!(script.next(Operation::Write), []);
        assert_eq!(script.next(Operation::Write), [Effect::Fail]);
        assert_eq!(script.next(Operation::Write), []);
        assert_eq!(script.next(Operation::Flush), [Effect::Lie]);
        assert_eq!(script.next(Operation::Flush), [Effect::Lie]);
        assert_eq!(script.next(Operation::Read), [Effect::Flip { offset: 4096, bit: 3 }]);
    }

    #[test]
    fn a_wrong_script_is_named() {
        for text in ["write", "write x fail", "sync 1 fail", "write 1 explode", "read 1 flip 3"] {
            assert!(FaultScript::parse(text).unwrap_err().to_string().contains(text), "{text}");
        }
    }
}
