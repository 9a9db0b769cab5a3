//! What each request is answered.

use super::*;

#[test]
fn each_built_in_request_has_its_answer() {
    let mut bench = Bench::open();
    for (request, answer) in [
        ("ping", "msul1"),
        ("version", VERSION_ANSWER),
        ("version:x:y", VERSION_ANSWER),
        ("sethost:msul1", "ok"),
        ("sethost:msul2", "refused"),
        ("sethost:", "refused"),
        ("log:", "ok"),
        ("init", "unknown_cmd"),
        ("ping\r", "msul1"),
        ("version\r", VERSION_ANSWER),
        ("ping\r\r", "unknown_cmd"),
        ("nonsense\r", "unknown_cmd"),
        ("nonsense", "unknown_cmd"),
        ("\u{0}\u{1}\u{fffd}", "unknown_cmd"),
        (":", "unknown_cmd"),
        ("secret", "refused"),
        ("secret:x", "refused"),
        ("secretive", "unknown_cmd"),
    ] {
        assert_eq!(bench.exchange(format!("{request}\n").as_bytes()), format!("{answer}\n"), "{request:?}");
    }
    let secret = "refused Handler(1)";
    assert_eq!(bench.effects(), ["log ", secret, secret]);
    bench.send(b"load\n");
    assert_eq!(bench.effects(), ["load"]);
    bench.answer(0, "50");
    assert_eq!(bench.read(), "50\n");
    assert_eq!(bench.exchange(b"log:a b:c\n"), "ok\n");
    assert_eq!(bench.effects(), ["log a b:c"]);
    bench.send(b"pong\n");
    bench.session.asked_back(bench.tickets[1], None);
    assert_eq!(bench.read(), "msul1:con_lost\n");
}

#[test]
fn a_handler_gets_the_whole_line_unchanged() {
    let mut bench = Bench::open();
    bench.send(b"echo\necho:\necho:a:b \r\x01\nother:x\n");
    assert_eq!(bench.effects(), ["ask 0 echo", "ask 0 echo:", "ask 0 echo:a:b \r\u{1}", "ask 2 other:x"]);
    for number in 0..4 {
        bench.answer(number, &format!("answer {number}"));
    }
    assert_eq!(bench.read(), "answer 0\nanswer 1\nanswer 2\nanswer 3\n");
}

#[test]
fn answers_leave_in_the_order_of_the_requests_whoever_answers_first() {
    let mut bench = Bench::open();
    bench.send(b"echo:1\nping\npong\nother:2\nnonsense\nekey\nlog:x\n");
    assert_eq!(bench.read(), "");
    bench.answer(2, "two");
    bench.session.asked_back(bench.tickets[1], Some(b"msua1"));
    assert_eq!(bench.read(), "");
    bench.answer(0, "one");
    let answers = bench.read();
    let lines: Vec<&str> = answers.lines().collect();
    assert_eq!(lines[..5], ["one", "msul1", "msul1:msua1", "two", "unknown_cmd"]);
    assert_eq!(lines[5].len(), 32);
    assert_eq!(lines[6..], ["ok"]);
}

#[test]
fn enciphered_requests_get_enciphered_answers() {
    let mut bench = Bench::open();
    let cipher = bench.ekey();
    for (request, answer) in [("ping", "msul1"), ("nonsense", "unknown_cmd"), ("secret:1", "refused")] {
        assert_eq!(bench.exchange(sealed(&cipher, request).as_bytes()), sealed(&cipher, answer), "{request}");
    }
    bench.send(sealed(&cipher, "echo:in secret").as_bytes());
    bench.send(sealed(&cipher, "log:hush").as_bytes());
    bench.send(sealed(&cipher, "pong").as_bytes());
    let barred = "refused Handler(1)";
    assert_eq!(bench.effects(), [barred, "ask 0 echo:in secret", "log hush", "ask back"]);
    bench.session.asked_back(bench.tickets[1], None);
    bench.answer(0, "caf\u{e9}");
    let expected = [sealed(&cipher, "caf\u{e9}"), sealed(&cipher, "ok"), sealed(&cipher, "msul1:con_lost")];
    assert_eq!(bench.read(), expected.concat());
    let upper = sealed(&cipher, "ping").to_uppercase().replace("ENC", "enc");
    assert_eq!(bench.exchange(upper.as_bytes()), sealed(&cipher, "msul1"));
    assert_eq!(bench.exchange(b"ping\n"), "msul1\n", "plain requests go on beside");
    assert_eq!(bench.exchange(sealed(&cipher, "exit").as_bytes()), sealed(&cipher, "bye"));
}

