use super::*;
use crate::codec::{Reader, Writer};
use proptest::prelude::*;

fn layout(k: u8, m: u8) -> SegmentLayout {
    SegmentLayout {
        id: 77,
        class: Class::Reduced,
        k,
        m,
        zones: (0..u16::from(k + m)).map(|i| (i * 3, u32::from(i) + 9)).collect(),
    }
}

fn encoded(layout: &SegmentLayout) -> Vec<u8> {
    let mut writer = Writer::new();
    layout.encode(&mut writer);
    writer.bytes
}

#[test]
fn layouts_and_locations_round_trip() {
    for (k, m) in [(1, 0), (1, 4), (4, 2), (16, 4)] {
        let bytes = encoded(&layout(k, m));
        let mut reader = Reader::new(&bytes);
        assert_eq!(SegmentLayout::decode(&mut reader).unwrap(), layout(k, m));
        reader.finish().unwrap();
    }
    let location = Location {
        segment: u64::MAX,
        shard: 15,
        offset: 7,
        length: u32::MAX - 7,
    };
    let mut writer = Writer::new();
    location.encode(&mut writer);
    assert_eq!(writer.bytes.len(), Location::ENCODED_BYTES);
    assert_eq!(Location::decode(&mut Reader::new(&writer.bytes)).unwrap(), location);
}

#[test]
fn each_wrong_field_is_refused() {
    let refuse = |at: usize, value: u8| {
        let mut bytes = encoded(&layout(2, 1));
        bytes[at] = value;
        assert!(
            matches!(SegmentLayout::decode(&mut Reader::new(&bytes)), Err(Error::Damaged(_))),
            "byte {at}"
        );
    };
    refuse(8, 3); // class
    refuse(9, 0); // k
    refuse(9, 17);
    refuse(10, 5); // m
    refuse(11, 3); // device of shard 0 equals that of shard 1
    let bytes = encoded(&layout(2, 1));
    assert!(SegmentLayout::decode(&mut Reader::new(&bytes[..bytes.len() - 1])).is_err());
}

#[test]
fn zone_geometry_is_checked() {
    let good = geometry(8);
    assert!(good.check(ROW_BYTES_MAX).is_ok());
    let cases = [
        ZoneGeometry { zone_count: 0, ..good },
        ZoneGeometry {
            zone_bytes: ROW_BYTES_MAX - 4096,
            ..good
        },
        ZoneGeometry {
            zone_bytes: ZONE + 1,
            ..good
        },
        ZoneGeometry {
            zone_bytes: 1 << 32,
            ..good
        },
        ZoneGeometry {
            first_zone_offset: u64::MAX - 5,
            ..good
        },
    ];
    for case in cases {
        assert!(matches!(case.check(ROW_BYTES_MAX), Err(Error::Refused(_))), "{case:?}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = SegmentLayout::decode(&mut Reader::new(&bytes));
        let _ = Location::decode(&mut Reader::new(&bytes));
        let _ = PayloadHeader::decode(&bytes);
    }

    #[test]
    fn a_header_with_any_changed_bit_is_refused(bit in 0..HEADER_BYTES * 8, owner: u64, length in 0u32..1 << 20, sum: u64) {
        let header = PayloadHeader { kind: 1, segment: 5, owner, length, row_bytes: ROW_BYTES_MAX as u32, checksum: sum };
        let mut bytes = header.encode();
        prop_assert_eq!(bytes.len(), HEADER_BYTES);
        prop_assert_eq!(PayloadHeader::decode(&bytes).unwrap(), header);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(PayloadHeader::decode(&bytes).is_err());
    }
}
