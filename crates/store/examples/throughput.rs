//! Measures the embedded store on this machine's disk: `cargo run --release --example throughput -p muster-store`.
//!
//! With `telemetry`, `reports` or `reads` behind `--` only that is measured. Prints, for so many callers that wait at the same time, what is stored durably each second and how long one waits.
//! Also how long a point read takes where it is asked, and by way of another thread, which decides where reads run.
#![expect(clippy::unwrap_used, reason = "a bench that cannot go on ends")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::clock::{Clock, ManualClock, SeededEntropy};
use domain::ids::HubKey;
use domain::message::Message;
use store::conformance::Done as _;
use store::conformance::sample::{NOON, device, identity, make_hub, object};
use store::conformance::telemetry::message;
use store::ports::{IdentityStore as _, TelemetryLog as _, TwinStore as _};
use store::sqlite::{Embedded, Options};
use tokio::task::JoinSet;

/// How long each figure is measured.
const MEASURED: Duration = Duration::from_secs(2);
/// Devices that reports are written for.
const DEVICES: usize = 1_024;

fn main() {
    let place = tempfile::tempdir_in(std::env::current_dir().unwrap()).unwrap();
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOON));
    let options = Options { folder: Some(place.path().to_owned()), ..Options::default() };
    let started = Instant::now();
    let store = Embedded::open(options, clock, &SeededEntropy::new(1)).unwrap();
    println!("an empty folder was opened in {:.1?}", started.elapsed());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let hub = prepare(&store).await;
        let wanted = std::env::args().nth(1);
        let is_wanted = |part: &str| wanted.as_deref().is_none_or(|wanted| wanted == part);
        for waiters in [1, 16, 64, 256, 1_024].into_iter().filter(|_| is_wanted("telemetry")) {
            show("telemetry", waiters, &telemetry(&store, waiters).await);
        }
        for waiters in [1, 16, 64, 256].into_iter().filter(|_| is_wanted("reports")) {
            show("reports", waiters, &reports(&store, hub, waiters).await);
        }
        if is_wanted("reads") {
            reads(&store, hub).await;
        }
        store.close().await;
    });
}

fn show(kind: &str, waiters: usize, Figures { per_second, mean, processor }: &Figures) {
    println!(
        "{kind:<10} {waiters:>5} waiters  {per_second:>9.0} a second  {mean:>9.1?} mean  {processor:>8.1?} processor"
    );
}

async fn prepare(store: &Embedded) -> HubKey {
    let hub = make_hub(store, "hub").await;
    for number in 0..DEVICES {
        let name = device(&format!("dev-{number}"));
        store.create_identity(hub, identity(name, number as u64), None, NOON).await.unwrap().done();
    }
    hub
}

/// Processor time of this process, to 10 ms.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = text.rsplit(") ").next().unwrap_or_default().split(' ');
    let ticks: u64 = fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(10 * ticks)
}

/// What was measured of one kind of call.
struct Figures {
    per_second: f64,
    mean: Duration,
    processor: Duration,
}

/// Runs `waiters` callers for a while.
#[expect(clippy::disallowed_methods, reason = "the end of each task is looked at")]
async fn measure<F: Future<Output = u64> + Send + 'static>(
    waiters: usize,
    caller: impl Fn(usize, Instant) -> F,
) -> Figures {
    let (started, processor) = (Instant::now(), processor_time());
    let mut callers = JoinSet::new();
    for number in 0..waiters {
        callers.spawn(caller(number, started + MEASURED));
    }
    let calls: u64 = callers.join_all().await.iter().sum();
    let elapsed = started.elapsed();
    let each = 1.0 / calls.max(1) as f64;
    Figures {
        per_second: calls as f64 / elapsed.as_secs_f64(),
        mean: elapsed.mul_f64(waiters as f64 * each),
        processor: processor_time().saturating_sub(processor).mul_f64(each),
    }
}

async fn telemetry(store: &Embedded, waiters: usize) -> Figures {
    let sample = message(HubKey(1), 0, &"x".repeat(256));
    measure(waiters, |number, until| {
        let log = store.telemetry().clone();
        let message = Message { partition: (number % 4) as u16, ..sample.clone() };
        async move {
            let mut calls = 0;
            while Instant::now() < until {
                log.append(message.clone()).await.unwrap();
                calls += 1;
            }
            calls
        }
    })
    .await
}

async fn reports(store: &Embedded, hub: HubKey, waiters: usize) -> Figures {
    measure(waiters, |number, until| {
        let (store, name) = (store.clone(), device(&format!("dev-{}", number % DEVICES)));
        async move {
            let mut calls = 0;
            while Instant::now() < until {
                let patch = object(&format!(r#"{{"temperature":{calls},"humidity":{{"value":40.5}}}}"#));
                store.apply_reported(hub, &name, patch, None, NOON).await.unwrap().done();
                calls += 1;
            }
            calls
        }
    })
    .await
}

async fn reads(store: &Embedded, hub: HubKey) {
    const READS: u32 = 50_000;
    let names: Vec<_> = (0..DEVICES).map(|number| device(&format!("dev-{number}"))).collect();
    let started = Instant::now();
    for name in names.iter().cycle().take(READS as usize) {
        store.find_identity(hub, name).await.unwrap().unwrap();
    }
    println!("a point read where it is asked         {:>9.1?}", started.elapsed() / READS);
    let started = Instant::now();
    for _ in 0..READS {
        tokio::task::spawn_blocking(|| ()).await.unwrap();
    }
    println!("going to another thread and back alone {:>9.1?}", started.elapsed() / READS);
}
