//! The opening dialogue, as the caller leads it: one line out, one line in, six times.
//!
//! Owns where the dialogue stands. It fails on an answer that means that no link can be (refused,
//! nonsense where a challenge or a key must be, a host that says it is not the one called); what
//! the original only warns of is a warning here too. The original waits five seconds before `pong`;
//! nothing needs that, so this doesn't.

use super::Cipher;
use base::HostId;
use base::line::Outgoing;
use std::fmt;

/// The version that we tell the other side.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Longest challenge or buildkey accepted; the original's have some 30 characters.
const MAX_TOKEN: usize = 256;

/// What was asked last; its answer is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `init`, answered by a challenge.
    Init,
    /// The challenge sent back.
    Challenge,
    /// `sethost:<id of the host called>`.
    SetHost,
    /// `version:<ours>`.
    Version,
    /// `pong`, answered by the host's id and what it got when it asked back.
    Pong,
    /// `ekey`, answered by the buildkey.
    Ekey,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Init => "init",
            Step::Challenge => "the challenge",
            Step::SetHost => "sethost",
            Step::Version => "version",
            Step::Pong => "pong",
            Step::Ekey => "ekey",
        })
    }
}

/// Why the dialogue ended without a link. What the other side said is shown escaped and cut short.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpeningError {
    /// The other side does not want us.
    #[error("refused at {0}: is this host's address in the peer's hosts.tab?")]
    Refused(Step),
    /// The address belongs to another host than the one called.
    #[error("the address called is not {called}'s: sethost was refused")]
    OtherHost {
        /// The id called.
        called: HostId,
    },
    /// Nothing that could be an answer to this step.
    #[error("nonsense in answer to {step}: {answer}")]
    Nonsense {
        /// What was asked.
        step: Step,
        /// What came.
        answer: String,
    },
}

/// What an answer led to.
#[derive(Debug)]
pub enum Progress {
    /// The next line was sent.
    Next {
        /// Something odd that is no reason to stop; for the log.
        warning: Option<String>,
    },
    /// The link is open.
    Done(Cipher),
}

/// A dialogue under way.
#[derive(Debug)]
pub struct Opening {
    step: Step,
    called: HostId,
    caller: HostId,
}

impl Opening {
    /// Begins: `init` is put into `out`.
    pub fn begin(called: HostId, caller: HostId, out: &mut Outgoing) -> Opening {
        out.push_line(b"init");
        Opening { step: Step::Init, called, caller }
    }

    /// What is awaited.
    pub fn step(&self) -> Step {
        self.step
    }

    /// Takes the answer to the current step and puts the next line into `out`.
    ///
    /// # Errors
    /// The dialogue cannot lead to a link; the connection is to be closed.
    pub fn answer(&mut self, line: &[u8], out: &mut Outgoing) -> Result<Progress, OpeningError> {
        let step = self.step;
        let nonsense = || OpeningError::Nonsense { step, answer: shown(line) };
        let (next, warning) = match step {
            Step::Init if line == b"refused" => return Err(OpeningError::Refused(step)),
            Step::Init => {
                if line.is_empty() || line.len() > MAX_TOKEN || !line.iter().all(u8::is_ascii_digit) {
                    return Err(nonsense());
                }
                out.push_line(line);
                (Step::Challenge, None)
            }
            Step::Challenge if line == b"ok" => {
                out.push_line(format!("sethost:{}", self.called).as_bytes());
                (Step::SetHost, None)
            }
            Step::Challenge if line == b"refused" => return Err(OpeningError::Refused(step)),
            Step::Challenge => return Err(nonsense()),
            Step::SetHost if line == b"refused" => {
                return Err(OpeningError::OtherHost { called: self.called.clone() });
            }
            Step::SetHost => {
                out.push_line(format!("version:{VERSION}").as_bytes());
                let warning = (line != b"ok").then(|| format!("sethost answered {}", shown(line)));
                (Step::Version, warning)
            }
            Step::Version => {
                out.push_line(b"pong");
                let odd = !line.starts_with(b"version:");
                (Step::Pong, odd.then(|| format!("version answered {}", shown(line))))
            }
            Step::Pong => {
                out.push_line(b"ekey");
                let odd = !line.starts_with(self.called.as_str().as_bytes());
                (Step::Ekey, odd.then(|| format!("pong answered {}", shown(line))))
            }
            Step::Ekey => {
                let usable = line.len() <= MAX_TOKEN && line.iter().all(u8::is_ascii_alphanumeric);
                if line.is_empty() || line == b"refused" || !usable {
                    return Err(nonsense());
                }
                return Ok(Progress::Done(Cipher::agree(&self.called, &self.caller, line)));
            }
        };
        self.step = next;
        Ok(Progress::Next { warning })
    }
}

