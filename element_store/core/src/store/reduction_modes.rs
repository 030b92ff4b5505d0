//! Modes of reduction that operators give to views, folders, volumes and files. `element/modes.rs` says which holds where.

use super::{Core, Store, wait};
use crate::element::rows::Kind;
use crate::element::{modes, path, snapshot_paths};
use crate::error::{Error, Result};
use crate::filesystem::Errno;
use crate::reduction::Mode;

/// Directories that one transaction marks, and what each writes.
const MARKED_MAX: usize = 16;
const MARK_BYTES: usize = 80 * 1024;

impl Core {
    fn mark(&self, elements: &[u64], mode: Option<Mode>) -> Result<()> {
        for batch in elements.chunks(MARKED_MAX) {
            let batch = batch.to_vec();
            wait(|done| {
                self.committer.submit(0, MARK_BYTES * batch.len(), done, move |tx| {
                    batch.iter().try_for_each(|element| match modes::set(tx, *element, mode) {
                        // A directory that went meanwhile.
                        Err(Error::Damaged(_)) => Ok(()),
                        set => set,
                    })
                })
            })?;
        }
        Ok(())
    }
}

impl Store {
    /// Of what lies at a path, and of what will be made in a directory; None: what holds above it. Raises NotFound("path"), EROFS, Limit.
    pub fn set_reduction_mode(&self, path: &[u8], mode: Option<Mode>) -> Result<()> {
        let (element, is_root) = self.look(|rows| {
            let element = snapshot_paths::resolve(rows, path)?.element;
            let row = path::element(rows, element)?;
            match row.kind {
                Kind::Directory => Ok((element, row.parent == super::keys::ROOT)),
                Kind::File => Ok((element, true)),
                _ => Err(Error::File(Errno::INVAL)),
            }
        })?;
        wait(|done| {
            self.core
                .committer
                .submit(0, MARK_BYTES, done, move |tx| modes::set(tx, element, mode))
        })?;
        // What is made in directories below has their marks.
        let mut below = if is_root { Vec::new() } else { vec![element] };
        while let Some(directory) = below.pop() {
            let found = self.look(|rows| modes::directories(rows, directory))?;
            self.core.mark(&found, mode)?;
            below.extend(found);
        }
        Ok(())
    }

    /// What holds at a path; without one, for the pool. Raises NotFound("path").
    pub fn reduction_mode(&self, path: Option<&[u8]>) -> Result<Mode> {
        self.check_open()?;
        let view = self.core.snapshot();
        let found = match path {
            Some(path) => modes::of(&view, snapshot_paths::resolve(&view, path)?.element)?,
            None => None,
        };
        Ok(found.unwrap_or(self.core.mode))
    }
}
