//! From device paths to a running store: find or make the pool, restore the metadata tree, replay the journal, start the threads.
//!
//! Invariant: nothing is formatted where a pool may have been: neither beside members of a pool, nor under a state directory that knows one.

use super::commit::{self, Clock, Committer, Rank};
use super::content_cache::{self, ContentCache};
use super::drives::PoolDrives;
use super::guard::Guard;
use super::just_landed::{self, JustLanded};
use super::landing::Holds;
use super::pressure::Pressure;
use super::reducer::{Reducer, ReductionSettings};
use super::root::{self, Root};
use super::tables::SegmentSource;
use super::upkeep::{Checkpointed, UpkeepCounters};
use super::{Core, SMALL_BYTES_MAX, Store, Wake};
use crate::device::Device;
use crate::device::file::{FILE_NAME, FileDevice, FileOptions};
use crate::element::shorthand::HistoryShorthand;
use crate::element::space::Spaces;
use crate::element::transaction::{IDS, Ids, Shared};
use crate::element::{Rows, keys, namespace};
use crate::error::{Error, Result};
use crate::journal::Journal;
use crate::meta::checkpoint::restore;
use crate::meta::hot::{HotEngine, HotLimits};
use crate::meta::lsm::{LsmEngine, LsmSettings};
use crate::meta::{MetaStore, decode_counter, thread_clock};
use crate::pool::{self, Code, FormatOptions, Identity, Pool};
use crate::segment::{self, Class, Persist, SegmentLayout, Segments, ZoneGeometry};
use std::collections::HashMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// The counter row above every segment id given out.
const SEGMENT_IDS: &str = "segments";
/// First id of a new pool; the root has the one below.
const FIRST_ID: u64 = keys::ROOT + 1;
/// In the state directory: the pool it belongs to.
const POOL_FILE: &str = "pool";
/// Of the free space of a file system, what new devices on it take together.
const FREE_SPACE_PERCENT: u64 = 90;

pub struct OpenOptions {
    /// (k, m) of a new pool; None: by the number of devices.
    pub code: Option<(u8, u8)>,
    /// Empty directories and files are formatted without asking, block devices only with this.
    pub format_block_devices: bool,
    /// Start with half of the last members or fewer.
    pub allow_degraded: bool,
    pub metadata: LsmSettings,
    /// Nanoseconds since 1970.
    pub clock: Clock,
    /// Content up to this size goes into the journal first; more than SMALL_BYTES_MAX never does.
    pub small_bytes_max: usize,
    /// Lazy changes are made durable so long after the first of them.
    pub lazy_age: Duration,
    pub reduction: ReductionSettings,
    /// For tests: step the background work by hand.
    pub background: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            code: None,
            format_block_devices: false,
            allow_degraded: false,
            metadata: LsmSettings::default(),
            clock: Arc::new(|| {
                SystemTime::now()
                    .duration_since(SystemTime::UNIX_EPOCH)
                    .map_or(0, |since| since.as_nanos() as i64)
            }),
            small_bytes_max: SMALL_BYTES_MAX,
            lazy_age: commit::LAZY_AGE,
            reduction: ReductionSettings::default(),
            background: true,
        }
    }
}

impl Store {
    /// `devices`: directories, files or block devices. `state`: a directory for the metadata tree, a cache that is rebuilt when lost. Raises Refused, Closed, Damaged.
    pub fn open(devices: &[PathBuf], state: &Path, options: OpenOptions) -> Result<Arc<Self>> {
        std::fs::create_dir_all(state)
            .map_err(|error| Error::Refused(format!("state directory {} cannot be made: {error}", state.display())))?;
        let present: Vec<Arc<dyn Device>> = open_present(devices)?;
        let pool = if has_member(&present) {
            open_pool(present, &options)?
        } else {
            drop(present);
            format(devices, state, &options)?
        };
        std::fs::write(state.join(POOL_FILE), format!("{}\n", pool.uuid))
            .map_err(|error| Error::Refused(format!("state directory {}: {error}", state.display())))?;
        Self::start(pool, state, options)
    }

