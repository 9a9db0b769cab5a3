//! What came of the works, for people and for programs. Pure.

use super::load::Taken;
use super::work::Work;
use crate::exchange;
use base::HostId;
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;

/// Quantiles that are said, and their names.
const QUANTILES: [(f64, &str); 4] = [(0.5, "p50"), (0.9, "p90"), (0.99, "p99"), (0.999, "p99.9")];

/// A row of the histogram ends where the one before it does, times this; the first is at 1 us.
const STEP: f64 = 1.5;
const FIRST_NS: u64 = 1_000;
/// Characters of the longest bar.
const BAR: usize = 40;

/// What came of all works so far.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    peer: HostId,
    works: Vec<Row>,
}

/// What came of one.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    request: String,
    request_bytes: usize,
    programs: usize,
    ahead: usize,
    seconds: f64,
    /// Answers of the other host.
    answered: u64,
    per_second: f64,
    /// Bytes of requests that were answered.
    bytes_per_second: f64,
    /// Answers that are not the other host's, and how many.
    others: BTreeMap<String, u64>,
    /// From a request to its answer; nothing where there is no answer.
    microseconds: BTreeMap<&'static str, f64>,
    /// Of the answers, how many took up to so long and longer than those before it.
    histogram: Vec<Bucket>,
}

#[derive(Debug, Serialize)]
struct Bucket {
    up_to_microseconds: f64,
    answers: u64,
}

impl Report {
    pub(super) fn new(peer: &HostId) -> Report {
        Report { peer: peer.clone(), works: Vec::new() }
    }

    pub(super) fn add(&mut self, work: &Work, taken: &Taken) {
        self.works.push(Row::new(work, taken));
    }

    /// The work that was added last.
    pub(super) fn last_for_people(&self) -> String {
        self.works.last().map(Row::for_people).unwrap_or_default()
    }

    /// All of it.
    pub(super) fn json(&self) -> String {
        status::json(self)
    }

    /// The highest of what the answers mean, as for `lon reply`.
    pub(super) fn exit_code(&self) -> u8 {
        let others = self.works.iter().flat_map(|row| row.others.keys());
        others.map(|answer| exchange::code_of(answer.as_bytes())).max().unwrap_or(0)
    }
}

impl Row {
    fn new(Work { name, request, programs, ahead, .. }: &Work, taken: &Taken) -> Row {
        let (times, seconds) = (&taken.times, taken.elapsed.as_secs_f64());
        let per_second = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
        let text = |(answer, count): (&Vec<u8>, &u64)| (String::from_utf8_lossy(answer).into_owned(), *count);
        let mut microseconds = BTreeMap::new();
        if !times.is_empty() {
            microseconds.extend(QUANTILES.map(|(part, name)| (name, micros(times.value_at_quantile(part)))));
            microseconds.extend([("min", micros(times.min())), ("max", micros(times.max()))]);
        }
        let rows = times.iter_log(FIRST_NS, STEP).map(|row| Bucket {
            up_to_microseconds: micros(row.value_iterated_to()),
            answers: row.count_since_last_iteration(),
        });
        let before_first = |bucket: &Bucket| bucket.answers == 0;
        Row {
            name,
            request: request.shown(),
            request_bytes: request.len(),
            programs: *programs,
            ahead: *ahead,
            seconds,
            answered: times.len(),
            per_second: per_second(times.len() as f64),
            bytes_per_second: per_second(times.len() as f64 * request.len() as f64),
            others: taken.others.iter().map(text).collect(),
            microseconds,
            histogram: rows.skip_while(before_first).collect(),
        }
    }

    fn for_people(&self) -> String {
        let Row { name, request, request_bytes, programs, ahead, seconds, answered, .. } = self;
        let mut text = format!(
            "{name}: {request:?}, {request_bytes} bytes; programs: {programs}; ahead of its answer: {ahead}\n"
        );
        let mut line = |what: String| {
            text.push_str("  ");
            text.push_str(&what);
            text.push('\n');
        };
        line(format!(
            "{answered} answers in {seconds:.2} s: {:.0} a second, {:.2} MB/s of requests",
            self.per_second,
            self.bytes_per_second / 1e6
        ));
        for (answer, count) in &self.others {
            line(format!("{count} were answered {answer:?}"));
        }
        if !self.microseconds.is_empty() {
            let order = ["min", "p50", "p90", "p99", "p99.9", "max"];
            let said = order.map(|name| (name, self.microseconds.get(name).copied().unwrap_or_default()));
            line(said.map(|(name, micros)| format!("{name} {}", time(micros))).join("  "));
        }
        let most = self.histogram.iter().map(|bucket| bucket.answers).max().unwrap_or(0).max(1);
        for Bucket { up_to_microseconds, answers } in &self.histogram {
            let bar = "#".repeat(usize::try_from(answers * BAR as u64 / most).unwrap_or(BAR));
            let part = 100.0 * *answers as f64 / *answered as f64;
            line(format!("{:>9} {part:>6.2} % {bar}", time(*up_to_microseconds)).trim_end().to_owned());
        }
        text.push('\n');
        text
    }
}

