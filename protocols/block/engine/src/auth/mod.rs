//! In-band authentication of one queue: DH-HMAC-CHAP (NVM Express base specification 2.0, section 8.13).
//!
//! The target asks; the host proves that it knows its secret, and may ask the target for the same. What the host says is parsed with bounds and never
//! trusted: a wrong message ends the exchange, a wrong proof ends the connection. Secrets and proofs are compared in constant time.

mod crypto;
mod group;
mod message;
mod secret;
#[cfg(test)]
mod tests;

pub use crypto::Hash;
pub use group::Group;
pub use secret::Secret;

use crate::access::{Access, Host};
use crate::command::Command;
use crate::status::Status;
use crypto::{augment, equal, random};
use group::KeyPair;
use message::{Failure, Proof, challenge, negotiate, reply, success};

const PROTOCOL: u8 = 0xe9;

/// What comes next.
enum Stage {
    Idle,
    /// To be fetched by the host.
    Challenge(Chosen),
    AwaitReply(Asked),
    Success {
        proof: Option<Vec<u8>>,
        hash: Hash,
    },
    AwaitSuccess,
    Failed(Failure),
    /// The host knows; its connection ends.
    Ended,
}

#[derive(Clone, Copy)]
struct Chosen {
    transaction: u16,
    hash: Hash,
    group: Group,
}

struct Asked {
    chosen: Chosen,
    sequence: u32,
    challenge: Vec<u8>,
    pair: Option<KeyPair>,
}

/// Of one queue.
pub struct Authentication {
    subsystem: String,
    host: Host,
    hashes: Vec<Hash>,
    groups: Vec<Group>,
    stage: Stage,
    transaction: u16,
    proven: bool,
}

fn check_protocol(command: &Command, data_bytes: usize) -> Result<(), Status> {
    let protocol = (command.bytes[43], command.bytes[41], command.bytes[42]);
    if protocol != (PROTOCOL, 1, 1) || command.word(11) as usize != data_bytes {
        return Err(Status::INVALID_FIELD);
    }
    Ok(())
}

impl Authentication {
    /// None: nothing is asked of this host.
    pub fn of(host: &Host, access: &Access, subsystem: &str) -> Option<Self> {
        host.secret.as_ref()?;
        Some(Self {
            subsystem: subsystem.into(),
            host: host.clone(),
            hashes: access.hashes.clone(),
            groups: access.groups.clone(),
            stage: Stage::Idle,
            transaction: 0,
            proven: false,
        })
    }

    /// The host has proven that it knows its secret, and had nothing against ours.
    pub fn is_done(&self) -> bool {
        self.proven
    }

    pub fn has_failed(&self) -> bool {
        matches!(self.stage, Stage::Ended)
    }

    pub fn send(&mut self, command: &Command, data: &[u8]) -> Result<(), Status> {
        check_protocol(command, data.len())?;
        let stage = std::mem::replace(&mut self.stage, Stage::Idle);
        self.stage = self.advance(stage, data).unwrap_or_else(|failure| {
            self.proven = false;
            Stage::Failed(failure)
        });
        Ok(())
    }

    fn advance(&mut self, stage: Stage, data: &[u8]) -> Result<Stage, Failure> {
        let (kind, transaction) = message::kind(data)?;
        match (stage, kind) {
            (Stage::Idle, message::Kind::Negotiate) => self.negotiated(transaction, data),
            (Stage::AwaitReply(asked), message::Kind::Reply) if transaction == self.transaction => self.replied(&asked, data),
            (Stage::AwaitSuccess, message::Kind::Success) if transaction == self.transaction => {
                self.proven = true;
                Ok(Stage::Idle)
            }
            (_, message::Kind::Failure) => {
                self.proven = false;
                Ok(Stage::Ended)
            }
            _ => Err(Failure::MESSAGE),
        }
    }

    fn negotiated(&mut self, transaction: u16, data: &[u8]) -> Result<Stage, Failure> {
        let offer = negotiate(data)?;
        self.transaction = transaction;
        let hash = self.hashes.iter().find(|hash| offer.hashes.contains(&(**hash as u8)));
        let group = self.groups.iter().find(|group| offer.groups.contains(&(**group as u8)));
        let (&hash, &group) = (hash.ok_or(Failure::HASH)?, group.ok_or(Failure::GROUP)?);
        Ok(Stage::Challenge(Chosen { transaction, hash, group }))
    }

    fn replied(&mut self, asked: &Asked, data: &[u8]) -> Result<Stage, Failure> {
        let Chosen { transaction, hash, .. } = asked.chosen;
        let reply = reply(data, hash)?;
        let shared = match &asked.pair {
            Some(pair) => Some(pair.shared(reply.public).ok_or(Failure::PAYLOAD)?),
            None if reply.public.is_empty() => None,
            None => return Err(Failure::PAYLOAD),
        };
        let names = (self.host.nqn.as_str(), self.subsystem.as_str());
        let secret = self.host.secret.as_ref().ok_or(Failure::FAILED)?;
        let expected =
            Proof::of_host(hash, secret, transaction, names).prove(&augment(hash, shared.as_deref(), &asked.challenge), asked.sequence);
        if !equal(&expected, reply.proof) {
            return Err(Failure::FAILED);
        }
        let Some((challenge, sequence)) = reply.challenge else {
            self.proven = true;
            return Ok(Stage::Success { proof: None, hash });
        };
        let secret = self.host.controller_secret.as_ref().ok_or(Failure::FAILED)?;
        let proof = Proof::of_controller(hash, secret, transaction, names).prove(&augment(hash, shared.as_deref(), challenge), sequence);
        Ok(Stage::Success { proof: Some(proof), hash })
    }

    /// The next message for the host.
    pub fn receive(&mut self, command: &Command, data_bytes: usize) -> Result<Vec<u8>, Status> {
        check_protocol(command, data_bytes)?;
        let (message, stage) = match std::mem::replace(&mut self.stage, Stage::Idle) {
            Stage::Challenge(chosen) => {
                let asked = Asked::new(chosen).map_err(|_| Status::INTERNAL)?;
                (asked.message(), Stage::AwaitReply(asked))
            }
            Stage::Success { proof, hash } => {
                let stage = if proof.is_some() { Stage::AwaitSuccess } else { Stage::Idle };
                (success(self.transaction, hash, proof.as_deref()), stage)
            }
            Stage::Failed(failure) => (failure.message(self.transaction), Stage::Ended),
            other => {
                self.stage = other;
                return Err(Status::SEQUENCE_ERROR);
            }
        };
        self.stage = stage;
        if message.len() > data_bytes {
            return Err(Status::INVALID_FIELD);
        }
        Ok(message)
    }
}

impl Asked {
    fn new(chosen: Chosen) -> std::io::Result<Self> {
        let mut sequence = [0; 4];
        random(&mut sequence)?;
        let mut challenge = vec![0; chosen.hash.bytes()];
        random(&mut challenge)?;
        Ok(Self {
            chosen,
            // Zero means none.
            sequence: u32::from_le_bytes(sequence).max(1),
            challenge,
            pair: KeyPair::new(chosen.group)?,
        })
    }

    fn message(&self) -> Vec<u8> {
        let Chosen { transaction, hash, group } = self.chosen;
        let public = self.pair.as_ref().map_or(&[][..], KeyPair::public);
        challenge(transaction, hash, group, self.sequence, &self.challenge, public)
    }
}
