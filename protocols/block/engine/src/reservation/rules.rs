//! What each reservation command does to the state, and whom it must be told to. Pure.

use super::{HostId, Need, REGISTRANTS_MAX};
use crate::status::Status;
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    WriteExclusive = 1,
    ExclusiveAccess = 2,
    WriteExclusiveRegistrants = 3,
    ExclusiveAccessRegistrants = 4,
    WriteExclusiveAll = 5,
    ExclusiveAccessAll = 6,
}

impl Kind {
    pub fn new(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::WriteExclusive,
            2 => Self::ExclusiveAccess,
            3 => Self::WriteExclusiveRegistrants,
            4 => Self::ExclusiveAccessRegistrants,
            5 => Self::WriteExclusiveAll,
            6 => Self::ExclusiveAccessAll,
            _ => return None,
        })
    }

    /// All registrants hold it.
    pub fn is_shared(self) -> bool {
        matches!(self, Self::WriteExclusiveAll | Self::ExclusiveAccessAll)
    }

    fn admits_registrants(self) -> bool {
        !matches!(self, Self::WriteExclusive | Self::ExclusiveAccess)
    }

    fn admits_readers(self) -> bool {
        matches!(
            self,
            Self::WriteExclusive | Self::WriteExclusiveRegistrants | Self::WriteExclusiveAll
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registrant {
    pub key: u64,
    pub controller: u16,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    pub generation: u32,
    /// Through power loss.
    pub persists: bool,
    pub kind: Option<Kind>,
    /// None although there is a kind: all registrants.
    pub holder: Option<HostId>,
    pub registrants: BTreeMap<HostId, Registrant>,
}

/// By number (base specification, figure 256).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum News {
    RegistrationPreempted = 1,
    ReservationReleased = 2,
    ReservationPreempted = 3,
}

pub type Notice = (HostId, News);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Register {
    Add,
    Remove,
    Replace,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    pub host: HostId,
    pub controller: u16,
}

impl State {
    /// A holder is registered, and there is one exactly if somebody alone holds it.
    pub fn is_sound(&self) -> bool {
        match (self.kind, self.holder) {
            (None, None) => true,
            (Some(kind), None) => kind.is_shared() && !self.registrants.is_empty(),
            (Some(kind), Some(holder)) => !kind.is_shared() && self.registrants.contains_key(&holder),
            (None, Some(_)) => false,
        }
    }

    pub fn holds(&self, host: &HostId) -> bool {
        match self.kind {
            Some(kind) if kind.is_shared() => self.registrants.contains_key(host),
            Some(_) => self.holder.as_ref() == Some(host),
            None => false,
        }
    }

    pub fn permits(&self, host: &HostId, need: Need) -> bool {
        let Some(kind) = self.kind else { return true };
        let reads = need == Need::Read && kind.admits_readers();
        reads || self.holds(host) || kind.admits_registrants() && self.registrants.contains_key(host)
    }

    fn key_of(&self, host: &HostId) -> Option<u64> {
        self.registrants.get(host).map(|registrant| registrant.key)
    }

    fn must_know_key(&self, host: &HostId, key: u64) -> Result<(), Status> {
        if self.key_of(host) == Some(key) {
            Ok(())
        } else {
            Err(Status::RESERVATION_CONFLICT)
        }
    }

    fn tell_others(&self, host: &HostId, news: News) -> Vec<Notice> {
        let others = self.registrants.keys().filter(|other| *other != host);
        others.map(|&other| (other, news)).collect()
    }

    fn hold(&mut self, host: HostId, kind: Kind) {
        self.kind = Some(kind);
        self.holder = (!kind.is_shared()).then_some(host);
    }

    pub fn register(
        &mut self,
        asker: Asker,
        action: Register,
        ignore_key: bool,
        current: u64,
        new: u64,
        persists: Option<bool>,
    ) -> Result<Vec<Notice>, Status> {
        let known = self.key_of(&asker.host);
        if action != Register::Add && known.is_none_or(|key| !ignore_key && key != current) {
            return Err(Status::RESERVATION_CONFLICT);
        }
        let notices = match action {
            Register::Add if known.is_some_and(|key| key != new) => return Err(Status::RESERVATION_CONFLICT),
            Register::Add if known.is_none() && self.registrants.len() == REGISTRANTS_MAX => return Err(Status::INTERNAL),
            Register::Add | Register::Replace => {
                let (key, controller) = (new, asker.controller);
                self.registrants.insert(asker.host, Registrant { key, controller });
                Vec::new()
            }
            Register::Remove => self.unregister(&asker.host),
        };
        self.persists = persists.unwrap_or(self.persists);
        self.generation = self.generation.wrapping_add(1);
        Ok(notices)
    }

    fn unregister(&mut self, host: &HostId) -> Vec<Notice> {
        let held = self.holds(host);
        self.registrants.remove(host);
        let Some(kind) = self.kind.filter(|kind| held && (!kind.is_shared() || self.registrants.is_empty())) else {
            return Vec::new();
        };
        (self.kind, self.holder) = (None, None);
        if kind.admits_registrants() {
            self.tell_others(host, News::ReservationReleased)
        } else {
            Vec::new()
        }
    }

    pub fn acquire(&mut self, asker: Asker, key: u64, kind: Kind) -> Result<Vec<Notice>, Status> {
        self.must_know_key(&asker.host, key)?;
        match self.kind {
            None => self.hold(asker.host, kind),
            Some(held) if self.holds(&asker.host) && held == kind => {}
            Some(_) => return Err(Status::RESERVATION_CONFLICT),
        }
        Ok(Vec::new())
    }

    pub fn preempt(&mut self, asker: Asker, key: u64, preempted: u64, kind: Kind) -> Result<Vec<Notice>, Status> {
        self.must_know_key(&asker.host, key)?;
        let before = (self.kind, self.holder);
        let shared = self.kind.is_some_and(Kind::is_shared);
        let everybody = shared && preempted == 0;
        let takes = everybody || !shared && self.holder.is_some_and(|holder| self.key_of(&holder) == Some(preempted));
        let matches = |registrant: &Registrant| everybody || registrant.key == preempted;
        if !takes && !self.registrants.values().any(matches) {
            return Err(Status::RESERVATION_CONFLICT);
        }
        let mut notices = Vec::new();
        self.registrants.retain(|host, registrant| {
            let stays = *host == asker.host || !matches(registrant);
            if !stays {
                notices.push((*host, News::RegistrationPreempted));
                if before.1 == Some(*host) {
                    notices.push((*host, News::ReservationPreempted));
                }
            }
            stays
        });
        if takes {
            self.hold(asker.host, kind);
            if before.0 != self.kind {
                notices.extend(self.tell_others(&asker.host, News::ReservationReleased));
            }
        }
        self.generation = self.generation.wrapping_add(1);
        Ok(notices)
    }

    pub fn release(&mut self, asker: Asker, key: u64, kind: Kind) -> Result<Vec<Notice>, Status> {
        self.must_know_key(&asker.host, key)?;
        if !self.holds(&asker.host) {
            return Ok(Vec::new());
        }
        if self.kind != Some(kind) {
            return Err(Status::INVALID_FIELD);
        }
        (self.kind, self.holder) = (None, None);
        if kind.admits_registrants() {
            Ok(self.tell_others(&asker.host, News::ReservationReleased))
        } else {
            Ok(Vec::new())
        }
    }

    pub fn clear(&mut self, asker: Asker, key: u64) -> Result<Vec<Notice>, Status> {
        self.must_know_key(&asker.host, key)?;
        let notices = self.tell_others(&asker.host, News::ReservationPreempted);
        self.registrants.clear();
        (self.kind, self.holder) = (None, None);
        self.generation = self.generation.wrapping_add(1);
        Ok(notices)
    }
}
