//! What a caller asked and may not: said in the log, so seldom that no caller can fill it.

use crate::ledger::Ledger;
use crate::service::Barred;
use crate::settings::ServeSettings;
use base::HostId;
use base::logging;
use std::time::Instant;

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
    let name = match barred {
        Barred::Handler(number) => settings.handlers.get(number).map_or("", |handler| &handler.name),
        Barred::Builtin(name) => name,
    };
    let more = match unsaid {
        0 => String::new(),
        unsaid => format!(" (and {unsaid} requests more since this was said last)"),
    };
    // A child that is to be silent says this, too: the quota is its host's, over all links. Where
    // it cannot be written it is counted like any line.
    let _ = logging::always(format_args!("refused {caller} the request {name}: it may not ask it{more}"));
}
