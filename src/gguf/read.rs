//! From bytes to a [`Header`]. Nothing is allocated by a count that the file merely claims.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::path::Path;

use super::error::GgufError;
use super::header::{Header, TensorInfo, Value};

/// Far above any real model, low enough to stay cheap.
const MAX_KEYS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 20;
const MAX_KEY_BYTES: u64 = 1 << 16;
/// Chat templates and merges are the longest strings there are.
const MAX_STRING_BYTES: u64 = 16 << 20;
/// The largest vocabularies have a quarter of a million tokens and twice as many merges.
const MAX_STRINGS: u64 = 1 << 22;
/// All metadata and tensor descriptions together; what real models need is a tenth of it.
const MAX_HEADER_BYTES: u64 = 256 << 20;
const MAX_DIMS: u32 = 4;
const MAX_ARRAY_DEPTH: u32 = 4;

/// How much of long lists is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// All strings, and the first numbers.
    Strings,
    /// Of long lists of strings only those that look like control tokens: no vocabulary is built.
    ControlTokens,
}

pub(super) fn read(path: &Path, keep: Keep) -> Result<Header, GgufError> {
    let io = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => GgufError::NotFound(path.to_owned()),
        _ => GgufError::Io { path: path.to_owned(), error },
    };
    let file = open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    if !metadata.is_file() {
        let kind = if metadata.is_dir() { "a directory" } else { "a pipe, socket or device" };
        return Err(GgufError::Invalid { path: path.to_owned(), what: format!("is {kind}, not a GGUF file") });
    }
    let inner = Steps::new(file);
    Reader { inner, path, len: metadata.len(), at: 0, keep }.header()
}

/// Vocabularies write single bytes as `<0x0A>`, which are no control tokens.
pub(super) fn looks_like_control(token: &str) -> bool {
    (token.starts_with('<') && !token.starts_with("<0x")) || token.starts_with("▁<")
}

pub(super) fn parse(bytes: &[u8], keep: Keep) -> Result<Header, GgufError> {
    Reader { inner: bytes, path: Path::new("memory"), len: bytes.len() as u64, at: 0, keep }.header()
}

/// Opening a named pipe would wait for somebody to write to it.
fn open(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    options.open(path)
}

/// Reads a little first, which is all of a small header, and then much at once.
struct Steps<R> {
    inner: R,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
}

impl<R: Read> Steps<R> {
    const FIRST: usize = 16 << 10;
    const NEXT: usize = 256 << 10;

    fn new(inner: R) -> Self {
        Self { inner, buffer: Vec::new(), at: 0, end: 0 }
    }
}

impl<R: Read> BufRead for Steps<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.end {
            let step = if self.buffer.is_empty() { Self::FIRST } else { Self::NEXT };
            if self.buffer.len() < step {
                self.buffer = vec![0; step];
            }
            self.end = self.inner.read(&mut self.buffer)?;
            self.at = 0;
        }
        Ok(&self.buffer[self.at..self.end])
    }

    fn consume(&mut self, n: usize) {
        self.at = (self.at + n).min(self.end);
    }
}

