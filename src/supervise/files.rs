//! What a program's own files are called.

use config::Config;
use std::path::PathBuf;

/// `<run_dir>/<program>.pid`.
pub fn pid_file(program: &str, config: &Config) -> PathBuf {
    config.run_dir.join(format!("{program}.pid"))
}

/// `<log_dir>/<program>.log`.
pub fn log_file(program: &str, config: &Config) -> PathBuf {
    config.log_dir.join(format!("{program}.log"))
}
