//! What is wrong in `lonnet.toml`, or hardly meant, and its line.

use crate::folder::{Folder, HOSTS};
use lonnet::base::Pin;

/// Each case: what stands after `id = "msua1"`, and what is said of it.
fn assert_each(cases: &[(&str, &str)]) {
    for (toml, said) in cases {
        let folder = Folder::new(&format!("id = \"msua1\"\n{toml}\n"), HOSTS);
        assert_eq!(folder.problems(), [format!("lonnet.toml:{said}")], "for {toml:?}");
    }
}

#[test]
fn each_mistake_at_the_head_of_the_file_is_reported_with_its_line() {
    assert_each(&[
        ("prot = 1", "2: prot: unknown key"),
        ("hosts = 7", "2: hosts: want text, not an integer"),
        ("run_dir = \"\"", "2: run_dir: is empty"),
        ("run_dir = \"a\\u0000b\"", "2: run_dir: \"a\\0b\" has a control character in it"),
        ("user = true", "2: user: want text, not true or false"),
        (
            "log_level = \"loud\"",
            "2: log_level: want \"error\", \"warn\", \"info\" or \"debug\", not \"loud\"",
        ),
        ("sandbox = \"on\"", "2: sandbox: want \"auto\", \"required\" or \"off\", not \"on\""),
        ("lonc = 1", "2: lonc: want a table, not an integer"),
        ("[[lonc]]", "2: lonc: want a table, not a list"),
    ]);
}

#[test]
fn each_mistake_about_lonc_is_reported_with_its_line() {
    assert_each(&[
        ("[lonc]\nprot = 1", "3: lonc: prot: unknown key"),
        ("[lonc]\naddress = \"127.0.0.1\"", "3: lonc: address: unknown key"),
        ("[lonc]\nport = 0", "3: lonc: port: want a port of 1 to 65535, not 0"),
        ("[lonc]\nport = 65536", "3: lonc: port: want a port of 1 to 65535, not 65536"),
        ("[lonc]\nport = \"5663\"", "3: lonc: port: want a port number, not text"),
        ("[lonc]\nbind = \"eth0\"", "3: lonc: bind: want an IP address, not \"eth0\""),
        ("[lonc]\nwire = \"plain\"", "3: lonc: wire: want \"secure\" or \"classic\", not \"plain\""),
        (
            "[lonc]\n\nrequest_timeout = 300",
            "4: lonc: request_timeout: want a time like \"300s\", not an integer",
        ),
        (
            "[lonc]\nrequest_timeout = \"soon\"",
            "3: lonc: request_timeout: want a time like \"300s\", \"5m\" or \"500ms\", not \"soon\"",
        ),
        ("[lonc]\nrequest_timeout = \"0s\"", "3: lonc: request_timeout: must be longer than no time"),
        ("[lonc]\nconnect_timeout = \"-5s\"", "3: lonc: connect_timeout: \"-5s\" is less than no time"),
        (
            "[lonc]\nopening_timeout = \"9999999h\"",
            "3: lonc: opening_timeout: \"9999999h\" is longer than a year",
        ),
        ("[lonc]\ndrain_timeout = \"-1s\"", "3: lonc: drain_timeout: \"-1s\" is less than no time"),
        ("[lonc]\nbusy_poll = \"2ms\"", "3: lonc: busy_poll: \"2ms\" is longer than 1 ms"),
        ("[lonc]\nsocket_mode = 660", "3: lonc: socket_mode: want octal text like \"0660\", not an integer"),
        (
            "[lonc]\nsocket_mode = \"0680\"",
            "3: lonc: socket_mode: want octal text like \"0660\", not \"0680\"",
        ),
        (
            "[lonc]\nsocket_mode = \"7777\"",
            "3: lonc: socket_mode: want octal text like \"0660\", not \"7777\"",
        ),
        ("[lonc]\nmax_line = 10", "3: lonc: max_line: want 256 bytes to 16 MiB, not 10 bytes"),
        ("[lonc]\nmax_line = \"1GiB\"", "3: lonc: max_line: want 256 bytes to 16 MiB, not 1073741824 bytes"),
        (
            "[lonc]\nmax_line = \"1MB\"",
            "3: lonc: max_line: want a number of bytes, or text like \"64MiB\", not \"1MB\"",
        ),
        ("[lonc]\nheartbeat = \"0s\"", "3: lonc: heartbeat: must be longer than no time"),
        ("[lonc]\nheartbeat_missed = 0", "3: lonc: heartbeat_missed: want a number of at least 1, not 0"),
        ("[lonc]\nwindow = \"65MiB\"", "3: lonc: window: want at most 64 MiB, not 68157440 bytes"),
        ("[lonc]\nspool_messages = 0", "3: lonc: spool_messages: want a number of at least 1, not 0"),
        ("[lonc]\nspool_bytes = 0", "3: lonc: spool_bytes: must be more than nothing"),
        (
            "[lonc]\nspool_keep_free = -1",
            "3: lonc: spool_keep_free: want a number of bytes, or text like \"64MiB\", not -1",
        ),
        (
            "[lonc]\nspool_bytes = \"99999999999TiB\"",
            "3: lonc: spool_bytes: \"99999999999TiB\" is more than can be counted",
        ),
    ]);
}

