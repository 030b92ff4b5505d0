//! The erasure code: systematic Reed–Solomon over GF(2^8), k data and m parity shards.
//!
//! Invariants: byte p of every shard together is one codeword, so any byte range of a lost shard is rebuilt from the same range of any
//! k others. The coefficient of data shard j in parity shard i depends on i and j only (not on k or m); row 0 and column 0 are all
//! ones, so the first parity is the XOR of the data and k = 1 is mirroring. `docs/FORMAT.md` gives the formula.

use super::gf256::{combine, inverse, mul};
use crate::error::{Error, Result};

pub const DATA_SHARDS_MAX: u8 = 16;
pub const PARITY_SHARDS_MAX: u8 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code {
    k: u8,
    m: u8,
}

impl Code {
    pub fn new(k: u8, m: u8) -> Result<Self> {
        if (1..=DATA_SHARDS_MAX).contains(&k) && m <= PARITY_SHARDS_MAX {
            Ok(Self { k, m })
        } else {
            Err(Error::Invalid(format!(
                "code {k}+{m}: 1 to {DATA_SHARDS_MAX} data and 0 to {PARITY_SHARDS_MAX} parity shards are possible"
            )))
        }
    }

    /// What suits a number of devices: wide where there are many, one device to spare where it costs little.
    pub fn default_for(devices: usize) -> Self {
        let (k, m) = match devices {
            0 | 1 => (1, 0),
            2 => (1, 1),
            3 => (2, 1),
            4 | 5 => (2, 2),
            6 | 7 => (4, 2),
            8 | 9 => (6, 2),
            _ => (8, 2),
        };
        Self { k, m }
    }

    pub fn k(self) -> usize {
        usize::from(self.k)
    }

    pub fn m(self) -> usize {
        usize::from(self.m)
    }

    pub fn shards(self) -> usize {
        self.k() + self.m()
    }

    /// `parity` has m ranges; all ranges have one length.
    pub fn encode(self, data: &[&[u8]], parity: &mut [&mut [u8]]) {
        assert!(data.len() == self.k() && parity.len() == self.m());
        let rows: Vec<Vec<u8>> = (0..self.m()).map(|i| (0..self.k()).map(|j| coefficient(i, j)).collect()).collect();
        combine(&rows, data, parity);
    }

    /// Computes shard `wanted` from exactly k other shards, given as (shard number, bytes); all ranges have one length.
    pub fn rebuild(self, present: &[(usize, &[u8])], wanted: usize, output: &mut [u8]) {
        assert!(present.len() == self.k() && wanted < self.shards());
        let numbers: Vec<usize> = present.iter().map(|(number, _)| *number).collect();
        let sources: Vec<&[u8]> = present.iter().map(|(_, bytes)| *bytes).collect();
        combine(&[self.recipe(&numbers, wanted)], &sources, &mut [output]);
    }

    /// Factors of `present` whose sum is shard `wanted`: the wanted row of the generator times the inverse of the present rows.
    fn recipe(self, present: &[usize], wanted: usize) -> Vec<u8> {
        let inverted = invert(present.iter().map(|&number| self.generator(number)).collect());
        let row = self.generator(wanted);
        (0..self.k())
            .map(|column| (0..self.k()).fold(0, |sum, j| sum ^ mul(row[j], inverted[j][column])))
            .collect()
    }

    fn generator(self, shard: usize) -> Vec<u8> {
        let unit = |j| u8::from(j == shard);
        (0..self.k())
            .map(|j| {
                if shard < self.k() {
                    unit(j)
                } else {
                    coefficient(shard - self.k(), j)
                }
            })
            .collect()
    }
}

/// A Cauchy matrix 1 / ((16 + i) xor j), its rows and columns scaled so that the first of each is all ones; scaling keeps every square
/// part of it invertible.
pub(super) fn coefficient(parity: usize, data: usize) -> u8 {
    let cauchy = |i: usize, j: usize| inverse((usize::from(DATA_SHARDS_MAX) + i) as u8 ^ j as u8);
    mul(
        mul(cauchy(parity, data), cauchy(0, 0)),
        inverse(mul(cauchy(0, data), cauchy(parity, 0))),
    )
}

/// Gauss–Jordan. Any k distinct rows of the generator are independent, so a pivot always exists; equal shard numbers are our bug.
fn invert(mut matrix: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let size = matrix.len();
    let mut result: Vec<Vec<u8>> = (0..size).map(|i| (0..size).map(|j| u8::from(i == j)).collect()).collect();
    for column in 0..size {
        let pivot = (column..size)
            .find(|&row| matrix[row][column] != 0)
            .expect("shards of a rebuild are distinct");
        matrix.swap(column, pivot);
        result.swap(column, pivot);
        let scale = inverse(matrix[column][column]);
        for value in matrix[column].iter_mut().chain(result[column].iter_mut()) {
            *value = mul(*value, scale);
        }
        for row in (0..size).filter(|&row| row != column) {
            let factor = matrix[row][column];
            for j in 0..size {
                matrix[row][j] ^= mul(factor, matrix[column][j]);
                result[row][j] ^= mul(factor, result[column][j]);
            }
        }
    }
    result
}
