//! `lon`: for people and scripts. See `lonnet::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    lonnet::cli::main()
}
