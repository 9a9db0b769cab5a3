//! The tools of a healthy broker, while a file on disk has a mistake.

use crate::common::network::Host;
use crate::common::pair::CALLED;
use crate::common::secure_pair::TwoHosts;
use crate::common::wait;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

/// A file as it was, which is put back.
struct Broken {
    file: PathBuf,
    whole: Vec<u8>,
}

impl Broken {
    fn with(file: &Path, change: impl Fn(&str) -> String) -> Broken {
        let whole = fs::read(file).expect("read a file");
        fs::write(file, change(&String::from_utf8_lossy(&whole))).expect("break a file");
        Broken { file: file.to_owned(), whole }
    }
}

impl Drop for Broken {
    fn drop(&mut self) {
        fs::write(&self.file, &self.whole).expect("mend a file");
    }
}

/// Makes a broken file's text of a whole one's.
type Change = dyn Fn(&str) -> String;

/// Each way in which one file may be broken: what is wrong is said with this.
fn each_breakage(both: &TwoHosts, mut try_it: impl FnMut(&str)) {
    let [tab, pins] = ["hosts.tab", "hosts.pins"].map(|name| both.network.dir().join(name));
    let toml = both.one.config();
    let behind = |line: &'static str| move |text: &str| format!("{text}{line}\n");
    let before = |line: &'static str| move |text: &str| format!("{line}\n{text}");
    let of_the_peer = |text: &str| text.replace(&format!("{CALLED}:test:"), &format!("{CALLED}:"));
    let ways: [(&str, &Path, &Change); 9] = [
        ("hosts.tab:3: ", &tab, &behind("no host")),
        ("hosts.tab:", &tab, &of_the_peer),
        ("has no line in ../hosts.tab", &tab, &|_: &str| String::new()),
        ("hosts.pins:3: ", &pins, &behind("msul1 sha256:x")),
        ("lonnet.toml:", &toml, &behind("[handler.x]\nno_such_key = 1")),
        ("lonnet.toml:", &toml, &behind("[handler.x")),
        ("lonnet.toml:1: ", &toml, &before("no_such_key = 1")),
        ("lonnet.toml:1: ", &toml, &before("what is this")),
        ("lonnet.toml:", &toml, &|text: &str| text.replace("id = ", "id = 7 # ")),
    ];
    for (said, file, change) in ways {
        let _broken = Broken::with(file, change);
        try_it(said);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The exit code and the output of a command that must say the mistake.
fn warned(host: &Host, said: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = host.lon(arguments);
    let errors = text(&stderr);
    assert!(
        errors.contains(said) && errors.contains("the configuration has mistakes"),
        "{arguments:?}: {errors}"
    );
    (status.code(), text(&stdout))
}

#[test]
fn the_tools_of_a_healthy_broker_work_while_a_file_on_disk_is_broken() {
    let both = TwoHosts::new();
    let (_lonc, _lond) = both.start();
    each_breakage(&both, |said| {
        let asked = |arguments: &[&str]| warned(&both.one, said, arguments);
        assert_eq!(asked(&["reply", CALLED, "ping"]), (Some(0), format!("{CALLED}\n")), "{said}");
        assert_eq!(asked(&["critical", CALLED, "log:x"]), (Some(0), "ok\n".to_owned()), "{said}");
        let (code, shown) = asked(&["status"]);
        assert!(code == Some(0) && shown.contains("1 link: 1 up"), "{said} {shown}");
        let (code, shown) = asked(&["status", "--check"]);
        assert!(code == Some(1) && shown.contains("warning: configuration: has mistakes"), "{said} {shown}");
        assert_eq!(asked(&["queue", CALLED]), (Some(0), format!("{CALLED}: nothing waits\n")), "{said}");
        assert_eq!(asked(&["queue", "check"]).0, Some(0), "{said}");
        assert_eq!(asked(&["wait", CALLED, "--up", "--drained"]).0, Some(0), "{said}");
        let unknown = both.one.lon(&["reply", "nobody", "ping"]);
        assert_eq!((unknown.status.code(), text(&unknown.stdout)), (Some(1), String::new()), "{said}");
    });
}

#[test]
fn a_critical_message_is_stored_while_a_file_is_broken_and_the_broker_is_away_and_arrives_later() {
    let both = TwoHosts::new();
    // Once started, so that its folders tell where it stores.
    let (lonc, _lond) = both.start();
    assert_eq!(both.one.ask(CALLED, "critical:do:first"), "ok");
    assert_eq!(lonc.stop().code(), Some(0));
    let mut stored = 0;
    each_breakage(&both, |said| {
        let request = format!("do:{stored}");
        let (code, answer) = warned(&both.one, said, &["critical", CALLED, &request]);
        assert_eq!((code, answer.as_str()), (Some(4), "con_delayed\n"), "{said}");
        stored += 1;
    });
    let _lonc = both.one.lonc();
    wait::until_true("the messages to arrive", || both.counter.done().len() > stored);
}

#[test]
fn a_critical_message_fails_with_the_reason_where_a_mistake_hides_the_delayed_directory() {
    let both = TwoHosts::new();
    let whole = fs::read_to_string(both.one.config()).expect("read the configuration");
    fs::write(both.one.config(), format!("spol_dir = \"elsewhere\"\n{whole}")).expect("write it");
    let (code, answer) = warned(&both.one, "lonnet.toml:1: ", &["critical", CALLED, "do:1"]);
    assert_eq!((code, answer.as_str()), (Some(5), "con_failed\n"));
    let output = both.one.lon(&["critical", CALLED, "do:1"]);
    assert!(text(&output.stderr).contains("spool_dir cannot be told"), "{output:?}");
    assert!(!both.one.dir.join("delayed").exists(), "nothing is put where nobody may look");
}
