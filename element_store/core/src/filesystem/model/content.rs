//! The content of one file: pages that hold data, and holes between them.
//!
//! Invariant: bytes of a page at or beyond the size are zeros. Pages beyond the size are there only if they were reserved.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::filesystem::{Errno, Result};

pub const PAGE_BYTES: u64 = 4096;
type Page = Arc<[u8; PAGE_BYTES as usize]>;

#[derive(Clone, Default)]
pub(super) struct Content {
    pages: BTreeMap<u64, Page>,
    size: u64,
}

/// The pages that a range touches.
fn touched(offset: u64, length: u64) -> std::ops::Range<u64> {
    offset / PAGE_BYTES..(offset + length).div_ceil(PAGE_BYTES)
}

/// What of a range lies in one page: the range inside the page, and where it starts in the whole.
fn part(page: u64, offset: u64, length: u64) -> (std::ops::Range<usize>, usize) {
    let start = page * PAGE_BYTES;
    let from = offset.max(start);
    let to = (offset + length).min(start + PAGE_BYTES);
    ((from - start) as usize..(to - start) as usize, (from - offset) as usize)
}

impl Content {
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn allocated(&self) -> u64 {
        self.pages.len() as u64 * PAGE_BYTES
    }

    /// Bytes that must be allocated before every page of the range is there.
    pub fn missing(&self, offset: u64, length: u64) -> u64 {
        let touched = touched(offset, length);
        let count = touched.end.saturating_sub(touched.start);
        (count - self.present(offset, length).count() as u64).saturating_mul(PAGE_BYTES)
    }

    fn present(&self, offset: u64, length: u64) -> impl Iterator<Item = (u64, &Page)> {
        self.pages.range(touched(offset, length)).map(|(number, page)| (*number, page))
    }

    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let length = self.size.saturating_sub(offset).min(length as u64);
        let mut bytes = vec![0; length as usize];
        if length > 0 {
            for (number, page) in self.present(offset, length) {
                let (inside, at) = part(number, offset, length);
                bytes[at..at + inside.len()].copy_from_slice(&page[inside]);
            }
        }
        bytes
    }

    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        let length = bytes.len() as u64;
        for number in touched(offset, length) {
            let (inside, at) = part(number, offset, length);
            let count = inside.len();
            self.page(number)[inside].copy_from_slice(&bytes[at..at + count]);
        }
        self.size = self.size.max(offset + length);
    }

    fn page(&mut self, number: u64) -> &mut [u8; PAGE_BYTES as usize] {
        Arc::make_mut(self.pages.entry(number).or_insert_with(|| Arc::new([0; PAGE_BYTES as usize])))
    }

    pub fn set_size(&mut self, size: u64) {
        if size < self.size {
            self.punch(size, self.size - size);
        }
        // What was reserved beyond the size goes with any new one.
        self.pages.split_off(&size.div_ceil(PAGE_BYTES));
        self.size = size;
    }

    pub fn grow(&mut self, size: u64) {
        self.size = self.size.max(size);
    }

    /// The range reads as zeros; whole pages of it are holes afterwards.
    pub fn punch(&mut self, offset: u64, length: u64) {
        let numbers: Vec<u64> = self.present(offset, length).map(|(number, _)| number).collect();
        for number in numbers {
            let (inside, _) = part(number, offset, length);
            if inside.len() as u64 == PAGE_BYTES {
                self.pages.remove(&number);
            } else {
                self.page(number)[inside].fill(0);
            }
        }
    }

    pub fn reserve(&mut self, offset: u64, length: u64) {
        let zeros = Arc::new([0; PAGE_BYTES as usize]);
        for number in touched(offset, length) {
            self.pages.entry(number).or_insert_with(|| zeros.clone());
        }
    }

    /// Holes of the source become holes.
    pub fn copy_from(&mut self, source: &Content, from: u64, to: u64, length: u64) {
        self.punch(to, length);
        for (number, page) in source.present(from, length) {
            let (inside, at) = part(number, from, length);
            self.write(to + at as u64, &page[inside]);
        }
        self.grow(to + length);
    }

    /// The first data at or after the offset.
    pub fn data(&self, offset: u64) -> Result<u64> {
        let page = self.pages.range(offset / PAGE_BYTES..).next();
        let start = page.map(|(number, _)| offset.max(number * PAGE_BYTES));
        start.filter(|start| *start < self.size).ok_or(Errno::NXIO)
    }

    /// The first hole at or after the offset.
    pub fn hole(&self, offset: u64) -> Result<u64> {
        if offset >= self.size {
            return Err(Errno::NXIO);
        }
        let first = offset / PAGE_BYTES;
        let data = self.pages.range(first..).zip(first..);
        let count = data.take_while(|((number, _), expected)| **number == *expected).count();
        let start = if count == 0 { offset } else { (first + count as u64) * PAGE_BYTES };
        Ok(start.min(self.size))
    }
}
