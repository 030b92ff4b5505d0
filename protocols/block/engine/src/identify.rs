//! Identify (base specification, section 5.17): what hosts are told of controllers and namespaces. Hosts refuse targets whose fields do not fit together.

use crate::command::Command;
use crate::controller::{KEEP_ALIVE_GRANULARITY, Role, registers};
use crate::events::RESERVATION_PAGE_BYTES;
use crate::features::{Context, DISCOVERY_EVENTS_OFFERED, EVENTS_OFFERED};
use crate::namespace::Namespace;
use crate::pdu::CAPSULE_DATA_BYTES_MAX;
use crate::queue::EVENT_REQUESTS_MAX;
use crate::status::Status;
use crate::wire::{put, put_padded};
use trefoil_core::block::{BLOCK_BYTES_MAX, COMPARE_BYTES_MAX, TRANSFER_BYTES_MAX, VOLUMES_MAX};

pub const IDENTIFY_BYTES: usize = 4096;
pub const ANA_GROUP: u32 = 1;
/// log2 of the largest transfer in units of 4096 bytes.
const TRANSFER_SHIFT: u8 = (TRANSFER_BYTES_MAX / 4096).ilog2() as u8;
/// The same of Write Zeroes: what its 16 bits of 512-byte blocks can say.
const ZEROES_SHIFT: u8 = 13;
const COMMAND_SETS: u32 = 1;
const ALL_NAMESPACES: u32 = u32::MAX;
/// Source ranges of one Copy.
pub const COPY_RANGES_MAX: usize = 128;
const _: () = assert!(RESERVATION_PAGE_BYTES == 64);

/// Optional commands: Compare, Dataset Management, Write Zeroes, reservations, Verify, Copy.
const OPTIONAL_COMMANDS: u16 = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 7 | 1 << 8;
/// SGLs without alignment, with offsets in capsules.
const SGL_SUPPORT: u32 = 1 | 1 << 20;
/// Optimized; a namespace's group does not change.
const ANA_CAPABILITIES: u8 = 1 | 1 << 6;
const ANA_TRANSITION_SECONDS: u8 = 10;
/// Several controllers; ANA.
const MULTIPATH: u8 = 1 << 1 | 1 << 3;
/// Host identifiers of 128 bits; traffic counts as keep alive.
const ATTRIBUTES: u32 = 1 | 1 << 6;
/// A volatile cache is present; Flush of all namespaces works.
const WRITE_CACHE: u8 = 0b111;
/// All kinds, persistence, keys as of 1.3.
const RESERVATIONS: u8 = 0xff;
/// Reads of what was deallocated give zeros; Write Zeroes may deallocate.
const DEALLOCATION: u8 = 1 | 1 << 3;
/// Thin; atomic units per namespace; optimal sizes.
const NAMESPACE_FEATURES: u8 = 1 | 1 << 1 | 1 << 4;
/// What a read costs least at, and what a write should not straddle.
const OPTIMAL_BYTES: u32 = 128 << 10;

pub fn identify(context: &Context<'_>, command: &Command) -> Result<Vec<u8>, Status> {
    let (word, id) = (command.word(10), command.namespace_id());
    let command_set = (command.word(11) >> 24) as u8;
    let discovery = context.controller.role == Role::Discovery;
    match word as u8 {
        0x01 => Ok(controller(context)),
        _ if discovery => Err(Status::INVALID_FIELD),
        0x00 => namespace(context, id),
        0x02 => list(context, id),
        0x03 => descriptors(context, id),
        0x05 if command_set == 0 => context.controller.namespace(id).map(|_| vec![0; IDENTIFY_BYTES]),
        0x06 if command_set == 0 => Ok(nvm_controller()),
        0x07 if command_set == 0 => list(context, id),
        0x08 => independent(context, id),
        0x1c => Ok(command_sets()),
        _ => Err(Status::INVALID_FIELD),
    }
}

