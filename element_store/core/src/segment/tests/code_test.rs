use super::super::gf256::{combine_with, engines, inverse, mul};
use super::*;
use proptest::prelude::*;
use std::fmt::Write;

fn shards_of(code: Code, length: usize) -> Vec<Vec<u8>> {
    let mut shards: Vec<Vec<u8>> = (0..code.k()).map(|i| noise(i as u64 + 1, length)).collect();
    shards.resize(code.shards(), vec![0; length]);
    row::encode_parity(code, &mut shards);
    shards
}

#[test]
fn field_laws_hold() {
    for a in 1..=255u8 {
        assert_eq!(mul(a, inverse(a)), 1);
        assert_eq!(mul(a, 1), a);
        for b in [0, 2, 0x1d, 0x80, 0xff] {
            assert_eq!(mul(a, b), mul(b, a));
            assert_eq!(mul(a, b ^ 7), mul(a, b) ^ mul(a, 7));
        }
    }
    assert_eq!(mul(0x80, 2), 0x1d);
}

#[test]
fn every_code_survives_every_loss_it_promises() {
    for (k, m) in [(1, 0), (1, 1), (1, 4), (2, 1), (2, 2), (4, 2), (8, 2), (3, 4), (8, 3), (16, 4)] {
        let code = Code::new(k, m).unwrap();
        let shards = shards_of(code, 41);
        for lost in subsets(code.shards(), code.m()) {
            let present: Vec<(usize, &[u8])> = (0..code.shards())
                .filter(|i| !lost.contains(i))
                .take(code.k())
                .map(|i| (i, shards[i].as_slice()))
                .collect();
            for &wanted in &lost {
                let mut rebuilt = vec![0xaa; 41];
                code.rebuild(&present, wanted, &mut rebuilt);
                assert_eq!(rebuilt, shards[wanted], "{k}+{m} lost {lost:?}");
            }
        }
    }
}

#[test]
fn one_data_shard_is_mirrored_and_the_first_parity_is_the_xor() {
    let mirrored = shards_of(Code::new(1, 4).unwrap(), 300);
    assert!(mirrored.iter().all(|shard| shard == &mirrored[0]));
    let shards = shards_of(Code::new(5, 1).unwrap(), 300);
    let xor: Vec<u8> = (0..300).map(|p| (0..5).fold(0, |sum, i| sum ^ shards[i][p])).collect();
    assert_eq!(shards[5], xor);
}

#[test]
fn impossible_codes_are_refused() {
    for (k, m) in [(0, 0), (0, 2), (17, 0), (1, 5), (255, 255)] {
        assert!(matches!(Code::new(k, m), Err(Error::Invalid(_))));
    }
}

proptest! {
    #[test]
    fn all_engines_agree(rows in 1usize..6, columns in 1usize..17, length in 0usize..700, seed: u64) {
        let coefficients: Vec<Vec<u8>> = (0..rows).map(|i| noise(seed ^ i as u64, columns)).collect();
        let sources: Vec<Vec<u8>> = (0..columns).map(|j| noise(seed.rotate_left(7) ^ j as u64, length)).collect();
        let sources: Vec<&[u8]> = sources.iter().map(Vec::as_slice).collect();
        let expected: Vec<Vec<u8>> = coefficients.iter().map(|row| {
            (0..length).map(|p| (0..columns).fold(0, |sum, j| sum ^ mul(row[j], sources[j][p]))).collect()
        }).collect();
        for engine in engines() {
            let mut outputs = vec![vec![0xee; length]; rows];
            let mut slices: Vec<&mut [u8]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
            combine_with(engine, &coefficients, &sources, &mut slices);
            prop_assert_eq!(&outputs, &expected, "{:?}", engine);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn vectors() -> String {
    let one = |(k, m): &(u8, u8)| {
        let shards = shards_of(Code::new(*k, *m).unwrap(), 32);
        let list = shards
            .iter()
            .map(|shard| format!("\"{}\"", hex(shard)))
            .collect::<Vec<_>>()
            .join(",\n   ");
        format!(" {{\"k\": {k}, \"m\": {m}, \"shards\": [\n   {list}]}}")
    };
    format!(
        "[\n{}\n]\n",
        [(1, 2), (2, 1), (4, 2), (8, 2), (16, 4)]
            .iter()
            .map(one)
            .collect::<Vec<_>>()
            .join(",\n")
    )
}

/// `tests/format/test_code.py` decodes these with nothing but the formula in FORMAT.md. A change here is a change of the format.
#[test]
fn the_code_is_the_one_that_the_vectors_record() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/format/code_vectors.json");
    if std::env::var_os("TREFOIL_WRITE_VECTORS").is_some() {
        std::fs::write(path, vectors()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), vectors());
}