#[test]
fn each_mistake_about_a_host_is_reported_with_its_line() {
    assert_each(&[
        ("host = []", "2: host: want a table, not a list"),
        ("[host]\nmsul1 = 1", "3: host: msul1: want a table, not an integer"),
        ("[host.nobody]", "2: host.nobody: \"nobody\" has no line in hosts.tab"),
        ("[host.\"../x\"]", "2: host.../x: host id \"../x\" begins with a dot"),
        (
            "[host.msul1]\naddress = \"zaphod\"",
            "3: host.msul1: address: want an address like \"127.0.0.2:7001\" or \"[::1]:7001\", not \"zaphod\"",
        ),
        ("[host.msul1]\naddress = \"127.0.0.2:0\"", "3: host.msul1: address: \"127.0.0.2:0\" has the port 0"),
        (
            "[host.msul1]\naddress = \"0.0.0.0\"",
            "3: host.msul1: address: \"0.0.0.0\" is not the address of one host",
        ),
        ("[host.msul1]\nwires = \"classic\"", "3: host.msul1: wires: unknown key"),
    ]);
}

#[test]
fn each_mistake_about_lond_is_reported_with_its_line() {
    assert_each(&[
        (
            "[lond]\nheartbeat_missed = 1001",
            "3: lond: heartbeat_missed: want a number of at most 1000, not 1001",
        ),
        ("[lond]\nlisten = \"127.0.0.1:1\"", "3: lond: listen: want a list of addresses, not text"),
        ("[lond]\nlisten = []", "3: lond: listen: is empty: lond would listen nowhere"),
        (
            "[lond]\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:1\"]",
            "3: lond: listen: \"127.0.0.1:1\" stands in the list twice",
        ),
        (
            "[lond]\nlisten = [1]",
            "3: lond: listen: want addresses like \"127.0.0.3:5663\" in the list, not an integer",
        ),
        ("[lond]\nclassic = true", "3: lond: classic: want a word, not true or false"),
        ("[lond]\nclassic = \"yes\"", "3: lond: classic: want \"refuse\" or \"allow\", not \"yes\""),
        ("[lond]\nmax_opening = 0", "3: lond: max_opening: want a number of at least 1, not 0"),
        ("[lond]\nmax_opening = 1.5", "3: lond: max_opening: want a number, not a number with a fraction"),
        ("[lond]\nlog_quota = 0", "3: lond: log_quota: must be more than nothing"),
        ("[lond]\nfull_load = 0", "3: lond: full_load: want a number above 0"),
        ("[lond]\nfull_load = nan", "3: lond: full_load: want a number above 0"),
        ("[lond]\nport = 1", "3: lond: port: unknown key"),
    ]);
}

