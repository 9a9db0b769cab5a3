//! What a caller asked and may not: said in the log, so seldom that no caller can fill it.

use crate::ledger::Ledger;
use crate::service::Barred;
use crate::settings::ServeSettings;
use base::HostId;
use base::logging;
use std::time::Instant;

/// By which entry, `lon check --who` says: the rules may have changed since this child began.
const MAY_NOT: &str = "it may not ask it";
const IN_CLEAR: &str = "it came in the clear, which private_only of the handler does not let pass: it may come over the \
                        secure wire, or with encrypt:";

/// Says that `caller` was refused this, if its quota of such lines goes so far; else that is
/// counted and told with its next line.
pub(super) fn say_refused(
    ledger: &Ledger,
    settings: &ServeSettings,
    caller: &HostId,
    barred: Barred,
    now: Instant,
) {
    let Some(unsaid) = ledger.may_say_barred(caller, now) else { return };
    let handler = |number: usize| settings.handlers.get(number).map_or("", |handler| &handler.name);
    let (name, why) = match barred {
        Barred::Handler(number) => (handler(number), MAY_NOT),
        Barred::InClear(number) => (handler(number), IN_CLEAR),
        Barred::Builtin(name) => (name, MAY_NOT),
    };
    let more = match unsaid {
        0 => String::new(),
        unsaid => format!(" (and {unsaid} requests more since this was said last)"),
    };
    // A child that is to be silent says this, too: the quota is its host's, over all links. Where
    // it cannot be written it is counted like any line.
    let _ = logging::always(format_args!("refused {caller} the request {name}: {why}{more}"));
}
