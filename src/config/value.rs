//! One value of `lonnet.toml` to one checked type.
//!
//! Each function here says what it wants and what it got, as the end of a sentence that begins with
//! the key.

use super::{Form, Restart, Sandbox, Who};
use base::{HostId, WireKind};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;
use toml::de::{DeArray, DeValue};

/// Longest time that a key takes. Anything beyond is a slip of the pen, and a deadline can always
/// be added to a clock without overflow.
const MAX_DURATION: Duration = Duration::from_secs(366 * 24 * 3600);

/// Longest `max_line`: one such line is held in memory for each client and each link, and the spool
/// takes no longer request.
const MAX_LINE: u64 = 16 * 1024 * 1024;

/// Longest `window`: the wire counts the messages that it bounds, see
/// `wire::secure::MAX_UNFINISHED`.
const MAX_WINDOW: u64 = 64 * 1024 * 1024;

/// Longest name of a service in bytes.
const MAX_SERVICE_NAME: usize = 32;

/// Shortest `max_line`: the opening dialogue must fit.
const MIN_LINE: u64 = 256;

/// Bytes in the path of a Unix socket (`sun_path` without its final zero).
pub(super) const MAX_SOCKET_PATH: usize = 107;

/// Requests that `lond` answers itself, words of the opening dialogue, and prefixes that never get
/// as far as `lond`.
const BUILT_IN: [&str; 12] = [
    "ping", "pong", "version", "load", "log", "exit", "init", "sethost", "ekey", "enc", "critical", "encrypt",
];

/// Where a peer listens, as far as `address` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Address {
    /// `127.0.0.2`: with the port that `port` says.
    Ip(IpAddr),
    /// `127.0.0.2:7001`, `[::1]:7001`.
    Full(SocketAddr),
}

impl Address {
    /// The whole address.
    pub(super) fn with_port(self, port: u16) -> SocketAddr {
        match self {
            Address::Ip(ip) => SocketAddr::new(ip, port),
            Address::Full(address) => address,
        }
    }
}

pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    let text = string(value, "text")?;
    if text.is_empty() {
        return Err("is empty".into());
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{text:?} has a control character in it"));
    }
    Ok(text.to_owned())
}

pub(super) fn path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    text(value).map(PathBuf::from)
}

pub(super) fn host_id(value: &DeValue<'_>) -> Result<HostId, String> {
    HostId::new(string(value, "a host id")?)
}

pub(super) fn log_level(value: &DeValue<'_>) -> Result<log::LevelFilter, String> {
    match string(value, "a word")? {
        "error" => Ok(log::LevelFilter::Error),
        "warn" => Ok(log::LevelFilter::Warn),
        "info" => Ok(log::LevelFilter::Info),
        "debug" => Ok(log::LevelFilter::Debug),
        other => Err(format!("want \"error\", \"warn\", \"info\" or \"debug\", not {other:?}")),
    }
}

pub(super) fn sandbox(value: &DeValue<'_>) -> Result<Sandbox, String> {
    match string(value, "a word")? {
        "auto" => Ok(Sandbox::Auto),
        "required" => Ok(Sandbox::Required),
        "off" => Ok(Sandbox::Off),
        other => Err(format!("want \"auto\", \"required\" or \"off\", not {other:?}")),
    }
}

pub(super) fn wire(value: &DeValue<'_>) -> Result<WireKind, String> {
    match string(value, "a word")? {
        "secure" => Ok(WireKind::Secure),
        "classic" => Ok(WireKind::Classic),
        other => Err(format!("want \"secure\" or \"classic\", not {other:?}")),
    }
}

/// `"refuse"` or `"allow"`.
pub(super) fn permission(value: &DeValue<'_>) -> Result<bool, String> {
    match string(value, "a word")? {
        "refuse" => Ok(false),
        "allow" => Ok(true),
        other => Err(format!("want \"refuse\" or \"allow\", not {other:?}")),
    }
}

