//! The port mapper and the status monitor by UDP, which is how most hosts ask and say that they restarted.

use crate::dispatch::Programs;
use crate::export::Client;
use crate::wait::{Signal, readable};
use std::io::ErrorKind;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

/// Of a datagram; longer ones are cut, and are then no calls.
const DATAGRAM_BYTES_MAX: usize = 2048;
const WAIT_SECONDS: u64 = 60;
/// After an error that is not the other side's.
const PAUSE_MILLISECONDS: u64 = 100;

/// Until `stop`. `socket` does not block.
pub fn serve(socket: &UdpSocket, programs: &Programs, stop: &Signal) {
    let Ok(server) = socket.local_addr() else { return };
    let mut datagram = [0; DATAGRAM_BYTES_MAX];
    loop {
        match socket.recv_from(&mut datagram) {
            Ok((bytes, peer)) => {
                let client = Client {
                    address: peer.ip().to_canonical(),
                    port: peer.port(),
                    server: server.ip(),
                };
                if let Some(answer) = programs.answer_datagram(client, &datagram[..bytes]) {
                    // Who asked by a datagram asks again if the answer is lost.
                    let _ = socket.send_to(&answer, peer);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let _ = readable(socket, stop, Instant::now() + Duration::from_secs(WAIT_SECONDS));
            }
            Err(_) => {
                crate::wait::paused(stop, Duration::from_millis(PAUSE_MILLISECONDS));
            }
        }
        if stop.is_raised() {
            return;
        }
    }
}
