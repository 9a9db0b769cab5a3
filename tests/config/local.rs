//! `[[local]]`: what is taken, and what is wrong with it.

use crate::folder::{Folder, HOSTS};
use lonnet::config::{Place, Whoever};

#[test]
fn rules_are_taken_in_their_order_with_names_as_numbers() {
    let toml = "id = \"msua1\"\n[[local]]\npeers = [\"msul1\"]\nallow = [\"user:root\", \"group:4711\"]\n\
        [[local]]\ncommands = [\"echo\"]\nallow = [\"*\"]\ncritical = [\"group:root\"]\n";
    let folder = Folder::new(toml, HOSTS);
    let rules = folder.load().local.0;
    let (one, two) = (&rules[0], &rules[1]);
    assert_eq!((one.allow.as_slice(), &one.critical), (&[Whoever::User(0), Whoever::Group(4711)][..], &None));
    assert_eq!(
        (two.allow.as_slice(), &two.critical),
        (&[Whoever::Everyone][..], &Some(vec![Whoever::Group(0)]))
    );
    assert_eq!(two.commands.as_deref(), Some(&["echo".to_owned()][..]));
    let places = [2, 5].map(|line| Some(Place { file: folder.toml(), line }));
    assert_eq!([one.place.clone(), two.place.clone()], places);
}

#[test]
fn a_rule_without_allow_is_for_nobody_and_that_is_a_warning_at_its_line() {
    let rules =
        "id = \"msua1\"\n[[local]]\nallow = [\"*\"]\n[[local]]\npeers = [\"msul1\"]\ncritical = [\"*\"]\n";
    let folder = Folder::new(rules, HOSTS);
    let said = "lonnet.toml:4: local: no `allow`: nobody may ask what this rule is for";
    let warnings = folder.warnings();
    assert_eq!(warnings.iter().filter(|line| line.contains("local: ")).collect::<Vec<_>>(), [said]);
}

#[test]
fn each_mistake_in_a_rule_is_reported_with_its_line() {
    for (rule, said) in [
        (
            "[[local]]\nallow = [\"user:no-such-user\"]",
            "3: local: allow: user \"no-such-user\": there is none",
        ),
        ("[[local]]\ncritical = [\"group:no-such\"]", "3: local: critical: group \"no-such\": there is none"),
        (
            "[[local]]\nallow = [\"www\"]",
            "3: local: allow: want \"*\", \"user:NAME\" or \"group:NAME\", not \"www\"",
        ),
        (
            "[[local]]\ncommands = [\"a:b\"]",
            "3: local: commands: \"a:b\" is no command: want the word before the first colon",
        ),
        ("[[local]]\npeers = [\"msul9\"]", "2: local: peers: \"msul9\" has no line in hosts.tab"),
        ("[[local]]\nalow = [\"*\"]", "3: local: alow: unknown key"),
        ("[local]\nallow = [\"*\"]", "2: local: want a list of tables, not a table"),
    ] {
        let folder = Folder::new(&format!("id = \"msua1\"\n{rule}\n"), HOSTS);
        assert_eq!(folder.problems(), [format!("lonnet.toml:{said}")], "for {rule:?}");
    }
}
