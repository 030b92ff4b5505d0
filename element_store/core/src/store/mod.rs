//! The store: what joins devices, journal, segments and metadata into one.

pub mod drives;
pub mod root;
pub mod tables;
