//! What is said of a measurement, and where it is put: figures, the machine, a part of a file.

use crate::median;
use crate::rig::Result;
use std::fs;
use std::path::Path;

/// The day, the machine, and how much of it was used: `busy` processors.
pub fn machine_line(busy: f64) -> Result<String> {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let processors = std::thread::available_parallelism()?;
    Ok(format!(
        "{}, {processors} processors ({}), Linux {}; they were busy with {busy:.1} of {processors} while it was measured.",
        jiff::Zoned::now().date(),
        model.unwrap_or("of an unknown kind"),
        kernel.trim_end()
    ))
}

/// The median, and half of what lies between the least and the most, of a hundred of
/// it: `614k ±6 %`.
pub fn spread(numbers: impl Iterator<Item = f64>) -> String {
    let numbers: Vec<f64> = numbers.collect();
    let least = numbers.iter().copied().fold(f64::INFINITY, f64::min);
    let most = numbers.iter().copied().fold(0.0, f64::max);
    if numbers.iter().any(|number| number.is_nan()) {
        return short(f64::NAN);
    }
    let middle = median(numbers.into_iter());
    format!("{} ±{:.0} %", short(middle), (most - least) / 2.0 / middle * 100.0)
}

/// With three digits.
pub fn short(number: f64) -> String {
    let (value, unit) = match number {
        1e6.. => (number / 1e6, "M"),
        1e4.. => (number / 1e3, "k"),
        _ => (number, ""),
    };
    if number.is_nan() {
        return "failed".to_owned();
    }
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$}{unit}")
}

/// Puts the text where the one of another time stands: behind `<!-- scripts/bench NAME -->`, up to
/// `<!-- end -->`.
pub fn put_into(file: &Path, name: &str, text: &str) -> Result<()> {
    let whole = fs::read_to_string(file)?;
    let (begin, end) = (format!("<!-- scripts/bench {name} -->\n"), "<!-- end -->\n");
    let without = |mark: &str| format!("{}: no {}", file.display(), mark.trim_end());
    let (before, rest) = whole.split_once(&begin).ok_or_else(|| without(&begin))?;
    let (_, after) = rest.split_once(end).ok_or_else(|| without(end))?;
    Ok(fs::write(file, [before, &begin, "\n", text, end, after].concat())?)
}
