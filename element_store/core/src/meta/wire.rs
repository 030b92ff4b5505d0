//! A transaction as the journal keeps it (FORMAT.md, section 2).
//!
//! Invariant of encoded transactions: keys ascend strictly, so none occurs twice.

use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};

use super::engine::Mutation;
use super::txn::{TRANSACTION_BYTES_MAX, VALUE_BYTES_MAX, check_key};

const TAG_PUT: u8 = 0;
const TAG_DELETE: u8 = 1;
/// Tag, key length, one byte of key: no mutation is shorter.
const MUTATION_BYTES_MIN: usize = 3;

pub fn encode_transaction(mutations: &[Mutation]) -> Vec<u8> {
    debug_assert!(mutations.is_sorted_by(|a, b| a.key() < b.key()));
    let mut writer = Writer::new();
    writer.varint(mutations.len() as u64);
    for mutation in mutations {
        match mutation {
            Mutation::Put { key, value } => writer.u8(TAG_PUT).blob(key).blob(value),
            Mutation::Delete { key } => writer.u8(TAG_DELETE).blob(key),
        };
    }
    writer.bytes
}

/// Reads one transaction and leaves what follows it. Damaged if it breaks any rule that the encoder keeps.
pub fn decode_transaction(reader: &mut Reader<'_>) -> Result<Vec<Mutation>> {
    let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
    if count > reader.remaining() / MUTATION_BYTES_MIN {
        return Err(damaged("counts more mutations than it has bytes"));
    }
    let mut mutations: Vec<Mutation> = Vec::with_capacity(count);
    let mut bytes = 0;
    for _ in 0..count {
        let mutation = decode_mutation(reader, &mut bytes)?;
        if mutations.last().is_some_and(|last| last.key() >= mutation.key()) {
            return Err(damaged("has keys out of order"));
        }
        mutations.push(mutation);
    }
    Ok(mutations)
}

fn decode_mutation(reader: &mut Reader<'_>, bytes: &mut usize) -> Result<Mutation> {
    let tag = reader.u8()?;
    let key = reader.blob()?;
    check_key(key).map_err(|_| damaged("has a key out of bounds"))?;
    let value = if tag == TAG_PUT { reader.blob()? } else { &[] };
    *bytes += key.len() + value.len();
    if value.len() > VALUE_BYTES_MAX || *bytes > TRANSACTION_BYTES_MAX {
        return Err(damaged("is larger than allowed"));
    }
    match tag {
        TAG_PUT => Ok(Mutation::Put {
            key: key.to_vec(),
            value: value.to_vec(),
        }),
        TAG_DELETE => Ok(Mutation::Delete { key: key.to_vec() }),
        _ => Err(damaged("has an unknown mutation")),
    }
}

fn damaged(what: &str) -> Error {
    Error::Damaged(format!("a journalled transaction {what}"))
}