#[test]
fn each_mistake_about_a_handler_is_reported_with_its_line() {
    assert_each(&[
        ("[handler.x]", "2: handler.x: none of socket, exec, worker is there"),
        (
            "[handler.x]\nexec = \"/bin/x\"",
            "3: handler.x: exec: want a list like [\"/usr/local/bin/program\", \"argument\"], not text",
        ),
        (
            "[handler.x]\nworker = [\"x\"]",
            "3: handler.x: worker: want the program's path, not \"x\": \"./x\" is beside this file, and nothing is \
             looked for in PATH",
        ),
        (
            "[handler.x]\nexec = [\"/bin/x\"]\nformat = \"tagged\"",
            "4: handler.x: format: a process a request (exec) gets the request alone",
        ),
        (
            "[handler.x]\nsocket = \"x\"\nformat = \"json\"",
            "4: handler.x: format: want \"line\" or \"tagged\", not \"json\"",
        ),
        (
            "[handler.x]\nsocket = \"x\"\nwindow = 2",
            "4: handler.x: window: only a handler with format = \"tagged\", or exec, can have several at once",
        ),
        ("[handler.x]\nexec = [\"/bin/x\"]\nwindow = 0", "4: handler.x: window: want 1 to 4096, not 0"),
        ("[handler.x]\nexec = [\"/bin/x\"]\nrunning = 0", "4: handler.x: running: want 1 to 1024, not 0"),
        ("[handler.x]\nexec = [\"/bin/x\"]\nworkers = 2", "4: handler.x: workers: is for worker alone"),
        ("[handler.x]\nworker = [\"/bin/x\"]\nrunning = 2", "4: handler.x: running: is for exec alone"),
        ("[handler.x]\nsocket = \"x\"\nwaiting = 2", "4: handler.x: waiting: is for exec and worker alone"),
        (
            "[handler.\"a/b\"]\nexec = [\"/bin/x\"]",
            "2: handler.a/b: a handler whose program lond runs has a socket of its name: want a-z A-Z 0-9 . _ - in it",
        ),
        ("[handler.x]\nsocket = [\"/x\"]", "3: handler.x: socket: want text, not a list"),
        (
            "[handler.x]\nsocket = \"x\"\nallow = \"*\"",
            "4: handler.x: allow: want a list like [\"*\"], not text",
        ),
        (
            "[handler.x]\nsocket = \"x\"\nallow = [\"rule:x\"]",
            "4: handler.x: allow: want \"*\", a host id, \"role:...\" or \"domain:...\", not \"rule:x\"",
        ),
        (
            "[handler.x]\nsocket = \"x\"\nallow = [\"msul9\"]",
            "4: handler.x: allow: \"msul9\" has no line in hosts.tab",
        ),
        (
            "[handler.x]\nsocket = \"x\"\ntimeout = \"0s\"",
            "4: handler.x: timeout: must be longer than no time",
        ),
        ("[handler.x]\nsocket = \"x\"\ntimout = \"1s\"", "4: handler.x: timout: unknown key"),
        (
            "[handler.ping]\nsocket = \"x\"",
            "2: handler.ping: \"ping\" is built in: no handler can have that name",
        ),
        (
            "[handler.\"a:b\"]\nsocket = \"x\"",
            "2: handler.a:b: the request name \"a:b\" has a colon or control character in it",
        ),
        ("[handler.\"\"]\nsocket = \"x\"", "2: handler.: the request name is empty"),
    ]);
}

#[test]
fn each_mistake_in_who_may_ask_is_reported_with_its_line() {
    for (toml, said) in [
        (
            "[handler.x]\nsocket = \"x\"\nallow = [\"*\"]\ndeny = [\"msul1\", \"msul9\"]",
            "5: handler.x: deny: \"msul9\" has no line in hosts.tab",
        ),
        (
            "[handler.x]\nsocket = \"x\"\nallow = [\"*\"]\nprivate_only = \"yes\"",
            "5: handler.x: private_only: want true or false, not text",
        ),
        ("[builtin.log]\nallow = [\"msul9\"]", "3: builtin.log: allow: \"msul9\" has no line in hosts.tab"),
        ("[builtin.log]\nprivate_only = true", "3: builtin.log: private_only: unknown key"),
        (
            "[builtin.sethost]\nallow = [\"*\"]",
            "2: builtin.sethost: no request of this name can have rules: want one of ping, pong, version, load, log, exit",
        ),
    ] {
        let folder = Folder::new(&format!("id = \"msua1\"\n{toml}\n"), HOSTS);
        assert_eq!(folder.problems(), [format!("lonnet.toml:{said}")], "for {toml:?}");
    }
}

#[test]
fn every_built_in_name_is_refused_to_handlers() {
    for name in ["ping", "pong", "version", "load", "log", "exit", "init", "sethost", "ekey", "enc"] {
        let folder = Folder::new(&format!("id = \"msua1\"\n[handler.{name}]\nsocket = \"x\"\n"), HOSTS);
        assert_eq!(folder.problems().len(), 1, "{name}");
    }
}

