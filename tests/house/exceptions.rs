//! The list of what is not as it should be yet, which may only shrink.
//!
//! A line is `rule bound subject`. The bound is what was measured, rounded up to a step, so that
//! not each line that is moved changes it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Something is not as it should be, or better than the list says.
#[derive(Debug)]
pub enum Finding {
    /// It is on no list.
    New { subject: String, measured: usize },
    /// It has grown beyond its bound.
    Grown { subject: String, measured: usize, bound: usize },
    /// It has shrunk, and the bound has not.
    Shrunk { subject: String, measured: usize, bound: usize },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Finding::New { subject, measured } => writeln!(f, "  {subject}: {measured}"),
            Finding::Grown { subject, measured, bound } => {
                writeln!(f, "  {subject}: {measured}, and its exception is {bound}")
            }
            Finding::Shrunk { subject, measured, bound } => writeln!(
                f,
                "  {subject}: {measured}, so that its exception ({bound}) can be lowered or dropped: \
                 HOUSE=shrink cargo test --test house"
            ),
        }
    }
}

/// The exceptions from one rule.
#[derive(Debug)]
pub struct Exceptions {
    rule: String,
    step: usize,
    bounds: BTreeMap<String, usize>,
}

fn file() -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/house/exceptions.txt")
}

impl Exceptions {
    /// Those from `rule`; their bounds are multiples of `step`.
    pub fn of(rule: &str, step: usize) -> Exceptions {
        let text = std::fs::read_to_string(file()).expect("the exceptions can be read");
        let mut bounds = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut words = line.splitn(3, ' ');
            let (Some(of), Some(bound), Some(subject)) = (words.next(), words.next(), words.next()) else {
                panic!("exceptions.txt: {line:?} is not rule, bound, subject");
            };
            if of == rule {
                bounds.insert(subject.to_owned(), bound.parse().expect("a bound is a number"));
            }
        }
        Exceptions { rule: rule.to_owned(), step, bounds }
    }

    /// What of `found` is no exception, and which exceptions are none any more.
    pub fn check(mut self, found: &BTreeMap<String, usize>) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (subject, &measured) in found {
            let subject = subject.clone();
            match self.bounds.get(&subject) {
                None => findings.push(Finding::New { subject, measured }),
                Some(&bound) if measured > bound => {
                    findings.push(Finding::Grown { subject, measured, bound });
                }
                Some(_) => {}
            }
        }
        let shrinking = std::env::var("HOUSE").is_ok_and(|value| value == "shrink");
        let (step, mut lowered) = (self.step, false);
        self.bounds.retain(|subject, bound| {
            let measured = found.get(subject).copied().unwrap_or(0);
            let least = measured.next_multiple_of(step);
            if least >= *bound {
                return true;
            }
            if shrinking {
                *bound = least;
                lowered = true;
            } else {
                findings.push(Finding::Shrunk { subject: subject.clone(), measured, bound: *bound });
            }
            least > 0
        });
        if lowered {
            self.write();
        }
        findings
    }

    /// Writes the list with these bounds for this rule, all other lines as they are.
    fn write(&self) {
        // Tests of one program run side by side, and share the file.
        static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock();
        let text = std::fs::read_to_string(file()).expect("the exceptions can be read");
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let prefix = format!("{} ", self.rule);
        lines.retain_mut(|line| {
            let Some(rest) = line.strip_prefix(&prefix) else { return true };
            let subject = rest.split_once(' ').map_or("", |(_, subject)| subject).to_owned();
            match self.bounds.get(&subject) {
                Some(bound) => {
                    *line = format!("{prefix}{bound} {subject}");
                    true
                }
                None => false,
            }
        });
        lines.push(String::new());
        std::fs::write(file(), lines.join("\n")).expect("the exceptions can be written");
    }
}
