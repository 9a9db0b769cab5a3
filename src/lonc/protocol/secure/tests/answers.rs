//! Answers in chunks: put together, dropped, and given back of the window.

use super::*;

#[test]
fn answers_in_chunks_are_put_together_and_their_bytes_given_back() {
    let mut rig = Rig::open(big());
    rig.ask(1..=80);
    let chunk = [b'y'; MAX_BODY];
    let mut given = 0;
    let mut heard = Words::new();
    for round in 1..=40 {
        let words = rig.hear(|out| {
            put_answer(out, round, true, &chunk);
            put_answer(out, 40 + round, false, b"between");
            for _ in 0..3 {
                put_answer(out, round, true, &chunk);
            }
            put_answer(out, round, false, b"end");
        });
        heard.extend(words.unwrap());
        given += rig.sent().iter().map(|got| got.3).sum::<usize>();
    }
    assert_eq!(heard.len(), 80);
    assert!(heard[1].len() == "1: ".len() + 4 * MAX_BODY + 3 && heard[1].ends_with("end"));
    let used = 40 * (4 * (MAX_BODY + 64) + 64 + 7 + 64 + 3);
    assert!(given <= used && used - given < big() as usize / 4, "{given} of {used}");
}

#[test]
fn an_answer_too_long_or_of_two_lines_fails_alone() {
    let mut rig = Rig::open(big());
    rig.ask(1..=3);
    let chunk = [b'y'; MAX_BODY];
    let mut heard = Words::new();
    for _ in 0..=MAX_LINE as usize / MAX_BODY {
        heard.extend(rig.hear(|out| put_answer(out, 1, true, &chunk)).unwrap());
    }
    heard.extend(
        rig.hear(|out| {
            put_answer(out, 1, false, b"");
            put_answer(out, 2, false, b"two\nlines");
            put_answer(out, 3, false, b"good");
        })
        .unwrap(),
    );
    let [too_long, two_lines, good] = &heard[..] else { panic!("{heard:?}") };
    assert!(too_long.starts_with("1: error:") && two_lines.starts_with("2: error:"), "{heard:?}");
    assert_eq!(good, "3: good");
}

#[test]
fn answers_that_nobody_waits_for_are_dropped_chunk_by_chunk_and_cost_nothing() {
    let mut rig = Rig::open(big());
    rig.ask(1..=1000);
    rig.hear(|out| (1..=900).for_each(|id| put_answer(out, id, false, b"x"))).unwrap();
    // Begun and never ended, to ids that were answered: many windows full.
    let mut given = 0;
    for round in 0..20 {
        for id in 1..=900 {
            assert_eq!(rig.hear(|out| put_answer(out, id, true, &[b'y'; 1024])).unwrap(), Words::new());
            assert_eq!(rig.secure.assembly.unfinished(), 0, "round {round}");
        }
        given += rig.sent().iter().filter(|got| got.0 == Kind::Window).map(|got| got.3).sum::<usize>();
    }
    let taken = 900 * (65 + 20 * (64 + 1024));
    assert!(given <= taken && taken - given < big() as usize / 4, "{given} of {taken}");
    assert_eq!(rig.hear(|out| put_answer(out, 950, false, b"good")).unwrap(), ["950: good"]);
}

#[test]
fn the_window_is_given_back_when_an_answer_is_taken_and_not_for_each_chunk() {
    let mut rig = Rig::open(big());
    rig.ask(1..=3);
    let chunks = MAX_LINE as usize / MAX_BODY;
    for _ in 0..chunks - 1 {
        rig.hear(|out| put_answer(out, 1, true, &[b'x'; MAX_BODY])).unwrap();
    }
    assert!(rig.sent().is_empty(), "nothing is taken yet");
    rig.hear(|out| put_answer(out, 1, false, &[b'x'; MAX_BODY])).unwrap();
    assert_eq!(rig.sent(), [Got(Kind::Window, 0, false, chunks * (MAX_BODY + 64))]);
    // A request that is cancelled while its answer comes gives back what was kept of it, and drops
    // the rest.
    for _ in 0..chunks - 1 {
        rig.hear(|out| put_answer(out, 2, true, &[b'x'; MAX_BODY])).unwrap();
    }
    rig.secure.cancel(2, &mut rig.out);
    rig.secure.carry_on(&mut rig.out);
    let back = Got(Kind::Window, 0, false, (chunks - 1) * (MAX_BODY + 64));
    assert_eq!(rig.sent(), [Got(Kind::Cancel, 2, false, 0), back]);
    assert_eq!(rig.hear(|out| put_answer(out, 2, true, b"x")).unwrap(), Words::new());
    assert_eq!((rig.secure.assembly.unfinished(), rig.secure.credit.held()), (0, 0));
}