/// A time of which zero would make no sense.
pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, String> {
    match duration_or_zero(value)? {
        Duration::ZERO => Err("must be longer than no time".into()),
        duration => Ok(duration),
    }
}

/// A time; none at all is a time too.
pub(super) fn duration_or_zero(value: &DeValue<'_>) -> Result<Duration, String> {
    let text = string(value, "a time like \"300s\"")?;
    let signed: jiff::SignedDuration =
        text.parse().map_err(|_| format!("want a time like \"300s\", \"5m\" or \"500ms\", not {text:?}"))?;
    let duration = Duration::try_from(signed).map_err(|_| format!("{text:?} is less than no time"))?;
    if duration > MAX_DURATION {
        return Err(format!("{text:?} is longer than a year"));
    }
    Ok(duration)
}

/// How long it may be looked again before a sleep.
const LONGEST_MOMENT: Duration = Duration::from_millis(1);

/// A time within which a process does not sleep, or none.
pub(super) fn moment(value: &DeValue<'_>) -> Result<Duration, String> {
    let moment = duration_or_zero(value)?;
    if moment > LONGEST_MOMENT {
        return Err(format!("{:?} is longer than 1 ms", string(value, "a time")?));
    }
    Ok(moment)
}

pub(super) fn ip(value: &DeValue<'_>) -> Result<IpAddr, String> {
    let text = string(value, "an IP address")?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>()
        .map(|address| address.to_canonical())
        .map_err(|_| format!("want an IP address, not {text:?}"))
}

/// Where something listens that is to be called: a port of 0 is none.
pub(super) fn address(value: &DeValue<'_>) -> Result<Address, String> {
    let text = string(value, "an address like \"127.0.0.2:7001\"")?;
    let address = parse_address(text)?;
    match address {
        Address::Full(full) if full.port() == 0 => Err(format!("{text:?} has the port 0")),
        full_or_ip if full_or_ip.with_port(1).ip().is_unspecified() => {
            Err(format!("{text:?} is not the address of one host"))
        }
        usable => Ok(usable),
    }
}

/// Addresses to listen on, without repeats.
pub(super) fn listen(value: &DeValue<'_>) -> Result<Vec<Address>, String> {
    let mut addresses = Vec::new();
    for entry in array(value, "a list of addresses")? {
        let text = string(entry.get_ref(), "addresses like \"127.0.0.3:5663\" in the list")?;
        let address = parse_address(text)?;
        if addresses.contains(&address) {
            return Err(format!("{text:?} stands in the list twice"));
        }
        addresses.push(address);
    }
    if addresses.is_empty() {
        return Err("is empty: lond would listen nowhere".into());
    }
    Ok(addresses)
}

pub(super) fn port(value: &DeValue<'_>) -> Result<u16, String> {
    let number = integer(value, "a port number")?;
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("want a port of 1 to 65535, not {number}")),
    }
}

/// A count of at least one.
pub(super) fn count(value: &DeValue<'_>) -> Result<u64, String> {
    let number = integer(value, "a number")?;
    match u64::try_from(number) {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(format!("want a number of at least 1, not {number}")),
    }
}

/// A count of things that each have a place in memory.
pub(super) fn small_count(value: &DeValue<'_>) -> Result<usize, String> {
    const MOST: u64 = 1_000_000;
    let count = count(value)?;
    match usize::try_from(count) {
        Ok(small) if count <= MOST => Ok(small),
        _ => Err(format!("want a number of at most {MOST}, not {count}")),
    }
}

/// Bytes: a number, or text with a unit, `"64MiB"`.
pub(super) fn size(value: &DeValue<'_>) -> Result<u64, String> {
    const WANT: &str = "a number of bytes, or text like \"64MiB\"";
    let text = match value {
        DeValue::String(text) => text.as_ref(),
        other => {
            let number = integer(other, WANT)?;
            return u64::try_from(number).map_err(|_| format!("want {WANT}, not {number}"));
        }
    };
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim_start() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => return Err(format!("want {WANT}, not {text:?}")),
    };
    let number: u64 = number.parse().map_err(|_| format!("want {WANT}, not {text:?}"))?;
    number.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is more than can be counted"))
}