fn micros(nanos: u64) -> f64 {
    Duration::from_nanos(nanos).as_secs_f64() * 1e6
}

/// With three digits, as people read it.
fn time(micros: f64) -> String {
    let (value, unit) = match micros {
        ..1e3 => (micros, "us"),
        1e3..1e6 => (micros / 1e3, "ms"),
        _ => (micros / 1e6, "s"),
    };
    let digits = if value < 9.995 { 2 } else { usize::from(value < 99.95) };
    format!("{value:.digits$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::super::work::tests::works;
    use super::*;

    fn taken(times: impl IntoIterator<Item = u64>) -> Taken {
        let mut taken = Taken::new().unwrap();
        taken.elapsed = Duration::from_secs(2);
        for time in times {
            taken.answered(b"there", Duration::from_nanos(time)).unwrap();
        }
        taken
    }

    #[test]
    fn what_came_is_said_in_full_for_people_and_for_programs() {
        let work = &works(&["echo:%", "--ahead", "3", "--size", "1000"], 4_096).unwrap()[0];
        let mut one = taken((1..=1_000).map(|time| time * 1_000));
        one.others.insert(b"error:busy".to_vec(), 7);
        let mut report = Report::new(&HostId::new("there").unwrap());
        report.add(work, &one);
        let text = report.last_for_people();
        let expected = "work: \"echo:%\", 1000 bytes; programs: 1; ahead of its answer: 3\n  \
                        1000 answers in 2.00 s: 500 a second, 0.50 MB/s of requests\n  \
                        7 were answered \"error:busy\"\n  \
                        min 1.00 us  p50 502 us  p90 901 us  p99 991 us  p99.9 999 us  max 1.00 ms\n";
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(report.exit_code(), 7);
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        let row = &json["works"][0];
        assert_eq!(
            (&json["peer"], &row["name"], &row["answered"]),
            (&"there".into(), &"work".into(), &1_000.into())
        );
        assert_eq!((&row["per_second"], &row["bytes_per_second"]), (&500.0.into(), &500_000.0.into()));
        assert_eq!(row["others"]["error:busy"], 7);
        let counted = row["histogram"].as_array().unwrap().iter().map(|row| row["answers"].as_u64().unwrap());
        assert_eq!(counted.sum::<u64>(), 1_000);
    }

    #[test]
    fn the_bars_begin_with_the_first_answer_and_leave_no_row_out_between() {
        let work = &works(&[], 4_096).unwrap()[0];
        let mut report = Report::new(&HostId::new("there").unwrap());
        report.add(work, &taken([100_000, 100_000, 1_000_000]));
        let text = report.last_for_people();
        let rows: Vec<&str> =
            text.lines().filter(|line| line.contains(" % ") || line.ends_with(" %")).collect();
        assert!(rows[0].ends_with(" 66.67 % ########################################"), "{text}");
        assert!(rows.last().unwrap().ends_with(" 33.33 % ####################"), "{text}");
        assert!(
            rows.len() > 3 && rows[1..rows.len() - 1].iter().all(|row| row.ends_with(" 0.00 %")),
            "{text}"
        );
    }

    #[test]
    fn without_an_answer_there_is_nothing_to_measure() {
        let work = &works(&[], 4_096).unwrap()[0];
        let mut report = Report::new(&HostId::new("there").unwrap());
        let mut none = taken([]);
        none.others.insert(b"con_lost".to_vec(), 2);
        report.add(work, &none);
        let text = report.last_for_people();
        assert!(text.contains("  0 answers in 2.00 s: 0 a second") && !text.contains("p50"), "{text}");
        assert_eq!(report.exit_code(), 3);
    }

    #[test]
    fn times_have_three_digits() {
        for (micros, text) in [
            (0.5, "0.50 us"),
            (61.94, "61.9 us"),
            (999.0, "999 us"),
            (1_270.0, "1.27 ms"),
            (2_100_000.0, "2.10 s"),
        ] {
            assert_eq!(time(micros), text);
        }
    }
}
