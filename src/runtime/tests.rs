//! The host's path with a device that is played by hand: it reads tickets and writes completion records where the kernel would, in the order that a test
//! wants.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::mailbox::{LineTicket, lap};
use super::slices::host;
use super::*;
use crate::abi::{self, CompletionRecord};
use crate::device::DeviceOptions;
use crate::program::Width;

/// Nobody but the test runs anything.
struct Played {
    runtime: Runtime,
    capacity: u32,
    /// Records written.
    written: u32,
}

impl Played {
    fn new(capacity: u32) -> Self {
        let device = Device::new(DeviceOptions::default()).unwrap();
        let nothing = "Turn nothing(TaskWorkItem task) { return task_complete(); }";
        let program = Program::builder().op("nothing", nothing, Width::Lane).build().unwrap();
        let options = RuntimeOptions { capacity, mode: Mode::Live, record_only: true, ..RuntimeOptions::default() };
        Self { runtime: Runtime::new(&device, &program, options).unwrap(), capacity, written: 0 }
    }

    fn memory(&self) -> &Memory {
        self.runtime.0.memory().unwrap()
    }

    /// The ticket of the task that was published at this position.
    fn ticket(&self, position: u32) -> u32 {
        let at = u64::from(position & (self.capacity - 1)) * size_of::<LineTicket>() as u64;
        host(&self.memory().tickets).unwrap().read_pod(at).unwrap()
    }

    fn write(&mut self, record: &CompletionRecord) {
        let at = u64::from(self.written & (self.capacity - 1)) * size_of::<CompletionRecord>() as u64;
        host(&self.memory().completions).unwrap().write_pod(at, record).unwrap();
        self.written = self.written.wrapping_add(1);
    }

    /// Ends the tasks that were published at these positions.
    fn end(&mut self, positions: impl IntoIterator<Item = u32>) {
        for position in positions {
            let lap = lap(self.capacity, self.written) << abi::TR_RECORD_LAP_SHIFT;
            self.write(&record::whole(lap, self.ticket(position), 0));
        }
    }

    fn take(&self, limit: usize) -> Vec<Completion> {
        let mut ended = Vec::new();
        self.runtime.completions(&mut ended, limit, Duration::ZERO).unwrap();
        ended
    }
}

fn numbered(ids: std::ops::Range<u32>) -> Vec<TaskWorkItem> {
    ids.map(|id| Task::new(0).id(id).item()).collect()
}

#[test]
fn who_is_to_launch_a_slice_takes_over_a_part_of_what_has_ended_and_the_rest_comes_later() {
    let mut played = Played::new(2048);
    assert_eq!(played.runtime.submit_batch(&numbered(0..2048)).unwrap().count(), 2048);
    played.end(0..2000);
    let left = |played: &Played| {
        let more = played.runtime.0.shared.ends.lock().listen(played.memory()).unwrap();
        (more, played.runtime.0.shared.lock().journal.in_flight())
    };
    assert_eq!([left(&played), left(&played)], [(true, 2048 - 512), (true, 2048 - 1024)]);
    assert_eq!(played.take(usize::MAX).len(), 2000);
    assert_eq!(left(&played), (false, 48), "those have not ended");
}

#[test]
fn a_bad_task_is_refused_once_there_is_room_for_it_and_with_it_what_comes_before_it() {
    let mut played = Played::new(128);
    let bad = TaskWorkItem { op_handle: 7, ..Task::new(0).item() };
    let mut tasks = numbered(0..200);
    tasks[150] = bad;
    assert_eq!(played.runtime.submit_batch(&tasks).unwrap().count(), 128, "nobody has looked at the bad one");
    assert_eq!(played.runtime.submit_batch(&tasks[128..]).unwrap().count(), 0, "nor now");
    played.end(0..22);
    assert_eq!(played.take(usize::MAX).len(), 22);
    assert_eq!(played.runtime.submit_batch(&tasks[128..]).unwrap().count(), 22, "all before it");
    played.end(22..40);
    assert_eq!(played.take(usize::MAX).len(), 18);
    let refused = played.runtime.submit_batch(&tasks[149..]).unwrap_err();
    assert!(matches!(refused, BackendError::Refused { index: 1, .. }), "{refused}");
    assert_eq!(played.runtime.stats().submitted, 150, "the good one before it was not taken");
}