#[test]
fn a_handler_with_two_ways_is_told_to_choose() {
    let toml = "id = \"msua1\"\n[handler.x]\nsocket = \"x\"\nexec = [\"/bin/x\"]\n";
    assert_eq!(
        Folder::new(toml, HOSTS).problems(),
        ["lonnet.toml:2: handler.x: socket and exec are there: want one of them"]
    );
}

#[test]
fn the_id_must_be_there_and_have_a_line_in_the_table() {
    assert_eq!(
        Folder::new("", HOSTS).problems(),
        ["lonnet.toml: id: is missing: this host's id in hosts.tab"]
    );
    assert_eq!(Folder::new("\nid = \"x y\"", HOSTS).problems().len(), 1);
    assert_eq!(
        Folder::new("\nid = \"other\"\n", HOSTS).problems(),
        ["lonnet.toml:2: id: \"other\" has no line in hosts.tab"]
    );
}

#[test]
fn hosts_on_the_secure_wire_without_a_pin_are_one_warning_a_line() {
    let mut hosts = String::from("msua1:msu:access:a:127.0.0.1\n");
    for number in 1..=8 {
        hosts.push_str(&format!("l{number}:msu:library:a:127.0.1.{number}\n"));
    }
    let toml = "id = \"msua1\"\n[host.l7]\nwire = \"classic\"\n[host.l8]\nwire = \"secure\"\n";
    let folder = Folder::new(toml, &hosts).with_pins(&format!("l6 {}\n", Pin::of(b"6")));
    assert_eq!(
        folder.warnings(),
        [
            "lonnet.toml: no pin for l1, l2, l3, l4, l5 in hosts.pins: they will not be dialled",
            "lonnet.toml:5: no pin for l8 in hosts.pins: it will not be dialled",
        ]
    );
}

#[test]
fn a_file_of_pins_that_is_not_there_is_a_warning_where_one_is_needed() {
    let missing = "hosts.pins is not there: no secure link can be made; lon pin says what goes into it";
    assert_eq!(Folder::new("id = \"msua1\"\n", HOSTS).warnings(), [format!("lonnet.toml: pins: {missing}")]);
    let classic = "id = \"msua1\"\n[lonc]\nwire = \"classic\"\n";
    assert_eq!(Folder::new(classic, HOSTS).warnings(), [format!("lonnet.toml: pins: {missing}")]);
    let allowed = format!("{classic}[lond]\nclassic = \"allow\"\n");
    assert_eq!(Folder::new(&allowed, HOSTS).warnings(), [""; 0]);
    let placed = "id = \"msua1\"\npins = \"p\"\n";
    assert_eq!(
        Folder::new(placed, HOSTS).warnings(),
        ["lonnet.toml:2: pins: p is not there: no secure link can be made; lon pin says what goes into it"]
    );
}

#[test]
fn mistakes_among_the_pins_come_after_those_of_the_other_files_with_their_lines() {
    let (one, two) = (Pin::of(b"1"), Pin::of(b"2"));
    let pins = format!("msul1 {one}\nmsua1 {one}\nmsul1\n");
    let folder = Folder::new("id = \"msua1\"\nwhat = 1\n", "msua1\n").with_pins(&pins);
    assert_eq!(
        folder.problems(),
        [
            "lonnet.toml:2: what: unknown key",
            "hosts.tab:1: 1 of 5 fields: want id:domain:role:hostname:ip",
            "hosts.pins:2: the same pin is msul1's in line 1: a key is one host's; if one machine is a copy of the other, \
             move keys/host.key away there, make it a key of its own (lon pin --make), and give it that line here",
            "hosts.pins:3: want two words: id sha256:BASE64",
        ]
    );
    let pins = format!("msul1 {one}\nmsul1 {one}\nstranger {two}\n");
    let folder = Folder::new("id = \"msua1\"\n", HOSTS).with_pins(&pins);
    assert_eq!(
        folder.warnings(),
        [
            "hosts.pins:2: the same pin of msul1 stands in line 1 already",
            "hosts.pins:3: stranger is none of the 2 hosts of the table",
        ]
    );
}

