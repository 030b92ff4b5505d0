//! Elements: directories, files, extents, uploads, as pure functions over metadata rows.
//!
//! Nothing here does I/O on devices, starts a thread or looks at a clock: a `Transaction` carries what a change needs,
//! `Rows` is what a look needs. The invariants of `invariants` hold after every transaction.

pub mod accounting;
pub mod aside;
pub mod attachments;
pub mod blocks;
pub mod chunks;
pub mod content;
pub mod content_rows;
pub mod directory;
#[cfg(test)]
pub mod faults;
pub mod file_content;
pub mod file_names;
pub mod files;
pub mod history;
pub mod info;
pub mod invariants;
pub mod keys;
pub mod listing;
pub mod metadata;
pub mod modes;
pub mod namespace;
pub mod path;
mod removed_trees;
pub mod restore;
pub mod rows;
pub mod shared;
pub mod shorthand;
pub mod snapshot_directory;
pub mod snapshot_paths;
pub mod snapshot_work;
pub mod snapshots;
pub mod space;
pub mod split;
#[cfg(test)]
mod tests;
pub mod transaction;
pub mod upload;
pub mod version_listing;
pub mod versions;
pub mod volumes;

pub use crate::meta::{Row, Rows};