pub(super) fn positive_size(value: &DeValue<'_>) -> Result<u64, String> {
    match size(value)? {
        0 => Err("must be more than nothing".into()),
        size => Ok(size),
    }
}

pub(super) fn max_line(value: &DeValue<'_>) -> Result<usize, String> {
    let size = size(value)?;
    match usize::try_from(size) {
        Ok(bytes) if (MIN_LINE..=MAX_LINE).contains(&size) => Ok(bytes),
        _ => Err(format!("want {MIN_LINE} bytes to {} MiB, not {size} bytes", MAX_LINE >> 20)),
    }
}

/// Bytes of flow control; how few are too few, `max_line` tells.
pub(super) fn window(value: &DeValue<'_>) -> Result<u32, String> {
    let size = size(value)?;
    match u32::try_from(size) {
        Ok(bytes) if size <= MAX_WINDOW => Ok(bytes),
        _ => Err(format!("want at most {} MiB, not {size} bytes", MAX_WINDOW >> 20)),
    }
}

/// A count of tries.
pub(super) fn few(value: &DeValue<'_>) -> Result<u32, String> {
    const MOST: u64 = 1000;
    let count = count(value)?;
    match u32::try_from(count) {
        Ok(few) if count <= MOST => Ok(few),
        _ => Err(format!("want a number of at most {MOST}, not {count}")),
    }
}

/// Permission bits as the shell writes them, `"0660"`.
pub(super) fn mode(value: &DeValue<'_>) -> Result<u32, String> {
    let text = string(value, "octal text like \"0660\"")?;
    let octal = !text.is_empty() && text.bytes().all(|c| matches!(c, b'0'..=b'7'));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && mode <= 0o777 => Ok(mode),
        _ => Err(format!("want octal text like \"0660\", not {text:?}")),
    }
}

/// A load average that counts as full.
pub(super) fn load(value: &DeValue<'_>) -> Result<f64, String> {
    let number = match value {
        DeValue::Float(float) => float.as_str().parse().unwrap_or(f64::NAN),
        other => integer(other, "a number")? as f64,
    };
    if number.is_finite() && number > 0.0 { Ok(number) } else { Err("want a number above 0".into()) }
}

/// A list of what `parse` makes of each text.
pub(super) fn list<T>(
    value: &DeValue<'_>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, String> {
    let entries = array(value, "a list of texts")?.iter();
    entries.map(|entry| parse(string(entry.get_ref(), "text in the list")?)).collect()
}

/// Yes or no.
pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, String> {
    match value {
        DeValue::Boolean(flag) => Ok(*flag),
        other => Err(wrong_type("true or false", other)),
    }
}

/// Hosts that may ask, or may not.
pub(super) fn hosts(value: &DeValue<'_>) -> Result<Vec<Who>, String> {
    let mut entries = Vec::new();
    for entry in array(value, "a list like [\"*\"]")? {
        let text = string(entry.get_ref(), "text in the list")?;
        entries.push(match text.split_once(':') {
            None if text == "*" => Who::Everyone,
            None => Who::Host(HostId::new(text)?),
            Some(("role", role)) if !role.is_empty() => Who::Role(role.to_owned()),
            Some(("domain", domain)) if !domain.is_empty() => Who::Domain(domain.to_owned()),
            Some(_) => {
                return Err(format!("want \"*\", a host id, \"role:...\" or \"domain:...\", not {text:?}"));
            }
        });
    }
    Ok(entries)
}

/// A program's path and its arguments.
pub(super) fn command(value: &DeValue<'_>) -> Result<(PathBuf, Vec<String>), String> {
    let want = "a list like [\"/usr/local/bin/program\", \"argument\"]";
    let words = array(value, want)?.iter().map(|word| string_without_nul(word.get_ref()));
    let mut words = words.collect::<Result<Vec<_>, _>>()?.into_iter();
    match words.next() {
        Some(program) if program.contains('/') => Ok((program.into(), words.collect())),
        Some(program) => Err(format!(
            "want the program's path, not {program:?}: \"./{program}\" is beside this file, and nothing is looked for in PATH"
        )),
        None => Err(format!("is empty: want {want}")),
    }
}