    /// The same on devices of the caller's own, all of them formatted if all are empty.
    pub fn open_on(devices: Vec<Arc<dyn Device>>, state: &Path, options: OpenOptions) -> Result<Arc<Self>> {
        let pool = if has_member(&devices) {
            open_pool(devices, &options)?
        } else {
            let code = options.code.map(|(k, m)| Code { k, m });
            Pool::format(
                devices,
                FormatOptions {
                    code,
                    ..Default::default()
                },
            )?
        };
        Self::start(pool, state, options)
    }

    /// Over an open pool: what `open` does once the devices are there.
    pub fn start(pool: Pool, state: &Path, options: OpenOptions) -> Result<Arc<Self>> {
        let pool = Arc::new(pool);
        let drives: Arc<PoolDrives> = Arc::new(PoolDrives::new(pool.devices.clone()));
        let root = root::read_newest(&pool)?;
        let (engine, root) = restore_tree(&pool, &drives, state, root, &options.metadata)?;
        let hot = HotEngine::new(engine.clone(), keys::window, HotLimits::default());
        let meta = MetaStore::new(Arc::new(hot), thread_clock()).with_shorthand(HistoryShorthand);
        let mut replayed = meta.applied();
        let journal = Journal::recover(pool.clone(), root.start, root.keep_from, &mut |record| {
            replayed = replayed.max(commit::replay(&meta, record.body)?);
            // Replay reads nothing back, so it can outrun the tree's memory: flush as the writer's pace would have.
            if engine.is_behind() {
                while engine.maintain()? {}
            }
            Ok(())
        })?;
        let snapshot = meta.snapshot();
        let leased = snapshot
            .get(&keys::counter(IDS))?
            .map_or(Ok(FIRST_ID as i64), |value| decode_counter(&value))? as u64;
        let segments_next = snapshot
            .get(&keys::counter(SEGMENT_IDS))?
            .map_or(Ok(1), |value| decode_counter(&value))? as u64;
        let layouts = all_layouts(&snapshot, &root)?;
        let spaces = Spaces::load(&snapshot)?;
        drop(snapshot);
        let wake = Arc::new(Wake::default());
        let shared = Shared::new(Ids::new(leased), spaces);
        let (lag, pressure) = (engine.clone(), wake.clone());
        let committer = Arc::new(Committer::new(
            meta,
            shared,
            options.clock.clone(),
            options.lazy_age,
            Box::new(move || lag.is_behind()),
            Box::new(move || pressure.press()),
        ));
        let segments = open_segments(
            &pool,
            drives,
            layouts,
            segments_next.max(root.segment_id_next),
            Arc::downgrade(&committer),
        )?;
        let small_bytes_max = options
            .small_bytes_max
            .min(SMALL_BYTES_MAX)
            .min(pool.geometry.journal_bytes as usize / 64);
        let core = Arc::new(Core {
            small_bytes_max,
            journal: journal.reader(),
            committer,
            segments,
            engine,
            guard: Guard::default(),
            holds: Arc::new(Holds::default()),
            wake,
            trouble: Mutex::default(),
            reads: AtomicU64::new(0),
            content_locks: Default::default(),
            volumes: Default::default(),
            volumes_later: Default::default(),
            snapshot_progress: Default::default(),
            landed_floor: AtomicU64::new(root.keep_from),
            upkeep_counters: UpkeepCounters::default(),
            reduction_counters: Default::default(),
            mode: options.reduction.mode,
            reducer: Mutex::new(Reducer::new(&pool.secret, options.reduction)),
            base_cache: ContentCache::new(content_cache::BASE_BYTES_MAX),
            part_cache: ContentCache::new(content_cache::part_bytes_max()),
            just_landed: JustLanded::new(just_landed::LANDED_BYTES_MAX),
            pressure: Pressure::new(!options.background),
            checkpointed: Mutex::new(Checkpointed {
                manifest: root.manifest,
                generation: root.generation,
                start: root.start,
                keep_from: root.keep_from,
                at: Instant::now(),
            }),
            pool,
        });
        launch(core, journal, replayed, options.background)
    }
}

