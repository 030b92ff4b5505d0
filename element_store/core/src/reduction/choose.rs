//! Which references are tried, and what is accepted. The figures are measured (`docs/decisions/0008-reduction.md`): accepting weak deltas makes
//! the whole *larger*, since a delta can be nobody's reference.

use super::gear::FEATURES;
use super::sketch::{Features, shared};

/// Features that a reference must share, and after many failures. Asking for three of every stream loses a tenth on machine code and saves nothing
/// elsewhere: streams without luck back off.
const SHARED_MIN: usize = 1;
const SHARED_MIN_BACKED_OFF: usize = 5;
/// Failed attempts in a row after which more is asked of references.
const FAILURES_MAX: usize = 16;
/// A delta gains at least so many bytes over the chunk alone.
const GAIN_BYTES_MIN: usize = 64;

/// A stream's luck with its references.
#[derive(Debug, Clone, Copy, Default)]
pub struct BackOff {
    failures: usize,
}

impl BackOff {
    pub fn note(&mut self, success: bool) {
        self.failures = if success { 0 } else { self.failures + 1 };
    }

    fn shared_min(self) -> usize {
        if self.failures >= FAILURES_MAX {
            SHARED_MIN_BACKED_OFF
        } else {
            SHARED_MIN
        }
    }
}

/// A chunk that stands where the next reference would, were the stream an older one's next version.
#[derive(Debug, Clone, Copy)]
pub struct Neighbour {
    pub id: u64,
    pub features: Features,
}

/// At most two references, best first: most features in common, then the newest; the second has some that the first has not.
/// `hits`: for each feature the newest chunk that has it.
pub fn candidates(features: &Features, hits: &[Option<u64>; FEATURES], neighbour: Option<&Neighbour>, back_off: BackOff) -> Vec<u64> {
    let near = neighbour.map_or((0, 0), |near| (near.id, shared(features, &near.features)));
    let votes = |id: u64| {
        let counted = hits.iter().filter(|hit| **hit == Some(id)).count();
        if id == near.0 { counted.max(near.1) } else { counted }
    };
    let mut ids: Vec<u64> = hits.iter().flatten().copied().chain((near.1 > 0).then_some(near.0)).collect();
    ids.sort_unstable();
    ids.dedup();
    let mut ranked: Vec<(usize, u64)> = ids.into_iter().map(|id| (votes(id), id)).collect();
    ranked.sort_unstable_by(|one, other| other.cmp(one));
    let tried = |(count, id): &&(usize, u64)| *count >= back_off.shared_min() || (*id == near.0 && *count > 0);
    let Some((_, first)) = ranked.iter().find(tried) else {
        return Vec::new();
    };
    let adds = |(_, id): &&(usize, u64)| id != first && hits.contains(&Some(*id));
    std::iter::once(*first).chain(ranked.iter().find(adds).map(|(_, id)| *id)).collect()
}

/// So small that the chunk alone need not be compressed to compare.
pub fn is_strong(delta: usize, raw: usize) -> bool {
    delta * 100 < raw * 6
}

/// `alone`: what the chunk takes without a reference.
pub fn is_accepted(delta: usize, alone: usize) -> bool {
    delta * 10 <= alone * 6 && delta + GAIN_BYTES_MIN <= alone
}

/// Is a second reference worth an attempt?
pub fn wants_second(delta: usize, alone: usize) -> bool {
    delta * 100 > alone * 12
}

pub fn is_second_worth_it(two: usize, one: usize) -> bool {
    two * 10 <= one * 9
}

/// Compressed rather than raw?
pub fn is_compressible(compressed: usize, raw: usize) -> bool {
    compressed * 100 <= raw * 97
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(ids: [u64; FEATURES]) -> [Option<u64>; FEATURES] {
        ids.map(|id| (id != 0).then_some(id))
    }

    const NONE: [u64; FEATURES] = [0; FEATURES];

    #[test]
    fn the_most_votes_win_then_the_newest() {
        let none = BackOff::default();
        let own = [1; FEATURES];
        assert_eq!(candidates(&own, &hits([7, 7, 7, 8, 8, 8, 8, 0, 0, 0, 0, 9]), None, none), [8, 7]);
        assert_eq!(candidates(&own, &hits([7, 7, 7, 8, 8, 8, 0, 0, 0, 0, 0, 0]), None, none), [8, 7]);
        assert_eq!(candidates(&own, &hits([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9]), None, none), [9]);
        assert_eq!(candidates(&own, &hits(NONE), None, none), [0; 0]);
    }

    #[test]
    fn a_neighbour_needs_one_feature() {
        let own: Features = std::array::from_fn(|index| index as u32);
        let mut features = [99; FEATURES];
        let near = |features| Neighbour { id: 5, features };
        assert_eq!(candidates(&own, &hits(NONE), Some(&near(features)), BackOff::default()), [0; 0]);
        features[3] = 3;
        assert_eq!(candidates(&own, &hits(NONE), Some(&near(features)), BackOff::default()), [5]);
        assert_eq!(
            candidates(
                &own,
                &hits([7, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
                Some(&near(features)),
                BackOff::default()
            ),
            [7],
            "a neighbour whose features others have adds nothing"
        );
    }

    #[test]
    fn failures_ask_for_more_and_success_forgives() {
        let mut back_off = BackOff::default();
        let three = hits([7, 7, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        for _ in 0..FAILURES_MAX {
            assert_eq!(candidates(&[1; FEATURES], &three, None, back_off), [7]);
            back_off.note(false);
        }
        assert_eq!(candidates(&[1; FEATURES], &three, None, back_off), [0; 0]);
        assert_eq!(
            candidates(&[1; FEATURES], &hits([7, 7, 7, 7, 7, 0, 0, 0, 0, 0, 0, 0]), None, back_off),
            [7]
        );
        back_off.note(true);
        assert_eq!(candidates(&[1; FEATURES], &three, None, back_off), [7]);
    }

    #[test]
    fn weak_deltas_are_not_accepted() {
        assert!(is_accepted(600, 1000) && !is_accepted(601, 1000));
        assert!(!is_accepted(60, 120), "it gains less than a row costs");
        assert!(is_strong(599, 10_000) && !is_strong(600, 10_000));
        assert!(is_compressible(97, 100) && !is_compressible(98, 100));
    }
}
