//! Starting `shimmy serve`, and talking to it in bytes.

#[cfg(feature = "llama")]
pub mod tiny;
#[cfg(feature = "llama")]
pub mod vision;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const BINARY: &str = env!("CARGO_BIN_EXE_shimmy");

/// The name under which the default model is served: the real one, or the stub where there is no llama.cpp.
pub const MODEL: &str = if cfg!(feature = "llama") { "smollm2-135m-instruct" } else { "stub" };

/// SmolLM2-135M-Instruct, as `make models` leaves it.
#[allow(dead_code)]
pub fn smollm2() -> PathBuf {
    cached("smollm2-135m-instruct.q4_1.gguf")
}

/// A file of shimmy's model cache.
#[allow(dead_code)]
pub fn cached(file: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"), PathBuf::from);
    let path = cache.join("shimmy/models").join(file);
    assert!(path.is_file(), "{} is missing; `make models` fetches it", path.display());
    path
}

/// The binary, with an environment that does not reach into the developer's own models.
pub fn shimmy() -> Command {
    let mut command = Command::new(BINARY);
    for key in [
        "SHIMMY_BASE_GGUF",
        "SHIMMY_LORA_GGUF",
        "SHIMMY_MODEL_PATHS",
        "HF_HOME",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "SHIMMY_BIND_ADDRESS",
        "SHIMMY_BACKEND_DIR",
        "SHIMMY_API_KEY",
        "SHIMMY_API_KEY_FILE",
        "SHIMMY_ALLOW_HOST",
        "SHIMMY_ALLOW_ORIGIN",
        "SHIMMY_CONFIG",
        "XDG_CONFIG_HOME",
    ] {
        command.env_remove(key);
    }
    // The usual places of models and keys lie below these, but for that of Ollama's service.
    command.env("HOME", "/nonexistent").env_remove("XDG_CACHE_HOME").env_remove("XDG_CONFIG_HOME");
    command.env("OLLAMA_MODELS", "/nonexistent");
    // Tests run side by side; compute threads that spin on a shared core would slow each other down many times.
    command.env("SHIMMY_THREADS", "1");
    command.stdin(Stdio::null());
    command
}

#[allow(dead_code)]
pub fn run(args: &[&str]) -> Output {
    shimmy().args(args).output().unwrap()
}

#[allow(dead_code)]
pub fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[allow(dead_code)]
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running `shimmy serve`. Ended when dropped.
pub struct Server {
    pub child: Child,
    pub address: String,
}

impl Server {
    /// Serves the default model on a free port of the loopback interface.
    pub fn start() -> Self {
        Self::with(&[])
    }

    pub fn with(args: &[&str]) -> Self {
        let mut command = shimmy();
        command.args(["serve", "--bind", "127.0.0.1:0"]).args(args);
        #[cfg(feature = "llama")]
        if !args.contains(&"--model") {
            command.args(["--model", smollm2().to_str().unwrap()]);
        }
        Self::spawn(command)
    }

    pub fn spawn(command: Command) -> Self {
        Self::spawn_with(command, Stdio::inherit())
    }

    /// As [`Self::spawn`], with a place for the log.
    pub fn spawn_with(mut command: Command, log: Stdio) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.split("http://").nth(1).and_then(|rest| rest.split_whitespace().next());
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}")).to_owned();
        Self { child, address }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends a request and reads the whole answer, up to the connection's end.
    pub fn raw(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        answer
    }

    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        Answer::parse(&self.raw(http_request(&self.address, method, path, headers, body.as_bytes()).as_slice()))
    }

    #[allow(dead_code)]
    pub fn post(&self, path: &str, body: &serde_json::Value) -> Answer {
        self.request("POST", path, &[], &body.to_string())
    }

    #[allow(dead_code)]
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "")
    }

    /// Sum of a metric over all of its labels that hold `label`.
    #[allow(dead_code)]
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let text = self.get("/metrics").text();
        let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
    }

    /// Waits until a metric has this value: gauges are set up to a tenth of a second late.
    #[allow(dead_code)]
    pub fn settles(&self, name: &str, label: &str, wanted: f64) {
        for _ in 0..100 {
            if self.metric(name, label) == wanted {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("{name}{{{label}}} does not become {wanted}:\n{}", self.get("/metrics").text());
    }

    /// Memory of the process that is resident, in MiB; 0 where the system does not tell.
    #[allow(dead_code)]
    pub fn resident_mb(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or_default() >> 10
    }

    /// SIGTERM, as a service manager sends it.
    #[cfg(unix)]
    pub fn terminate(&self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for the process to end by itself and returns its exit code.
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the server did not end within {limit:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn http_request(host: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// A parsed HTTP answer. A chunked body is put together again.
#[derive(Debug)]
#[allow(dead_code)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn parse(bytes: &[u8]) -> Self {
        let end =
            bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("no header end in {bytes:?}"));
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let raw = &bytes[end + 4..];
        let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        Self { status, body: if chunked { dechunk(raw) } else { raw.to_vec() }, head }
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The value of a header; `None` where it is not there.
    #[allow(dead_code)]
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        headers.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    #[allow(dead_code)]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {:?}", self.text()))
    }
}

fn dechunk(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = raw.windows(2).position(|w| w == b"\r\n").expect("a chunk's size");
        let size = usize::from_str_radix(std::str::from_utf8(&raw[..line]).unwrap(), 16).unwrap();
        if size == 0 {
            return body;
        }
        body.extend_from_slice(&raw[line + 2..line + 2 + size]);
        raw = &raw[line + 2 + size + 2..];
    }
}
