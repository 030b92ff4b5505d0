//! What a store does wrong because a test says so, that its judges have something to find. Tests only.

use std::sync::Mutex;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// A split copies mappings without a reference to what they map.
    SplitForgetsReferences,
    /// A split copies what is alive, and not what a snapshot of the clone sees.
    SplitForgetsHistory,
    /// A split leaves out the mappings of what is alive.
    SplitForgetsContent,
    /// A directory that a restore replaced is not given up.
    RestoreLeavesDirectory,
    /// A file that a restore replaced is not given up.
    RestoreLeavesFile,
    /// The undo of a directory's restore is taken after it.
    RestoreKeepsDirectoryLate,
    /// The undo of a file's restore is taken after it.
    RestoreKeepsFileLate,
}

/// Of one store: other tests run beside it.
#[derive(Debug, Default)]
pub struct Faults(Mutex<Option<Fault>>);

impl Faults {
    pub fn set(&self, fault: Option<Fault>) {
        *self.0.lock().unwrap() = fault;
    }

    pub fn has(&self, fault: Fault) -> bool {
        *self.0.lock().unwrap() == Some(fault)
    }
}
