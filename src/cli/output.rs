//! Tables, progress and errors.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::placement::PlacementError;
use crate::registry::{Lease, Registry, RegistryError, UnknownDevice};
use crate::runner::LoadError;
use crate::server::access::AccessError;

/// Prints an error and its causes to stderr.
pub(super) fn error(error: &anyhow::Error) {
    let label = if std::io::stderr().is_terminal() { "\x1b[1;31merror\x1b[0m" } else { "error" };
    eprintln!("{label}: {error:#}");
}

/// 2 where the rules of access do not do or a device is not there that was named, 3 where a model cannot run where it was asked to, else `other`.
pub(super) fn exit_code(error: &anyhow::Error, other: ExitCode) -> ExitCode {
    if error.is::<AccessError>() || error.is::<UnknownDevice>() {
        return ExitCode::from(2);
    }
    let load = error.downcast_ref::<RegistryError>().is_some_and(|error| {
        matches!(error, RegistryError::Load { error: LoadError::Placement(_), .. } | RegistryError::TooLarge { .. })
    });
    if load || error.is::<PlacementError>() { ExitCode::from(3) } else { other }
}

pub(super) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}

/// A table with aligned columns and no frame. `numbers` are the columns to align to the right.
pub(super) fn table(headers: &[&str], numbers: &[usize], rows: Vec<Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headers);
    table.add_rows(rows);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if numbers.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Writes lines to stdout; a closed pipe is an error that `main` takes for success.
pub(super) fn print(text: impl std::fmt::Display) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in text.to_string().lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    out.flush()?;
    Ok(())
}

pub(super) fn print_json(value: &serde_json::Value) -> anyhow::Result<()> {
    print(serde_json::to_string_pretty(value)?)
}

/// Loads a model and shows how far it is: a bar on a terminal, a line where not.
pub(super) fn load(registry: &Registry, name: &str) -> anyhow::Result<Lease> {
    let size = registry.status(name)?.size_bytes;
    let start = Instant::now();
    let bar = load_bar(size);
    // A file that is not there has none, and its error says so.
    if bar.is_hidden() && size > 0 {
        eprintln!("loading {name} ({})", bytes(size));
    }
    let lease = registry.acquire_with_progress(name, &mut |fraction| {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        bar.set_position((f64::from(fraction) * size as f64) as u64);
        true
    });
    bar.finish_and_clear();
    let lease = lease?;
    let info = lease.runner().info();
    eprintln!("loaded {name} in {} ({})", seconds(start.elapsed()), info.placement);
    Ok(lease)
}

fn load_bar(size: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr());
    if let Ok(style) =
        ProgressStyle::with_template("loading {wide_bar:.cyan} {percent:>3}%  {bytes_per_sec}  {eta} left")
    {
        bar.set_style(style);
    }
    bar
}

/// `98.4 MB`, in powers of ten as file managers and hubs count.
#[allow(clippy::cast_precision_loss)]
pub(super) fn bytes(n: u64) -> String {
    let n = n as f64;
    for (unit, name) in [(1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")] {
        if n >= unit {
            return format!("{:.1} {name}", n / unit);
        }
    }
    format!("{n} B")
}

/// `135 M`, `7.2 B`.
#[allow(clippy::cast_precision_loss)]
pub(super) fn count(n: u64) -> String {
    let n = n as f64;
    if n >= 1e9 { format!("{:.1} B", n / 1e9) } else { format!("{:.0} M", n / 1e6) }
}

pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::{bytes, count};

    #[test]
    fn sizes_read_well() {
        assert_eq!(bytes(98_362_432), "98.4 MB");
        assert_eq!(bytes(12), "12 B");
        assert_eq!(count(134_515_008), "135 M");
        assert_eq!(count(7_241_732_096), "7.2 B");
    }
}
