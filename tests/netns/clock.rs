//! The clock of a machine is set, by hours and by years, forwards and backwards, while everything
//! runs. Timers, links, TLS and the order of messages are not its business, and what people are
//! shown stays true.
//!
//! The machine's clock is never touched: `clock.c` stands between the programs and the C library.

use crate::common::preload;
use crate::common::wait;
use crate::world::{Site, World, time_of};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Lines that each log may have.
const LOG_LINES: usize = 60;
const HOUR: i64 = 3600;
const YEAR: i64 = 365 * 24 * HOUR;
/// What no run of a test comes near.
const LONG_AGO: i64 = HOUR / 2;

/// The clock of one host, as far ahead of the machine's as was said last.
struct Clock(PathBuf);

impl Clock {
    /// The programs of a host go by it from now on. Nothing where there can be none.
    fn of(site: &mut Site) -> Option<Clock> {
        let library = preload::library("netns/clock.c", &site.host.dir)?;
        let clock = Clock(site.host.dir.join("clock"));
        fs::write(&clock.0, 0i64.to_ne_bytes()).expect("write a clock");
        site.environment = vec![("LD_PRELOAD", library), ("LONNET_TEST_CLOCK", clock.0.clone())];
        Some(clock)
    }

    /// Sets it so many seconds ahead.
    fn set(&self, ahead: i64) {
        let file = File::options().write(true).open(&self.0).expect("open a clock");
        file.write_all_at(&ahead.to_ne_bytes(), 0).expect("set a clock");
    }
}

/// Both hosts with clocks of their own, set so far ahead; nothing where that cannot be.
fn with_clocks(ahead: [i64; 2]) -> Option<(World, [Clock; 2])> {
    let mut world = World::prepare(true)?;
    let clocks = [Clock::of(&mut world.one)?, Clock::of(&mut world.other)?];
    for (site, (clock, ahead)) in [&mut world.one, &mut world.other].into_iter().zip(clocks.iter().zip(ahead))
    {
        clock.set(ahead);
        for section in ["lonc", "lond"] {
            // None of these links is to be lost, on a busy machine neither.
            site.host.set(section, "heartbeat", "\"5s\"");
        }
        site.host.set("lonc", "request_timeout", "\"60s\"");
    }
    world.start();
    world.flows();
    Some((world, clocks))
}

/// What `lon` prints on a host, by that host's clock.
fn lon(site: &Site, arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lon"));
    command.arg("--config").arg(site.host.config()).args(arguments).stdin(Stdio::null());
    let output = command.envs(site.environment.iter().map(|(name, value)| (*name, value))).output();
    let output = output.expect("run lon");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// Waits until the status of a host's links tells times of today, whatever day its clock says that
/// it is.
fn tells_true_ages(site: &Site, ahead: i64) {
    let machine = jiff::Timestamp::now().as_second();
    wait::until_true("a status with true ages", || {
        let status: Value = serde_json::from_str(&lon(site, &["status", "--json"])).expect("JSON");
        let written = time_of(&status["written"]).as_second();
        assert!((written - machine - ahead).abs() < LONG_AGO, "written {}", status["written"]);
        let lond = &status["lond"];
        let times =
            [&status["started"], &status["peers"][0]["since"], &lond["started"], &lond["links"][0]["since"]];
        times.iter().all(|time| (0..LONG_AGO).contains(&(written - time_of(time).as_second())))
    });
}

#[test]
fn steps_of_the_clock_by_hours_and_years_are_noticed_by_no_link_no_timer_and_no_program() {
    let Some((world, clocks)) = with_clocks([0, 0]) else { return };
    let sites = [&world.one, &world.other];
    let links = sites.map(|site| site.dialled_from());
    // Beyond 2038 and 2106, and before 1970, too.
    for ahead in [HOUR, -2 * HOUR, 15 * YEAR, 85 * YEAR, -60 * YEAR, -10 * YEAR, 0] {
        clocks[0].set(ahead);
        clocks[1].set(-ahead);
        world.flows();
        for (site, ahead) in sites.into_iter().zip([ahead, -ahead]) {
            tells_true_ages(site, ahead);
        }
    }
    assert_eq!(sites.map(|site| site.dialled_from()), links, "a link was lost");
    for traffic in world.traffic() {
        let answers = traffic.answers();
        assert_eq!((answers.lost, answers.delayed), (0, 0), "{answers:?}");
    }
    world.finish(LOG_LINES);
}

#[test]
fn messages_stored_under_clocks_that_jump_go_out_in_order_and_hosts_in_any_year_start_and_restart() {
    let Some((mut world, clocks)) = with_clocks([-60 * YEAR, 85 * YEAR]) else { return };
    world.other.lond = None;
    world.one.last_error("Connection refused");
    for ahead in [85 * YEAR, -30 * YEAR, 0, -60 * YEAR, HOUR] {
        clocks[0].set(ahead);
        let delayed = || world.traffic()[0].answers().delayed;
        let before = delayed();
        wait::until_true("messages stored", || delayed() > before + 10);
        let queue = lon(&world.one, &["queue", world.one.peer]);
        assert!(queue.contains("messages wait"), "{queue}");
    }
    // A file without a newline may still be being written, unless it is old; by this clock it is of
    // the future.
    clocks[0].set(-60 * YEAR);
    fs::write(world.one.host.dir.join("delayed").join(format!("1.{}", world.one.peer)), "do:dropped")
        .expect("drop a file");
    // The program that follows goes by the same clock.
    for (site, name, log) in [(&world.one, "lonc", "lonc.log"), (&world.one, "lond", "lond.log")] {
        let program = if name == "lonc" { &site.lonc } else { &site.lond };
        let lines = site.host.log(log).lines().count();
        program.as_ref().expect("it runs").signal(Signal::SIGHUP);
        wait::until_true("the program to start anew", || {
            let log = site.host.log(log);
            log.lines().skip(lines).any(|line| line.starts_with("196") && line.contains("INFO started anew"))
        });
    }
    world.other.start_lond();
    world.one.dial_now();
    world.one.host.wait_link(world.one.peer, "up");
    wait::until_true("the file that was dropped", || {
        world.other.counter.done().contains(&"do:dropped".to_owned())
    });
    tells_true_ages(&world.one, -60 * YEAR);
    world.finish(LOG_LINES);
}
