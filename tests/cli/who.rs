//! `lon check --who HOST`.

use crate::place::{Place, TOML};
use std::fs;

const RULES: &str = r#"[handler.open]
socket = "x"
allow = ["other", "role:library"]
deny = ["domain:far"]
private_only = true
[handler.shut]
socket = "x"
[builtin.log]
allow = ["here"]
[builtin.load]
deny = ["there"]
"#;

fn place() -> (Place, usize) {
    let place = Place::new();
    fs::write(place.path("lonnet.toml"), format!("{TOML}{RULES}")).unwrap();
    let hosts = fs::read_to_string(place.path("hosts.tab")).unwrap();
    fs::write(place.path("hosts.tab"), format!("{hosts}distant:far:library:d:127.0.0.4\n")).unwrap();
    (place, TOML.lines().count())
}

#[test]
fn who_tells_each_handler_and_built_in_request_and_by_which_entry() {
    let (place, before) = place();
    let said = place.run(&["check", "--who", "there"]);
    let file = place.path("lonnet.toml").display().to_string();
    let lines = format!(
        "open     yes  allow has \"role:library\" ({file}:{}); private_only: over the secure wire, or with encrypt:\n\
         shut     no   no `allow` ({file}:{})\n\
         ping     yes  nothing is said of it\n\
         pong     yes  nothing is said of it\n\
         version  yes  nothing is said of it\n\
         load     no   deny has \"there\" ({file}:{})\n\
         log      no   allow does not name it ({file}:{})\n\
         exit     yes  nothing is said of it\n",
        before + 3,
        before + 6,
        before + 11,
        before + 9
    );
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (0, lines.as_str(), ""));
    let may = |host: &str, name: &str| {
        let said = place.run(&["check", "--who", host, "--json"]);
        let report: serde_json::Value = serde_json::from_str(&said.out).unwrap();
        assert_eq!((said.code, report["host"].as_str()), (0, Some(host)));
        let mut requests = report["requests"].as_array().unwrap().iter();
        requests.find(|told| told["name"] == name).unwrap().clone()
    };
    let told = may("distant", "open");
    assert_eq!(
        (&told["may"], &told["entry"], &told["kind"]),
        (&false.into(), &"domain:far".into(), &"handler".into())
    );
    let told = may("other", "open");
    assert_eq!(
        (&told["may"], &told["entry"], &told["line"]),
        (&true.into(), &"other".into(), &(before + 3).into())
    );
    assert_eq!(may("here", "log")["may"], true);
    assert_eq!(may("here", "open")["may"], false);
}

#[test]
fn who_says_of_a_host_that_is_not_in_the_table_that_it_is_not() {
    let (place, _) = place();
    for (host, cause) in [("nobody", "has no line in "), ("no host", "")] {
        let said = place.run(&["check", "--who", host]);
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{host}");
        assert!(said.err.starts_with("lon: check ") && said.err.contains(cause), "{}", said.err);
    }
    let said = place.run(&["check"]);
    let warned = said.out.lines().filter(|line| line.ends_with("handler shut is for nobody: no `allow`"));
    assert_eq!((said.code, warned.count()), (0, 1), "{}", said.out);
}
