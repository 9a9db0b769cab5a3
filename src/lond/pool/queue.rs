//! Requests that wait until a process can take them. Pure.
//!
//! Bounded by their number and their bytes. Those of each asking host are in their order; the hosts
//! take turns, so that one which asks much does not keep another waiting. Nor does it keep another
//! out: at the bound the newest of who has most gives way to one of who would have less.

use crate::handler::tag::Request;
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

/// A request, from when it came until it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    /// The connection that it came on.
    pub client: usize,
    /// What it is called there.
    pub tag: u64,
    /// Its words, as they came.
    pub from: Box<[u8]>,
    pub id: Box<[u8]>,
    pub key: Box<[u8]>,
    pub text: Box<[u8]>,
    /// When it came.
    pub since: Instant,
}

impl Ask {
    pub(super) fn new(client: usize, request: &Request<'_>, since: Instant) -> Ask {
        let Request { tag, from, id, key, text } = *request;
        Ask { client, tag, from: from.into(), id: id.into(), key: key.into(), text: text.into(), since }
    }

    /// The same with another tag, for who is asked.
    pub(super) fn request(&self, tag: u64) -> Request<'_> {
        Request { tag, from: &self.from, id: &self.id, key: &self.key, text: &self.text }
    }

    /// Whether its sender keeps it until it is answered.
    pub(super) fn is_critical(&self) -> bool {
        self.request(0).is_critical()
    }

    fn bytes(&self) -> usize {
        self.from.len() + self.id.len() + self.key.len() + self.text.len() + size_of::<Ask>()
    }
}

