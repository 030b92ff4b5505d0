//! Rows of content: extents, what they are made of, and what waits for the reducer. `docs/FORMAT.md` §5 draws the bytes.

use super::rows::{begin, narrow, open};
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};
use crate::reduction::page::PAGE_ENTRIES;
use crate::reduction::{BASES_MAX, CHUNK_BYTES_MAX, Cutting, Mode};
use crate::segment::Location;

/// Bytes covered by one checksum of a raw extent: what a ranged read fetches at least.
pub const CHECKSUM_BLOCK: usize = 64 * 1024;
/// Bytes of the largest extent.
pub const EXTENT_BYTES_MAX: usize = 1024 * 1024;
/// Of a chunk's entry in its pack's directory, at most: what it counts in its segment besides its stored bytes.
pub const PACK_ENTRY_BYTES: u64 = 16;

/// A run of an extent's bytes: those of the chunk from `skip` on. A chunk may lie across neighbouring extents of a stream; both list it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// 0: zeros, stored nowhere.
    pub chunk: u64,
    pub skip: u32,
    pub length: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// In the journal at an absolute position.
    Journal { position: u64, checksum: u64 },
    /// Raw in a segment: `checksum` of the whole, `blocks` of each CHECKSUM_BLOCK.
    Raw {
        location: Location,
        checksum: u64,
        blocks: Vec<u64>,
    },
    /// Cut and reduced, in order.
    Chunks(Vec<Piece>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtentRow {
    pub length: u32,
    pub placement: Placement,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    Raw,
    Zstd,
    /// Against the chunks that `bases` names.
    Delta,
}

/// Its content never changes, and its id never returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkRow {
    pub length: u32,
    pub encoding: Encoding,
    /// References of a delta, the better one first; none of them is a delta.
    pub bases: Vec<u64>,
    /// The page of the index that has its fingerprint, and its place there; page 0: none.
    pub page: u32,
    pub slot: u8,
    /// In a pack: not at a payload's beginning.
    pub location: Location,
    /// Of the stored bytes.
    pub checksum: u64,
}

/// An extent that waits for the reducer, and whose bytes it was when it landed: a hint that makes neighbours one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LandedRow {
    pub element: u64,
    pub offset: u64,
    pub cutting: Cutting,
    pub extent: u64,
    /// Of reduction, for what lies in no view yet: parts of uploads. None: the element's.
    pub mode: Option<Mode>,
}

impl LandedRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer
            .varint(self.extent)
            .varint(self.element)
            .varint(self.offset)
            .u8(u8::from(self.cutting == Cutting::Aligned) | self.mode.map_or(0, Mode::number) << 1);
        writer.bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        let (extent, element, offset, how) = (reader.varint()?, reader.varint()?, reader.varint()?, reader.u8()?);
        Ok(Self {
            element,
            offset,
            cutting: if how & 1 == 0 { Cutting::Content } else { Cutting::Aligned },
            extent,
            mode: Mode::numbered(how >> 1),
        })
    }
}

/// Most pieces continue the chunk before them by the next id.
fn encode_pieces(pieces: &[Piece], writer: &mut Writer) {
    writer.varint(pieces.len() as u64);
    let mut expected = 0u64;
    for piece in pieces {
        if piece.chunk == 0 {
            writer.varint(0);
        } else {
            let step = piece.chunk.wrapping_sub(expected) as i64;
            writer.varint((((step << 1) ^ (step >> 63)) as u64).saturating_add(1));
            expected = piece.chunk.wrapping_add(1);
        }
        writer.varint(u64::from(piece.skip)).varint(u64::from(piece.length));
    }
}

