//! FSSTAT, FSINFO, PATHCONF.

use super::attributes::encode_after;
use super::directory::LISTING_BYTES_MAX;
use super::{Effect, OK, Operation, decode_handle};
use crate::xdr::{Decoded, Decoder, Encoder};
use trefoil_core::filesystem::{FILE_BYTES_MAX, LINKS_MAX, NAME_BYTES_MAX, TRANSFER_BYTES_MAX};

/// What a transfer should be a multiple of, and what a new file takes at least.
const BLOCK_BYTES: u32 = 4096;
/// FSF3_LINK | FSF3_SYMLINK | FSF3_HOMOGENEOUS | FSF3_CANSETTIME
const PROPERTIES: u32 = 0x01 | 0x02 | 0x08 | 0x10;

pub fn fsstat(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    let handle = decode_handle(arguments)?;
    match operation
        .place(handle)
        .and_then(|place| Ok((operation.fs().statistics()?, place.node)))
    {
        Ok((statistics, node)) => {
            let (total, free) = (statistics.total_bytes, statistics.free_bytes);
            let files_free = free / u64::from(BLOCK_BYTES);
            reply.u32(OK);
            encode_after(reply, operation.fsid(), Some(&node));
            [total, free, free, statistics.elements + files_free, files_free, files_free]
                .iter()
                .for_each(|&value| reply.u64(value));
            // For how many seconds it stays so: not one.
            reply.u32(0);
        }
        Err(status) => reply.words(&[status.0, 0]),
    }
    Ok(Effect::Nothing)
}

pub fn fsinfo(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    match operation.place(decode_handle(arguments)?) {
        Ok(place) => {
            let transfer = TRANSFER_BYTES_MAX as u32;
            reply.u32(OK);
            encode_after(reply, operation.fsid(), Some(&place.node));
            reply.words(&[
                transfer,
                transfer,
                BLOCK_BYTES,
                transfer,
                transfer,
                BLOCK_BYTES,
                LISTING_BYTES_MAX as u32,
            ]);
            reply.u64(FILE_BYTES_MAX);
            reply.words(&[0, 1, PROPERTIES]);
        }
        Err(status) => reply.words(&[status.0, 0]),
    }
    Ok(Effect::Nothing)
}

pub fn pathconf(operation: &Operation<'_>, arguments: &mut Decoder<'_>, reply: &mut Encoder) -> Decoded<Effect> {
    match operation.place(decode_handle(arguments)?) {
        Ok(place) => {
            let [no_truncation, chown_restricted, case_insensitive, case_preserving] = [1, 1, 0, 1];
            reply.u32(OK);
            encode_after(reply, operation.fsid(), Some(&place.node));
            reply.words(&[
                LINKS_MAX,
                NAME_BYTES_MAX as u32,
                no_truncation,
                chown_restricted,
                case_insensitive,
                case_preserving,
            ]);
        }
        Err(status) => reply.words(&[status.0, 0]),
    }
    Ok(Effect::Nothing)
}
