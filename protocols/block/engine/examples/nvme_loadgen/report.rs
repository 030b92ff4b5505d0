//! Latencies by percentile, and CPU time for each command.

use std::ops::Sub;
use std::time::Duration;

/// Each power of two of nanoseconds in so many steps.
const STEPS: u32 = 16;

#[derive(Clone)]
pub struct Latencies {
    counts: Vec<u64>,
    pub count: u64,
    max: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            counts: vec![0; (64 * STEPS) as usize],
            count: 0,
            max: Duration::ZERO,
        }
    }
}

impl Latencies {
    pub fn add(&mut self, latency: Duration) {
        let nanoseconds = (latency.as_nanos() as u64).max(STEPS.into());
        let power = nanoseconds.ilog2();
        let step = (nanoseconds >> (power - STEPS.ilog2())) as u32 - STEPS;
        self.counts[(power * STEPS + step) as usize] += 1;
        self.count += 1;
        self.max = self.max.max(latency);
    }

    pub fn merge(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// In microseconds: the upper end of the step that it is in.
    fn percentile(&self, percent: f64) -> f64 {
        let wanted = (self.count as f64 * percent / 100.0).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                let (power, step) = (index as u32 / STEPS, index as u32 % STEPS + 1);
                return 2_f64.powi(power as i32) * (1.0 + f64::from(step) / f64::from(STEPS)) / 1000.0;
            }
        }
        0.0
    }
}

/// User and system time of a process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu(Duration);

impl Cpu {
    pub fn of_this() -> Self {
        Self::read("/proc/self/stat")
    }

    pub fn of(pid: Option<u32>) -> Self {
        pid.map_or(Self::default(), |pid| Self::read(&format!("/proc/{pid}/stat")))
    }

    fn read(path: &str) -> Self {
        let ticks = std::fs::read_to_string(path).ok().and_then(|stat| {
            // The name, which may have spaces, ends at the last parenthesis.
            let fields: Vec<u64> = stat
                .rsplit_once(')')?
                .1
                .split_whitespace()
                .skip(11)
                .take(2)
                .flat_map(str::parse)
                .collect();
            Some(fields.iter().sum::<u64>())
        });
        // A tick is 10 ms on every Linux that this runs on.
        Self(Duration::from_millis(ticks.unwrap_or(0) * 10))
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

pub struct Result {
    pub name: String,
    pub bytes: u64,
    pub took: Duration,
    pub latencies: Latencies,
    pub client: Cpu,
    pub server: Option<Cpu>,
}

impl Result {
    fn per_second(&self) -> f64 {
        self.latencies.count as f64 / self.took.as_secs_f64()
    }

    fn microseconds(&self, cpu: Cpu) -> f64 {
        cpu.0.as_secs_f64() * 1e6 / self.latencies.count.max(1) as f64
    }

    fn is_client_bound(&self) -> bool {
        self.server.is_some_and(|server| self.client.0 > server.0)
    }

    pub fn text(&self) -> String {
        let percentile = |percent| self.latencies.percentile(percent);
        let mut text = format!(
            "{}: {:.0}/s, {:.1} MB/s; µs p50 {:.0} p99 {:.0} p99.9 {:.0} max {:.0}; client {:.1} µs CPU",
            self.name,
            self.per_second(),
            self.per_second() * self.bytes as f64 / 1e6,
            percentile(50.0),
            percentile(99.0),
            percentile(99.9),
            self.latencies.max.as_secs_f64() * 1e6,
            self.microseconds(self.client),
        );
        if let Some(server) = self.server {
            text += &format!(", server {:.1} µs CPU", self.microseconds(server));
        }
        if self.is_client_bound() {
            text += " CLIENT-BOUND";
        }
        text
    }

    pub fn json(&self) -> String {
        let percentile = |percent| self.latencies.percentile(percent);
        format!(
            "{{\"name\":\"{}\",\"operations\":{},\"seconds\":{:.3},\"iops\":{:.1},\"megabytes_per_second\":{:.2},\"p50_us\":{:.1},\"p99_us\":{:.1},\
             \"p999_us\":{:.1},\"client_cpu_us\":{:.2},\"server_cpu_us\":{},\"client_bound\":{}}}",
            self.name,
            self.latencies.count,
            self.took.as_secs_f64(),
            self.per_second(),
            self.per_second() * self.bytes as f64 / 1e6,
            percentile(50.0),
            percentile(99.0),
            percentile(99.9),
            self.microseconds(self.client),
            self.server
                .map_or("null".into(), |server| format!("{:.2}", self.microseconds(server))),
            self.is_client_bound(),
        )
    }
}