/// Any text that a program can be given.
pub(super) fn string_without_nul(value: &DeValue<'_>) -> Result<String, String> {
    match string(value, "text")? {
        text if text.contains('\0') => Err("has a zero byte in it".into()),
        text => Ok(text.to_owned()),
    }
}

pub(super) fn restart(value: &DeValue<'_>) -> Result<Restart, String> {
    match string(value, "a word")? {
        "always" => Ok(Restart::Always),
        "on-failure" => Ok(Restart::OnFailure),
        "never" => Ok(Restart::Never),
        other => Err(format!("want \"always\", \"on-failure\" or \"never\", not {other:?}")),
    }
}

/// Whether a service can have this name: it is a part of file names.
pub(super) fn service_name(name: &str) -> Result<(), String> {
    let usable = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    if name.is_empty() || name.len() > MAX_SERVICE_NAME || !name.bytes().all(usable) {
        return Err(format!(
            "the name {name:?} is not one of a service: want 1 to {MAX_SERVICE_NAME} of a-z 0-9 -"
        ));
    }
    Ok(())
}

/// What a handler's program is told and says.
pub(super) fn form(value: &DeValue<'_>) -> Result<Form, String> {
    match string(value, "a word")? {
        "line" => Ok(Form::Line),
        "tagged" => Ok(Form::Tagged),
        other => Err(format!("want \"line\" or \"tagged\", not {other:?}")),
    }
}

/// A whole number from 1 to `most`.
pub(super) fn from_one_to(value: &DeValue<'_>, most: usize) -> Result<usize, String> {
    let number = integer(value, "a number")?;
    match usize::try_from(number) {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        Ok(_) | Err(_) => Err(format!("want 1 to {most}, not {number}")),
    }
}

/// Whether a name may stand in a path.
pub(super) fn is_file_name(name: &str) -> bool {
    base::is_plain(name.as_bytes()) && !name.starts_with('.') && !name.is_empty()
}

/// Whether a handler can have this name.
pub(super) fn handler_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("the request name is empty".into());
    }
    if name.contains(':') || name.chars().any(char::is_control) {
        return Err(format!("the request name {name:?} has a colon or control character in it"));
    }
    if BUILT_IN.contains(&name) {
        return Err(format!("{name:?} is built in: no handler can have that name"));
    }
    Ok(())
}

fn parse_address(text: &str) -> Result<Address, String> {
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    match (text.parse::<SocketAddr>(), bare.parse::<IpAddr>()) {
        (Ok(full), _) => Ok(Address::Full(full)),
        (Err(_), Ok(ip)) => Ok(Address::Ip(ip)),
        (Err(_), Err(_)) => {
            Err(format!("want an address like \"127.0.0.2:7001\" or \"[::1]:7001\", not {text:?}"))
        }
    }
}

fn string<'a>(value: &'a DeValue<'_>, want: &str) -> Result<&'a str, String> {
    match value {
        DeValue::String(text) => Ok(text),
        other => Err(wrong_type(want, other)),
    }
}

fn integer(value: &DeValue<'_>, want: &str) -> Result<i128, String> {
    match value {
        DeValue::Integer(number) => i128::from_str_radix(number.as_str(), number.radix())
            .map_err(|_| format!("{} is more than can be counted", number.as_str())),
        other => Err(wrong_type(want, other)),
    }
}

fn array<'a, 'b>(value: &'a DeValue<'b>, want: &str) -> Result<&'a DeArray<'b>, String> {
    match value {
        DeValue::Array(array) => Ok(array),
        other => Err(wrong_type(want, other)),
    }
}

pub(super) fn wrong_type(want: &str, value: &DeValue<'_>) -> String {
    let got = match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    };
    format!("want {want}, not {got}")
}
