//! Randomness that is handed in, never taken: the operating system's for pools, a seed's for simulations.

/// Fills the buffer with random bytes.
pub type RandomSource = Box<dyn FnMut(&mut [u8]) + Send>;

/// The operating system's generator; for identities and secrets.
pub fn from_os() -> RandomSource {
    Box::new(|buffer| {
        let mut filled = 0;
        while filled < buffer.len() {
            match rustix::rand::getrandom(&mut buffer[filled..], rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("the kernel gives no random bytes: {error}"),
            }
        }
    })
}

/// The same bytes for the same seed; for simulations and tests.
pub fn from_seed(seed: u64) -> RandomSource {
    let mut seeded = Seeded::new(seed);
    Box::new(move |buffer| {
        buffer
            .chunks_mut(8)
            .for_each(|chunk| chunk.copy_from_slice(&seeded.next_u64().to_le_bytes()[..chunk.len()]))
    })
}

/// SplitMix64 (Steele, Lea, Flood 2014): every seed gives a full-period sequence.
#[derive(Debug, Clone)]
pub struct Seeded(u64);

impl Seeded {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// In `0..bound`; the bias of the modulus does not matter to a simulation.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound.max(1)
    }

    /// True once in `one_in` times.
    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}
