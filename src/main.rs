//! The program.

use std::process::ExitCode;

fn main() -> ExitCode {
    neuralrg::cli::main()
}
