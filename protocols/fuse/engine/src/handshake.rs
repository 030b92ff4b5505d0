//! INIT: what the kernel and we agree to use.
//!
//! Not asked for: the writeback cache (size and times would be the kernel's, and unseen by other faces), FUSE_AUTO_INVAL_DATA (it goes by mtime,
//! drops what was just written here, and the content's version says it better), and opens without a request (the store counts opens).

use trefoil_core::filesystem::{Errno, Result, TRANSFER_BYTES_MAX};

use crate::device::Device;
use crate::wire::{HEADER_IN_BYTES, MAJOR, MINOR, MINOR_MIN, Reader, WRITE_IN_BYTES, Writer, init, operation};

/// A request and all that a write brings with it.
pub const MESSAGE_BYTES_MAX: usize = HEADER_IN_BYTES + WRITE_IN_BYTES + TRANSFER_BYTES_MAX;
/// Requests without a waiting caller (read ahead, asynchronous direct I/O) at once, and when the kernel slows down who makes them.
const BACKGROUND_MAX: u16 = 64;
const BACKGROUND_CONGESTED: u16 = 48;
const PAGE_BYTES_MIN: usize = 4096;

/// Without these the answers of the operations would be wrong.
const NEEDED: u64 =
    init::BIG_WRITES | init::MAX_PAGES | init::HANDLE_KILLPRIV_V2 | init::SETXATTR_EXT | init::ATOMIC_O_TRUNC | init::INIT_EXT;
const WANTED: u64 = NEEDED
    | init::ASYNC_READ
    | init::ASYNC_DIO
    | init::EXPORT_SUPPORT
    | init::DO_READDIRPLUS
    | init::READDIRPLUS_AUTO
    | init::PARALLEL_DIROPS
    // With ACLs the umask counts only where the directory has no default one, so it is left to the store.
    | init::DONT_MASK
    | init::POSIX_ACL
    | init::CACHE_SYMLINKS;

/// Answers the kernel's first requests, until it and we have agreed; returns the minor version that the kernel speaks. ENOTCONN if the mount went away meanwhile, EPROTO if the kernel is too old.
pub fn shake(device: &Device, locks: bool) -> Result<u32> {
    let mut buffer = vec![0; MESSAGE_BYTES_MAX];
    loop {
        let length = device.request(&mut buffer)?.ok_or(Errno::NOTCONN)?;
        let (header, body) = Reader::message(&buffer[..length])?;
        if header.operation != operation::INIT {
            device.refuse(header.unique, Errno::IO);
            continue;
        }
        let mut out = Writer::default();
        let agreed = agree(body, locks, &mut out);
        match agreed {
            Ok(_) => device.answer(header.unique, out.as_slice(), &[]),
            Err(error) => device.refuse(header.unique, error),
        }
        return agreed;
    }
}

/// `struct fuse_init_in` and `struct fuse_init_out`
fn agree(mut body: Reader, locks: bool, out: &mut Writer) -> Result<u32> {
    let (major, minor) = (body.u32()?, body.u32()?);
    if major != MAJOR || minor < MINOR_MIN {
        return Err(Errno::PROTO);
    }
    let (read_ahead, low) = (body.u32()?, body.u32()?);
    let high = if u64::from(low) & init::INIT_EXT != 0 { body.u32()? } else { 0 };
    let offered = u64::from(low) | u64::from(high) << 32;
    // Kernels before 5.17 have one word of flags.
    let needed = if minor < 36 { NEEDED & !init::INIT_EXT } else { NEEDED };
    if offered & needed != needed {
        return Err(Errno::PROTO);
    }
    let flags = offered & (WANTED | if locks { init::POSIX_LOCKS | init::FLOCK_LOCKS } else { 0 });
    out.u32(MAJOR)
        .u32(MINOR.min(minor))
        .u32(read_ahead.max(TRANSFER_BYTES_MAX as u32))
        .u32(flags as u32);
    out.u16(BACKGROUND_MAX).u16(BACKGROUND_CONGESTED).u32(TRANSFER_BYTES_MAX as u32);
    // Times count single nanoseconds.
    out.u32(1)
        .u16((TRANSFER_BYTES_MAX / PAGE_BYTES_MIN) as u16)
        .u16(0)
        .u32((flags >> 32) as u32)
        .zeros(28);
    Ok(minor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(minor: u32, flags: u64) -> Result<Vec<u8>> {
        let mut request = Writer::default();
        request
            .u32(MAJOR)
            .u32(minor)
            .u32(131_072)
            .u32(flags as u32)
            .u32((flags >> 32) as u32)
            .zeros(44);
        let bytes = request.into_bytes();
        let mut message = Writer::default();
        message
            .u32((HEADER_IN_BYTES + bytes.len()) as u32)
            .u32(operation::INIT)
            .zeros(32)
            .bytes(&bytes);
        let message = message.into_bytes();
        let mut out = Writer::default();
        agree(Reader::message(&message)?.1, false, &mut out)?;
        Ok(out.into_bytes())
    }

    #[test]
    fn it_takes_what_it_wants_of_what_is_offered() {
        let answer = offer(45, u64::MAX).unwrap();
        assert_eq!(answer.len(), 64);
        let word = |at: usize| u32::from_ne_bytes(answer[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(4), word(8)), (7, MINOR, 1 << 20));
        assert_eq!(u64::from(word(12)), WANTED);
        assert_eq!((word(20), word(24)), (1 << 20, 1));
        assert_eq!(word(28) & 0xffff, 256);
    }

    #[test]
    fn a_kernel_without_what_is_needed_is_refused() {
        assert_eq!(offer(45, !init::HANDLE_KILLPRIV_V2), Err(Errno::PROTO));
        assert_eq!(offer(32, u64::MAX), Err(Errno::PROTO));
        assert!(offer(41, NEEDED).is_ok());
    }
}