#[test]
fn a_window_in_which_the_longest_line_does_not_fit_is_an_error_at_the_line_of_the_window() {
    let toml = "id = \"msua1\"\n[lonc]\nwindow = \"4MiB\"\n[host.msul1]\nmax_line = \"2MiB\"\n[lond]\nmax_line = 1000\n\
                window = 67535\n";
    assert_eq!(
        Folder::new(toml, HOSTS).problems(),
        [
            "lonnet.toml:3: window: is less than 2 x max_line + 65536 of msul1",
            "lonnet.toml:8: lond: window: is less than 2 x max_line + 65536 = 67536",
        ]
    );
}

#[test]
fn a_window_by_which_a_process_may_come_to_hold_too_much_is_a_warning_at_its_line() {
    let hosts = format!("{HOSTS}msul2:msu:library:marvin:127.0.0.4\n");
    let folder = |lonc: usize, lond: usize| {
        let toml = format!(
            "id = \"msua1\"\n[lonc]\nwindow = {lonc}\n[host.msul1]\nmax_line = \"4MiB\"\nwindow = {}\n\
             [lond]\nwindow = {lond}\n",
            (8 << 20) + 65536
        );
        Folder::new(&toml, &hosts)
    };
    let about_windows = |folder: &Folder| {
        let mut warnings = folder.warnings();
        warnings.retain(|warning| warning.contains("window"));
        warnings
    };
    // As much as the longest line needs is right for msul1.
    assert_eq!(about_windows(&folder(6 << 20, 6 << 20)), [""; 0]);
    let large = folder((6 << 20) + 1, (6 << 20) + 1);
    assert_eq!(
        about_windows(&large),
        [
            "lonnet.toml:8: lond: window: is more than 6 MiB and than 2 x max_line + 65536 = 2162688: \
             a process may come to hold more than 64 MiB",
            "lonnet.toml:3: window: is more than 6 MiB and than 2 x max_line + 65536 of msul2: \
             a process may come to hold more than 64 MiB",
        ]
    );
    // Who knows that, and wants it for a long way, has it.
    assert_eq!(large.load().lond.window, (6 << 20) + 1);
}

#[test]
fn what_is_hardly_meant_is_a_warning() {
    let start = "id = \"msua1\"\n[lonc]\nwire = \"classic\"\n[lond]\nclassic = \"allow\"\n";
    for (toml, said) in [
        ("listen = [\"127.0.0.1:0\"]", "6: lond: listen: the port 0 is another one at each start"),
        ("[host.msua1]", "6: host.msua1: is this host itself: lonc makes no link to it"),
        ("[handler.x]\nsocket = \"x\"\nallow = []", "8: handler.x: allow: is empty: nobody may use it"),
        ("[handler.x]\nsocket = \"x\"", "6: handler x is for nobody: no `allow`"),
        (
            "[handler.x]\nsocket = \"x\"\nallow = [\"*\", \"msul1\"]",
            "8: handler.x: allow: \"*\" covers every host: the other entries change nothing",
        ),
        (
            "[handler.x]\nsocket = \"x\"\nallow = [\"role:libary\"]",
            "8: handler.x: allow: \"role:libary\" covers no host of hosts.tab",
        ),
        (
            "[builtin.load]\ndeny = [\"domain:x\"]",
            "7: builtin.load: deny: \"domain:x\" covers no host of hosts.tab",
        ),
        (
            "[builtin.load]\ndeny = [\"*\"]",
            "7: builtin.load: deny: \"*\" denies it to everyone: nobody may use it",
        ),
        (
            "[host.msul1]\nbind = \"::1\"",
            "7: bind is an address of the other family than msul1: no link can be made",
        ),
    ] {
        let folder = Folder::new(&format!("{start}{toml}\n"), HOSTS);
        assert_eq!(folder.warnings(), [format!("lonnet.toml:{said}")], "for {toml:?}");
    }
}

#[test]
fn a_socket_path_that_no_socket_can_have_is_reported() {
    let long = "d".repeat(120);
    let folder = Folder::new(
        &format!("id = \"msua1\"\nrun_dir = \"{long}\"\n[handler.x]\nsocket = \"{long}\"\n"),
        HOSTS,
    );
    let problems = folder.problems();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[0].starts_with("lonnet.toml:2: run_dir: "), "{problems:?}");
    assert!(problems[1].starts_with("lonnet.toml:4: handler.x: socket: "), "{problems:?}");
}
