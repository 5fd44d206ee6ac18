//! The `shimmy` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    shimmy::cli::main()
}
