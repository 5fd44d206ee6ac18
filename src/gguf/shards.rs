//! Models in several files: `name-00001-of-00004.gguf` and so on, each with tensors of its own.

use std::path::{Path, PathBuf};

use super::error::GgufError;
use super::header::{Header, Value};

/// The files of the model whose first file this is, itself included.
///
/// # Errors
/// [`GgufError::Invalid`] where the file is not the first, or its name does not say which it is.
pub fn shards(first: &Header) -> Result<Vec<PathBuf>, GgufError> {
    let count = first.split_count();
    if count <= 1 {
        return Ok(vec![first.path().to_owned()]);
    }
    let invalid = |what: String| GgufError::Invalid { path: first.path().to_owned(), what };
    if count > u64::from(u16::MAX) {
        return Err(invalid(format!("split.count is {count}; at most {} parts are possible", u16::MAX)));
    }
    if first.get("split.no").and_then(Value::as_u64) != Some(0) {
        return Err(invalid(format!(
            "is a later part of {count}; give the first, which ends in -00001-of-{count:05}.gguf"
        )));
    }
    let name = first.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
    let suffix = format!("-00001-of-{count:05}.gguf");
    let Some(stem) = name.strip_suffix(&suffix) else {
        return Err(invalid(format!("says that it is the first of {count} parts; its name must end in {suffix}")));
    };
    Ok((1..=count)
        .map(|number| first.path().with_file_name(format!("{stem}-{number:05}-of-{count:05}.gguf")))
        .collect())
}

/// Reads and checks the later parts.
pub(super) fn check_later(first: &Header) -> Result<(), GgufError> {
    for (number, path) in shards(first)?.iter().enumerate().skip(1) {
        check_one(path, number as u64)?;
    }
    Ok(())
}

fn check_one(path: &Path, number: u64) -> Result<(), GgufError> {
    let header = Header::open(path)?;
    // llama.cpp reads it with a getter that aborts on another type.
    match header.get("split.no") {
        Some(Value::U16(found)) if u64::from(*found) == number => {}
        found => {
            let what = format!("split.no must be {number}, found {found:?}; download this part again");
            return Err(GgufError::Invalid { path: path.to_owned(), what });
        }
    }
    super::validate::check_tensors(&header)
}
