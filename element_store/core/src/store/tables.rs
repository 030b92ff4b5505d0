//! Tables of the metadata tree as payloads in table segments.
//!
//! Owns the form of a table's `pieces`: count varint × (location, checksum u64), in the table's order. Invariants: what `write_table` returned is durable on every
//! device of its segments; a piece is only handed out if its checksum holds. Never frees anything: what no stored manifest names is the caller's to release.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use crate::codec::{Reader, Writer, checksum};
use crate::error::{Error, Result};
use crate::meta::checkpoint::{Manifest, PIECES_BYTES_MAX, Table, TableSink, TableSource};
use crate::segment::{Class, HEADER_BYTES, Location, PAYLOAD_BYTES_MAX, Payload, Segments};

/// Of a payload's header.
pub const PAYLOAD_KIND: u8 = 2;
/// With its header a piece fills 1 MiB, so that rows fill a zone without a rest.
pub const PIECE_BYTES: usize = PAYLOAD_BYTES_MAX - HEADER_BYTES;
/// Pieces kept in memory until they are durable, so that they can be appended again: a table of the usual size is flushed once.
pub const BATCH_PIECES: usize = 16;
/// Each failed attempt costs a device.
pub const ATTEMPTS_MAX: usize = 4;
const PIECE_ENCODED_BYTES: usize = Location::ENCODED_BYTES + 8;
const COUNT_BYTES_MAX: usize = 10;
const PIECES_MAX: usize = (PIECES_BYTES_MAX - COUNT_BYTES_MAX) / PIECE_ENCODED_BYTES;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    location: Location,
    checksum: u64,
}

/// `wait_durable`: returns once the journal holds every transaction up to this sequence.
pub struct SegmentSink<'a, W> {
    pub segments: &'a Segments,
    pub wait_durable: W,
}

pub struct SegmentSource<'a> {
    pub segments: &'a Segments,
}

impl<W: Fn(u64) -> Result<()>> TableSink for SegmentSink<'_, W> {
    fn wait_durable(&self, sequence: u64) -> Result<()> {
        (self.wait_durable)(sequence)
    }

    /// Raises Limit before anything is written, OutOfSpace, Closed, Io if devices keep failing.
    fn write_table(&self, name: &str, length: u64, bytes: &mut dyn Read) -> Result<Vec<u8>> {
        if length.div_ceil(PIECE_BYTES as u64) > PIECES_MAX as u64 {
            return Err(Error::Limit(format!(
                "the metadata table {name} has {length} bytes, more than a checkpoint can name"
            )));
        }
        let (mut left, mut pieces) = (length, Vec::new());
        while left > 0 {
            let mut batch = vec![0; left.min((BATCH_PIECES * PIECE_BYTES) as u64) as usize];
            bytes.read_exact(&mut batch).map_err(state_error)?;
            pieces.extend(self.store(owner(name), &batch)?);
            left -= batch.len() as u64;
        }
        Ok(encode_pieces(&pieces))
    }
}

impl<W> SegmentSink<'_, W> {
    /// A device that fails leaves its segment; what was appended there may not be durable, so all of the batch goes to another one.
    fn store(&self, owner: u64, batch: &[u8]) -> Result<Vec<Piece>> {
        let payloads: Vec<Payload<'_>> = batch
            .chunks(PIECE_BYTES)
            .map(|bytes| Payload {
                kind: PAYLOAD_KIND,
                owner,
                bytes,
            })
            .collect();
        let append = || -> Result<Vec<Location>> {
            let locations = self.segments.append(Class::Table, &payloads)?;
            self.segments.sync(&locations).map(|()| locations)
        };
        let mut outcome = append();
        for _ in 1..ATTEMPTS_MAX {
            if !matches!(outcome, Err(Error::Io(_))) {
                break;
            }
            outcome = append();
        }
        let piece = |(location, payload): (Location, &Payload<'_>)| Piece {
            location,
            checksum: checksum(payload.bytes),
        };
        Ok(outcome?.into_iter().zip(&payloads).map(piece).collect())
    }
}

impl TableSource for SegmentSource<'_> {
    /// Raises Damaged.
    fn read_table(&self, table: &Table, out: &mut dyn Write) -> Result<()> {
        let pieces = decode_pieces(&table.pieces)?;
        let length: u64 = pieces.iter().map(|piece| u64::from(piece.location.length)).sum();
        if length != table.length {
            return Err(Error::Damaged(format!(
                "the places of metadata table {} hold {length} bytes instead of {}",
                table.name, table.length
            )));
        }
        for piece in pieces {
            let bytes = self.segments.read(&piece.location, 0..piece.location.length, piece.checksum)?;
            out.write_all(&bytes).map_err(state_error)?;
        }
        Ok(())
    }
}

/// What the manifest's tables take in each segment: segment id to bytes in use, headers and padding included. A table segment that is not here is free once the
/// manifest is stored.
pub fn segments_of(manifest: &Manifest) -> Result<BTreeMap<u64, u64>> {
    let mut live = BTreeMap::new();
    for table in &manifest.tables {
        for piece in decode_pieces(&table.pieces)? {
            *live.entry(piece.location.segment).or_default() += piece.location.footprint();
        }
    }
    Ok(live)
}

/// Tables are numbered; the number helps whoever reads a segment without metadata.
fn owner(name: &str) -> u64 {
    name.rsplit('/').next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

fn encode_pieces(pieces: &[Piece]) -> Vec<u8> {
    let mut writer = Writer::new();
    writer.varint(pieces.len() as u64);
    for piece in pieces {
        piece.location.encode(&mut writer);
        writer.u64(piece.checksum);
    }
    writer.bytes
}

/// The whole of `bytes`.
fn decode_pieces(bytes: &[u8]) -> Result<Vec<Piece>> {
    let mut reader = Reader::new(bytes);
    let count = reader.varint()?;
    if bytes.len() > PIECES_BYTES_MAX || count > (reader.remaining() / PIECE_ENCODED_BYTES) as u64 {
        return Err(Error::Damaged("a metadata table has more pieces than allowed".into()));
    }
    let piece = |_| {
        let piece = Piece {
            location: Location::decode(&mut reader)?,
            checksum: reader.u64()?,
        };
        if piece.location.length as usize > PAYLOAD_BYTES_MAX {
            return Err(Error::Damaged("a piece of a metadata table is longer than a payload".into()));
        }
        Ok(piece)
    };
    let pieces = (0..count).map(piece).collect::<Result<Vec<_>>>()?;
    reader.finish()?;
    Ok(pieces)
}

/// Says that it was not one of the pool's devices.
fn state_error(error: io::Error) -> Error {
    Error::Io(io::Error::new(error.kind(), format!("metadata state directory: {error}")))
}

#[cfg(test)]
mod tests;