/// What a peer said, fit for a log line: escaped, at most 40 bytes of it.
fn shown(line: &[u8]) -> String {
    let cut = &line[..line.len().min(40)];
    let dots = if cut.len() < line.len() { "..." } else { "" };
    format!("\"{}{dots}\"", cut.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> HostId {
        HostId::new(text).unwrap()
    }

    fn begin() -> (Opening, Outgoing) {
        let mut out = Outgoing::default();
        let opening = Opening::begin(id("msul1"), id("msua1"), &mut out);
        (opening, out)
    }

    /// Answers `lines` in turn; returns how it ended, the warnings, and all that was sent.
    fn lead(lines: &[&str]) -> (Result<Progress, OpeningError>, usize, String) {
        let (mut opening, mut out) = begin();
        let mut warnings = 0;
        let mut last = Ok(Progress::Next { warning: None });
        for line in lines {
            last = opening.answer(line.as_bytes(), &mut out);
            match &last {
                Ok(Progress::Next { warning }) => warnings += usize::from(warning.is_some()),
                Ok(Progress::Done(_)) | Err(_) => break,
            }
        }
        (last, warnings, String::from_utf8(out.bytes().to_vec()).unwrap())
    }

    const GOOD: [&str; 6] =
        ["1234567", "ok", "ok", "version:1.0", "msul1:msua1", "41342A79EAFBE8FC990EFC7D2928"];

    #[test]
    fn the_dialogue_goes_as_the_original_leads_it_and_ends_with_the_same_cipher() {
        let (end, warnings, sent) = lead(&GOOD);
        let Ok(Progress::Done(cipher)) = end else { panic!("not done: {end:?}") };
        assert_eq!(warnings, 0);
        assert_eq!(sent, format!("init\n1234567\nsethost:msul1\nversion:{VERSION}\npong\nekey\n"));
        let mut sealed = Vec::new();
        cipher.seal(b"ping", &mut sealed);
        assert_eq!(sealed, b"enc:4:e9cf4008a9e0407d");
    }

    #[test]
    fn what_the_original_only_warns_of_does_not_end_the_dialogue() {
        for (step, answer) in [(2, "unknown_cmd"), (3, "unknown_cmd"), (4, "other:con_lost")] {
            let mut lines = GOOD;
            lines[step] = answer;
            let (end, warnings, _) = lead(&lines);
            assert!(matches!(end, Ok(Progress::Done(_))), "{answer} at {step}: {end:?}");
            assert_eq!(warnings, 1, "{answer} at {step}");
        }
    }

    #[test]
    fn a_refusal_and_nonsense_end_the_dialogue_with_their_step() {
        let nonsense = |step, answer: &str| OpeningError::Nonsense { step, answer: format!("\"{answer}\"") };
        for (at, answer, error) in [
            (0, "refused", OpeningError::Refused(Step::Init)),
            (0, "SSH-2.0-OpenSSH", nonsense(Step::Init, "SSH-2.0-OpenSSH")),
            (0, "", nonsense(Step::Init, "")),
            (1, "refused", OpeningError::Refused(Step::Challenge)),
            (1, "1234567", nonsense(Step::Challenge, "1234567")),
            (2, "refused", OpeningError::OtherHost { called: id("msul1") }),
            (5, "refused", nonsense(Step::Ekey, "refused")),
            (5, "", nonsense(Step::Ekey, "")),
            (5, "unknown_cmd", nonsense(Step::Ekey, "unknown_cmd")),
        ] {
            let mut lines = GOOD;
            lines[at] = answer;
            let (end, _, _) = lead(&lines);
            assert_eq!(end.err(), Some(error), "{answer:?} at {at}");
        }
    }

    #[test]
    fn what_a_peer_said_is_escaped_and_cut_before_it_is_shown() {
        let (mut opening, mut out) = begin();
        let error =
            opening.answer(&[b"\x1b[31m\xff".as_slice(), &[b'x'; 500]].concat(), &mut out).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(r"\x1b[31m\xff") && text.len() < 120, "{text}");
    }
}
