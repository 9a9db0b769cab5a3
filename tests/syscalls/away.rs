//! The story in which a call of `lon critical` fails, while no broker runs that could keep the
//! message.
//!
//! What it says it has kept must arrive, once, when both programs run; where it could not keep it,
//! it says why.

use crate::common::pair::CALLED;
use crate::common::secure_pair::TwoHosts;
use crate::common::tally::Tally;
use crate::common::wait;
use crate::plan::Fault;
use crate::quiet::may_be_quiet;
use crate::shim::{Control, Seen};
use crate::story::Outcome;
use std::process::{Command, Output, Stdio};

/// `lon` exits so when the message is kept: what interface.md says of `con_delayed`.
const KEPT: i32 = 4;

/// And so when it could not be kept.
const NOT_KEPT: i32 = 5;
/// And so when it did not come to that.
const OUR_ERROR: i32 = 1;

/// Tells the story with a fault or with none: one message that may fail to be kept, and one after
/// it that must not.
pub fn tell(fault: Option<&Fault>) -> Outcome {
    let hosts = TwoHosts::new();
    let control = Control::new(hosts.network.dir().join("shim"), fault);
    let mut problems = Vec::new();
    let mut acknowledged = Vec::new();

    let mut first = critical(&hosts, 1);
    control.attach(first.env("TZ", "UTC"));
    let output = output(first);
    let (seen, said) = (control.seen(), String::from_utf8_lossy(&output.stderr).into_owned());
    match output.status.code() {
        Some(KEPT) if output.stdout == b"con_delayed\n" => acknowledged.push(1),
        Some(OUR_ERROR | NOT_KEPT) if seen.hit() => problems.extend(unsaid(fault, &seen, &said)),
        _ => problems.push(format!(
            "{} with {:?}: {said}",
            output.status,
            String::from_utf8_lossy(&output.stdout)
        )),
    }
    match output_of_second(&hosts) {
        Some(KEPT) => acknowledged.push(2),
        code => problems.push(format!("the second message: {code:?}")),
    }

    let (_lonc, _lond) = hosts.start();
    let tally = || Tally::of("do:c", &acknowledged, &hosts.counter.done());
    if wait::patiently(|| (tally().lost == 0).then_some(())).is_none() || tally().repeated > 0 {
        problems.push(format!(
            "{:?}: acknowledged {acknowledged:?}, done {:?}",
            tally(),
            hosts.counter.done()
        ));
    }
    Outcome { seen, problems, refused: false, said }
}

fn critical(hosts: &TwoHosts, number: u64) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lon"));
    command.arg("--config").arg(hosts.one.config());
    command.args(["critical", CALLED, &format!("do:c{number}")]).stdin(Stdio::null());
    command
}

fn output_of_second(hosts: &TwoHosts) -> Option<i32> {
    output(critical(hosts, 2)).status.code()
}

/// Runs to the end, which must come.
fn output(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run lon");
    if wait::patiently(|| child.try_wait().expect("wait for lon")).is_none() {
        // Its output says so.
        child.kill().expect("end lon");
    }
    child.wait_with_output().expect("the output of lon")
}

/// What of a failure was not said as `lon: verb object: cause`.
fn unsaid(fault: Option<&Fault>, seen: &Seen, said: &str) -> Option<String> {
    let words = fault.filter(|fault| !may_be_quiet(fault, seen.object())).and_then(Fault::words);
    let named = said.starts_with("lon: ") && words.is_none_or(|words| said.contains(&words));
    (!named).then(|| format!("it failed, and said {said:?}"))
}
