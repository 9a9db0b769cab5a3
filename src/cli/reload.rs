//! `lon reload`: has the running `lonc`, `lond` and `lonsvc` read their configuration again; links
//! and services that it does not change stay.
//!
//! Exit code 0 when every one that runs has taken it over; 1 when one has not, and then each
//! problem stands on standard error as `file:line: what`, and that program goes on as before; 1 as
//! well when none runs. A configuration that is wrong is reported without asking anyone. Warnings
//! are said once, by `lon` itself.

use super::admin::{ask, is_away};
use super::{Failure, complain, print};
use config::Config;
use supervise::reload::{ERROR, RELOADED};

pub(super) fn run(config: &Config) -> Result<u8, Failure> {
    for warning in &config.warnings {
        complain(format_args!("warning: {warning}"));
    }
    let (mut running, mut failed) = (false, false);
    for program in ["lonc", "lond", "lonsvc"] {
        let socket = config.run_dir.join(format!("{program}.sock"));
        match ask(&socket, "reload") {
            Ok(answer) => {
                running = true;
                failed |= !tell(program, &String::from_utf8_lossy(&answer))?;
            }
            Err(error) if is_away(&error) && program == "lonsvc" && config.services.is_empty() => {}
            Err(error) if is_away(&error) => {
                complain(format_args!("{program} does not run: {}", socket.display()))
            }
            Err(error) => {
                (running, failed) = (true, true);
                complain(format_args!("ask {}: {error}", socket.display()));
            }
        }
    }
    if !running {
        let folder = config.run_dir.display();
        complain(format_args!("nothing to reload; if run_dir is new ({folder}), stop and start instead"));
    }
    Ok(u8::from(failed || !running))
}

/// Prints an answer; whether the configuration was taken over.
fn tell(program: &str, answer: &str) -> Result<bool, Failure> {
    let mut taken_over = false;
    for line in answer.lines() {
        if let Some(problem) = line.strip_prefix(ERROR) {
            complain(format_args!("{program}: {problem}"));
        } else {
            taken_over |= line.starts_with(RELOADED);
            print(format!("{program}: {line}\n").as_bytes())?;
        }
    }
    if !taken_over {
        complain(format_args!("{program}: the old configuration stays"));
    }
    Ok(taken_over)
}