#[test]
fn completions_come_once_each_in_the_order_of_the_ends_over_many_laps() {
    let mut played = Played::new(128);
    let (mut published, mut next) = (0, 1u32);
    for count in [1, 63, 64, 65, 100, 128, 127, 3].repeat(40) {
        assert_eq!(
            played.runtime.submit_batch(&numbered(published..published + count)).unwrap().count(),
            count as usize
        );
        // Some order that is not that of the submission.
        next = (next * 5 + 7) % 31;
        let order: Vec<u32> = (0..count).map(|index| published + (index + next) % count).rev().collect();
        played.end(order.clone());
        let (few, rest) = (played.take(next as usize % 5 + 1), played.take(usize::MAX));
        assert!(few.len() <= next as usize % 5 + 1);
        let ended: Vec<_> = few.iter().chain(&rest).map(|one| (one.id.number(), one.task_id)).collect();
        assert_eq!(ended, order.iter().map(|id| (u64::from(*id), *id)).collect::<Vec<_>>());
        assert_eq!(played.take(usize::MAX), [], "once");
        published += count;
    }
    assert_eq!(played.runtime.stats().done, u64::from(published));
}

#[test]
fn among_completions_in_bulk_each_handle_gets_its_own_and_a_dropped_one_its_slot_back() {
    let mut played = Played::new(128);
    _ = played.runtime.submit_batch(&numbered(0..50)).unwrap();
    let mut handle = played.runtime.submit(Task::new(0).id(50)).unwrap();
    drop(played.runtime.submit(Task::new(0).id(51)).unwrap());
    assert_eq!(played.runtime.submit_batch(&numbered(52..200)).unwrap().count(), 76, "as many as there is room for");
    played.end((0..128).rev());
    let ids: Vec<_> = played.take(usize::MAX).iter().map(|one| one.task_id).collect();
    assert_eq!(ids, (0..50).chain(52..128).rev().collect::<Vec<_>>());
    assert_eq!(played.runtime.submit_batch(&numbered(128..300)).unwrap().count(), 127, "the handle's is not taken yet");
    assert_eq!(handle.wait(Duration::ZERO).unwrap().task_id, 50);
    assert_eq!(played.runtime.submit_batch(&numbered(255..300)).unwrap().count(), 1);
}

#[test]
fn completions_in_bulk_are_found_behind_any_number_that_are_handles() {
    let mut played = Played::new(2048);
    let handles: Vec<_> = (0..1500).map(|id| played.runtime.submit(Task::new(0).id(id)).unwrap()).collect();
    assert_eq!(played.runtime.submit_batch(&numbered(1500..1503)).unwrap().count(), 3);
    played.end(0..1503);
    assert_eq!(played.take(2).iter().map(|one| one.task_id).collect::<Vec<_>>(), [1500, 1501]);
    assert_eq!(played.take(2).len(), 1);
    for (id, mut handle) in (0..).zip(handles) {
        assert_eq!(handle.wait(Duration::ZERO).unwrap().task_id, id);
    }
}

