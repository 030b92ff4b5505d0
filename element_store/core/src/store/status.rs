//! What the operator sees: health with advice, counters, and the scrub that verifies everything.

use super::Store;
use super::landing::KIND_EXTENT;
use super::packs::{self, KIND_PACK};
use super::tables::PAYLOAD_KIND as KIND_TABLE;
use crate::device::set::DeviceState;
use crate::element::Rows;
use crate::element::invariants::{self, Findings};
use crate::element::rows::Placement;
use crate::element::space::Space;
use crate::element::{chunks, content};
use crate::error::Result;
use crate::segment::{ScannedPayload, ScrubReport, SpaceStatus};
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

/// Of the pool's space, below which it is said that it runs short, percent.
const SPACE_SHORT_PERCENT: u64 = 10;

#[derive(Debug, Clone)]
pub struct Status {
    pub uuid: String,
    /// k data and m parity shards of new segments.
    pub code: (u8, u8),
    pub protected: bool,
    pub membership_epoch: u64,
    pub devices: Vec<DeviceStatus>,
    /// After parity.
    pub bytes_total: u64,
    pub bytes_used: u64,
    /// A sentence each.
    pub advice: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct DeviceStatus {
    pub index: u16,
    pub name: String,
    /// `live`, `dead` or `missing`.
    pub state: &'static str,
    pub bytes_total: u64,
    pub bytes_used: u64,
    /// Why it is not live, else empty.
    pub reason: String,
}

fn state_name(state: DeviceState) -> &'static str {
    match state {
        DeviceState::Live => "live",
        DeviceState::Dead => "dead",
        DeviceState::Missing => "missing",
    }
}

impl Store {
    pub fn status(&self) -> Status {
        let core = &self.core;
        let space = core.segments.status();
        let devices = self.devices(&space);
        let lost = devices.iter().filter(|device| device.state != "live").count();
        let degraded = core.segments.degraded().len();
        let m = usize::from(core.pool.code.m);
        Status {
            uuid: core.pool.uuid.to_string(),
            code: (space.code.k() as u8, space.code.m() as u8),
            protected: m > 0 && space.code.m() >= m && degraded == 0,
            membership_epoch: core.pool.membership_epoch(),
            advice: self.advice(&space, &devices, degraded, lost),
            devices,
            bytes_total: space.usable_bytes,
            bytes_used: space.used_bytes,
        }
    }

    fn devices(&self, space: &SpaceStatus) -> Vec<DeviceStatus> {
        let (set, geometry) = (&self.core.pool.devices, &self.core.pool.geometry);
        let used = |index: u16| {
            space
                .devices
                .iter()
                .find(|device| device.device == index)
                .map_or(0, |device| u64::from(device.zones_total - device.zones_free))
        };
        let status = |index: u16| DeviceStatus {
            index,
            name: set.device(index).map_or_else(String::new, |device| device.name()),
            state: state_name(set.state(index)),
            bytes_total: geometry.zone_count * geometry.zone_bytes,
            bytes_used: used(index) * geometry.zone_bytes,
            reason: set.reason(index),
        };
        (0..set.count() as u16).map(status).collect()
    }

    fn advice(&self, space: &SpaceStatus, devices: &[DeviceStatus], degraded: usize, lost: usize) -> Vec<String> {
        let mut advice = self.core.pool.notes.clone();
        for device in devices.iter().filter(|device| device.state != "live") {
            let name = if device.name.is_empty() {
                String::new()
            } else {
                format!(" ({})", device.name)
            };
            let reason = if device.reason.is_empty() || device.reason == device.state {
                String::new()
            } else {
                format!(": {}", device.reason)
            };
            advice.push(format!("device {}{name} is {}{reason}", device.index, device.state));
        }
        if degraded > 0 {
            let segments = if degraded == 1 {
                "1 segment waits".into()
            } else {
                format!("{degraded} segments wait")
            };
            advice.push(format!(
                "{segments} to be rebuilt after {lost} of {} devices were lost; until then fewer than {} more may be lost",
                devices.len(),
                self.core.pool.code.m
            ));
        } else if lost > 0 {
            advice.push(format!(
                "what the lost devices held was rebuilt onto the {} that are left, in less space; at most {} may be lost in all",
                devices.len() - lost,
                devices.len() - usize::from(self.core.pool.code.k)
            ));
        }
        if self.core.pool.code.m == 0 {
            advice.push("the pool has no parity: a lost device loses data; use at least two devices".into());
        }
        if space.free_bytes * 100 < space.usable_bytes * SPACE_SHORT_PERCENT {
            advice.push(format!("less than {SPACE_SHORT_PERCENT} % of the pool is free; delete something"));
        }
        if let Some(reason) = self.core.committer.closed_reason() {
            advice.push(format!("the store takes no more changes: {reason}; restart the daemon"));
        }
        if let Some(trouble) = &*self.core.trouble.lock().unwrap_or_else(PoisonError::into_inner) {
            advice.push(format!("background work fails and is tried again: {trouble}"));
        }
        advice
    }

