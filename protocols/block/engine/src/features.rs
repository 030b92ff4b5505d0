//! Get and Set Features (base specification, section 5.27).

use crate::command::Command;
use crate::controller::Controller;
use crate::namespace::Namespaces;
use crate::shared::Shared;
use crate::status::{Outcome, Status};
use std::collections::HashMap;
use std::sync::PoisonError;

const ARBITRATION: u8 = 0x01;
const POWER_MANAGEMENT: u8 = 0x02;
const TEMPERATURE_THRESHOLD: u8 = 0x04;
const ERROR_RECOVERY: u8 = 0x05;
const WRITE_CACHE: u8 = 0x06;
const QUEUES: u8 = 0x07;
const WRITE_ATOMICITY: u8 = 0x0a;
const EVENTS: u8 = 0x0b;
const KEEP_ALIVE: u8 = 0x0f;
const HOST_BEHAVIOR: u8 = 0x16;
const HOST_ID: u8 = 0x81;
const RESERVATION_MASK: u8 = 0x82;
const RESERVATION_PERSISTENCE: u8 = 0x83;

const ALL_NAMESPACES: u32 = u32::MAX;
pub const HOST_BEHAVIOR_BYTES: usize = 512;
/// What events a host may ask for: namespace attribute notices; discovery log changes.
pub const EVENTS_OFFERED: u32 = 1 << 8;
pub const DISCOVERY_EVENTS_OFFERED: u32 = 1 << 31;
/// Bits 1 to 3 of the reservation notification mask.
const RESERVATION_MASK_BITS: u32 = 0xe;

/// What a host set and nothing depends on; it reads it back.
#[derive(Default)]
pub struct Features {
    plain: HashMap<u8, u32>,
    /// By namespace: which news of reservations are not wanted.
    masks: HashMap<u32, u32>,
    behavior: Option<Box<[u8; HOST_BEHAVIOR_BYTES]>>,
}

impl Features {
    pub fn masks(&self, namespace_id: u32, news: u8) -> bool {
        self.masks.get(&namespace_id).is_some_and(|mask| mask & 1 << news != 0)
    }
}

fn has_plain(feature: u8) -> bool {
    matches!(
        feature,
        ARBITRATION | POWER_MANAGEMENT | TEMPERATURE_THRESHOLD | ERROR_RECOVERY | WRITE_ATOMICITY
    )
}

/// Names what the admin commands need, of this controller.
pub struct Context<'a> {
    pub shared: &'a Shared,
    pub controller: &'a Controller,
}

impl Context<'_> {
    fn namespaces(&self) -> &Namespaces {
        &self.shared.namespaces
    }

    fn features(&self) -> std::sync::MutexGuard<'_, Features> {
        self.controller.features.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value form that both commands answer with.
    fn queues(&self) -> u32 {
        let last = u32::from(self.shared.limits.io_queues) - 1;
        last << 16 | last
    }

    pub fn get(&self, command: &Command) -> Result<Outcome, Status> {
        let word = command.word(10);
        // Saved and default values are not told apart.
        if word >> 8 & 7 != 0 {
            return Err(Status::INVALID_FIELD);
        }
        let discovery = self.controller.role == crate::controller::Role::Discovery;
        Ok(Outcome::result(match word as u8 {
            EVENTS => self
                .controller
                .events
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .configuration
                .into(),
            KEEP_ALIVE => self.controller.keep_alive().as_millis() as u64,
            _ if discovery => return Err(Status::INVALID_FIELD),
            WRITE_CACHE => u64::from(!self.controller.writes_through()),
            QUEUES => self.queues().into(),
            HOST_BEHAVIOR => {
                let behavior = self
                    .features()
                    .behavior
                    .as_ref()
                    .map_or(vec![0; HOST_BEHAVIOR_BYTES], |set| set.to_vec());
                return Ok(Outcome::data(behavior));
            }
            // Extended identifiers: 128 bits, as Connect said.
            HOST_ID if command.word(11) & 1 == 0 => return Err(Status::INVALID_FIELD),
            HOST_ID => return Ok(Outcome::data(self.controller.peer.id.to_vec())),
            RESERVATION_MASK => {
                let namespace = self.controller.namespace(command.namespace_id())?;
                self.features().masks.get(&namespace.id).copied().unwrap_or(0).into()
            }
            RESERVATION_PERSISTENCE => {
                let attached = self.controller.attach(command.namespace_id(), self.namespaces())?;
                u64::from(attached.reservations.state().persists)
            }
            feature if has_plain(feature) => self.features().plain.get(&feature).copied().unwrap_or(0).into(),
            _ => return Err(Status::INVALID_FIELD),
        }))
    }

    pub fn set(&self, command: &Command, data: &[u8]) -> Result<Outcome, Status> {
        let (word, value) = (command.word(10), command.word(11));
        if word >> 31 != 0 {
            return Err(Status::NOT_SAVEABLE);
        }
        let discovery = self.controller.role == crate::controller::Role::Discovery;
        match word as u8 {
            EVENTS => {
                self.controller.events.lock().unwrap_or_else(PoisonError::into_inner).configuration = value;
                self.controller.announce();
            }
            KEEP_ALIVE => self.controller.set_keep_alive(value),
            _ if discovery => return Err(Status::INVALID_FIELD),
            WRITE_CACHE => self.controller.set_write_through(value & 1 == 0),
            QUEUES if value as u16 == u16::MAX || (value >> 16) as u16 == u16::MAX => return Err(Status::INVALID_FIELD),
            QUEUES => return Ok(Outcome::result(self.queues().into())),
            HOST_BEHAVIOR => {
                let behavior: [u8; HOST_BEHAVIOR_BYTES] = data.try_into().map_err(|_| Status::INVALID_FIELD)?;
                self.features().behavior = Some(Box::new(behavior));
            }
            HOST_ID => return Err(Status::NOT_CHANGEABLE),
            RESERVATION_MASK => self.set_mask(command.namespace_id(), value & RESERVATION_MASK_BITS)?,
            // It is set by registering: what a host must know a key for is not set without one.
            RESERVATION_PERSISTENCE => return Err(Status::NOT_CHANGEABLE),
            POWER_MANAGEMENT if value & 0x1f != 0 => return Err(Status::INVALID_FIELD),
            // Errors for blocks that are not allocated are not on offer.
            ERROR_RECOVERY if value >> 16 & 1 != 0 => return Err(Status::INVALID_FIELD),
            feature if has_plain(feature) => _ = self.features().plain.insert(feature, value),
            _ => return Err(Status::INVALID_FIELD),
        }
        Ok(Outcome::success())
    }

    fn set_mask(&self, namespace_id: u32, mask: u32) -> Result<(), Status> {
        let visible = self.controller.visible();
        let ids: Vec<u32> = match namespace_id {
            ALL_NAMESPACES => visible.keys().copied().collect(),
            id if visible.contains_key(&id) => vec![id],
            _ => return Err(Status::INVALID_NAMESPACE),
        };
        let mut features = self.features();
        features.masks.extend(ids.into_iter().map(|id| (id, mask)));
        Ok(())
    }
}
