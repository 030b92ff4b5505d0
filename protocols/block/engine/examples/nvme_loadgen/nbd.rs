//! An NBD client that knows as much as a load needs: fixed newstyle negotiation, simple replies.

use crate::{Link, Open};
use std::error::Error;
use std::io::{self, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const REPLY_MAGIC: u32 = 0x6744_6698;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const GO: u32 = 7;
const ACKNOWLEDGED: u32 = 1;
const INFORMATION: u32 = 3;
const FUA: u16 = 1;
const OPTION_BYTES_MAX: usize = 4096;
const TAGS: usize = 1024;
const BUFFER_BYTES: usize = 256 << 10;
const PATIENCE: Duration = Duration::from_secs(60);

struct Client {
    stream: BufReader<TcpStream>,
    out: Vec<u8>,
    bytes: u64,
    data: Vec<u8>,
    /// Bytes that the answer to a tag brings.
    wanted: Vec<u32>,
}

fn exact<const N: usize>(stream: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn negotiate(stream: &mut TcpStream, export: &str) -> io::Result<u64> {
    let greeting: [u8; 18] = exact(stream)?;
    if &greeting[..8] != b"NBDMAGIC" || u64::from_be_bytes(greeting[8..16].try_into().expect("8 bytes")) != OPTION_MAGIC {
        return Err(io::Error::other("that is no NBD server of this century"));
    }
    let length = export.len() as u32;
    let mut request = 1_u32.to_be_bytes().to_vec();
    request.extend(OPTION_MAGIC.to_be_bytes());
    request.extend(GO.to_be_bytes());
    request.extend((length + 6).to_be_bytes());
    request.extend(length.to_be_bytes());
    request.extend(export.as_bytes());
    request.extend([0, 0]);
    stream.write_all(&request)?;
    let mut size = 0;
    loop {
        let head: [u8; 20] = exact(stream)?;
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("4 bytes"));
        let mut rest = vec![0; (number(16) as usize).min(OPTION_BYTES_MAX)];
        stream.read_exact(&mut rest)?;
        match number(12) {
            ACKNOWLEDGED => return Ok(size),
            INFORMATION if rest.len() >= 10 && rest[..2] == [0, 0] => size = u64::from_be_bytes(rest[2..10].try_into().expect("8 bytes")),
            INFORMATION => {}
            code => return Err(io::Error::other(format!("the server refuses the export: {code:#x}"))),
        }
    }
}

pub fn opener(rest: &str) -> Result<Open, Box<dyn Error>> {
    let (address, export) = rest.split_once('/').ok_or("an export is missing")?;
    let (address, export) = (address.to_owned(), export.to_owned());
    Ok(Box::new(move |_| {
        let mut stream = TcpStream::connect(&address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let bytes = negotiate(&mut stream, &export)?;
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let data = (0..1 << 20).map(|_| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (state >> 56) as u8
        });
        Ok(Box::new(Client {
            stream: BufReader::with_capacity(BUFFER_BYTES, stream),
            out: Vec::new(),
            bytes,
            data: data.collect(),
            wanted: vec![0; TAGS],
        }) as Box<dyn Link>)
    }))
}

impl Link for Client {
    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn submit(&mut self, tag: u16, write: bool, offset: u64, length: u32, durable: bool) {
        self.out.extend(REQUEST_MAGIC.to_be_bytes());
        self.out.extend(if write && durable { FUA } else { 0 }.to_be_bytes());
        self.out.extend(u16::from(write).to_be_bytes());
        self.out.extend(u64::from(tag).to_be_bytes());
        self.out.extend(offset.to_be_bytes());
        self.out.extend(length.to_be_bytes());
        self.wanted[usize::from(tag)] = if write { 0 } else { length };
        if write {
            let start = usize::from(tag) * 512 % (self.data.len() - length as usize + 1);
            self.out.extend(&self.data[start..start + length as usize]);
        }
    }

    fn send(&mut self) -> io::Result<()> {
        self.stream.get_mut().write_all(&self.out)?;
        self.out.clear();
        Ok(())
    }

    fn wait(&mut self, done: &mut Vec<u16>) -> io::Result<()> {
        while done.is_empty() || self.stream.buffer().len() >= 16 {
            let head: [u8; 16] = exact(&mut self.stream)?;
            let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("4 bytes"));
            if number(0) != REPLY_MAGIC || number(4) != 0 {
                return Err(io::Error::other(format!("error {} of the server", number(4))));
            }
            let tag = number(12) as u16;
            let mut left = self.wanted[usize::from(tag) % TAGS] as usize;
            let mut sink = [0; 64 << 10];
            while left > 0 {
                let some = left.min(sink.len());
                self.stream.read_exact(&mut sink[..some])?;
                left -= some;
            }
            done.push(tag);
        }
        Ok(())
    }
}
