//! Lines however they come, and what the buffers keep.

use super::*;

/// Takes so many bytes, and then no more.
struct Sink(usize);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.0);
        self.0 -= count;
        if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn only_what_had_to_wait_and_goes_on_has_moved() {
    let mut out = Outgoing::default();
    out.push_line(&[b'x'; 99]);
    assert!(out.flush_to(&mut Sink(100)).unwrap() && !out.take_moved());
    out.push_line(&[b'x'; 99]);
    assert!(!out.flush_to(&mut Sink(60)).unwrap() && !out.take_moved());
    assert!(!out.flush_to(&mut Sink(0)).unwrap() && !out.take_moved());
    assert!(!out.flush_to(&mut Sink(1)).unwrap() && out.take_moved() && !out.take_moved());
    assert!(out.flush_to(&mut Sink(60)).unwrap() && out.take_moved());
    out.push_line(b"new");
    assert!(out.flush_to(&mut Sink(60)).unwrap() && !out.take_moved());
}

fn lines(reader: &mut LineReader) -> Vec<String> {
    let mut found = Vec::new();
    while let Some(line) = reader.next_line() {
        found.push(match line {
            Line::Whole(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Line::TooLong => "<too long>".to_owned(),
        });
    }
    found
}

#[test]
fn a_reader_goes_on_where_another_stopped_within_a_line_that_is_too_long_too() {
    let text = b"first\nsecond line\n0123456789 far too long 0123456789\nlast\n";
    for cut in 0..text.len() {
        let mut reader = LineReader::new(16);
        reader.push(&text[..cut]);
        let mut found = lines(&mut reader);
        let (rest, skipping) = reader.rest();
        let mut next = LineReader::resume(16, rest.to_vec(), skipping);
        next.push(&text[cut..]);
        found.extend(lines(&mut next));
        assert_eq!(found, ["first", "second line", "<too long>", "last"], "cut at {cut}");
    }
}

#[test]
fn lines_come_out_whole_however_the_bytes_arrive() {
    let text = b"first\n\nthird with \r and \xff\nrest";
    for chunk in 1..text.len() {
        let mut reader = LineReader::new(64);
        let mut found: Vec<Vec<u8>> = Vec::new();
        for part in text.chunks(chunk) {
            reader.push(part);
            while let Some(Line::Whole(line)) = reader.next_line() {
                found.push(line.to_vec());
            }
        }
        assert_eq!(found, [&b"first"[..], b"", b"third with \r and \xff"], "in chunks of {chunk}");
        assert!(reader.mid_line());
        assert_eq!(reader.len(), 4);
    }
}

#[test]
fn a_line_at_the_limit_passes_and_one_byte_more_is_said_once_and_skipped() {
    for chunk in 1..40 {
        let mut reader = LineReader::new(8);
        let mut found = Vec::new();
        for part in b"12345678\n123456789\nafter\n12345678901234567890123\nend\n".chunks(chunk) {
            reader.push(part);
            found.extend(lines(&mut reader));
        }
        assert_eq!(found, ["12345678", "<too long>", "after", "<too long>", "end"], "in chunks of {chunk}");
        assert!(!reader.mid_line());
    }
}

#[test]
fn an_endless_line_is_not_kept_in_memory() {
    let mut reader = LineReader::new(1000);
    let mut said = 0;
    for _ in 0..10_000 {
        reader.push(&[b'x'; 10_000]);
        said += lines(&mut reader).len();
        assert!(reader.len() <= 1000 + 10_000);
    }
    assert_eq!(said, 1);
    assert!(reader.buffer.capacity() < 1_000_000);
    reader.push(b"\nok\n");
    assert_eq!(lines(&mut reader), ["ok"]);
}

#[test]
fn what_was_written_in_part_goes_on_where_it_stopped() {
    struct Narrow(Vec<u8>, usize);
    impl io::Write for Narrow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            match self.1 % 3 {
                0 => Err(io::ErrorKind::WouldBlock.into()),
                1 => Err(io::ErrorKind::Interrupted.into()),
                _ => {
                    let count = bytes.len().min(7);
                    self.0.extend_from_slice(&bytes[..count]);
                    Ok(count)
                }
            }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut out = Outgoing::default();
    let mut sink = Narrow(Vec::new(), 0);
    let mut expected = Vec::new();
    for number in 0..1000 {
        out.push_line(format!("line {number}").as_bytes());
        expected.extend_from_slice(format!("line {number}\n").as_bytes());
    }
    while !out.flush_to(&mut sink).unwrap() {}
    assert_eq!(sink.0, expected);
    assert!(out.is_empty());
}