    /// Prometheus names without the `trefoil_` prefix, labels in braces.
    pub fn metrics(&self) -> Vec<(String, f64)> {
        let mut metrics: Vec<(String, f64)> = Vec::with_capacity(96);
        self.device_metrics(&mut metrics);
        self.journal_metrics(&mut metrics);
        self.segment_metrics(&mut metrics);
        self.reduction_metrics(&mut metrics);
        let core = &self.core;
        let mut put = |name: &str, value: u64| metrics.push((name.into(), value as f64));
        put("metadata_memtable_bytes", core.engine.memtable_bytes());
        put("metadata_retained_bytes", core.engine.retained_bytes());
        put("metadata_table_bytes", core.engine.table_bytes());
        put("metadata_checkpoints_total", load(&core.upkeep_counters.checkpoints));
        put("reducer_extents_moved_total", load(&core.upkeep_counters.extents_moved));
        put("upkeep_failures_total", load(&core.upkeep_counters.failures));
        put("reclaim_waiting", core.guard.waiting() as u64);
        let spaces = core.committer.shared.spaces();
        let count = |of: fn(&Space) -> bool| spaces.iter().filter(|space| of(space)).count() as u64;
        put("snapshot_images", count(|space| space.row.is_image && !space.is_doomed));
        put(
            "clones",
            count(|space| !space.row.is_image && !space.row.is_left && space.row.origin.is_some()),
        );
        put("snapshot_epoch", spaces.epoch);
        let (jobs, left) = core.snapshot_progress.sum();
        put("snapshot_backlog_jobs", jobs as u64);
        put("snapshot_backlog_rows", left.rows);
        put("snapshot_backlog_bytes", left.bytes);
        metrics
    }

    fn device_metrics(&self, metrics: &mut Vec<(String, f64)>) {
        let set = &self.core.pool.devices;
        for index in 0..set.count() as u16 {
            let counters = set.counters(index);
            let mut put = |name: &str, value: u64| metrics.push((format!("device_{name}_total{{device=\"{index}\"}}"), value as f64));
            put("reads", counters.reads);
            put("read_bytes", counters.read_bytes);
            put("writes", counters.writes);
            put("write_bytes", counters.write_bytes);
            put("flushes", counters.flushes);
        }
    }

    fn journal_metrics(&self, metrics: &mut Vec<(String, f64)>) {
        let (core, counters) = (&self.core, self.core.journal.counters());
        let (used, capacity) = core.committer.journal_use();
        let commits = &core.committer.counters;
        let mut put = |name: &str, value: u64| metrics.push((name.into(), value as f64));
        put("journal_size_bytes", capacity);
        put("journal_used_bytes", used);
        put("journal_appends_total", counters.appends);
        put("journal_append_bytes_total", counters.append_bytes);
        put("journal_reads_total", counters.reads);
        put("journal_repaired_total", counters.repairs);
        put("journal_resilvered_total", counters.resilvered);
        put("journal_mirrors_replaced_total", counters.replacements);
        put("commit_transactions_total", load(&commits.transactions));
        put("commit_payload_bytes_total", load(&commits.payload_bytes));
        put("commit_row_bytes_total", load(&commits.row_bytes));
        put("commit_refused_total", load(&commits.refused));
        put("commit_stalls_total", load(&commits.stalls));
        put("commit_queued", core.committer.queued() as u64);
    }

    fn segment_metrics(&self, metrics: &mut Vec<(String, f64)>) {
        let (counters, space) = (self.core.segments.counters(), self.core.segments.status());
        let mut put = |name: &str, value: u64| metrics.push((name.into(), value as f64));
        put("segments", space.segments as u64);
        put("segments_degraded", self.core.segments.degraded().len() as u64);
        put("segment_appends_total", load(&counters.appends));
        put("segment_payload_bytes_total", load(&counters.payload_bytes));
        put("segment_written_bytes_total", load(&counters.written_bytes));
        put("segment_flushes_total", load(&counters.flushes));
        put("segment_reads_total", load(&counters.reads));
        put("segment_degraded_reads_total", load(&counters.degraded_reads));
        put("segment_checksum_errors_total", load(&counters.checksum_errors));
        put("segment_repaired_total", load(&counters.repaired));
        put("segment_unrecoverable_total", load(&counters.unrecoverable));
        put("segments_created_total", load(&counters.segments_created));
        put("segments_freed_total", load(&self.core.upkeep_counters.segments_freed));
    }