fn launch(core: Arc<Core>, journal: Journal, replayed: u64, background: bool) -> Result<Arc<Store>> {
    let next = journal.next();
    let mut threads = vec![spawn("writer", &core, move |core| core.committer.serve(journal, (replayed, next)))?];
    core.committer.run_own(Rank::Own, 1024, namespace::create_root)?;
    // What an unfinished freeing or a crash left without anything alive.
    core.committer.add_lessened(
        core.segments
            .layouts()
            .iter()
            .filter(|layout| layout.class != Class::Table)
            .map(|layout| layout.id),
    );
    if core.checkpointed.lock().is_ok_and(|last| last.generation == 0) {
        core.checkpoint()?;
    }
    if background {
        threads.push(spawn("upkeep", &core, |core| core.run_upkeep())?);
        threads.push(spawn("reducer", &core, |core| core.run_reducer())?);
    }
    core.volumes_later.start()?;
    let store = Arc::new(Store {
        core,
        threads: Mutex::new(threads),
    });
    store.forget_orphans()?;
    store.settle_after_crash()?;
    Ok(store)
}

fn spawn(name: &str, core: &Arc<Core>, life: impl FnOnce(&Core) + Send + 'static) -> Result<JoinHandle<()>> {
    let core = core.clone();
    Ok(std::thread::Builder::new().name(name.into()).spawn(move || life(&core))?)
}

fn has_member(devices: &[Arc<dyn Device>]) -> bool {
    devices
        .iter()
        .any(|device| !matches!(pool::identify(device.as_ref()), Ok(Identity::Empty)))
}

fn open_pool(devices: Vec<Arc<dyn Device>>, options: &OpenOptions) -> Result<Pool> {
    Pool::open(
        devices,
        pool::OpenOptions {
            allow_degraded: options.allow_degraded,
            ..Default::default()
        },
    )
}

/// Devices that are there already; empty places are left out.
fn open_present(paths: &[PathBuf]) -> Result<Vec<Arc<dyn Device>>> {
    let mut present: Vec<Arc<dyn Device>> = Vec::new();
    for path in paths {
        let absent = path.is_dir() && !path.join(FILE_NAME).exists();
        let missing = !path.exists();
        if absent || missing {
            continue;
        }
        let device = FileDevice::open(path, FileOptions::default())?;
        if !device.is_empty() {
            present.push(Arc::new(device));
        }
    }
    Ok(present)
}

/// Makes a pool of all the devices. Raises Refused.
fn format(paths: &[PathBuf], state: &Path, options: &OpenOptions) -> Result<Pool> {
    if let Ok(uuid) = std::fs::read_to_string(state.join(POOL_FILE)) {
        return Err(Error::Refused(format!(
            "no device holds pool {}, to which the state directory {} belongs; mount its drives, or remove {} to make a new pool",
            uuid.trim(),
            state.display(),
            state.join(POOL_FILE).display()
        )));
    }
    let code = options.code.map(|(k, m)| Code { k, m });
    if let Some(code) = code {
        code.check(paths.len())?;
    }
    let sharing = sharing(paths)?;
    let mut devices: Vec<Arc<dyn Device>> = Vec::new();
    for (path, sharing) in paths.iter().zip(sharing) {
        let block = std::fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_block_device());
        if block && !options.format_block_devices {
            return Err(Error::Refused(format!(
                "block device {} holds no pool; start with --format to format it (what is on it will be lost)",
                path.display()
            )));
        }
        let size = free_bytes(path)? * FREE_SPACE_PERCENT / 100 / sharing;
        devices.push(Arc::new(FileDevice::open(
            path,
            FileOptions {
                create: true,
                size: Some(size),
            },
        )?));
    }
    Pool::format(
        devices,
        FormatOptions {
            code,
            ..Default::default()
        },
    )
}