#[test]
fn a_record_that_comes_twice_is_an_error_and_what_ended_before_it_counts() {
    let mut played = Played::new(128);
    _ = played.runtime.submit_batch(&numbered(0..10)).unwrap();
    played.end([0, 1, 2, 1, 3]);
    let mut ended = Vec::new();
    let taken = played.runtime.completions(&mut ended, usize::MAX, Duration::ZERO);
    assert!(matches!(taken, Err(BackendError::Protocol { .. })), "{taken:?}");
    assert_eq!(ended.iter().map(|one| one.task_id).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(played.runtime.stats().done, 3);
    assert_eq!(played.runtime.unfinished().len(), 7);
}

#[test]
fn nothing_is_taken_past_a_record_that_is_not_whole() {
    let mut played = Played::new(128);
    _ = played.runtime.submit_batch(&numbered(0..3)).unwrap();
    let lap = lap(128, 0) << abi::TR_RECORD_LAP_SHIFT;
    let fault = record::whole(lap | abi::TR_RECORD_FAULTED, played.ticket(1), 9);
    played.end([0]);
    played.write(&CompletionRecord { check: 0, ..fault });
    played.end([2]);
    assert_eq!(played.take(usize::MAX).len(), 1);
    played.written = 1;
    played.write(&fault);
    let rest: Vec<_> = played.take(usize::MAX).iter().map(|one| (one.task_id, one.outcome)).collect();
    assert_eq!(rest, [(1, Outcome::Faulted(9)), (2, Outcome::Done)]);
    assert_eq!((played.runtime.stats().done, played.runtime.stats().faulted), (2, 1));
}

/// What the host's path costs a task, submission and completion, with tasks that end in runs of 32 that are out of order, as a GPU's subgroups end them.
#[test]
#[ignore = "a measurement: cargo test --release --features shaderc --lib host_path -- --ignored --nocapture"]
fn host_path_of_a_stream() {
    for (capacity, batch) in [(1 << 14, 256), (1 << 16, 256), (1 << 16, 4_096)] {
        let mut stream = Stream::new(capacity, batch);
        stream.run(1 << 21);
        let runs: Vec<_> = (0..16).map(|_| stream.run(1 << 19)).collect();
        let (submitting, completing) =
            runs.into_iter().reduce(|one, other| (one.0.min(other.0), one.1.min(other.1))).unwrap();
        println!(
            "capacity {capacity}, {batch} at a time: {submitting:.2} ns to submit a task, {completing:.2} ns to take its completion"
        );
    }
}

/// Tasks that end together, and how many are shuffled in such runs.
const RUN: u32 = 32;
const WINDOW: u32 = 1_024;

struct Stream {
    played: Played,
    items: Vec<TaskWorkItem>,
    published: u32,
    finished: u32,
    runs: Vec<u32>,
    random: u32,
}

impl Stream {
    fn new(capacity: u32, batch: usize) -> Self {
        let (played, items) = (Played::new(capacity), vec![Task::new(0).item(); batch]);
        Self { played, items, published: 0, finished: 0, runs: (0..WINDOW / RUN).collect(), random: 1 }
    }

    /// Nanoseconds to submit a task and to take its completion, with half of what fits under way.
    fn run(&mut self, tasks: usize) -> (f64, f64) {
        let (mut submitting, mut completing, mut ended) = (Duration::ZERO, Duration::ZERO, Vec::new());
        let batch = self.items.len();
        for _ in 0..tasks / batch {
            let start = Instant::now();
            let count = self.played.runtime.submit_batch(black_box(&self.items)).unwrap().count();
            submitting += start.elapsed();
            assert_eq!(count, batch);
            self.published = self.published.wrapping_add(batch as u32);
            while self.published.wrapping_sub(self.finished) > self.played.capacity / 2 {
                self.end_window();
            }
            ended.clear();
            let start = Instant::now();
            self.played.runtime.completions(black_box(&mut ended), batch, Duration::ZERO).unwrap();
            completing += start.elapsed();
        }
        let each = |time: Duration| time.as_nanos() as f64 / tasks as f64;
        (each(submitting), each(completing))
    }

    fn end_window(&mut self) {
        for at in (1..self.runs.len()).rev() {
            self.random ^= self.random << 13;
            self.random ^= self.random >> 17;
            self.random ^= self.random << 5;
            self.runs.swap(at, self.random as usize % (at + 1));
        }
        let first = self.finished;
        let positions = self.runs.iter().flat_map(|run| (0..RUN).map(move |task| first.wrapping_add(run * RUN + task)));
        self.played.end(positions.collect::<Vec<_>>());
        self.finished = self.finished.wrapping_add(WINDOW);
    }
}