    fn reduction_metrics(&self, metrics: &mut Vec<(String, f64)>) {
        let (core, counters) = (&self.core, &self.core.reduction_counters);
        for (name, value) in counters.named() {
            metrics.push((format!("reduction_{name}"), value as f64));
        }
        for (stage, nanoseconds) in counters.stages() {
            metrics.push((
                format!("reduction_stage_seconds_total{{stage=\"{stage}\"}}"),
                nanoseconds as f64 / 1e9,
            ));
        }
        metrics.push(("landed_cache_bytes".into(), core.just_landed.bytes() as f64));
        metrics.push(("landed_cache_hits_total".into(), load(&core.just_landed.hits) as f64));
        metrics.push(("landed_cache_misses_total".into(), load(&core.just_landed.misses) as f64));
        metrics.push(("landing_waits_total".into(), load(&core.pressure.waits) as f64));
        metrics.push(("landing_wait_seconds_total".into(), load(&core.pressure.wait_ns) as f64 / 1e9));
        for (cache, found) in [("base", &core.base_cache), ("part", &core.part_cache)] {
            metrics.push((format!("{cache}_cache_bytes"), found.bytes() as f64));
            metrics.push((format!("{cache}_cache_hits_total"), load(&found.hits) as f64));
            metrics.push((format!("{cache}_cache_misses_total"), load(&found.misses) as f64));
        }
    }

    /// Recounts the metadata of one state that all faces saw: what is wrong, in sentences, at most FINDINGS_MAX of them, and how much there is in all.
    /// Users go on meanwhile; memory grows with the number of elements, extents and chunks.
    pub fn check(&self) -> Result<Findings> {
        self.check_open()?;
        invariants::check(&self.core.committer.meta.snapshot())
    }

    /// Verifies every payload and parity shard, repairs what differs. Counts by name. Blocks for as long as reading the pool takes.
    pub fn scrub(&self) -> Result<BTreeMap<String, u64>> {
        self.check_open()?;
        let mut total = ScrubReport::default();
        let mut segments = 0;
        for layout in self.core.segments.layouts() {
            let _inside = self.core.guard.enter();
            // One that was freed since the list was made is not there any more.
            if !self.core.segments.layouts().iter().any(|other| other.id == layout.id) {
                continue;
            }
            let report = self.core.segments.scrub(layout.id, &|payload| self.is_in_use(payload))?;
            segments += 1;
            total.rows += report.rows;
            total.payloads += report.payloads;
            total.payload_bytes += report.payload_bytes;
            total.checksum_errors += report.checksum_errors;
            total.repaired += report.repaired;
            total.unrecoverable += report.unrecoverable;
            total.unclear_rows += report.unclear_rows;
        }
        let counts = [
            ("segments", segments),
            ("rows", total.rows),
            ("payloads", total.payloads),
            ("payload_bytes", total.payload_bytes),
            ("checksum_errors", total.checksum_errors),
            ("repaired", total.repaired),
            ("unrecoverable", total.unrecoverable),
            ("unclear_rows", total.unclear_rows),
        ];
        Ok(counts.map(|(name, count)| (name.to_owned(), count)).into())
    }

    /// Does metadata name this payload? A row that cannot be read counts as a yes.
    fn is_in_use(&self, payload: &ScannedPayload) -> bool {
        let (snapshot, owner) = (self.core.snapshot(), payload.header.owner);
        match payload.header.kind {
            KIND_EXTENT => content::extent(&snapshot, owner).map_or(true, |row| {
                row.is_some_and(|row| matches!(row.placement, Placement::Raw { location, .. } if location == payload.location))
            }),
            KIND_PACK => self.is_pack_in_use(&snapshot, payload),
            KIND_TABLE => self.core.is_table_in_use(payload.location.segment),
            _ => false,
        }
    }

    /// Does a chunk of it live? A pack that a crash tore cannot be read, but neither does a row name it.
    fn is_pack_in_use(&self, rows: &dyn Rows, payload: &ScannedPayload) -> bool {
        let Ok(pack) = self.core.read_pack(&payload.location, &payload.header) else {
            return chunks::within(rows, &payload.location).map_or(true, |found| !found.is_empty());
        };
        let named = |(id, range): &(u64, std::ops::Range<usize>)| {
            let place = packs::place(&payload.location, range);
            chunks::chunk(rows, *id).map_or(true, |row| row.is_some_and(|row| row.location == place))
        };
        packs::directory(&pack).map_or(true, |listed| listed.iter().any(named))
    }
}

fn load(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