/// What waits of one host.
#[derive(Debug, Default)]
struct Waiting {
    asks: VecDeque<Ask>,
    bytes: usize,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Queue {
    /// No list is empty; the oldest of a host stands first.
    hosts: BTreeMap<Box<[u8]>, Waiting>,
    /// The hosts, whose turn it is first.
    turn: VecDeque<Box<[u8]>>,
    count: usize,
    bytes: usize,
    most: usize,
    most_bytes: usize,
}

impl Queue {
    /// For at most so many requests, and so many bytes of them.
    pub(super) fn new(most: usize, most_bytes: usize) -> Queue {
        Queue { hosts: BTreeMap::new(), turn: VecDeque::new(), count: 0, bytes: 0, most, most_bytes }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Has a request wait, behind those of its host. Gives those of others that give way to it.
    ///
    /// # Errors
    /// There is no room for more of this host: the request comes back.
    pub(super) fn push(&mut self, ask: Ask) -> Result<Vec<Ask>, Ask> {
        let mut gone = Vec::new();
        while !self.has_room(&ask) {
            match self.give_way(&ask) {
                Some(other) => gone.push(other),
                // What has given way in vain was more than its host's share.
                None if gone.is_empty() => return Err(ask),
                None => {
                    gone.push(ask);
                    return Ok(gone);
                }
            }
        }
        self.add(ask, VecDeque::push_back);
        Ok(gone)
    }

    fn has_room(&self, ask: &Ask) -> bool {
        self.count < self.most && self.bytes + ask.bytes() <= self.most_bytes
    }

    /// Takes out the newest of the host that has most of what there is too much of, if that is more
    /// than the host of this request would have.
    fn give_way(&mut self, ask: &Ask) -> Option<Ask> {
        let bytes = self.count < self.most;
        let size = |waiting: &Waiting| if bytes { waiting.bytes } else { waiting.asks.len() };
        let own = self.hosts.get(&ask.from).map_or(0, size) + if bytes { ask.bytes() } else { 1 };
        let (host, most) = self.hosts.iter().max_by_key(|(_, waiting)| size(waiting))?;
        if size(most) <= own {
            return None;
        }
        let host = host.clone();
        self.remove(&host, VecDeque::pop_back)
    }

    /// One that was taken and that no process has begun is the next of its host again.
    pub(super) fn put_back(&mut self, ask: Ask) {
        self.add(ask, VecDeque::push_front);
    }

    fn add(&mut self, ask: Ask, put: impl FnOnce(&mut VecDeque<Ask>, Ask)) {
        self.count += 1;
        self.bytes += ask.bytes();
        if !self.hosts.contains_key(&ask.from) {
            self.turn.push_back(ask.from.clone());
        }
        let waiting = self.hosts.entry(ask.from.clone()).or_default();
        waiting.bytes += ask.bytes();
        put(&mut waiting.asks, ask);
    }

    /// Takes one of a host's out.
    fn remove(&mut self, host: &[u8], take: impl FnOnce(&mut VecDeque<Ask>) -> Option<Ask>) -> Option<Ask> {
        let waiting = self.hosts.get_mut(host)?;
        let ask = take(&mut waiting.asks)?;
        waiting.bytes -= ask.bytes();
        self.count -= 1;
        self.bytes -= ask.bytes();
        if waiting.asks.is_empty() {
            self.hosts.remove(host);
            self.turn.retain(|other| **other != *host);
        }
        Some(ask)
    }

    /// The next one of those whose connection takes its answer.
    pub(super) fn take(&mut self, takes: impl Fn(usize) -> bool) -> Option<Ask> {
        let hosts = &self.hosts;
        let first = |host: &[u8]| hosts.get(host).and_then(|waiting| waiting.asks.front());
        let at = self.turn.iter().position(|host| first(host).is_some_and(|ask| takes(ask.client)))?;
        let host = self.turn.remove(at)?;
        let ask = self.remove(&host, VecDeque::pop_front)?;
        if self.hosts.contains_key(&host) {
            self.turn.push_back(host);
        }
        Some(ask)
    }

    /// Takes out all that `go`.
    pub(super) fn take_all(&mut self, go: impl Fn(&Ask) -> bool) -> Vec<Ask> {
        let mut gone = Vec::new();
        for waiting in self.hosts.values_mut() {
            let (out, stay) = waiting.asks.drain(..).partition::<VecDeque<Ask>, _>(|ask| go(ask));
            waiting.asks = stay;
            waiting.bytes -= out.iter().map(Ask::bytes).sum::<usize>();
            gone.extend(out);
        }
        self.hosts.retain(|_, waiting| !waiting.asks.is_empty());
        self.turn.retain(|host| self.hosts.contains_key(host));
        self.count -= gone.len();
        self.bytes -= gone.iter().map(Ask::bytes).sum::<usize>();
        gone
    }

    /// Takes out those that have waited for so long.
    pub(super) fn overdue(&mut self, limit: Duration, now: Instant) -> Vec<Ask> {
        match self.deadline(limit) {
            Some(at) if at <= now => self.take_all(|ask| ask.since + limit <= now),
            Some(_) | None => Vec::new(),
        }
    }

    /// When the first has waited for so long.
    pub(super) fn deadline(&self, limit: Duration) -> Option<Instant> {
        self.hosts.values().filter_map(|waiting| waiting.asks.front()).map(|ask| ask.since + limit).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(client: usize, tag: u64, from: &[u8], id: &[u8]) -> Ask {
        Ask::new(client, &Request { tag, from, id, key: b"-", text: b"echo:x" }, Instant::now())
    }

    fn taken(queue: &mut Queue, takes: impl Fn(usize) -> bool) -> Vec<u64> {
        std::iter::from_fn(|| queue.take(&takes)).map(|ask| ask.tag).collect()
    }

    #[test]
    fn hosts_take_turns_and_each_has_its_order() {
        let mut queue = Queue::new(100, 1 << 20);
        for tag in 0..6 {
            queue.push(ask(1, tag, b"greedy", b"-")).unwrap();
        }
        queue.push(ask(2, 10, b"other", b"-")).unwrap();
        queue.push(ask(2, 11, b"other", b"-")).unwrap();
        queue.push(ask(3, 20, b"third", b"-")).unwrap();
        let first = queue.take(|_| true).unwrap();
        assert_eq!(first.tag, 0);
        queue.put_back(first);
        assert_eq!(taken(&mut queue, |_| true), [10, 20, 0, 11, 1, 2, 3, 4, 5]);
        assert!(queue.is_empty() && queue.bytes == 0 && queue.turn.is_empty());
    }

    #[test]
    fn a_connection_that_does_not_read_its_answers_holds_up_its_own_alone() {
        let mut queue = Queue::new(100, 1 << 20);
        for (client, tag, from) in [(1, 0, b"a"), (1, 1, b"a"), (2, 2, b"b"), (2, 3, b"b")] {
            queue.push(ask(client, tag, from, b"-")).unwrap();
        }
        assert_eq!(taken(&mut queue, |client| client != 1), [2, 3]);
        assert_eq!(taken(&mut queue, |_| true), [0, 1]);
    }

    #[test]
    fn more_than_may_wait_comes_back_by_number_and_by_bytes() {
        let mut queue = Queue::new(2, 1 << 20);
        queue.push(ask(1, 0, b"a", b"-")).unwrap();
        queue.push(ask(1, 1, b"b", b"-")).unwrap();
        assert_eq!(queue.push(ask(1, 2, b"c", b"-")).unwrap_err().tag, 2);
        assert_eq!(queue.push(ask(1, 3, b"a", b"-")).unwrap_err().tag, 3);
        assert_eq!(taken(&mut queue, |_| true), [0, 1]);
        let mut queue = Queue::new(100, 1000);
        let mut long = ask(1, 3, b"a", b"-");
        long.text = vec![b'x'; 990].into();
        assert!(queue.push(long).is_err());
        queue.push(ask(1, 4, b"a", b"-")).unwrap();
    }

    #[test]
    fn at_the_bound_the_newest_of_who_has_most_gives_way_to_who_would_have_less() {
        let mut queue = Queue::new(4, 1 << 20);
        for tag in 0..4 {
            assert_eq!(queue.push(ask(1, tag, b"greedy", b"-")), Ok(vec![]));
        }
        let mut gave_way = |tag, from: &[u8]| {
            queue.push(ask(2, tag, from, b"-")).map_err(|ask| ask.tag).map(|gone| {
                let gone: Vec<u64> = gone.iter().map(|ask| ask.tag).collect();
                gone
            })
        };
        assert_eq!(gave_way(4, b"greedy"), Err(4));
        assert_eq!(gave_way(10, b"other"), Ok(vec![3]));
        assert_eq!(gave_way(11, b"other"), Ok(vec![2]));
        assert_eq!(gave_way(12, b"other"), Err(12), "it has as much as the first");
        assert_eq!(gave_way(20, b"third"), Ok(vec![11]));
        assert_eq!(gave_way(30, b"fourth"), Ok(vec![1]));
        assert_eq!(gave_way(40, b"fifth"), Err(40), "each has its one");
        assert_eq!(taken(&mut queue, |_| true), [0, 10, 20, 30]);
        assert!(queue.is_empty() && queue.bytes == 0 && queue.turn.is_empty() && queue.hosts.is_empty());
    }

    #[test]
    fn at_the_bound_of_bytes_who_has_most_of_them_gives_way() {
        let long = |tag, from: &[u8], length| {
            let mut ask = ask(1, tag, from, b"-");
            ask.text = vec![b'x'; length].into();
            ask
        };
        let mut queue = Queue::new(100, 2000);
        queue.push(long(0, b"greedy", 300)).unwrap();
        queue.push(long(1, b"greedy", 900)).unwrap();
        queue.push(long(2, b"other", 0)).unwrap();
        let gone = queue.push(long(3, b"other", 400)).unwrap();
        assert_eq!(gone.iter().map(|ask| ask.tag).collect::<Vec<_>>(), [1]);
        assert!(queue.push(long(4, b"other", 1000)).is_err(), "no more than the others have");
        assert_eq!(taken(&mut queue, |_| true), [0, 2, 3]);
        assert_eq!(queue.bytes, 0);
    }

    #[test]
    fn what_goes_with_a_connection_or_has_waited_too_long_leaves_the_others_their_turns() {
        let mut queue = Queue::new(100, 1 << 20);
        for (client, tag, from, id) in
            [(1, 0, b"a", &b"-"[..]), (2, 1, b"a", b"e/1"), (1, 2, b"b", b"-"), (2, 3, b"c", b"e/2")]
        {
            queue.push(ask(client, tag, from, id)).unwrap();
        }
        let gone = queue.take_all(|ask| ask.client == 1);
        assert_eq!(gone.iter().map(|ask| ask.tag).collect::<Vec<_>>(), [0, 2]);
        assert_eq!(queue.len(), 2);
        let limit = Duration::from_secs(60);
        let at = queue.deadline(limit).unwrap();
        assert!(queue.overdue(limit, at - Duration::from_nanos(1)).is_empty());
        assert_eq!(queue.overdue(limit, at + limit).len(), 2);
        assert_eq!((queue.deadline(limit), queue.bytes), (None, 0));
    }
}