fn decode_pieces(reader: &mut Reader) -> Result<Vec<Piece>> {
    let (count, mut expected) = (reader.varint()?, 0u64);
    let mut piece = || {
        let chunk = match reader.varint()? {
            0 => 0,
            coded => {
                let step = coded - 1;
                let chunk = expected.wrapping_add((step >> 1) ^ (step & 1).wrapping_neg());
                expected = chunk.wrapping_add(1);
                chunk
            }
        };
        Ok(Piece {
            chunk,
            skip: narrow(reader.varint()?)?,
            length: narrow(reader.varint()?)?,
        })
    };
    (0..count).map(|_| piece()).collect()
}

impl Placement {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Placement::Journal { position, checksum } => {
                writer.u8(0).u64(*position).u64(*checksum);
            }
            Placement::Raw {
                location,
                checksum,
                blocks,
            } => {
                writer.u8(1);
                location.encode(writer);
                writer.u64(*checksum).varint(blocks.len() as u64);
                blocks.iter().for_each(|block| {
                    writer.u64(*block);
                });
            }
            Placement::Chunks(pieces) => {
                writer.u8(2);
                encode_pieces(pieces, writer);
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self> {
        match reader.u8()? {
            0 => Ok(Placement::Journal {
                position: reader.u64()?,
                checksum: reader.u64()?,
            }),
            1 => {
                let (location, checksum) = (Location::decode(reader)?, reader.u64()?);
                let blocks = (0..reader.varint()?).map(|_| reader.u64()).collect::<Result<_>>()?;
                Ok(Placement::Raw {
                    location,
                    checksum,
                    blocks,
                })
            }
            2 => decode_pieces(reader).map(Placement::Chunks),
            other => Err(Error::Damaged(format!("extent of unknown placement {other}"))),
        }
    }
}

impl ExtentRow {
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = begin(0);
        writer.varint(u64::from(self.length));
        self.placement.encode(&mut writer);
        writer.bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (_, mut reader) = open(bytes)?;
        Ok(Self {
            length: narrow(reader.varint()?)?,
            placement: Placement::decode(&mut reader)?,
        })
    }
}

impl ChunkRow {
    /// Bytes that it counts in its segment.
    pub fn footprint(&self) -> i64 {
        (u64::from(self.location.length) + PACK_ENTRY_BYTES) as i64
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut writer = begin(0);
        let encoding = match self.encoding {
            Encoding::Raw => 0,
            Encoding::Zstd => 1,
            Encoding::Delta => 1 + self.bases.len() as u8,
        };
        writer.u8(encoding).varint(u64::from(self.length));
        self.bases.iter().for_each(|base| {
            writer.varint(*base);
        });
        writer.varint(u64::from(self.page)).u8(self.slot);
        writer.varint(self.location.segment).u8(self.location.shard);
        writer
            .varint(u64::from(self.location.offset))
            .varint(u64::from(self.location.length));
        writer.u64(self.checksum);
        writer.bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let (_, mut reader) = open(bytes)?;
        let (encoding, bases) = match reader.u8()? {
            0 => (Encoding::Raw, 0),
            1 => (Encoding::Zstd, 0),
            bases if usize::from(bases) <= 1 + BASES_MAX => (Encoding::Delta, bases - 1),
            other => return Err(Error::Damaged(format!("chunk of unknown encoding {other}"))),
        };
        let length = narrow(reader.varint()?)?;
        if length as usize > CHUNK_BYTES_MAX {
            return Err(Error::Damaged(format!("a chunk of {length} bytes")));
        }
        let bases = (0..bases).map(|_| reader.varint()).collect::<Result<_>>()?;
        let (page, slot) = (narrow(reader.varint()?)?, reader.u8()?);
        if usize::from(slot) >= PAGE_ENTRIES {
            return Err(Error::Damaged("a chunk is out of its page".into()));
        }
        let (segment, shard) = (reader.varint()?, reader.u8()?);
        let location = Location {
            segment,
            shard,
            offset: narrow(reader.varint()?)?,
            length: narrow(reader.varint()?)?,
        };
        Ok(Self {
            length,
            encoding,
            bases,
            page,
            slot,
            location: location.checked()?,
            checksum: reader.u64()?,
        })
    }
}