fn controller(context: &Context<'_>) -> Vec<u8> {
    let (shared, controller) = (context.shared, context.controller);
    let discovery = controller.role == Role::Discovery;
    let mut page = vec![0; IDENTIFY_BYTES];
    put_padded(&mut page, 4, 20, &shared.serial);
    put_padded(&mut page, 24, 40, "Trefoil");
    put_padded(&mut page, 64, 8, env!("CARGO_PKG_VERSION"));
    page[72] = 6;
    page[77] = TRANSFER_SHIFT;
    put(&mut page, 78, &controller.id.to_le_bytes());
    put(&mut page, 80, &registers::VERSION_NUMBER.to_le_bytes());
    page[111] = if discovery { 2 } else { 1 };
    page[259] = EVENT_REQUESTS_MAX as u8 - 1;
    // Extended offsets; and, of the log pages, the one of commands' effects.
    page[261] = if discovery { 1 << 2 } else { 1 << 1 | 1 << 2 };
    page[262] = crate::controller::ERRORS_MAX as u8 - 1;
    put(&mut page, 320, &(KEEP_ALIVE_GRANULARITY.as_millis() as u16 / 100).to_le_bytes());
    put(&mut page, 514, &shared.limits.queue_depth.to_le_bytes());
    put(&mut page, 536, &SGL_SUPPORT.to_le_bytes());
    let nqn = if discovery { crate::fabrics::DISCOVERY_NQN } else { &shared.nqn };
    put(&mut page, 768, nqn.as_bytes());
    page[1803] = 1;
    put(&mut page, 1804, &1_u16.to_le_bytes());
    if discovery {
        put(&mut page, 92, &DISCOVERY_EVENTS_OFFERED.to_le_bytes());
        return page;
    }
    io_controller(&mut page);
    page
}

/// Of a controller with I/O queues.
fn io_controller(page: &mut [u8]) {
    page[76] = MULTIPATH;
    put(page, 92, &EVENTS_OFFERED.to_le_bytes());
    put(page, 96, &ATTRIBUTES.to_le_bytes());
    // Aborts that may be under way; firmware in one read-only slot; warning and critical temperatures.
    (page[258], page[260]) = (3, 1 | 1 << 1);
    put(page, 266, &353_u16.to_le_bytes());
    put(page, 268, &373_u16.to_le_bytes());
    (page[342], page[343]) = (ANA_TRANSITION_SECONDS, ANA_CAPABILITIES);
    put(page, 344, &ANA_GROUP.to_le_bytes());
    put(page, 348, &1_u32.to_le_bytes());
    (page[512], page[513]) = (0x66, 0x44);
    put(page, 516, &VOLUMES_MAX.to_le_bytes());
    put(page, 520, &OPTIONAL_COMMANDS.to_le_bytes());
    // Fused Compare and Write.
    put(page, 522, &1_u16.to_le_bytes());
    page[525] = WRITE_CACHE;
    // Namespaces say more of atomicity; this holds for the largest blocks.
    put(
        page,
        532,
        &((COMPARE_BYTES_MAX / BLOCK_BYTES_MAX as usize) as u16 - 1).to_le_bytes(),
    );
    // Copy takes descriptors of format 0.
    put(page, 534, &1_u16.to_le_bytes());
    put(page, 540, &VOLUMES_MAX.to_le_bytes());
    put(page, 1792, &((CAPSULE_DATA_BYTES_MAX as u32 + 64) / 16).to_le_bytes());
    put(page, 1796, &1_u32.to_le_bytes());
}

