//! The Diffie-Hellman groups of RFC 7919.
//!
//! Their primes are computed from their definition: 64 one bits, the first bits of e to which a small number was added, 64 one bits.

use super::crypto::random;
use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd, Resize};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Of secret exponents: twice the strength that any of the groups has.
const EXPONENT_BITS: u32 = 512;

/// By number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Group {
    /// No exchange: whoever listens can try secrets on what was said.
    Null = 0,
    Ffdhe2048 = 1,
    Ffdhe3072 = 2,
    Ffdhe4096 = 3,
    Ffdhe6144 = 4,
    Ffdhe8192 = 5,
}

impl Group {
    pub fn new(number: u8) -> Option<Self> {
        let all = [
            Self::Null,
            Self::Ffdhe2048,
            Self::Ffdhe3072,
            Self::Ffdhe4096,
            Self::Ffdhe6144,
            Self::Ffdhe8192,
        ];
        all.get(usize::from(number)).copied()
    }

    /// Bits of the prime, and what makes it one (RFC 7919, appendix A).
    fn definition(self) -> Option<(u32, u32)> {
        Some(match self {
            Self::Null => return None,
            Self::Ffdhe2048 => (2048, 560_316),
            Self::Ffdhe3072 => (3072, 2_625_351),
            Self::Ffdhe4096 => (4096, 5_736_041),
            Self::Ffdhe6144 => (6144, 15_705_020),
            Self::Ffdhe8192 => (8192, 10_965_728),
        })
    }

    /// Of a public value.
    pub fn bytes(self) -> usize {
        self.definition().map_or(0, |(bits, _)| bits as usize / 8)
    }

    pub fn prime(self) -> Option<Vec<u8>> {
        let (bits, addend) = self.definition()?;
        let ones = [0xff; 8];
        Some([&ones[..], &middle(bits as usize - 128, addend - 1), &ones].concat())
    }

    fn parameters(self) -> Option<&'static BoxedMontyParams> {
        static KNOWN: [OnceLock<BoxedMontyParams>; 6] = [const { OnceLock::new() }; 6];
        let (bits, prime) = (self.definition()?.0, self.prime()?);
        Some(KNOWN[self as usize].get_or_init(|| {
            let prime = BoxedUint::from_be_slice(&prime, bits).expect("it has as many bits");
            BoxedMontyParams::new(Odd::new(prime).expect("it ends in ones"))
        }))
    }
}

/// The first `bits` of e / 4, plus `addend`, big endian.
fn middle(bits: usize, addend: u32) -> Vec<u8> {
    // Two words more than asked for, so that the errors of all divisions stay out of sight.
    let words = bits / 32 + 2;
    let (mut sum, mut term) = (vec![0_u32; words], vec![0_u32; words]);
    term[0] = 1 << 30;
    let mut divisor = 1;
    while term.iter().any(|&word| word != 0) {
        add(&mut sum, &term);
        divide(&mut term, divisor);
        divisor += 1;
    }
    sum.truncate(bits / 32);
    let mut more = vec![0; sum.len()];
    *more.last_mut().expect("a group has bits") = addend;
    add(&mut sum, &more);
    sum.iter().flat_map(|word| word.to_be_bytes()).collect()
}

fn add(to: &mut [u32], other: &[u32]) {
    let mut carry = 0;
    for (word, more) in to.iter_mut().zip(other).rev() {
        let sum = u64::from(*word) + u64::from(*more) + carry;
        (*word, carry) = (sum as u32, sum >> 32);
    }
}

fn divide(number: &mut [u32], divisor: u64) {
    let mut rest = 0;
    for word in number {
        let part = rest << 32 | u64::from(*word);
        (*word, rest) = ((part / divisor) as u32, part % divisor);
    }
}

/// One side's.
pub struct KeyPair {
    group: Group,
    exponent: BoxedUint,
    public: Vec<u8>,
}

