//! `GET /metrics`: what the engines record, in Prometheus' text format.

use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// Seconds.
const TO_FIRST_TOKEN: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const BETWEEN_TOKENS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
const QUEUED: &[f64] = &[0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0];

/// Between two rounds in which recorded values are summed up, so that none pile up while nobody asks.
const UPKEEP: Duration = Duration::from_secs(5);

/// Collects what is recorded from now on. Call once, before models are loaded.
pub fn install() {
    let buckets = [
        ("shimmy_time_to_first_token_seconds", TO_FIRST_TOKEN),
        ("shimmy_inter_token_seconds", BETWEEN_TOKENS),
        ("shimmy_queue_seconds", QUEUED),
        ("shimmy_image_seconds", TO_FIRST_TOKEN),
    ];
    let builder = buckets.into_iter().try_fold(PrometheusBuilder::new(), |builder, (name, bounds)| {
        builder.set_buckets_for_metric(Matcher::Full(name.into()), bounds)
    });
    match builder.and_then(PrometheusBuilder::install_recorder) {
        Ok(handle) => {
            crate::runner::describe_metrics();
            let _ = RECORDER.set(handle);
        }
        Err(error) => tracing::warn!(%error, "there will be no metrics"),
    }
}

/// Runs for as long as the server does.
pub(super) async fn upkeep() {
    let mut ticks = tokio::time::interval(UPKEEP);
    loop {
        ticks.tick().await;
        if let Some(recorder) = RECORDER.get() {
            recorder.run_upkeep();
        }
    }
}

/// `None` where [`install`] was never called.
pub(super) fn render() -> Option<String> {
    RECORDER.get().map(PrometheusHandle::render)
}
