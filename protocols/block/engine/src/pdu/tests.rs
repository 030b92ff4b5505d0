use super::*;
use proptest::prelude::*;

fn plain(kind: u8, flags: u8, header: u8, offset: u8, length: u32) -> [u8; COMMON_BYTES] {
    let mut bytes = [kind, flags, header, offset, 0, 0, 0, 0];
    put(&mut bytes, 4, &length.to_le_bytes());
    bytes
}

fn parse(bytes: [u8; COMMON_BYTES], terms: Terms) -> Result<Header, Fault> {
    Header::parse(&bytes, terms, CAPSULE_DATA_BYTES_MAX)
}

#[test]
fn the_checksum_is_crc32c() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
}

#[test]
fn a_capsule_with_data_is_taken_apart() {
    let terms = Terms::default();
    let header = parse(plain(4, 0, 72, 72, 72 + 4096), terms).unwrap();
    assert_eq!((header.head_bytes, header.data_bytes, header.data_digest), (72, 4096, false));
    let digests = Terms {
        header_digest: true,
        data_digest: true,
        ..terms
    };
    let header = parse(plain(4, 3, 72, 80, 80 + 512 + 4), digests).unwrap();
    assert_eq!((header.head_bytes, header.data_bytes, header.data_digest), (80, 512, true));
}

#[test]
fn faults_name_the_field() {
    let terms = Terms::default();
    let capsule = CAPSULE_DATA_BYTES_MAX as u32;
    for (bytes, fault) in [
        (plain(1, 0, 128, 0, 128), Fault::header(0)),
        (plain(4, 0, 71, 0, 72), Fault::header(2)),
        (plain(4, 1, 72, 0, 76), Fault::header(1)),
        (plain(4, 0, 72, 0, 71), Fault::header(4)),
        (plain(4, 0, 72, 64, 100), Fault::header(3)),
        (plain(4, 0, 72, 200, 100), Fault::header(4)),
        (plain(4, 0, 72, 72, 73 + capsule), Fault::header(4)),
        (plain(0, 0, 128, 128, 129), Fault::header(4)),
        (plain(6, 0, 24, 24, 25 + H2C_BYTES_MAX as u32), Fault::LIMIT),
        (plain(2, 0, 24, 0, 24 + 129), Fault::header(4)),
    ] {
        assert_eq!(parse(bytes, terms), Err(fault), "{bytes:?}");
    }
}

#[test]
fn initialization_is_answered() {
    let mut request = [0; 128];
    (request[10], request[11]) = (1, 3);
    let (terms, response) = initialize(&request).unwrap();
    assert_eq!((terms.header_digest, terms.data_digest, terms.alignment_bytes), (true, true, 8));
    assert_eq!((response[0], response[2], u32_at(&response, 4), response[11]), (1, 128, 128, 3));
    assert!(u32_at(&response, 12) as usize >= 4096);
    request[8] = 1;
    assert_eq!(initialize(&request), Err(Fault::unsupported(8)));
}

#[test]
fn data_is_aligned_as_the_host_wants() {
    let terms = Terms {
        header_digest: true,
        data_digest: true,
        alignment_bytes: 128,
    };
    let mut bytes = vec![9; 3];
    put_data_header(&mut bytes, terms, 7, 0, 512, true, true);
    let unit = &bytes[3..];
    assert_eq!((unit.len(), unit[3], unit[1]), (128, 128, 0xf));
    assert_eq!(u32_at(unit, 4), 128 + 512 + 4);
    assert_eq!(u32_at(unit, 24), crc32c(&unit[..24]));
}

proptest! {
    #[test]
    fn whatever_comes_is_bounded(bytes: [u8; COMMON_BYTES], header_digest: bool, data_digest: bool) {
        let terms = Terms { header_digest, data_digest, alignment_bytes: 4 };
        if let Ok(header) = parse(bytes, terms) {
            prop_assert!(header.head_bytes <= HEADER_BYTES_MAX && header.data_bytes <= H2C_BYTES_MAX);
            let total = header.head_bytes + header.data_bytes + if header.data_digest { DIGEST_BYTES } else { 0 };
            prop_assert_eq!(total, u32_at(&bytes, 4) as usize);
            let _ = header.check_digest(&vec![0; header.head_bytes]);
        }
    }
}
