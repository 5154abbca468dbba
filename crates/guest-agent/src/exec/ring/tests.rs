use std::pin::Pin;
use std::task::Waker;

use proptest::prelude::*;
use tokio::io::AsyncWrite;

use super::budget::BUDGET;
use super::reader::Gap;
use super::*;

/// Takes everything, at most `most` bytes at a time.
struct Sink {
    bytes: Vec<u8>,
    most: usize,
}

impl AsyncWrite for Sink {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let count = buf.len().min(self.most);
        self.bytes.extend_from_slice(&buf[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn small(capacity: usize, lossless: bool) -> Arc<Ring> {
    Ring::with_capacity(capacity, lossless, &Arc::default())
}

/// What lies at each offset.
fn byte(offset: u64) -> u8 {
    (offset % 251) as u8
}

fn write(ring: &Ring, count: usize) -> usize {
    let mut inner = ring.lock();
    let from = inner.end;
    let bytes: Vec<_> = (from..from + count as u64).map(byte).collect();
    let mut done = 0;
    while done < count {
        match inner.put(&bytes[done..]) {
            0 => break,
            more => done += more,
        }
    }
    done
}

fn step(reader: &Reader, sink: &mut Sink) -> Poll<Step> {
    reader.poll_step(&mut Context::from_waker(Waker::noop()), Pin::new(sink))
}

/// All that a reader can get now, and what it was told is missing.
fn read(reader: &Reader, most: usize) -> (Vec<u8>, Vec<Gap>, bool) {
    let mut sink = Sink { bytes: Vec::new(), most };
    let mut gaps = Vec::new();
    loop {
        match step(reader, &mut sink) {
            Poll::Ready(Step::Sent) => {}
            Poll::Ready(Step::Gap(gap)) => gaps.push(gap),
            Poll::Ready(Step::End) => return (sink.bytes, gaps, true),
            Poll::Ready(Step::Gone) | Poll::Pending => return (sink.bytes, gaps, false),
        }
    }
}

#[test]
fn a_program_that_writes_nothing_takes_no_memory() {
    assert_eq!(Ring::new(true, true, &Arc::default()).memory(), 0);
}

#[test]
fn a_lossless_ring_is_full_until_its_slowest_reader_took_something() {
    let ring = small(FIRST, true);
    let (slow, _) = ring.reader(0);
    let (fast, _) = ring.reader(0);
    assert_eq!(write(&ring, FIRST + 1), FIRST);
    assert_eq!(read(&fast, 1000).0.len(), FIRST);
    assert_eq!(write(&ring, 1), 0);
    let mut sink = Sink { bytes: Vec::new(), most: 7 };
    assert_eq!(step(&slow, &mut sink), Poll::Ready(Step::Sent));
    assert_eq!(write(&ring, 100), 7);
    slow.leave();
    assert_eq!(write(&ring, FIRST * 2), FIRST - 7);
}

#[test]
fn a_lossless_ring_without_readers_waits_for_one() {
    let ring = small(FIRST, true);
    assert_eq!(write(&ring, FIRST * 2), FIRST);
    let (reader, from) = ring.reader(0);
    assert_eq!((from, read(&reader, 99).0.len()), (0, FIRST));
    drop(reader);
    // What somebody took may go.
    assert_eq!(write(&ring, FIRST * 2), FIRST);
}

#[test]
fn a_dropping_ring_tells_a_slow_reader_what_it_missed() {
    let ring = small(FIRST, false);
    let (reader, _) = ring.reader(0);
    assert_eq!(write(&ring, FIRST + 10), FIRST + 10);
    let (bytes, gaps, _) = read(&reader, 1000);
    assert_eq!(gaps, [Gap { offset: 0, bytes: 10 }]);
    assert_eq!((bytes.len(), bytes[0]), (FIRST, byte(10)));
    assert_eq!(ring.extent(), Extent { written: FIRST as u64 + 10, dropped: 10 });
}

#[test]
fn a_reader_may_begin_anywhere_and_gets_the_nearest_that_there_is() {
    let ring = small(FIRST, false);
    write(&ring, FIRST + 10);
    for (wanted, from) in
        [(0, 10), (9, 10), (11, 11), (FIRST as u64 + 10, FIRST as u64 + 10), (u64::MAX, FIRST as u64 + 10)]
    {
        assert_eq!(ring.reader(wanted).1, from);
    }
}

#[test]
fn without_a_reader_to_come_the_last_one_takes_the_interest_along() {
    let ring = Ring::new(true, false, &Arc::default());
    let readers = [ring.reader(0).0, ring.reader(0).0];
    for (reader, abandoned) in readers.into_iter().zip([false, true]) {
        drop(reader);
        assert_eq!(ring.lock().interest == Interest::Gone, abandoned);
    }
    let kept = small(FIRST, true);
    drop(kept.reader(0));
    assert_eq!(kept.lock().interest, Interest::Kept);
    kept.set_kept(false);
    assert_eq!(kept.lock().interest, Interest::Gone);
}

#[test]
fn an_end_comes_after_the_last_byte() {
    let ring = small(FIRST, true);
    let (reader, _) = ring.reader(0);
    write(&ring, 3);
    ring.close();
    let mut sink = Sink { bytes: Vec::new(), most: 2 };
    assert_eq!(step(&reader, &mut sink), Poll::Ready(Step::Sent));
    assert_eq!(step(&reader, &mut sink), Poll::Ready(Step::Sent));
    assert_eq!(step(&reader, &mut sink), Poll::Ready(Step::End));
    assert_eq!(sink.bytes, [0, 1, 2]);
}

#[test]
fn all_rings_together_stay_within_their_budget_and_each_still_works() {
    let budget: Arc<Budget> = Arc::default();
    let rings: Vec<_> = (0..100).map(|_| Ring::new(false, true, &budget)).collect();
    for ring in &rings {
        assert_eq!(write(ring, DROPPING_CAPACITY * 2), DROPPING_CAPACITY * 2);
        let (reader, from) = ring.reader(0);
        let (bytes, _, _) = read(&reader, usize::MAX);
        assert_eq!(bytes[0], byte(from));
        assert!(bytes.len() >= FIRST);
    }
    let total: usize = rings.iter().map(|ring| ring.memory()).sum();
    assert!(total <= BUDGET + rings.len() * FIRST, "{total}");
    drop(rings);
    assert_eq!(budget.taken(), 0);
}

proptest! {
    /// Whatever happens, a reader gets each byte once and in order, or is told that it is missing.
    #[test]
    fn every_byte_is_read_once_or_told_missing(
        lossless: bool,
        capacity in FIRST..5 * FIRST,
        steps in prop::collection::vec((0..4_u8, 1..2 * FIRST), 1..60),
    ) {
        let ring = small(capacity, lossless);
        let readers = [ring.reader(0).0, ring.reader(0).0];
        let mut seen = [0_u64; 2];
        for (what, amount) in steps.into_iter().chain([(0, 1), (2, usize::MAX), (3, usize::MAX)]) {
            match what {
                0 | 1 => {
                    let written = write(&ring, amount);
                    prop_assert!(lossless || written == amount);
                }
                reader => {
                    let at = usize::from(reader - 2);
                    let mut sink = Sink { bytes: Vec::new(), most: amount };
                    loop {
                        let before = sink.bytes.len();
                        match step(&readers[at], &mut sink) {
                            Poll::Ready(Step::Gap(gap)) => {
                                prop_assert!(!lossless);
                                prop_assert_eq!(gap.offset, seen[at]);
                                seen[at] += gap.bytes;
                            }
                            Poll::Ready(Step::Sent) => {
                                for got in &sink.bytes[before..] {
                                    prop_assert_eq!(*got, byte(seen[at]));
                                    seen[at] += 1;
                                }
                                if amount < FIRST { break }
                            }
                            _ => break,
                        }
                    }
                }
            }
            prop_assert!(ring.memory() <= capacity.max(FIRST) * 2);
        }
        let end = ring.extent().written;
        prop_assert_eq!(seen, [end, end]);
    }
}
