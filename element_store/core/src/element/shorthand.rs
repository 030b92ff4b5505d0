//! How the journal says that a row becomes history: once, instead of as rows of three tables.
//!
//! A row that a snapshot still sees goes to history and into its space's dead list, and mostly its place becomes empty: three mutations whose keys hold the
//! same key. In the journal one stands for them, under a letter that no table has. Invariant: what is expanded is what was shortened; what nobody could have
//! shortened is Damaged.

use super::{history, keys};
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};
use crate::meta::{Mutation, Shorthand, VALUE_BYTES_MAX};

/// A row is kept in history.
const KEPT: u8 = b'h';
/// The same, and nothing is in its place.
const MOVED: u8 = b'm';
/// The same, and another row is: both are in the value, the old one with its length before it.
const REPLACED: u8 = b'r';
const LETTERS: [u8; 3] = [KEPT, MOVED, REPLACED];

/// That of the store.
#[derive(Debug, Clone, Copy)]
pub struct HistoryShorthand;

/// The letter, the key as it was alive, the epoch of death without leading zeros, and its length.
fn short_key(letter: u8, live: &[u8], died: u64) -> Vec<u8> {
    let died = died.to_be_bytes();
    let died = &died[died.iter().take_while(|byte| **byte == 0).count()..];
    [&[letter], live, died, &[died.len() as u8]].concat()
}

fn parse(key: &[u8]) -> Option<(&[u8], u64)> {
    let (length, rest) = key.get(1..)?.split_last()?;
    let (live, bytes) = rest.split_at_checked(rest.len().checked_sub(usize::from(*length))?)?;
    let mut died = [0; 8];
    died.get_mut(8_usize.checked_sub(bytes.len())?..)?.copy_from_slice(bytes);
    let is_canonical = bytes.first() != Some(&0);
    (is_canonical && history::space_of(live).is_some()).then_some((live, u64::from_be_bytes(died)))
}

fn dead_key(live: &[u8], died: u64) -> Option<Vec<u8>> {
    history::space_of(live).map(|space| keys::dead(space, died, live))
}

fn find(mutations: &[Mutation], key: &[u8]) -> Option<usize> {
    mutations.binary_search_by(|mutation| mutation.key().cmp(key)).ok()
}

/// Where the row of a dead list is that goes with a row of history, and what becomes of the place of the row that lived.
fn others(mutations: &[Mutation], live: &[u8], died: u64) -> Option<(usize, Option<usize>)> {
    let dead = find(mutations, &dead_key(live, died)?)?;
    let is_plain = matches!(&mutations[dead], Mutation::Put { value, .. } if value.is_empty());
    is_plain.then_some((dead, find(mutations, live)))
}

/// Letter and value for a row of history and what takes its place; none if both do not fit into one value.
fn joined(old: &[u8], place: &Mutation) -> Option<(u8, Vec<u8>)> {
    let Mutation::Put { value: new, .. } = place else {
        return Some((MOVED, old.to_vec()));
    };
    let mut writer = Writer::new();
    writer.blob(old).raw(new);
    (writer.bytes.len() <= VALUE_BYTES_MAX).then_some((REPLACED, writer.bytes))
}

/// The old row, and what is in its place.
fn parted(letter: u8, live: &[u8], value: Vec<u8>) -> Result<(Vec<u8>, Option<Mutation>)> {
    let key = live.to_vec();
    Ok(match letter {
        MOVED => (value, Some(Mutation::Delete { key })),
        REPLACED => {
            let mut reader = Reader::new(&value);
            let old = reader.blob()?.to_vec();
            let value = reader.raw(reader.remaining())?.to_vec();
            (old, Some(Mutation::Put { key, value }))
        }
        _ => (value, None),
    })
}

impl Shorthand for HistoryShorthand {
    fn shorten(&self, mutations: Vec<Mutation>) -> Vec<Mutation> {
        if !mutations.iter().any(|mutation| mutation.key().first() == Some(&keys::DEAD)) {
            return mutations;
        }
        let (mut said, mut short) = (vec![false; mutations.len()], Vec::new());
        for (at, mutation) in mutations.iter().enumerate() {
            let Mutation::Put { key, value } = mutation else { continue };
            let history = (key.first() == Some(&keys::HISTORY)).then(|| keys::history_of(key)).flatten();
            let Some((live, died)) = history else { continue };
            let Some((dead, place)) = others(&mutations, live, died) else {
                continue;
            };
            // Of several deaths of one row, one tells of its place.
            let told = place.filter(|place| !said[*place]);
            let told = told.and_then(|place| Some((place, joined(value, &mutations[place])?)));
            (said[at], said[dead]) = (true, true);
            let (letter, value) = match told {
                Some((place, joined)) => {
                    said[place] = true;
                    joined
                }
                None => (KEPT, value.clone()),
            };
            short.push(Mutation::Put {
                key: short_key(letter, live, died),
                value,
            });
        }
        let rest = mutations
            .into_iter()
            .zip(said)
            .filter(|(_, said)| !said)
            .map(|(mutation, _)| mutation);
        let mut all: Vec<Mutation> = rest.chain(short).collect();
        all.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        all
    }

