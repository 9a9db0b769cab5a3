//! `lon bench`, with a broker that a thread plays.

use crate::place::{Place, answering};
use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::sync::{Arc, Mutex};
use std::thread;

/// Plays the broker for every connection to `there`, until the test ends.
fn serve(place: &Place, answer: impl Fn(&[u8]) -> Vec<u8> + Clone + Send + 'static) {
    let listener = UnixListener::bind(place.path("run/there")).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, answer) = (stream.unwrap(), answer.clone());
            thread::spawn(move || answering(answer)(stream));
        }
    });
}

#[test]
fn three_works_are_done_and_every_answer_is_counted() {
    let place = Place::new();
    serve(&place, |_| b"there".to_vec());
    let said = place.run(&["bench", "there", "--for", "200ms"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    let heads: Vec<&str> =
        said.out.lines().filter(|line| !line.is_empty() && !line.starts_with(' ')).collect();
    assert_eq!(
        heads,
        [
            "round trip: \"ping\", 4 bytes; programs: 1; ahead of its answer: 1",
            "rate: \"ping\", 4 bytes; programs: 4; ahead of its answer: 64",
            "throughput: \"version:%\", 16384 bytes; programs: 1; ahead of its answer: 16",
        ]
    );
    for part in [" a second, ", " MB/s of requests", "p99.9 ", " % ###"] {
        assert!(said.out.matches(part).count() >= 3, "{part}: {}", said.out);
    }
}

#[test]
fn each_request_has_its_number_its_length_and_its_place_in_the_count() {
    let place = Place::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&seen);
    serve(&place, move |line| {
        kept.lock().unwrap().push(line.to_owned());
        line.to_owned()
    });
    let options = ["--programs", "3", "--ahead", "5", "--size", "100", "--for", "300ms", "--json"];
    let said = place.run(&[&["bench", "there", "echo:%"], &options as &[_]].concat());
    assert_eq!((said.code, said.err.as_str()), (0, ""), "{said:?}");
    let seen = seen.lock().unwrap();
    assert!(seen.iter().all(|line| line.len() == 100 && line.starts_with(b"echo:")));
    // The first is asked before the count begins.
    let distinct: BTreeSet<&[u8]> = seen.iter().map(Vec::as_slice).collect();
    assert_eq!(distinct.len(), seen.len());
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let work = &json["works"][0];
    assert_eq!(work["answered"], seen.len() - 1);
    assert_eq!(
        (&work["programs"], &work["ahead"], &work["request_bytes"]),
        (&3.into(), &5.into(), &100.into())
    );
    assert!(work["microseconds"]["p50"].as_f64().unwrap() > 0.0);
}

#[test]
fn what_is_no_answer_of_the_other_host_is_counted_apart_and_is_the_exit_code() {
    let place = Place::new();
    let count = Arc::new(Mutex::new(0));
    serve(&place, move |_| {
        let mut count = count.lock().unwrap();
        *count += 1;
        if *count % 2 == 0 { b"error:busy".to_vec() } else { b"there".to_vec() }
    });
    let said = place.run(&["bench", "there", "--ahead", "2", "--for", "100ms", "--json"]);
    assert_eq!((said.code, said.err.as_str()), (7, ""), "{said:?}");
    let json: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    let (answered, busy) = (&json["works"][0]["answered"], &json["works"][0]["others"]["error:busy"]);
    let (answered, busy) = (answered.as_u64().unwrap(), busy.as_u64().unwrap());
    assert!(answered > 0 && answered.abs_diff(busy) <= 1, "{said:?}");
}

#[test]
fn who_gets_no_answer_is_told_so_before_any_load() {
    for (answer, code) in [("con_lost", 3), ("refused", 6), ("error:busy", 7)] {
        let place = Place::new();
        let asked = Arc::new(Mutex::new(0));
        let count = Arc::clone(&asked);
        serve(&place, move |_| {
            *count.lock().unwrap() += 1;
            answer.as_bytes().to_vec()
        });
        let said = place.run(&["bench", "there"]);
        assert_eq!((said.code, said.out.as_str()), (code, ""));
        assert_eq!(said.err, format!("lon: bench there: \"ping\" is answered {answer}\n"));
        assert_eq!(*asked.lock().unwrap(), 1);
    }
}

#[test]
fn who_may_not_ask_is_told_by_which_rule() {
    let place = Place::new();
    let toml = format!("{}[[local]]\ndeny = [\"*\"]\n", crate::place::TOML);
    std::fs::write(place.path("lonnet.toml"), toml).unwrap();
    serve(&place, |_| b"refused".to_vec());
    let said = place.run(&["bench", "there"]);
    assert_eq!(said.code, 6);
    assert!(
        said.err.contains("refused by the rule at ") && said.err.contains("lonnet.toml:"),
        "{}",
        said.err
    );
}

#[test]
fn a_broker_that_is_away_or_goes_is_an_error_and_no_measurement() {
    let place = Place::new();
    let said = place.run(&["bench", "there"]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(
        said.err.starts_with("lon: bench there: connect ") && said.err.contains("run/there"),
        "{}",
        said.err
    );

    let listener = UnixListener::bind(place.path("run/there")).unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let one = Mutex::new(0);
            let stream = stream.unwrap();
            let end = stream.try_clone().unwrap();
            answering(move |_| {
                let mut count = one.lock().unwrap();
                *count += 1;
                if *count == 10 {
                    end.shutdown(std::net::Shutdown::Both).unwrap();
                }
                b"there".to_vec()
            })(stream);
        }
    });
    let said = place.run(&["bench", "there", "--ahead", "2"]);
    assert_eq!((said.code, said.out.as_str()), (1, ""));
    assert!(said.err.contains("the broker closed without an answer"), "{}", said.err);
    let said = place.run(&["bench", "nobody"]);
    assert!(said.code == 1 && said.err.contains("ask nobody: has no line in "), "{}", said.err);
    let said = place.run(&["bench", "there", "ping", "--size", "9"]);
    assert!(said.code == 2 && said.err.contains("--size needs a request with a % in it"), "{}", said.err);
}
