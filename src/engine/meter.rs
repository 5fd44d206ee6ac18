//! What `GET /metrics` tells about one model's engine.

use std::time::Instant;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

/// Handles are looked up once; recording through them is a few atomic operations.
pub(super) struct Meter {
    pub requests: Counter,
    pub prompt_tokens: Counter,
    pub cached_tokens: Counter,
    pub generated_tokens: Counter,
    pub cancelled: Counter,
    pub preempted: Counter,
    pub failed: Counter,
    pub guessed_tokens: Counter,
    pub accepted_guesses: Counter,
    pub waiting: Gauge,
    pub prefilling: Gauge,
    pub decoding: Gauge,
    pub paused: Gauge,
    pub cells_running: Gauge,
    pub cells_cached: Gauge,
    pub cells_total: Gauge,
    pub threads: Gauge,
    pub ttft: Histogram,
    pub inter_token: Histogram,
    pub queued: Histogram,
    /// When the gauges were set.
    pub gauged: Option<Instant>,
}

impl Meter {
    pub fn new(model: &str) -> Self {
        let model = || model.to_owned();
        let sequences = |state: &'static str| gauge!("shimmy_sequences", "model" => model(), "state" => state);
        let cells = |state: &'static str| gauge!("shimmy_kv_cells", "model" => model(), "state" => state);
        Self {
            requests: counter!("shimmy_requests_total", "model" => model()),
            prompt_tokens: counter!("shimmy_prompt_tokens_total", "model" => model()),
            cached_tokens: counter!("shimmy_cached_tokens_total", "model" => model()),
            generated_tokens: counter!("shimmy_generated_tokens_total", "model" => model()),
            cancelled: counter!("shimmy_cancellations_total", "model" => model()),
            preempted: counter!("shimmy_preemptions_total", "model" => model()),
            failed: counter!("shimmy_failures_total", "model" => model()),
            guessed_tokens: counter!("shimmy_guessed_tokens_total", "model" => model()),
            accepted_guesses: counter!("shimmy_accepted_guesses_total", "model" => model()),
            waiting: gauge!("shimmy_queue_length", "model" => model()),
            prefilling: sequences("prefilling"),
            decoding: sequences("decoding"),
            paused: sequences("paused"),
            cells_running: cells("running"),
            cells_cached: cells("cached"),
            cells_total: gauge!("shimmy_kv_cells_total", "model" => model()),
            threads: gauge!("shimmy_threads", "model" => model()),
            ttft: histogram!("shimmy_time_to_first_token_seconds", "model" => model()),
            inter_token: histogram!("shimmy_inter_token_seconds", "model" => model()),
            queued: histogram!("shimmy_queue_seconds", "model" => model()),
            gauged: None,
        }
    }
}

impl std::fmt::Debug for Meter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Meter")
    }
}
