//! A load generator: runs one kind of work against a server and prints what it measured as a JSON object.
//!
//!     load shimmy|llama-server ADDRESS WORK [SALT]
//!
//! WORK is `single`, `distinct`, `template`, `shared`, `chat`, `stall`, `streams-N` or `first`, and against a stub `overhead` or `events`. The same SALT gives the same prompts again, which
//! then are warm. Both servers get the same text and are told to go on to the same number of tokens; tokens are those
//! that the server itself counted.

use std::error::Error;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

type Failure = Box<dyn Error + Send + Sync>;

#[derive(Clone, Copy, PartialEq)]
enum Api {
    Shimmy,
    LlamaServer,
}

/// What one request took.
#[derive(Debug)]
struct Run {
    begun: Instant,
    /// When each piece of text came.
    pieces: Vec<Instant>,
    tokens: u64,
    prompt_tokens: u64,
    cached_tokens: u64,
    text: String,
}

#[derive(Clone)]
struct Server {
    api: Api,
    address: String,
    model: String,
}

impl Server {
    fn request(&self, prompt: &str, max_tokens: u32) -> (&'static str, Value) {
        match self.api {
            Api::Shimmy => (
                "/api/generate",
                json!({ "model": self.model, "prompt": prompt, "raw": true, "max_tokens": max_tokens, "temperature": 0,
                    "ignore_eos": true, "stream": true, "stream_options": { "include_usage": true } }),
            ),
            Api::LlamaServer => (
                "/completion",
                json!({ "prompt": prompt, "n_predict": max_tokens, "temperature": 0, "ignore_eos": true, "stream": true,
                    "cache_prompt": true }),
            ),
        }
    }

    async fn run(&self, prompt: &str, max_tokens: u32) -> Result<Run, Failure> {
        let (path, body) = self.request(prompt, max_tokens);
        let begun = Instant::now();
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = hyper::Request::post(path)
            .header("host", &self.address)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))?;
        let mut response = sender.send_request(request).await?;
        if !response.status().is_success() {
            let status = response.status();
            let body = response.into_body().collect().await?.to_bytes();
            return Err(format!("{status}: {}", String::from_utf8_lossy(&body)).into());
        }
        let mut run =
            Run { begun, pieces: Vec::new(), tokens: 0, prompt_tokens: 0, cached_tokens: 0, text: String::new() };
        let mut unread = Vec::new();
        while let Some(frame) = response.body_mut().frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            let now = Instant::now();
            unread.extend_from_slice(&data);
            while let Some(end) = unread.windows(2).position(|pair| pair == b"\n\n") {
                let event: Vec<u8> = unread.drain(..end + 2).collect();
                self.take(&String::from_utf8_lossy(&event[..end]), now, &mut run)?;
            }
        }
        if run.tokens == 0 {
            return Err("the stream ended without a count of its tokens".into());
        }
        Ok(run)
    }

    fn take(&self, event: &str, now: Instant, run: &mut Run) -> Result<(), Failure> {
        let mut text = String::new();
        for (number, line) in event.lines().filter_map(|line| line.strip_prefix("data: ")).enumerate() {
            let _ = write!(text, "{}{line}", if number > 0 { "\n" } else { "" });
        }
        if self.api == Api::Shimmy {
            if event.starts_with("event: usage") {
                let usage = &serde_json::from_str::<Value>(&text)?["usage"];
                let count = |name| usage[name].as_u64().unwrap_or(0);
                run.tokens = count("completion_tokens");
                (run.prompt_tokens, run.cached_tokens) = (count("prompt_tokens"), count("cached_tokens"));
            } else if event.starts_with("event: error") {
                return Err(text.into());
            } else if text != "[DONE]" {
                run.pieces.push(now);
                run.text.push_str(&text);
            }
            return Ok(());
        }
        let value: Value = serde_json::from_str(&text)?;
        if let Some(count) = value["tokens_predicted"].as_u64().filter(|_| value["stop"] == true) {
            run.tokens = count;
            run.cached_tokens = value["timings"]["cache_n"].as_u64().unwrap_or(0);
            run.prompt_tokens = run.cached_tokens + value["timings"]["prompt_n"].as_u64().unwrap_or(0);
        } else if let Some(piece) = value["content"].as_str().filter(|piece| !piece.is_empty()) {
            run.pieces.push(now);
            run.text.push_str(piece);
        }
        Ok(())
    }
}

