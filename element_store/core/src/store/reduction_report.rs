//! What the operator asks of reduction: gains of a pool, a view or a path, and why one element takes what it takes.

use super::Store;
use crate::element::accounting::{self, Accounting};
use crate::element::rows::{Encoding, Placement};
use crate::element::version_listing::{self, VersionQuery};
use crate::element::{Rows, chunks, content, keys, namespace};
use crate::error::{Error, Result};
use crate::meta::decode_counter;
use crate::segment::Class;

/// Keys read at a time.
const LISTED_MAX: usize = 1000;
/// Lines of `why` at most; more are only counted.
pub const WHY_PARTS_MAX: usize = 10_000;

/// Where the devices' bytes are. Zones are given out whole, so this sums up to what `used` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Payloads that live, with their headers and directories.
    pub live_bytes: u64,
    /// Dead payloads, padding, and room in segments that are still written or were left half full.
    pub garbage_bytes: u64,
    pub parity_bytes: u64,
    /// Segments of metadata tables, parity included.
    pub metadata_bytes: u64,
}

impl Usage {
    /// By their names in CLI and JSON.
    pub fn named(&self) -> [(&'static str, u64); 4] {
        [
            ("used_live_bytes", self.live_bytes),
            ("used_garbage_bytes", self.garbage_bytes),
            ("used_parity_bytes", self.parity_bytes),
            ("used_metadata_bytes", self.metadata_bytes),
        ]
    }
}

/// A run of an element's bytes and where they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub offset: u64,
    pub length: u32,
    pub extent: u64,
    /// `journal`, `landed`, `zeros`, `raw`, `zstd`, `delta`.
    pub kind: &'static str,
    /// 0: none.
    pub chunk: u64,
    pub chunk_bytes: u32,
    pub stored_bytes: u32,
    pub bases: Vec<u64>,
    /// Pieces and deltas that name the chunk.
    pub references: i64,
    pub segment: u64,
    pub shard: u8,
    pub at: u32,
}

impl Store {
    /// Gains of the whole pool. Raises Damaged.
    pub fn accounting(&self) -> Result<Accounting> {
        self.check_open()?;
        accounting::of_pool(&self.core.committer.meta.snapshot())
    }

    /// Of what keys with this prefix name, old versions included. Raises NotFound.
    pub fn accounting_of(&self, view: &str, prefix: &[u8]) -> Result<Accounting> {
        self.look(|rows| {
            let mut elements = Vec::new();
            let mut query = VersionQuery::default();
            (query.list.prefix, query.list.limit) = (prefix.to_vec(), LISTED_MAX);
            loop {
                let page = version_listing::list(rows, view, &query)?;
                elements.extend(
                    page.versions
                        .iter()
                        .filter_map(|version| version.element.as_ref())
                        .map(|element| element.id),
                );
                match page.next_after {
                    Some(next) => (query.list.start_after, query.after_version) = next,
                    None => break,
                }
            }
            elements.sort_unstable();
            elements.dedup();
            accounting::of_elements(rows, elements.into_iter())
        })
    }

    pub fn usage(&self) -> Result<Usage> {
        let snapshot = self.core.snapshot();
        let zone = self.core.pool.geometry.zone_bytes;
        let mut usage = Usage::default();
        for layout in self.core.segments.layouts() {
            let (k, m) = (u64::from(layout.k), u64::from(layout.m));
            if layout.class == Class::Table {
                usage.metadata_bytes += (k + m) * zone;
                continue;
            }
            let live = snapshot.get(&keys::segment_live(layout.id))?;
            let live = live.map_or(Ok(0), |value| decode_counter(&value))?.max(0) as u64;
            usage.live_bytes += live;
            usage.garbage_bytes += (k * zone).saturating_sub(live);
            usage.parity_bytes += m * zone;
        }
        Ok(usage)
    }

    /// Where a key's bytes are, in order; at most WHY_PARTS_MAX parts. Raises NotFound.
    pub fn why(&self, view: &str, key: &[u8]) -> Result<Vec<Part>> {
        self.look(|rows| {
            let element = namespace::lookup(rows, view, key, None)?;
            let mut parts = Vec::new();
            for run in content::runs(rows, element.id, 0, u64::MAX, WHY_PARTS_MAX)? {
                let row = content::extent(rows, run.extent)?.ok_or_else(|| Error::Damaged(format!("extent {} has no row", run.extent)))?;
                let begin = Part {
                    offset: run.offset,
                    length: run.length,
                    extent: run.extent,
                    kind: "journal",
                    chunk: 0,
                    chunk_bytes: 0,
                    stored_bytes: run.length,
                    bases: Vec::new(),
                    references: 0,
                    segment: 0,
                    shard: 0,
                    at: 0,
                };
                match &row.placement {
                    Placement::Journal { .. } => parts.push(begin),
                    Placement::Raw { location, .. } => parts.push(Part {
                        kind: "landed",
                        segment: location.segment,
                        shard: location.shard,
                        at: location.offset,
                        ..begin
                    }),
                    Placement::Chunks(pieces) => {
                        let (from, to) = (run.skip, run.skip + run.length);
                        let mut at = 0;
                        for piece in pieces {
                            let (start, stop) = (from.max(at), to.min(at + piece.length));
                            if start < stop {
                                let offset = run.offset + u64::from(start - from);
                                parts.push(part(
                                    rows,
                                    piece.chunk,
                                    Part {
                                        offset,
                                        length: stop - start,
                                        ..begin.clone()
                                    },
                                )?);
                            }
                            at += piece.length;
                        }
                    }
                }
                if parts.len() >= WHY_PARTS_MAX {
                    parts.truncate(WHY_PARTS_MAX);
                    break;
                }
            }
            Ok(parts)
        })
    }
}

fn part(rows: &dyn Rows, chunk: u64, begin: Part) -> Result<Part> {
    if chunk == 0 {
        return Ok(Part {
            kind: "zeros",
            stored_bytes: 0,
            ..begin
        });
    }
    let row = chunks::chunk(rows, chunk)?.ok_or_else(|| Error::Damaged(format!("chunk {chunk} has no row")))?;
    let shares = rows
        .get(&keys::chunk_shares(chunk))?
        .map_or(Ok(0), |value| decode_counter(&value))?;
    Ok(Part {
        kind: match row.encoding {
            Encoding::Raw => "raw",
            Encoding::Zstd => "zstd",
            Encoding::Delta => "delta",
        },
        chunk,
        chunk_bytes: row.length,
        stored_bytes: row.location.length,
        bases: row.bases,
        references: 1 + shares,
        segment: row.location.segment,
        shard: row.location.shard,
        at: row.location.offset,
        ..begin
    })
}
