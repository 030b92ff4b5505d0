//! The duplicate-request cache: a call that is not idempotent and comes a second time gets the answer of the first.
//!
//! A client whose connection broke sends its unanswered calls again. Doing REMOVE twice would answer ENOENT for what was removed. An entry is known by
//! the client's address, xid, program, procedure and a hash of the whole call; a repetition that comes while the first is under way is answered along
//! with it. Each client has its own bounded cache, so that none can push out another's answers; a restart forgets them all.

use crate::dispatch::Reply;
use crate::rpc::Call;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Mutex;

/// Answers kept for one client, the newest.
const ENTRIES_MAX: usize = 1024;
/// Clients; the one that was silent longest is forgotten for a new one.
const CLIENTS_MAX: usize = 256;
/// Repetitions that wait for one answer; further ones are dropped.
const WAITING_MAX: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    address: IpAddr,
    xid: u32,
    program: u32,
    procedure: u32,
    hash: [u8; 16],
}

impl Key {
    pub fn new(address: IpAddr, call: &Call<'_>, record: &[u8]) -> Self {
        let hash = blake3::hash(record);
        let hash = std::array::from_fn(|index| hash.as_bytes()[index]);
        Self {
            address,
            xid: call.xid,
            program: call.program,
            procedure: call.procedure,
            hash,
        }
    }
}

enum Entry<W> {
    /// And who else wants to know.
    UnderWay(Vec<W>),
    Done(Reply),
}

struct ClientCache<W> {
    entries: HashMap<Key, Entry<W>>,
    /// Keys of what is done, the oldest first.
    order: VecDeque<Key>,
    used: u64,
}

struct State<W> {
    clients: HashMap<IpAddr, ClientCache<W>>,
    /// Counts calls, to tell who was silent longest.
    clock: u64,
}

/// `W` is where an answer goes.
pub struct Duplicates<W>(Mutex<State<W>>);

#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<W> {
    /// It is to be done, and `finish` to be called; the caller keeps its W.
    New(W),
    Answered(W, Reply),
    /// It is under way; `finish` will return its W.
    Waits,
}

impl<W> Default for Duplicates<W> {
    fn default() -> Self {
        Self(Mutex::new(State {
            clients: HashMap::new(),
            clock: 0,
        }))
    }
}

impl<W> Duplicates<W> {
    pub fn begin(&self, key: Key, whither: W) -> Verdict<W> {
        let mut state = self.0.lock().unwrap();
        let client = state.client(key.address);
        match client.entries.get_mut(&key) {
            Some(Entry::Done(reply)) => Verdict::Answered(whither, reply.clone()),
            Some(Entry::UnderWay(waiting)) => {
                if waiting.len() < WAITING_MAX {
                    waiting.push(whither);
                }
                Verdict::Waits
            }
            None => {
                client.entries.insert(key, Entry::UnderWay(Vec::new()));
                Verdict::New(whither)
            }
        }
    }

    /// Who else gets `reply`.
    pub fn finish(&self, key: Key, reply: &Reply) -> Vec<W> {
        let mut state = self.0.lock().unwrap();
        // It may have been forgotten with its client.
        let Some(client) = state.clients.get_mut(&key.address) else {
            return Vec::new();
        };
        let before = client.entries.insert(key, Entry::Done(reply.clone()));
        client.order.push_back(key);
        if client.order.len() > ENTRIES_MAX
            && let Some(oldest) = client.order.pop_front()
        {
            client.entries.remove(&oldest);
        }
        match before {
            Some(Entry::UnderWay(waiting)) => waiting,
            _ => Vec::new(),
        }
    }
}

impl<W> State<W> {
    fn client(&mut self, address: IpAddr) -> &mut ClientCache<W> {
        self.clock += 1;
        if !self.clients.contains_key(&address) && self.clients.len() >= CLIENTS_MAX {
            let silent = self
                .clients
                .iter()
                .min_by_key(|(_, client)| client.used)
                .map(|(&address, _)| address);
            silent.and_then(|address| self.clients.remove(&address));
        }
        let client = self.clients.entry(address).or_insert_with(|| ClientCache {
            entries: HashMap::new(),
            order: VecDeque::new(),
            used: 0,
        });
        client.used = self.clock;
        client
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: u8, xid: u32) -> Key {
        Key {
            address: IpAddr::from([127, 0, 0, address]),
            xid,
            program: 1,
            procedure: 1,
            hash: [0; 16],
        }
    }

    fn reply(byte: u8) -> Reply {
        vec![byte].into()
    }

    #[test]
    fn a_repetition_gets_the_first_answer() {
        let cache = Duplicates::default();
        assert_eq!(cache.begin(key(1, 7), "first"), Verdict::New("first"));
        assert_eq!(cache.begin(key(1, 7), "again"), Verdict::Waits);
        assert_eq!(cache.begin(key(2, 7), "other"), Verdict::New("other"));
        assert_eq!(cache.finish(key(1, 7), &reply(1)), vec!["again"]);
        assert_eq!(cache.begin(key(1, 7), "later"), Verdict::Answered("later", reply(1)));
    }

    #[test]
    fn it_is_bounded_and_clients_do_not_push_each_other_out() {
        let cache = Duplicates::default();
        cache.begin(key(1, 0), ());
        cache.finish(key(1, 0), &reply(1));
        for xid in 0..3 * ENTRIES_MAX as u32 {
            cache.begin(key(2, xid), ());
            cache.finish(key(2, xid), &reply(2));
        }
        assert_eq!(cache.begin(key(1, 0), ()), Verdict::Answered((), reply(1)));
        let state = cache.0.lock().unwrap();
        assert_eq!(state.clients[&key(2, 0).address].entries.len(), ENTRIES_MAX);
    }

    #[test]
    fn the_longest_silent_client_is_forgotten() {
        let cache = Duplicates::default();
        for client in 0..=CLIENTS_MAX as u32 {
            let address = IpAddr::from((0x7f00_0000 + client).to_be_bytes());
            cache.begin(Key { address, ..key(0, 1) }, ());
        }
        let state = cache.0.lock().unwrap();
        assert_eq!(state.clients.len(), CLIENTS_MAX);
        assert!(!state.clients.contains_key(&IpAddr::from([127, 0, 0, 0])));
    }
}