fn namespace(context: &Context<'_>, id: u32) -> Result<Vec<u8>, Status> {
    let mut page = vec![0; IDENTIFY_BYTES];
    if id == ALL_NAMESPACES {
        // What all have in common.
        common(&mut page, 9);
        return Ok(page);
    }
    if id == 0 || id > VOLUMES_MAX {
        return Err(Status::INVALID_NAMESPACE);
    }
    // One that is not there, or is not for this host: zeros.
    let Ok(namespace) = context.controller.namespace(id) else {
        return Ok(page);
    };
    // From here on the host may count on it: no other face may change it.
    let attached = context.controller.attach(id, &context.shared.namespaces)?;
    namespace.look(&*attached.device);
    common(&mut page, namespace.block_shift);
    let size = namespace.size_blocks();
    put(&mut page, 0, &size.to_le_bytes());
    put(&mut page, 8, &size.to_le_bytes());
    put(&mut page, 16, &namespace.used_blocks().to_le_bytes());
    put(&mut page, 48, &u128::from(size << namespace.block_shift).to_le_bytes());
    page[99] = u8::from(namespace.is_read_only());
    put(&mut page, 104, &namespace.uuid);
    Ok(page)
}

fn common(page: &mut [u8], block_shift: u32) {
    page[24] = NAMESPACE_FEATURES;
    page[30] = 1;
    page[31] = RESERVATIONS;
    page[33] = DEALLOCATION;
    // Never torn within aligned BLOCK_BYTES_MAX, by power or by others.
    let last = |bytes: u32| ((bytes >> block_shift) - 1) as u16;
    let atomic = last(BLOCK_BYTES_MAX);
    for at in [34, 36, 40, 44] {
        put(page, at, &atomic.to_le_bytes());
    }
    put(page, 38, &last(COMPARE_BYTES_MAX as u32).to_le_bytes());
    for at in [64, 66, 68, 70] {
        put(page, at, &atomic.to_le_bytes());
    }
    put(page, 72, &last(OPTIMAL_BYTES).to_le_bytes());
    put(page, 74, &((TRANSFER_BYTES_MAX >> block_shift) as u16).to_le_bytes());
    put(
        page,
        76,
        &((COPY_RANGES_MAX * TRANSFER_BYTES_MAX) as u32 >> block_shift).to_le_bytes(),
    );
    page[80] = (COPY_RANGES_MAX - 1) as u8;
    put(page, 92, &ANA_GROUP.to_le_bytes());
    page[130] = block_shift as u8;
}

/// Ids above `after`.
fn list(context: &Context<'_>, after: u32) -> Result<Vec<u8>, Status> {
    if after >= u32::MAX - 1 {
        return Err(Status::INVALID_NAMESPACE);
    }
    let visible = context.controller.visible();
    let mut page: Vec<u8> = visible.range(after + 1..).take(1024).flat_map(|(id, _)| id.to_le_bytes()).collect();
    page.resize(IDENTIFY_BYTES, 0);
    Ok(page)
}

fn descriptors(context: &Context<'_>, id: u32) -> Result<Vec<u8>, Status> {
    let namespace = context.controller.namespace(id)?;
    let mut page = Vec::with_capacity(IDENTIFY_BYTES);
    for (kind, name) in [(2, &namespace.uuid[..]), (3, &namespace.uuid[..]), (4, &[0][..])] {
        page.extend([kind, name.len() as u8, 0, 0]);
        page.extend(name);
    }
    page.resize(IDENTIFY_BYTES, 0);
    Ok(page)
}

fn nvm_controller() -> Vec<u8> {
    let mut page = vec![0; IDENTIFY_BYTES];
    (page[0], page[1]) = (TRANSFER_SHIFT, ZEROES_SHIFT);
    page
}

fn independent(context: &Context<'_>, id: u32) -> Result<Vec<u8>, Status> {
    let namespace: std::sync::Arc<Namespace> = context.controller.namespace(id)?;
    let mut page = vec![0; IDENTIFY_BYTES];
    (page[1], page[2]) = (1, RESERVATIONS);
    put(&mut page, 4, &ANA_GROUP.to_le_bytes());
    (page[8], page[14]) = (u8::from(namespace.is_read_only()), 1);
    Ok(page)
}

/// One combination: the NVM command set alone.
fn command_sets() -> Vec<u8> {
    let mut page = vec![0; IDENTIFY_BYTES];
    put(&mut page, 0, &COMMAND_SETS.to_le_bytes());
    page
}
