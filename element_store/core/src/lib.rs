//! The element store. See `docs/ARCHITECTURE.md` for the shape and `docs/FORMAT.md` for every byte that reaches a device.
//!
//! Modules import downwards only: `store` → `element` → `meta` / `segment` / `journal` → `pool` → `device` → `codec` / `error`;
//! `reduction` stands on `codec` alone.

pub mod block;
pub mod codec;
pub mod device;
pub mod element;
pub mod error;
pub mod filesystem;
pub mod journal;
pub mod meta;
pub mod pool;
pub mod reduction;
pub mod segment;
pub mod store;