const WORDS: &[&str] = &[
    "river",
    "stone",
    "market",
    "window",
    "garden",
    "letter",
    "winter",
    "summer",
    "paper",
    "silver",
    "bridge",
    "forest",
    "engine",
    "music",
    "harbor",
    "candle",
    "mirror",
    "island",
    "valley",
    "planet",
    "teacher",
    "doctor",
    "farmer",
    "sailor",
    "painter",
    "morning",
    "evening",
    "shadow",
    "thunder",
    "copper",
    "velvet",
    "marble",
    "orange",
    "purple",
    "yellow",
    "green",
    "quiet",
    "gentle",
    "rapid",
    "ancient",
    "modern",
    "hidden",
    "broken",
    "golden",
    "empty",
    "heavy",
    "narrow",
    "walks",
    "sings",
    "builds",
    "carries",
    "follows",
    "answers",
    "remembers",
    "discovers",
    "measures",
    "opens",
    "closes",
];

/// `n` words that follow from `seed`.
fn words(seed: u64, n: usize) -> String {
    let mut rng = fastrand::Rng::with_seed(seed);
    let all: Vec<&str> = (0..n).map(|_| WORDS[rng.usize(0..WORDS.len())]).collect();
    all.join(" ")
}

/// Runs all prompts with at most `clients` at a time, in order.
async fn run_all(server: &Server, clients: usize, prompts: Vec<String>, max_tokens: u32) -> Result<Vec<Run>, Failure> {
    let queue = std::sync::Arc::new(std::sync::Mutex::new(prompts.into_iter()));
    let workers: Vec<_> = (0..clients)
        .map(|_| {
            let (server, queue) = (server.clone(), queue.clone());
            tokio::spawn(async move {
                let mut runs = Vec::new();
                loop {
                    let prompt = queue.lock().map_err(|e| e.to_string())?.next();
                    let Some(prompt) = prompt else { return Ok::<_, Failure>(runs) };
                    runs.push(server.run(&prompt, max_tokens).await?);
                }
            })
        })
        .collect();
    let mut runs = Vec::new();
    for worker in workers {
        runs.extend(worker.await??);
    }
    Ok(runs)
}

/// `conversations` at the same time, each turn with all that was said before.
async fn chat(server: &Server, salt: u64, conversations: u64, turns: u64) -> Result<Vec<Run>, Failure> {
    let tasks: Vec<_> = (0..conversations)
        .map(|conversation| {
            let server = server.clone();
            tokio::spawn(async move {
                let mut runs = Vec::new();
                let mut text = String::new();
                for turn in 0..turns {
                    let question = words(salt * 10_000 + conversation * 100 + turn, 30);
                    let _ = write!(text, "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n");
                    let run = server.run(&text, 32).await?;
                    let _ = writeln!(text, "{}<|im_end|>", run.text);
                    runs.push(run);
                }
                Ok::<_, Failure>(runs)
            })
        })
        .collect();
    let mut runs = Vec::new();
    for task in tasks {
        runs.extend(task.await??);
    }
    Ok(runs)
}