#[test]
fn the_cipher_is_that_of_the_published_vectors() {
    let mut bench = Bench::open();
    bench.session.cipher =
        Some(Rc::new(Cipher::agree(&id("msul1"), &id("msua1"), b"41342A79EAFBE8FC990EFC7D2928")));
    bench.send(b"enc:18:6f5e9db1c3c85cd30b5859a52d41f4ac9f3b375ab2d09744\nenc:4:e9cf4008a9e0407d\n");
    assert_eq!(bench.effects(), ["log secret delayed"]);
    let answers = bench.read();
    assert_eq!(answers.lines().count(), 2);
    assert!(answers.lines().all(|line| line.starts_with("enc:")), "{answers}");
}

#[test]
fn a_bad_enciphered_request_is_an_error_and_the_link_goes_on() {
    let mut bench = Bench::open();
    let without = bench.exchange(b"enc:4:e9cf4008a9e0407d\n");
    assert_eq!(without, "error:enciphered request, but no cipher was agreed\n");
    let cipher = bench.ekey();
    for bad in ["enc:", "enc:4", "enc:x:00", "enc:4:0", "enc:4:zz", "enc:4:00", "enc:9:e9cf4008a9e0407d"] {
        let answer = bench.exchange(format!("{bad}\n").as_bytes());
        assert!(answer.starts_with("error:enciphered request: "), "{bad}: {answer}");
        assert_eq!(answer.lines().count(), 1);
    }
    let answer = bench.exchange(sealed(&cipher, "echo:one\necho:two").as_bytes());
    assert_eq!(answer, "error:enciphered request: a newline in it\n");
    assert_eq!(bench.effects(), [""; 0], "no handler gets two lines for one");
    for word in ["", "init", "enc:0:", sealed(&cipher, "x").trim_end()] {
        let answer = bench.exchange(sealed(&cipher, word).as_bytes());
        assert_eq!(answer, sealed(&cipher, "unknown_cmd"), "{word:?} is a request like any other");
    }
    assert_eq!(bench.exchange(b"ping\n"), "msul1\n");
}

#[test]
fn a_new_key_holds_from_there_on_and_older_requests_keep_the_old_one() {
    let mut bench = Bench::open();
    let old = bench.ekey();
    bench.send(sealed(&old, "echo:old").as_bytes());
    bench.send(b"ekey\n");
    assert_eq!(bench.read(), "", "the key waits for the answer before it");
    bench.answer(0, "done");
    let answers = bench.read();
    let (first, buildkey) = answers.split_once('\n').unwrap();
    assert_eq!(format!("{first}\n"), sealed(&old, "done"));
    let new = Cipher::agree(&id(OURS), &id(CALLER), buildkey.trim_end().as_bytes());
    assert_eq!(bench.exchange(sealed(&new, "ping").as_bytes()), sealed(&new, "msul1"));
    let sealed_key = bench.exchange(sealed(&new, "ekey").as_bytes());
    let buildkey = new.open(sealed_key.trim_end().as_bytes()).unwrap();
    let newest = Cipher::agree(&id(OURS), &id(CALLER), &buildkey);
    assert_eq!(bench.exchange(sealed(&newest, "ping").as_bytes()), sealed(&newest, "msul1"));
}

#[test]
fn a_line_that_is_too_long_is_an_error_and_the_link_goes_on() {
    let mut bench = Bench::open();
    let error = format!("error:request longer than {MAX_LINE} bytes\n");
    let fits = format!("echo:{}", "x".repeat(MAX_LINE - 5));
    bench.send(format!("{fits}\n").as_bytes());
    assert_eq!(bench.effects(), [format!("ask 0 {fits}")]);
    bench.answer(0, "y");
    assert_eq!(bench.read(), "y\n");
    assert_eq!(bench.exchange(format!("{fits}x\nping\n").as_bytes()), format!("{error}msul1\n"));
    for _ in 0..100 {
        bench.send(&[b'z'; 10_000]);
        assert!(bench.session.reader.is_empty(), "what is skipped is not kept");
    }
    assert_eq!(bench.read(), error, "said once");
    assert_eq!(bench.exchange(b"\nping\n"), "msul1\n");
    assert_eq!(bench.exchange(format!("log:{}\n", "x".repeat(MAX_LINE)).as_bytes()), error);
    assert_eq!(bench.exchange(format!("version:{}\n", "x".repeat(MAX_LINE)).as_bytes()), error);
    let cipher = bench.ekey();
    bench.send(sealed(&cipher, &fits).as_bytes());
    assert_eq!(bench.effects(), [format!("ask 0 {fits}")], "the limit is the request's, not its cipher's");
    bench.answer(1, "y");
    bench.read();
    let over = bench.exchange(sealed(&cipher, &format!("{fits}x")).as_bytes());
    assert_eq!(over, sealed(&cipher, error.trim_end()));
}
