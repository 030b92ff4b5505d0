//! A load generator for block targets over TCP: NVMe/TCP, and NBD so that other exporters can be put beside it with the same kind of client.
//!
//! ```text
//! nvme_loadgen --target nvme://HOST:PORT/NQN[/NAMESPACE] | nbd://HOST:PORT/EXPORT
//!              --mode randread|randwrite|seqread|seqwrite [--bytes 4096] [--depth 32] [--queues 1] [--seconds 5]
//!              [--span BYTES] [--durable] [--fill] [--pid SERVER] [--json]
//! ```
//! One thread a queue, each with a connection and `depth` commands outstanding. `--durable`: writes by FUA. `--fill`: writes all of the span first, so that
//! reads find data. `--pid`: the server's CPU time is told too. A line says CLIENT-BOUND where the generator used more CPU time than the server.

mod nbd;
mod nvme;
mod report;

use report::{Cpu, Latencies, Result as Outcome};
use std::error::Error;
use std::time::{Duration, Instant};

/// One connection to a target. Tags are 0 to the depth, each in use once.
pub trait Link: Send {
    fn bytes(&self) -> u64;
    /// Queued until `send`.
    fn submit(&mut self, tag: u16, write: bool, offset: u64, length: u32, durable: bool);
    fn send(&mut self) -> std::io::Result<()>;
    /// Waits for at least one answer.
    fn wait(&mut self, done: &mut Vec<u16>) -> std::io::Result<()>;
}

type Open = Box<dyn Fn(u16) -> std::io::Result<Box<dyn Link>> + Sync>;

#[derive(Debug, Clone)]
struct Options {
    target: String,
    mode: String,
    bytes: u32,
    depth: u16,
    queues: u16,
    seconds: u64,
    span: Option<u64>,
    durable: bool,
    fill: bool,
    pid: Option<u32>,
    json: bool,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Box<dyn Error>> {
        let mut options = Self {
            target: String::new(),
            mode: "randread".into(),
            bytes: 4096,
            depth: 32,
            queues: 1,
            seconds: 5,
            span: None,
            durable: false,
            fill: false,
            pid: None,
            json: false,
        };
        while let Some(name) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{name} needs a value"));
            match name.as_str() {
                "--target" => options.target = value()?,
                "--mode" => options.mode = value()?,
                "--bytes" => options.bytes = value()?.parse()?,
                "--depth" => options.depth = value()?.parse()?,
                "--queues" => options.queues = value()?.parse()?,
                "--seconds" => options.seconds = value()?.parse()?,
                "--span" => options.span = Some(value()?.parse()?),
                "--pid" => options.pid = Some(value()?.parse()?),
                "--durable" => options.durable = true,
                "--fill" => options.fill = true,
                "--json" => options.json = true,
                _ => return Err(format!("unknown option {name}: see the head of main.rs").into()),
            }
        }
        let modes = ["randread", "randwrite", "seqread", "seqwrite"];
        let sane = modes.contains(&options.mode.as_str()) && options.bytes > 0 && (1..=1024).contains(&options.depth) && options.queues > 0;
        if sane {
            Ok(options)
        } else {
            Err("a mode, at least one byte, a depth of 1 to 1024 and a queue are needed".into())
        }
    }

    fn writes(&self) -> bool {
        self.mode.ends_with("write")
    }

    fn is_random(&self) -> bool {
        self.mode.starts_with("rand")
    }
}

/// Where a queue's next command goes.
struct Places {
    random: Option<u64>,
    next: u64,
    end: u64,
    begin: u64,
    bytes: u64,
}

impl Places {
    fn next(&mut self) -> u64 {
        let slots = (self.end - self.begin) / self.bytes;
        match &mut self.random {
            Some(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                self.begin + (*state >> 11) % slots * self.bytes
            }
            None => {
                self.next = if self.next + 2 * self.bytes > self.end {
                    self.begin
                } else {
                    self.next + self.bytes
                };
                self.next
            }
        }
    }
}

