//! What one user may have of the spool's bounds, and that it is known again after a start.

use super::dropped::{INBOX, put, take_in, there};
use super::*;

const GREEDY: Option<u32> = Some(1000);
const LATER: Option<u32> = Some(1001);

/// How many of `count` messages of a user are stored.
fn stored<D: Disk>(spool: &mut Spool<D>, user: Option<u32>, count: usize, request: &str) -> usize {
    store_as(spool, user, &vec![request; count]).iter().filter(|result| result.is_ok()).count()
}

fn bounded(disk: &FaultyDisk, messages: u64, bytes: u64) -> Spool<FaultyDisk> {
    let limits = SpoolLimits { messages, bytes, keep_free: 0 };
    Spool::open_with_segments(disk.clone(), Path::new(DIR), limits, SEGMENT)
}

#[test]
fn a_user_alone_has_three_quarters_and_each_who_comes_later_three_quarters_of_the_rest() {
    let mut spool = bounded(&new_disk(), 64, 1 << 30);
    for (user, room) in [(GREEDY, 48), (LATER, 12), (None, 3), (Some(0), 1)] {
        assert_eq!(stored(&mut spool, user, 100, "m"), room, "{user:?}");
    }
    let refused = store_as(&mut spool, Some(5), &["m"]).remove(0);
    assert!(matches!(refused, Err(StoreError::Full(Full::Messages { limit: 64 }))));
    let mut spool = bounded(&new_disk(), 64, 1 << 30);
    stored(&mut spool, LATER, 12, "m");
    let refused = store_as(&mut spool, GREEDY, &vec!["m"; 100]).pop().unwrap().unwrap_err();
    assert_eq!(
        refused.to_string(),
        "user 1000 has its share of the spool: 39 messages of its own wait, and the 13 that are free are kept \
         for others; message refused"
    );
}

#[test]
fn the_share_is_of_the_bytes_of_lines_too_and_comes_back_with_what_is_settled() {
    for length in [1, 100, 3000] {
        let request = "x".repeat(length);
        let mut spool = bounded(&new_disk(), 1_000_000, 64 * SEGMENT);
        let greedy = stored(&mut spool, GREEDY, 2000, &request);
        let later = stored(&mut spool, LATER, 2000, &request);
        assert!(greedy > 3 * later && later > 0, "{greedy} and {later} of {length} bytes");
        assert_eq!(stored(&mut spool, GREEDY, 1, &request), 0);
        for _ in 0..later * 2 {
            let message = spool.next_unsent().unwrap().unwrap();
            spool.settle(message.sequence);
        }
        assert!(stored(&mut spool, GREEDY, 1, &request) == 1, "{length} bytes");
    }
}

#[test]
fn what_the_file_system_has_left_is_shared_as_it_is_found_now() {
    let disk = new_disk();
    disk.set_free_space(64 * SEGMENT);
    let mut spool = bounded(&disk, 1_000_000, 1 << 30);
    let request = "x".repeat(400);
    stored(&mut spool, GREEDY, 100, &request);
    disk.set_free_space(4 * SEGMENT);
    let greedy = stored(&mut spool, GREEDY, 100, &request);
    assert!(greedy < 10, "{greedy}: what others have written is noticed with the next segment");
    assert!(matches!(store_as(&mut spool, GREEDY, &[&request])[0], Err(StoreError::Over(_))));
    assert!(stored(&mut spool, LATER, 3, &request) == 3);
    disk.set_free_space(64 * SEGMENT);
    assert_eq!(stored(&mut spool, GREEDY, 10, &request), 10, "nobody has made a segment since");
}

#[test]
fn a_start_knows_the_shares_again_and_what_says_of_no_user_is_one_users() {
    let disk = new_disk();
    let mut spool = bounded(&disk, 64, 1 << 30);
    stored(&mut spool, None, 3, "old");
    stored(&mut spool, GREEDY, 100, "m");
    stored(&mut spool, LATER, 2, "m");
    drop(spool);
    disk.restart(Keep::Nothing);
    let mut spool = bounded(&disk, 64, 1 << 30);
    assert_eq!(stored(&mut spool, GREEDY, 1, "m"), 0);
    assert_eq!(stored(&mut spool, LATER, 1, "m"), 1);
    assert_eq!(spool.queue.waiting().of(None).messages, 3);
    replay(&mut spool, true);
    assert_eq!(*spool.queue.waiting(), queue::Loads::default(), "nobody is remembered");
}

#[test]
fn what_is_held_passed_over_or_lost_is_taken_off_its_users_share() {
    let disk = new_disk();
    let mut spool = bounded(&disk, 64, 1 << 30);
    stored(&mut spool, GREEDY, 5, &"x".repeat(300));
    stored(&mut spool, LATER, 1, "m");
    let first = spool.next_unsent().unwrap().unwrap().sequence;
    spool.unsend(first);
    assert!(spool.hold(first, "x"));
    assert_eq!(spool.queue.waiting().of(GREEDY).messages, 5);
    spool.release("x");
    // The end of the first line is damaged, and the whole of the second.
    let (path, mut bytes) = segments(&disk).pop_first().unwrap();
    drop(spool);
    bytes[71 + 300 + 4] ^= 1;
    bytes[71 + 300 + 21 + 100] ^= 1;
    disk.put(&path, &bytes);
    let mut spool = bounded(&disk, 64, 1 << 30);
    let of = |spool: &Spool<FaultyDisk>, user| spool.queue.waiting().of(user).messages;
    assert_eq!((of(&spool, GREEDY), of(&spool, None), of(&spool, LATER)), (3, 1, 1));
    assert_eq!(replay(&mut spool, true).len(), 5, "of the first it is only not known whose it is");
    assert_eq!(*spool.queue.waiting(), queue::Loads::default());
}

#[test]
fn files_of_a_user_who_has_its_share_stay_in_their_order_and_others_are_taken_in() {
    let disk = new_disk();
    let mut spool = bounded(&disk, 8, 1 << 30);
    let drop_in = |name: String, user| {
        put(&disk, &name, format!("{name}\n").as_bytes());
        disk.give(&Path::new(INBOX).join(&name), user);
    };
    (0..9).for_each(|number| drop_in(format!("{number}.msul1"), 1000));
    drop_in("9.msul1".to_owned(), 1001);
    let taken = take_in(&mut spool, now());
    assert_eq!((taken.stored, taken.over.len(), taken.refused.is_none()), (7, 1, true));
    assert!(taken.retry_at.is_some() && there(&disk, "6.msul1") && there(&disk, "8.msul1"));
    assert!(!there(&disk, "9.msul1"), "another user's");
    let mut came = replay(&mut spool, true);
    assert_eq!(take_in(&mut spool, now()).stored, 3);
    came.extend(replay(&mut spool, true));
    let numbers = [0, 1, 2, 3, 4, 5, 9, 6, 7, 8];
    assert_eq!(came, numbers.map(|number| format!("{number}.msul1")));
}
