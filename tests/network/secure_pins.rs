//! Other pins for the host that is called: a link to a key that is still pinned stays, with its TCP
//! connection.

use crate::common::keys::Key;
use crate::common::network::Host;
use crate::common::pair::{CALLED, CALLER};
use crate::common::secure_pair::TwoHosts;
use crate::common::wait;

/// Where lond sees the link come from, and which process serves it.
fn link(called: &Host) -> Option<(String, u64)> {
    let status = called.lond_status()?;
    let link = status["links"].as_array()?.first()?.clone();
    Some((link["address"].to_string(), link["pid"].as_u64()?))
}

fn reload(host: &Host) {
    let output = host.lon(&["reload"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn a_second_pin_leaves_the_link_and_its_programs_alone_and_the_loss_of_the_first_ends_it() {
    let both = TwoHosts::new();
    let (_lonc, _lond) = both.start();
    let (before, mut client) = (link(&both.other), both.one.connect(CALLED));
    assert!(before.is_some());
    let next = Key::new();
    let (caller, called) = (both.network.key(CALLER).pin(), both.network.key(CALLED).pin());
    both.network.write_pins(&format!("{CALLER} {caller}\n{CALLED} {called}\n{CALLED} {}\n", next.pin()));
    reload(&both.one);
    assert_eq!(client.ask("ping"), CALLED, "on the same connection");
    assert_eq!(link(&both.other), before, "on the same link");
    // Taken in all the same: the link is known to be to a key that goes now.
    both.network.write_pins(&format!("{CALLER} {caller}\n{CALLED} {}\n", next.pin()));
    reload(&both.one);
    wait::until_true("the link to end", || both.one.ask(CALLED, "ping") == "con_lost");
    both.network.write_pins(&both.network.pins());
    reload(&both.one);
    both.one.wait_link(CALLED, "up");
    assert_eq!(client.ask("ping"), CALLED);
}
