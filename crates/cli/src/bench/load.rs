//! Closed loops: so many clients, each doing one thing after the other, counted during a window of time.
//!
//! What begins before the window and ends inside it counts with its whole time. What is under way when it ends comes to
//! its end, so that no server is left with half a job, and does not count.

use std::ops::ControlFlow;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::process::Usage;

/// Time for one unit; longer than any wait that a client itself gives up.
const UNIT_TIMEOUT: Duration = Duration::from_secs(180);

/// When things are counted.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    from: Instant,
    until: Instant,
    /// Between the first client's beginning and the last one's.
    ramp: Duration,
}

/// What was counted, and what it cost.
#[derive(Clone, Debug)]
pub struct Tally {
    latencies: Histogram<u64>,
    counted: Duration,
    cpu: Duration,
}

impl Window {
    /// Counts for `counted`, after `warm_up` from this moment.
    pub fn after(warm_up: Duration, counted: Duration) -> Self {
        let from = Instant::now() + warm_up;
        Self { from, until: from + counted, ramp: Duration::ZERO }
    }

    /// Has the clients begin one after another, spread over `ramp`, so that they do not stay in step.
    pub const fn ramped(self, ramp: Duration) -> Self {
        Self { ramp, ..self }
    }

    /// When it ends.
    pub const fn until(&self) -> Instant {
        self.until
    }

    /// Whether what ends at `moment` counts.
    pub fn contains(&self, moment: Instant) -> bool {
        (self.from..self.until).contains(&moment)
    }

    fn length(&self) -> Duration {
        self.until - self.from
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            latencies: Histogram::new(3).expect("three significant digits are allowed"),
            counted: Duration::ZERO,
            cpu: Duration::ZERO,
        }
    }
}

impl Tally {
    /// Counts one unit that took `latency`.
    pub fn count(&mut self, latency: Duration) {
        // A histogram that grows by itself takes every value.
        let _ = self.latencies.record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// Notes time that was counted in, and what the server used meanwhile.
    pub fn spend(&mut self, counted: Duration, cpu: Duration) {
        self.counted += counted;
        self.cpu += cpu;
    }

    /// Takes another round in.
    pub fn add(&mut self, other: &Self) -> Result<()> {
        self.latencies.add(&other.latencies)?;
        self.spend(other.counted, other.cpu);
        Ok(())
    }

    /// How many units there were.
    pub fn units(&self) -> u64 {
        self.latencies.len()
    }

    /// Seconds that were counted in.
    pub fn seconds(&self) -> f64 {
        self.counted.as_secs_f64()
    }

    /// The latency that the part `quantile` of all units did not exceed, in microseconds.
    pub fn latency_us(&self, quantile: f64) -> u64 {
        self.latencies.value_at_quantile(quantile)
    }

    /// Processor time of the server, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6
    }
}

/// What the process `pid` uses of the processor during `window`.
pub async fn observe(pid: u32, window: Window) -> Result<Tally> {
    sleep_until(window.from).await;
    let before = Usage::of(pid)?;
    sleep_until(window.until).await;
    let after = Usage::of(pid)?;
    let mut tally = Tally::default();
    tally.spend(window.length(), after.cpu.saturating_sub(before.cpu));
    Ok(tally)
}

/// Lets `clients` tasks do `unit` over and over until the window ends, each until it has nothing left to do.
#[expect(clippy::disallowed_methods, reason = "the end of each task is looked at")]
pub async fn closed_loop<F, Fut>(clients: usize, window: Window, unit: F) -> Result<Tally>
where
    F: Fn(usize) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<ControlFlow<()>>> + Send,
{
    let mut running = JoinSet::new();
    let began = Instant::now();
    for client in 0..clients {
        let unit = unit.clone();
        let begins_at = began + window.ramp.mul_f64(client as f64 / clients as f64);
        running.spawn(async move {
            sleep_until(begins_at).await;
            let mut tally = Tally::default();
            let mut now = Instant::now();
            while now < window.until {
                let began = now;
                let ended = timeout(UNIT_TIMEOUT, unit(client)).await;
                if ended.context("a server does not answer")??.is_break() {
                    break;
                }
                now = Instant::now();
                if window.contains(now) {
                    tally.count(now - began);
                }
            }
            Ok(tally)
        });
    }
    join(running).await
}

/// Adds up what the clients counted; the first error ends everything.
pub async fn join(mut running: JoinSet<Result<Tally>>) -> Result<Tally> {
    let mut tally = Tally::default();
    while let Some(ended) = running.join_next().await {
        tally.add(&ended.context("a client of the bench failed")??)?;
    }
    Ok(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_what_ends_inside_the_window_counts() {
        let window = Window::after(Duration::from_secs(10), Duration::from_secs(10));
        // Ends at 3, 6, 9, 12, 15, 18 and 21 s.
        let tally = closed_loop(2, window, |_| async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            Ok(ControlFlow::Continue(()))
        });
        let tally = tally.await.unwrap();
        assert_eq!(tally.units(), 2 * 3);
        let p50 = tally.latency_us(0.5);
        assert!((2_990_000..3_010_000).contains(&p50), "{p50}");
    }

    #[tokio::test(start_paused = true)]
    async fn clients_begin_one_after_another_over_the_ramp() {
        let window = Window::after(Duration::ZERO, Duration::from_secs(10)).ramped(Duration::from_secs(8));
        // The clients begin at 0, 2, 4 and 6 s, and each of them does one thing after the other, 2 s long.
        let tally = closed_loop(4, window, |_| async {
            tokio::time::sleep(Duration::from_secs(2)).await;
            Ok(ControlFlow::Continue(()))
        });
        // What ends at 10 s is out of the window.
        assert_eq!(tally.await.unwrap().units(), 4 + 3 + 2 + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_fails_ends_the_round() {
        let window = Window::after(Duration::ZERO, Duration::from_secs(1));
        let failed = closed_loop(2, window, |client| async move {
            anyhow::ensure!(client == 0, "broken");
            tokio::time::sleep(Duration::from_millis(1)).await;
            Ok(ControlFlow::Continue(()))
        });
        assert_eq!(failed.await.unwrap_err().to_string(), "broken");
    }
}
