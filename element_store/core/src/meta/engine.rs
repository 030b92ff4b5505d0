//! What an engine of the metadata store must do: versioned rows in key order.
//!
//! An engine keeps every version of a row that some reader may still ask for. It has no log: whoever calls it keeps the transactions
//! elsewhere and applies them again after a restart. It never interprets keys or values and never enforces the limits of a
//! transaction (`txn` does, the same for all engines).

use crate::error::Result;

pub type Row = (Vec<u8>, Vec<u8>);

/// Rows one by one, read when asked for.
pub type RangeIter<'a> = Box<dyn Iterator<Item = Result<Row>> + Send + 'a>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mutation {
    Put { key: Vec<u8>, value: Vec<u8> },
    Delete { key: Vec<u8> },
}

impl Mutation {
    pub fn key(&self) -> &[u8] {
        match self {
            Mutation::Put { key, .. } | Mutation::Delete { key } => key,
        }
    }
}

pub trait Engine: Send + Sync {
    /// Add one transaction. `sequence` is higher than any before (Invalid otherwise, nothing applied), keys are non-empty and distinct; one caller at a time.
    /// Readers at lower sequences see nothing of it, readers at `sequence` or higher see all of it once this returned.
    fn apply(&self, sequence: u64, mutations: &[Mutation]) -> Result<()>;

    /// The value of the newest version with sequence <= `at`; None if there is none or it is a delete.
    fn get(&self, key: &[u8], at: u64) -> Result<Option<Vec<u8>>>;

    /// Rows with `from` <= key < `to` as of `at`, in key order or against it. Later writes do not change what an iterator yields.
    fn range(&self, from: &[u8], to: &[u8], reverse: bool, at: u64) -> RangeIter<'_>;

    /// Nobody reads below `oldest` any more, now or later: versions that only such a reader could see may go. Never lowers the mark.
    fn forget(&self, oldest: u64);

    /// The highest sequence applied; 0 for none.
    fn applied(&self) -> u64;
}