    fn expand(&self, mutations: Vec<Mutation>) -> Result<Vec<Mutation>> {
        let is_short = |mutation: &Mutation| mutation.key().first().is_some_and(|letter| LETTERS.contains(letter));
        if !mutations.iter().any(is_short) {
            return Ok(mutations);
        }
        let damaged = || Error::Damaged("a journalled transaction says of no row that it becomes history".into());
        let mut all = Vec::with_capacity(mutations.len() * 2);
        for mutation in mutations {
            let Mutation::Put { key, value } = mutation else {
                all.push(mutation);
                continue;
            };
            let letter = key[0];
            if !LETTERS.contains(&letter) {
                all.push(Mutation::Put { key, value });
                continue;
            }
            let (live, died) = parse(&key).ok_or_else(damaged)?;
            let dead = dead_key(live, died).ok_or_else(damaged)?;
            let (value, place) = parted(letter, live, value)?;
            all.extend(place);
            all.push(Mutation::Put {
                key: keys::history(live, died),
                value,
            });
            all.push(Mutation::Put {
                key: dead,
                value: Vec::new(),
            });
        }
        all.sort_unstable_by(|a, b| a.key().cmp(b.key()));
        match all.is_sorted_by(|a, b| a.key() < b.key()) && !all.iter().any(is_short) {
            true => Ok(all),
            false => Err(damaged()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn live_key() -> impl Strategy<Value = Vec<u8>> {
        let table = proptest::sample::select(history::TABLES.to_vec());
        (table, 1..4_u64, 0..4_u64, proptest::collection::vec(any::<u8>(), 0..6)).prop_map(|(table, space, number, rest)| {
            let id = keys::in_space(number, space).to_be_bytes();
            [&[table], id.as_slice(), &rest].concat()
        })
    }

    /// A row that dies, whether its dead list has it, what becomes of its place.
    type Death = (Vec<u8>, u64, Vec<u8>, bool, Option<Option<Vec<u8>>>);

    fn mutations(deaths: Vec<Death>, others: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Vec<Mutation> {
        let mut all: BTreeMap<Vec<u8>, Option<Vec<u8>>> = others.into_iter().collect();
        for (live, died, value, is_listed, place) in deaths {
            all.insert(keys::history(&live, died), Some(value));
            if is_listed {
                all.insert(dead_key(&live, died).unwrap(), Some(Vec::new()));
            }
            if let Some(place) = place {
                all.insert(live, place);
            }
        }
        let mutation = |(key, value)| match value {
            Some(value) => Mutation::Put { key, value },
            None => Mutation::Delete { key },
        };
        all.into_iter().map(mutation).collect()
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..6)
    }

    proptest! {
        #[test]
        fn what_is_expanded_is_what_was_shortened(
            deaths in proptest::collection::vec(
                (live_key(), prop_oneof![0..3_u64, any::<u64>()], bytes(), any::<bool>(), proptest::option::of(proptest::option::of(bytes()))),
                0..12,
            ),
            others in proptest::collection::vec((live_key(), proptest::option::of(bytes())), 0..6),
        ) {
            let all = mutations(deaths, others);
            let short = HistoryShorthand.shorten(all.clone());
            prop_assert!(short.is_sorted_by(|a, b| a.key() < b.key()));
            prop_assert!(short.len() <= all.len());
            prop_assert_eq!(HistoryShorthand.expand(short).unwrap(), all);
        }

        #[test]
        fn any_mutations_are_expanded_or_an_error(keys in proptest::collection::btree_set(
            prop_oneof![bytes(), bytes().prop_map(|rest| [b"rE\0\0\x04\0\0\0\0\0".as_slice(), &rest].concat())].prop_filter("keys are not empty", |key| !key.is_empty()),
            0..6,
        )) {
            let all: Vec<Mutation> = keys.into_iter().map(|key| Mutation::Put { key, value: vec![2, 7, 7, 7] }).collect();
            if let Ok(expanded) = HistoryShorthand.expand(all) {
                prop_assert!(expanded.is_sorted_by(|a, b| a.key() < b.key()));
            }
        }
    }

    #[test]
    fn a_row_that_moves_to_history_is_one_mutation() {
        let live = keys::element(keys::in_space(7, 3));
        for place in [None, Some(vec![2; 40]), Some(vec![2; VALUE_BYTES_MAX])] {
            let fits = place.as_ref().is_none_or(|new| new.len() < VALUE_BYTES_MAX);
            let all = mutations(vec![(live.clone(), 300, vec![1; 50], true, Some(place))], Vec::new());
            assert_eq!(all.len(), 3);
            let short = HistoryShorthand.shorten(all.clone());
            assert_eq!(short.len(), if fits { 1 } else { 2 });
            assert_eq!(short.last().unwrap().key().len(), 1 + live.len() + 2 + 1);
            assert_eq!(HistoryShorthand.expand(short).unwrap(), all);
        }
    }
}