fn drive(link: &mut dyn Link, options: &Options, places: &mut Places, until: Option<Instant>, count: u64) -> std::io::Result<Latencies> {
    let mut began = vec![Instant::now(); options.depth.into()];
    let mut free: Vec<u16> = (0..options.depth).collect();
    let (mut latencies, mut left, mut done) = (Latencies::default(), count, Vec::new());
    loop {
        let over = until.is_some_and(|until| Instant::now() >= until);
        while !over
            && left > 0
            && let Some(tag) = free.pop()
        {
            began[usize::from(tag)] = Instant::now();
            link.submit(tag, options.writes(), places.next(), options.bytes, options.durable);
            left -= 1;
        }
        if free.len() == usize::from(options.depth) {
            return Ok(latencies);
        }
        link.send()?;
        link.wait(&mut done)?;
        for tag in done.drain(..) {
            latencies.add(began[usize::from(tag)].elapsed());
            free.push(tag);
        }
    }
}

fn open(options: &Options) -> Result<Open, Box<dyn Error>> {
    let depth = options.depth;
    match options.target.split_once("://") {
        Some(("nvme", rest)) => nvme::opener(rest, depth),
        Some(("nbd", rest)) => nbd::opener(rest),
        _ => Err("--target is nvme://HOST:PORT/NQN[/NAMESPACE] or nbd://HOST:PORT/EXPORT".into()),
    }
}

fn fill(open: &Open, options: &Options, span: u64) -> Result<(), Box<dyn Error>> {
    let bytes = 128 << 10;
    let filling = Options {
        mode: "seqwrite".into(),
        bytes,
        depth: options.depth.min(32),
        durable: false,
        ..options.clone()
    };
    let mut places = Places {
        random: None,
        next: span,
        begin: 0,
        end: span,
        bytes: bytes.into(),
    };
    drive(&mut *open(1)?, &filling, &mut places, None, span / u64::from(bytes))?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse(std::env::args().skip(1))?;
    let open = open(&options)?;
    let size = open(1)?.bytes();
    let span = options.span.map_or(size, |span| span.min(size)) / u64::from(options.bytes) * u64::from(options.bytes);
    if span < u64::from(options.bytes) * u64::from(options.queues) {
        return Err("the span is too small for so many queues".into());
    }
    if options.fill {
        fill(&open, &options, span)?;
    }
    let mut links = (1..=options.queues).map(&open).collect::<Result<Vec<_>, _>>()?;
    let (client, server) = (Cpu::of_this(), Cpu::of(options.pid));
    let began = Instant::now();
    let until = began + Duration::from_secs(options.seconds);
    let share = span / u64::from(options.queues) / u64::from(options.bytes) * u64::from(options.bytes);
    let results: Vec<std::io::Result<Latencies>> = std::thread::scope(|scope| {
        let threads: Vec<_> = links
            .iter_mut()
            .enumerate()
            .map(|(index, link)| {
                let options = &options;
                scope.spawn(move || {
                    let begin = if options.is_random() { 0 } else { share * index as u64 };
                    let mut places = Places {
                        random: options.is_random().then_some(0x9e37_79b9 + index as u64),
                        next: begin,
                        begin,
                        end: if options.is_random() { span } else { begin + share },
                        bytes: options.bytes.into(),
                    };
                    drive(&mut **link, options, &mut places, Some(until), u64::MAX)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no queue panics")).collect()
    });
    let mut latencies = Latencies::default();
    for result in results {
        latencies.merge(&result?);
    }
    let outcome = Outcome {
        name: format!("{} {} B qd {} x {}", options.mode, options.bytes, options.depth, options.queues),
        bytes: options.bytes.into(),
        took: began.elapsed(),
        latencies,
        client: Cpu::of_this() - client,
        server: options.pid.map(|_| Cpu::of(options.pid) - server),
    };
    println!("{}", if options.json { outcome.json() } else { outcome.text() });
    Ok(())
}