impl<R: Read> Read for Steps<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut ready = self.fill_buf()?;
        let n = ready.read(out)?;
        self.consume(n);
        Ok(n)
    }

    fn read_exact(&mut self, out: &mut [u8]) -> io::Result<()> {
        if let Some(ready) = self.buffer[self.at..self.end].get(..out.len()) {
            out.copy_from_slice(ready);
            self.at += out.len();
            return Ok(());
        }
        let mut left = out;
        while !left.is_empty() {
            match self.read(left) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => left = &mut left[n..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

struct Reader<'a, R> {
    inner: R,
    path: &'a Path,
    /// Bytes of the file.
    len: u64,
    /// Bytes read so far.
    at: u64,
    keep: Keep,
}

impl<R: BufRead> Reader<'_, R> {
    fn header(&mut self) -> Result<Header, GgufError> {
        self.magic()?;
        let n_tensors = self.count("tensors", MAX_TENSORS)?;
        let n_keys = self.count("metadata keys", MAX_KEYS)?;
        let mut metadata = HashMap::new();
        for _ in 0..n_keys {
            let key = self.string(MAX_KEY_BYTES)?;
            let kind = self.u32()?;
            let value = self.value(kind, 0)?;
            if metadata.insert(key.clone(), value).is_some() {
                return Err(self.invalid(format!("the metadata key {key:?} occurs twice")));
            }
        }
        let mut tensors = Vec::new();
        for _ in 0..n_tensors {
            tensors.push(self.tensor()?);
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::U32(n)) if n.is_power_of_two() => u64::from(*n),
            Some(other) => {
                return Err(self.invalid(format!("general.alignment is {other:?}; it must be a power of two")));
            }
        };
        let data_offset = self.at.next_multiple_of(alignment);
        Ok(Header::new(self.path.to_owned(), self.len, metadata, tensors, data_offset, alignment))
    }

    fn magic(&mut self) -> Result<(), GgufError> {
        let mut start = [0; 4];
        let n = self.inner.read(&mut start).map_err(|error| GgufError::Io { path: self.path.to_owned(), error })?;
        if &start != b"GGUF" {
            let start = String::from_utf8_lossy(&start[..n]).into_owned();
            return Err(GgufError::NotGguf { path: self.path.to_owned(), start });
        }
        self.at = 4;
        match self.u32()? {
            2 | 3 => Ok(()),
            swapped if matches!(swapped.swap_bytes(), 2 | 3) => {
                Err(self.invalid("written for a big-endian machine; convert the model again for this one".into()))
            }
            version => Err(GgufError::Version { path: self.path.to_owned(), version }),
        }
    }

    fn tensor(&mut self) -> Result<TensorInfo, GgufError> {
        let name = self.string(MAX_KEY_BYTES)?;
        let n_dims = self.u32()?;
        if n_dims > MAX_DIMS {
            return Err(
                self.invalid(format!("tensor {name:?} has {n_dims} dimensions; at most {MAX_DIMS} are allowed"))
            );
        }
        let dims = (0..n_dims).map(|_| self.u64()).collect::<Result<Vec<_>, _>>()?;
        let type_id = self.u32()?;
        let offset = self.u64()?;
        Ok(TensorInfo { name, dims, type_id, offset })
    }

    fn value(&mut self, kind: u32, depth: u32) -> Result<Value, GgufError> {
        Ok(match kind {
            0 => Value::U8(self.array::<1>()?[0]),
            1 => Value::I8(i8::from_le_bytes(self.array()?)),
            2 => Value::U16(u16::from_le_bytes(self.array()?)),
            3 => Value::I16(i16::from_le_bytes(self.array()?)),
            4 => Value::U32(self.u32()?),
            5 => Value::I32(i32::from_le_bytes(self.array()?)),
            6 => Value::F32(f32::from_le_bytes(self.array()?)),
            7 => Value::Bool(self.array::<1>()?[0] != 0),
            8 => Value::String(self.string(MAX_STRING_BYTES)?),
            9 => self.list(depth)?,
            10 => Value::U64(self.u64()?),
            11 => Value::I64(i64::from_le_bytes(self.array()?)),
            12 => Value::F64(f64::from_le_bytes(self.array()?)),
            kind => return Err(self.invalid(format!("a metadata value has the unknown type {kind}"))),
        })
    }

    /// Arrays of strings are kept; of those of numbers only type and length, since nothing asks for more.
    fn list(&mut self, depth: u32) -> Result<Value, GgufError> {
        if depth >= MAX_ARRAY_DEPTH {
            return Err(self.invalid("metadata arrays are nested too deep".into()));
        }
        let kind = self.u32()?;
        let n = self.u64()?;
        let smallest: u64 = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => 12,
            kind => return Err(self.invalid(format!("a metadata array has the unknown type {kind}"))),
        };
        /// Of a longer list of strings only control tokens are kept, where no vocabulary is built.
        const SHORT: u64 = 64;
        self.need(n.saturating_mul(smallest))?;
        match kind {
            8 if n > MAX_STRINGS => {
                Err(self.invalid(format!("a list claims {n} strings; at most {MAX_STRINGS} are allowed")))
            }
            8 if self.keep == Keep::ControlTokens && n > SHORT => self.control_tokens(n),
            8 => Ok(Value::Strings((0..n).map(|_| self.string(MAX_STRING_BYTES)).collect::<Result<_, _>>()?)),
            9 => {
                for _ in 0..n {
                    self.list(depth + 1)?;
                }
                Ok(Value::Array { kind, len: n, control_tokens: Vec::new() })
            }
            kind => {
                self.skip(n.saturating_mul(smallest))?;
                Ok(Value::Array { kind, len: n, control_tokens: Vec::new() })
            }
        }
    }

    /// Strings such as `<|fim_prefix|>`, of a list of `n`.
    fn control_tokens(&mut self, n: u64) -> Result<Value, GgufError> {
        const LONGEST: u64 = 32;
        let mut control_tokens = Vec::new();
        for _ in 0..n {
            let len = self.string_len(MAX_STRING_BYTES)?;
            if len > LONGEST {
                self.skip(len)?;
                continue;
            }
            let mut bytes = [0; LONGEST as usize];
            let bytes = &mut bytes[..usize::try_from(len).unwrap_or(0)];
            self.fill(bytes)?;
            if bytes.starts_with(b"<") || bytes.starts_with("▁<".as_bytes()) {
                let text = std::str::from_utf8(bytes).ok().filter(|text| looks_like_control(text));
                control_tokens.extend(text.map(str::to_owned));
            }
        }
        Ok(Value::Array { kind: 8, len: n, control_tokens })
    }

    fn string_len(&mut self, limit: u64) -> Result<u64, GgufError> {
        let n = self.u64()?;
        if n > limit {
            return Err(self.invalid(format!("a string claims {n} bytes; at most {limit} are allowed")));
        }
        self.need(n)?;
        Ok(n)
    }

    fn string(&mut self, limit: u64) -> Result<String, GgufError> {
        let n = self.string_len(limit)?;
        let mut bytes = vec![0; usize::try_from(n).unwrap_or(0)];
        self.fill(&mut bytes)?;
        // Some vocabularies hold bytes that are no UTF-8. They only have to stay apart from each other and from text.
        Ok(String::from_utf8(bytes).unwrap_or_else(|error| {
            let bytes = error.into_bytes();
            std::iter::once(char::REPLACEMENT_CHARACTER).chain(bytes.iter().map(|byte| char::from(*byte))).collect()
        }))
    }

    fn count(&mut self, what: &str, limit: u64) -> Result<u64, GgufError> {
        let n = self.u64()?;
        if n > limit {
            return Err(self.invalid(format!("the header claims {n} {what}; at most {limit} are allowed")));
        }
        Ok(n)
    }

    fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), GgufError> {
        self.need(bytes.len() as u64)?;
        self.inner.read_exact(bytes).map_err(|error| GgufError::Io { path: self.path.to_owned(), error })?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    fn skip(&mut self, n: u64) -> Result<(), GgufError> {
        self.need(n)?;
        let mut left = n;
        while left > 0 {
            let buffered =
                self.inner.fill_buf().map_err(|error| GgufError::Io { path: self.path.to_owned(), error })?.len();
            if buffered == 0 {
                return Err(GgufError::Truncated { path: self.path.to_owned(), expected: self.at + n, found: self.at });
            }
            let taken = buffered.min(usize::try_from(left).unwrap_or(buffered));
            self.inner.consume(taken);
            left -= taken as u64;
        }
        self.at += n;
        Ok(())
    }

    /// Fails where fewer than `n` bytes are left.
    fn need(&self, n: u64) -> Result<(), GgufError> {
        let expected = self.at.saturating_add(n);
        if expected > MAX_HEADER_BYTES && expected <= self.len {
            return Err(self.invalid(format!("its header claims more than {} MiB", MAX_HEADER_BYTES >> 20)));
        }
        if expected > self.len {
            return Err(GgufError::Truncated { path: self.path.to_owned(), expected, found: self.len });
        }
        Ok(())
    }

    fn invalid(&self, what: String) -> GgufError {
        GgufError::Invalid { path: self.path.to_owned(), what }
    }
}
