//! A reservation as the store keeps it, little endian:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `TFR1` |
//! | 4 | generation |
//! | 1 | kind, 0 if nobody holds it |
//! | 1 | 1: a holder follows (kinds that all registrants hold have none) |
//! | 16 | the holder's host identifier, or zeros |
//! | 2 | registrants |
//! | 26 each | host identifier, key, controller that registered it |
//!
//! It is there only while reservations persist. Anything else is damage and is refused: to go on without it would let in whom it shuts out.

use super::REGISTRANTS_MAX;
use super::rules::{Kind, Registrant, State};
use crate::wire::{array_at, u16_at, u32_at, u64_at};
use trefoil_core::block::{BlockError, RESERVATION_BYTES_MAX};

const MAGIC: [u8; 4] = *b"TFR1";
const HEAD_BYTES: usize = 28;
const REGISTRANT_BYTES: usize = 26;
const _: () = assert!(HEAD_BYTES + REGISTRANT_BYTES * REGISTRANTS_MAX <= RESERVATION_BYTES_MAX);

pub fn encode(state: &State) -> Vec<u8> {
    let mut record = MAGIC.to_vec();
    record.extend(state.generation.to_le_bytes());
    record.push(state.kind.map_or(0, |kind| kind as u8));
    record.push(u8::from(state.holder.is_some()));
    record.extend(state.holder.unwrap_or_default());
    record.extend((state.registrants.len() as u16).to_le_bytes());
    for (host, registrant) in &state.registrants {
        record.extend(host);
        record.extend(registrant.key.to_le_bytes());
        record.extend(registrant.controller.to_le_bytes());
    }
    record
}

pub fn decode(record: &[u8]) -> Result<State, BlockError> {
    parse(record).ok_or_else(|| BlockError::Damaged("the record of a reservation".into()))
}

fn parse(record: &[u8]) -> Option<State> {
    let head = record.get(..HEAD_BYTES)?;
    let count = usize::from(u16_at(head, 26));
    let whole = record.len() == HEAD_BYTES + count * REGISTRANT_BYTES && count <= REGISTRANTS_MAX;
    if head[..4] != MAGIC || !whole {
        return None;
    }
    let kind = if head[8] == 0 { None } else { Some(Kind::new(head[8])?) };
    let registrants = record[HEAD_BYTES..].chunks_exact(REGISTRANT_BYTES);
    let state = State {
        generation: u32_at(head, 4),
        persists: true,
        kind,
        holder: (head[9] == 1).then(|| array_at(head, 10)),
        registrants: registrants
            .map(|bytes| {
                let (key, controller) = (u64_at(bytes, 16), u16_at(bytes, 24));
                (array_at(bytes, 0), Registrant { key, controller })
            })
            .collect(),
    };
    (state.registrants.len() == count && state.is_sound()).then_some(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_harms_the_parser(record in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(state) = parse(&record) {
                prop_assert_eq!(parse(&encode(&state)).unwrap(), state);
            }
        }

        #[test]
        fn cuts_and_flips_are_damage_or_sound(cut in 0_usize..80, flip in 0_usize..80, bit in 0..8_u8) {
            let mut state = State { persists: true, kind: Kind::new(1), holder: Some([7; 16]), ..State::default() };
            state.registrants.insert([7; 16], Registrant { key: 9, controller: 1 });
            state.registrants.insert([8; 16], Registrant { key: 10, controller: 2 });
            let mut record = encode(&state);
            prop_assert_eq!(parse(&record), Some(state));
            prop_assert!(parse(&record[..cut]).is_none());
            record[flip] ^= 1 << bit;
            if let Some(state) = parse(&record) {
                prop_assert!(state.is_sound());
            }
        }
    }
}
