//! Numbers in little endian, at offsets that specifications give. Callers hold slices that are long enough: all structures here have fixed sizes.

pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

pub fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|index| bytes[at + index])
}

pub fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    bytes[at..at + value.len()].copy_from_slice(value);
}

/// ASCII, cut to its field and filled up with spaces, as Identify has it.
pub fn put_padded(bytes: &mut [u8], at: usize, length: usize, text: &str) {
    let field = &mut bytes[at..at + length];
    field.fill(b' ');
    let taken = text.len().min(length);
    field[..taken].copy_from_slice(&text.as_bytes()[..taken]);
}

/// A name in a field that zeros fill up; none if it has no end or is no UTF-8.
pub fn text_at(bytes: &[u8], at: usize, length: usize) -> Option<&str> {
    let field = &bytes[at..at + length];
    let end = field.iter().position(|&byte| byte == 0)?;
    std::str::from_utf8(&field[..end]).ok()
}