/// For each path, how many of them share its file system.
fn sharing(paths: &[PathBuf]) -> Result<Vec<u64>> {
    let system = |path: &PathBuf| {
        let metadata = std::fs::metadata(path)
            .map_err(|error| Error::Refused(format!("device {} cannot be used ({error}); check the path", path.display())))?;
        Ok(metadata.dev())
    };
    let systems: Vec<u64> = paths.iter().map(system).collect::<Result<_>>()?;
    let mut counts: HashMap<u64, u64> = HashMap::new();
    systems.iter().for_each(|system| *counts.entry(*system).or_default() += 1);
    Ok(systems.iter().map(|system| counts[system]).collect())
}

fn free_bytes(path: &Path) -> Result<u64> {
    let filesystem = rustix::fs::statvfs(path).map_err(std::io::Error::from)?;
    Ok(filesystem.f_bavail.saturating_mul(filesystem.f_frsize))
}

fn geometry(pool: &Pool) -> Result<ZoneGeometry> {
    let zone_count = u32::try_from(pool.geometry.zone_count).map_err(|_| Error::Damaged("the pool has too many zones".into()))?;
    Ok(ZoneGeometry {
        first_zone_offset: pool.geometry.zones_offset(),
        zone_bytes: pool.geometry.zone_bytes,
        zone_count,
    })
}

fn pool_code(pool: &Pool) -> Result<segment::Code> {
    segment::Code::new(pool.code.k, pool.code.m)
}

/// The tree as the newest root has it; an empty one for a pool without.
fn restore_tree(
    pool: &Pool,
    drives: &Arc<PoolDrives>,
    state: &Path,
    root: Option<Root>,
    settings: &LsmSettings,
) -> Result<(Arc<LsmEngine>, Root)> {
    let root = root.unwrap_or_else(|| Root {
        pool: pool.uuid,
        generation: 0,
        membership_epoch: pool.membership_epoch(),
        start: Default::default(),
        keep_from: 0,
        segment_id_next: 1,
        manifest: Default::default(),
        tables: Vec::new(),
    });
    let nothing_new: Persist = Arc::new(|_| Err(Error::Closed("the store is not open yet".into())));
    let tables = Segments::open(
        drives.clone(),
        geometry(pool)?,
        pool_code(pool)?,
        root.tables.clone(),
        root.segment_id_next,
        nothing_new,
    )?;
    let engine = restore(state, &root.manifest, &SegmentSource { segments: &tables }, settings)?;
    Ok((Arc::new(engine), root))
}

fn all_layouts(rows: &dyn Rows, root: &Root) -> Result<Vec<SegmentLayout>> {
    let (from, to) = keys::table(keys::SEGMENT);
    let mut layouts = root.tables.clone();
    for row in rows.range(&from, &to, false) {
        layouts.push(SegmentLayout::decode(&mut crate::codec::Reader::new(&row?.1))?);
    }
    Ok(layouts)
}

fn open_segments(
    pool: &Pool,
    drives: Arc<PoolDrives>,
    layouts: Vec<SegmentLayout>,
    next_id: u64,
    committer: Weak<Committer>,
) -> Result<Segments> {
    // Its id is never given out again, and all but table segments (which the root names) are known from now on.
    let persist: Persist = Arc::new(move |layout| {
        let committer = committer.upgrade().ok_or_else(|| Error::Closed("the store is closed".into()))?;
        let (id, class) = (layout.id, layout.class);
        let mut row = crate::codec::Writer::new();
        layout.encode(&mut row);
        committer.run_own(Rank::Urgent, 1024, move |tx| {
            let next = tx
                .get(&keys::counter(SEGMENT_IDS))?
                .map_or(Ok(0), |value| decode_counter(&value))?
                .max(id as i64 + 1);
            tx.put(keys::counter(SEGMENT_IDS), next.to_le_bytes().to_vec())?;
            if class == Class::Table {
                Ok(())
            } else {
                tx.put(keys::segment(id), row.bytes)
            }
        })
    });
    Segments::open(drives, geometry(pool)?, pool_code(pool)?, layouts, next_id, persist)
}