/// Four streams, and a prompt of about 4,000 tokens that arrives while they run. Only gaps from then on count.
async fn stall(server: &Server, salt: u64) -> Result<Value, Failure> {
    let streams: Vec<_> = (0..4)
        .map(|n| {
            let server = server.clone();
            tokio::spawn(async move { server.run(&words(salt + n, 20), 700).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let arrives = Instant::now();
    let long = server.run(&words(salt + 99, 4000), 1).await?;
    let through = Instant::now();
    let mut gaps = Vec::new();
    let mut before = Vec::new();
    for stream in streams {
        let run = stream.await??;
        for pair in run.pieces.windows(2) {
            let gap = ms(pair[1] - pair[0]);
            if pair[1] > arrives && pair[0] < through {
                gaps.push(gap);
            } else if pair[1] <= arrives {
                before.push(gap);
            }
        }
    }
    if gaps.len() < 8 {
        return Err("the streams ended before the long prompt came".into());
    }
    Ok(json!({
        "worst_gap_ms": percentile(&mut gaps, 1.0),
        "gap_p50_ms": percentile(&mut gaps, 0.5),
        "undisturbed_gap_p50_ms": percentile(&mut before, 0.5),
        "long_prompt_ttft_ms": long.pieces.first().map(|first| ms(*first - long.begun)),
    }))
}

/// Small requests one after the other on one connection: what a request costs beside the model.
async fn overhead(server: &Server) -> Result<Value, Failure> {
    let stream = TcpStream::connect(&server.address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut took = Vec::new();
    for n in 0..3000 {
        let body = json!({ "model": server.model, "prompt": format!("hello {n}"), "max_tokens": 1 });
        let request = hyper::Request::post("/api/generate")
            .header("host", &server.address)
            .body(Full::new(Bytes::from(body.to_string())))?;
        let begun = Instant::now();
        let response = sender.send_request(request).await?;
        response.into_body().collect().await?;
        took.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    let mut took = took.split_off(500);
    Ok(json!({ "request_p50_us": percentile(&mut took, 0.5), "request_p99_us": percentile(&mut took, 0.99) }))
}

/// One long stream from a model that takes no time.
async fn events(server: &Server) -> Result<Value, Failure> {
    const EVENTS: u32 = 500_000;
    let run = server.run("stub:endless", EVENTS).await?;
    let took = *run.pieces.last().ok_or("nothing came")? - run.begun;
    Ok(json!({ "events": run.pieces.len(), "events_per_second": f64::from(EVENTS) / took.as_secs_f64() }))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn percentile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let index = ((values.len() as f64 * share).ceil() as usize).clamp(1, values.len().max(1)) - 1;
    values.get(index).copied().unwrap_or(f64::NAN)
}

#[allow(clippy::cast_precision_loss)]
fn report(runs: &[Run], wall: Duration) -> Value {
    let tokens: u64 = runs.iter().map(|run| run.tokens).sum();
    let mut ttft: Vec<f64> = runs.iter().filter_map(|run| Some(ms(*run.pieces.first()? - run.begun))).collect();
    let mut gaps: Vec<f64> =
        runs.iter().flat_map(|run| run.pieces.windows(2).map(|pair| ms(pair[1] - pair[0]))).collect();
    let mut speeds: Vec<f64> = runs
        .iter()
        .filter_map(|run| {
            let took = (*run.pieces.last()? - *run.pieces.first()?).as_secs_f64();
            (run.tokens > 1 && took > 0.0).then(|| (run.tokens - 1) as f64 / took)
        })
        .collect();
    json!({
        "requests": runs.len(),
        "tokens": tokens,
        "prompt_tokens": runs.iter().map(|run| run.prompt_tokens).sum::<u64>(),
        "cached_tokens": runs.iter().map(|run| run.cached_tokens).sum::<u64>(),
        "wall_s": wall.as_secs_f64(),
        "tokens_per_second": tokens as f64 / wall.as_secs_f64(),
        "decode_tokens_per_second": percentile(&mut speeds, 0.5),
        "ttft_p50_ms": percentile(&mut ttft, 0.5),
        "ttft_p95_ms": percentile(&mut ttft, 0.95),
        "gap_p50_ms": percentile(&mut gaps, 0.5),
        "gap_p99_ms": percentile(&mut gaps, 0.99),
        "worst_gap_ms": percentile(&mut gaps, 1.0),
    })
}

/// `streams-N`: as many clients at the same time, each with a text of its own.
async fn streams(server: &Server, salt: u64, count: &str) -> Result<Vec<Run>, Failure> {
    let count: usize = count.parse()?;
    let prompts = (0..count as u64).map(|n| words(salt * 1000 + n, 40)).collect();
    run_all(server, count, prompts, 128).await
}

/// What SmolLM2's chat template puts around one user turn.
const TEMPLATE_HEAD: &str = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n<|im_start|>user\n";
const TEMPLATE_TAIL: &str = "<|im_end|>\n<|im_start|>assistant\n";

async fn work(server: &Server, name: &str, salt: u64) -> Result<Value, Failure> {
    let begun = Instant::now();
    let runs = match name {
        "first" => run_all(server, 1, vec![words(salt, 12)], 1).await?,
        "single" => run_all(server, 1, (0..3).map(|n| words(salt * 100 + n, 12)).collect(), 128).await?,
        "distinct" => run_all(server, 16, (0..32).map(|n| words(salt * 100 + n, 40)).collect(), 64).await?,
        "shared" => {
            let stem = words(salt, 600);
            let prompts = (0..32).map(|n| format!("{stem} {}", words(salt * 100 + n + 1, 16))).collect();
            run_all(server, 16, prompts, 32).await?
        }
        "chat" => chat(server, salt, 8, 6).await?,
        "template" => {
            let prompt = |n| format!("{TEMPLATE_HEAD}{}{TEMPLATE_TAIL}", words(salt * 100 + n, 40));
            run_all(server, 16, (0..32).map(prompt).collect(), 64).await?
        }
        name if name.starts_with("streams-") => streams(server, salt, &name["streams-".len()..]).await?,
        "stall" => return stall(server, salt).await,
        "overhead" => return overhead(server).await,
        "events" => return events(server).await,
        other => return Err(format!("there is no work {other:?}").into()),
    };
    Ok(report(&runs, begun.elapsed()))
}

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [api, address, name, more @ ..] = args.as_slice() else {
        return Err("usage: load shimmy|llama-server ADDRESS WORK [SALT]".into());
    };
    let api = match api.as_str() {
        "shimmy" => Api::Shimmy,
        "llama-server" => Api::LlamaServer,
        other => return Err(format!("there is no API {other:?}").into()),
    };
    let salt = more.first().map_or(Ok(1), |salt| salt.parse())?;
    let model = std::env::var("LOAD_MODEL").unwrap_or_else(|_| "default".into());
    let server = Server { api, address: address.clone(), model };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    println!("{}", runtime.block_on(work(&server, name, salt))?);
    Ok(())
}