/// One at a time: peers that are not known yet shall not take more than one processor.
fn power(group: Group, base: &BoxedUint, exponent: &BoxedUint) -> Option<Vec<u8>> {
    static ALONE: Mutex<()> = Mutex::new(());
    let parameters = group.parameters()?;
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let result = BoxedMontyForm::new(base.clone(), parameters).pow(exponent).retrieve();
    Some(result.to_be_bytes().to_vec())
}

impl KeyPair {
    /// None for the null group.
    pub fn new(group: Group) -> std::io::Result<Option<Self>> {
        let Some((bits, _)) = group.definition() else { return Ok(None) };
        let mut secret = [0; EXPONENT_BITS as usize / 8];
        random(&mut secret)?;
        let exponent = BoxedUint::from_be_slice(&secret, EXPONENT_BITS).expect("it has as many bits");
        let generator = BoxedUint::from(2_u8).resize(bits);
        let public = power(group, &generator, &exponent).expect("the group has a prime");
        Ok(Some(Self { group, exponent, public }))
    }

    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// What both sides know; none if the other's value cannot be one, or would give the secret away.
    pub fn shared(&self, other: &[u8]) -> Option<Vec<u8>> {
        let (bits, _) = self.group.definition()?;
        let prime = self.group.prime()?;
        if other.len() != prime.len() {
            return None;
        }
        let value = BoxedUint::from_be_slice(other, bits).ok()?;
        let one = BoxedUint::from(1_u8).resize(bits);
        let last = BoxedUint::from_be_slice(&prime, bits).ok()?.wrapping_sub(&one);
        if value <= one || value >= last {
            return None;
        }
        power(self.group, &value, &self.exponent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_those_of_the_standard() {
        let words = |bytes: &[u8]| {
            bytes
                .chunks(4)
                .map(|word| u32::from_be_bytes(word.try_into().unwrap()))
                .collect::<Vec<_>>()
        };
        let ends = [
            (Group::Ffdhe2048, Some(0x6128_5c97)),
            (Group::Ffdhe3072, Some(0x66c6_2e37)),
            (Group::Ffdhe4096, Some(0x5e65_5f6a)),
            (Group::Ffdhe6144, None),
            (Group::Ffdhe8192, Some(0xc5c6_424c)),
        ];
        for (group, end) in ends {
            let prime = group.prime().unwrap();
            let words = words(&prime);
            assert_eq!(words[..4], [u32::MAX, u32::MAX, 0xadf8_5458, 0xa2bb_4a9a]);
            assert!(end.is_none_or(|end| words[words.len() - 3] == end), "{group:?}");
            assert_eq!(words[words.len() - 2..], [u32::MAX; 2]);
            // No wrong addend would make 2 a square of order (p - 1) / 2.
            let bits = prime.len() as u32 * 8;
            let half = BoxedUint::from_be_slice(&prime, bits).unwrap().shr(1);
            let two = BoxedUint::from(2_u8).resize(bits);
            let result = power(group, &two, &half).unwrap();
            assert!(
                result[..result.len() - 1].iter().all(|&byte| byte == 0) && result[result.len() - 1] == 1,
                "{group:?}"
            );
        }
    }

    #[test]
    fn both_sides_come_to_the_same() {
        for group in [Group::Ffdhe2048, Group::Ffdhe3072] {
            let (one, other) = (KeyPair::new(group).unwrap().unwrap(), KeyPair::new(group).unwrap().unwrap());
            assert_eq!(one.public().len(), group.bytes());
            assert_eq!(one.shared(other.public()), other.shared(one.public()));
            assert_ne!(one.public(), other.public());
        }
        assert!(KeyPair::new(Group::Null).unwrap().is_none());
    }

    #[test]
    fn values_that_give_the_secret_away_are_refused() {
        let pair = KeyPair::new(Group::Ffdhe2048).unwrap().unwrap();
        let prime = Group::Ffdhe2048.prime().unwrap();
        let (mut one, mut last, zero) = (vec![0; 256], prime.clone(), vec![0; 256]);
        one[255] = 1;
        last[255] -= 1;
        for bad in [&zero, &one, &last, &prime, &vec![0xff; 256], &vec![2; 255], &vec![]] {
            assert!(pair.shared(bad).is_none());
        }
    }
}
