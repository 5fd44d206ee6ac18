//! What `GET /metrics` tells about one model's engine.

use std::time::Instant;

use metrics::{
    Counter, Gauge, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

/// Tells the recorder what each metric means. Call once, after it is installed.
pub fn describe_metrics() {
    describe_counter!("shimmy_requests_total", "Generations that were queued");
    describe_counter!("shimmy_prompt_tokens_total", "Tokens of all prompts");
    describe_counter!("shimmy_cached_tokens_total", "Prompt tokens that needed no computing");
    describe_counter!("shimmy_generated_tokens_total", "Tokens that were generated");
    describe_counter!("shimmy_cancellations_total", "Generations whose client left or stopped them");
    describe_counter!("shimmy_preemptions_total", "Times that a sequence gave its KV cells up and was computed again");
    describe_counter!("shimmy_failures_total", "Generations that ended with an error");
    describe_counter!("shimmy_guessed_tokens_total", "Tokens that --lookup or a draft model guessed");
    describe_counter!("shimmy_accepted_guesses_total", "Guesses that the model confirmed");
    describe_gauge!("shimmy_queue_length", "Generations that wait for a place");
    describe_gauge!("shimmy_sequences", "Running sequences by state");
    describe_gauge!("shimmy_kv_cells", "KV cells that running sequences hold, or that are kept for later prompts");
    describe_gauge!("shimmy_kv_cells_total", "KV cells that there are");
    describe_gauge!("shimmy_threads", "Threads that compute");
    describe_histogram!("shimmy_time_to_first_token_seconds", Unit::Seconds, "From submission to the first token");
    describe_histogram!("shimmy_inter_token_seconds", Unit::Seconds, "Between two passes that gave a sequence tokens");
    describe_histogram!("shimmy_queue_seconds", Unit::Seconds, "From submission to a place in the cache");
}

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
