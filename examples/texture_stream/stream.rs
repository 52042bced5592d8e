//! Streams a picture to the device while its tiles are compressed there.
//!
//! All tasks are submitted at once, paused. Tiles are uploaded in order by a queue of the device, which moves a
//! timeline semaphore on to the tile's number after each (see `upload.rs`) and so resumes the tile's task, in live mode
//! without the host. As tasks end, the host counts the groups whose tiles are all finished; a second timeline, which
//! the host moves itself, tells their checksum tasks.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use taskring::{
    BackendError, Buffer, BufferDesc, BufferHandle, Completion, Device, Mapped, MemoryKind, OpSource, Outcome, Program,
    Runtime, RuntimeStats, Task, TaskPriority, TaskWorkItem, TimelineId, TraceRecord, Width,
};

use crate::picture::TurnSpan;
use crate::png_io::Image;
use crate::tiling::Tiling;
use crate::upload::{UploadQueue, Uploader};

/// How long the device may stay without a result before the host gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Words of the checksum's buffer.
const SUM_WORDS: usize = 8;

/// What is left when everything has ended.
pub(crate) struct Streamed {
    /// The compressed picture.
    pub(crate) blocks: Vec<[u32; 2]>,
    /// The device's checksum, and how many blocks and groups are in it.
    pub(crate) sum: [u32; 3],
    /// Where the uploads ran.
    pub(crate) queue: UploadQueue,
    /// The ends of all tasks, in the order in which they ended.
    pub(crate) completions: Vec<Completion>,
    /// The runtime's counts.
    pub(crate) stats: RuntimeStats,
    /// Who ran what when.
    pub(crate) turns: Vec<TurnSpan>,
    /// From the first submission to the last completion.
    pub(crate) elapsed: Duration,
}

/// How far the stream is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    /// Tiles whose texels are in device memory.
    pub(crate) uploaded: u64,
    /// Tiles that are compressed.
    pub(crate) compressed: u32,
    /// Groups that are in the checksum.
    pub(crate) summed: u32,
}

/// The two ops, compiled with the scheduler.
pub(crate) fn program() -> Result<Program, BackendError> {
    // A cut turn of `bc1` may run again: it only writes words of its own. One of `checksum` may not.
    let bc1 = OpSource::new("bc1", include_str!("bc1.glsl"), Width::Subgroup).restartable();
    Program::builder().source(bc1).op("checksum", include_str!("checksum.glsl"), Width::Subgroup).build()
}

/// Compresses `image`, which is as large as `tiling` says, with at most `ahead` uploaded tiles unfinished.
pub(crate) fn stream(
    runtime: &Runtime,
    program: &Program,
    image: &Image,
    tiling: Tiling,
    ahead: u32,
    show: &mut dyn FnMut(Progress),
) -> Result<Streamed, Box<dyn Error>> {
    let uploader = Uploader::new(runtime, image, tiling)?;
    let results = Results::new(runtime.device(), tiling)?;
    let sums = runtime.create_timeline()?;
    let tasks = tasks(runtime, program, tiling, &uploader, &results, sums)?;
    let mut stream = Stream {
        runtime,
        tiling,
        uploader,
        sums,
        tasks: &tasks,
        submitted: 0,
        completions: Vec::with_capacity(tasks.len()),
        unfinished: (0..tiling.groups()).map(|group| tiling.group_tiles(group).len() as u32).collect(),
        compressed: 0,
        ready_groups: 0,
    };

    let start = Instant::now();
    stream.submit()?;
    stream.uploader.upload_next()?;
    // Before that, a slice would find nothing but tasks that wait.
    stream.uploader.wait(1)?;
    while stream.completions.len() < tasks.len() {
        let submitted = stream.uploader.submitted();
        if submitted < tiling.tiles() && submitted - stream.compressed < ahead {
            stream.uploader.upload_next()?;
            stream.take(Duration::ZERO)?;
        } else {
            stream.take(PATIENCE)?;
        }
        show(stream.progress()?);
    }
    let elapsed = start.elapsed();
    let (completions, queue) = (stream.completions, stream.uploader.queue);

    // No slice runs after this, so what the device wrote is here to read.
    let left = runtime.stop(PATIENCE)?.unfinished;
    if !left.is_empty() {
        return Err(format!("{} tasks are unfinished although each has completed", left.len()).into());
    }
    let mut blocks = vec![[0; 2]; (tiling.width * tiling.height / 16) as usize];
    mapped(&results.blocks)?.read(0, bytemuck::cast_slice_mut(&mut blocks))?;
    let sum = mapped(&results.sum)?.read_pod(0)?;
    let turns = spans(&runtime.take_trace());
    Ok(Streamed { blocks, sum, queue, completions, stats: runtime.stats(), turns, elapsed })
}

/// What the tasks write; the layouts are described in `bc1.glsl` and `checksum.glsl`.
struct Results {
    blocks: Arc<Buffer>,
    sum: Arc<Buffer>,
}

impl Results {
    fn new(device: &Device, tiling: Tiling) -> Result<Self, Box<dyn Error>> {
        let allocate = |name, bytes| device.allocate(BufferDesc::new(name, bytes, MemoryKind::Report)).map(Arc::new);
        let texels = u64::from(tiling.width) * u64::from(tiling.height);
        let blocks = allocate("BC1 blocks", texels / 2)?;
        let sum = allocate("checksum", 4 * SUM_WORDS as u64)?;
        let [width, height, edge, across] = tiling.header();
        mapped(&sum)?.write_pod::<[u32; SUM_WORDS]>(0, &[0, 0, 0, tiling.group, width, height, edge, across])?;
        Ok(Self { blocks, sum })
    }
}

pub(crate) fn mapped(buffer: &Buffer) -> Result<&Mapped, String> {
    buffer.mapped().ok_or_else(|| format!("a {} has no mapping", buffer.kind().name()))
}

/// Every task, all of them paused: a tile's until its upload, a group's until the last of its tiles is compressed.
///
/// In this order a full ring cannot lock up: what the first unfinished task waits for depends on none behind it.
fn tasks(
    runtime: &Runtime,
    program: &Program,
    tiling: Tiling,
    uploader: &Uploader<'_>,
    results: &Results,
    sums: TimelineId,
) -> Result<Vec<TaskWorkItem>, Box<dyn Error>> {
    let (bc1, checksum) = (program.op("bc1")?, program.op("checksum")?);
    let register = |buffer: &Arc<Buffer>| runtime.register_buffer(0, buffer, 0..buffer.bytes());
    let [picture, blocks, sum]: [BufferHandle; 3] =
        [register(uploader.picture())?, register(&results.blocks)?, register(&results.sum)?];

    let compress = Task::new(bc1).input(picture).output(blocks);
    let compress = |tile: u32| {
        compress.param(tile).id(tile).priority(tiling.priority(tile)).paused_until(uploader.timeline, tile + 1).item()
    };
    let add_up = Task::new(checksum).input(blocks).output(sum).priority(TaskPriority::Critical);
    let add_up = |group: u32| add_up.param(group).id(tiling.tiles() + group).paused_until(sums, group + 1).item();
    let group = |group| tiling.group_tiles(group).map(compress).chain([add_up(group)]);
    Ok((0..tiling.groups()).flat_map(group).collect())
}

/// A stream under way.
struct Stream<'a> {
    runtime: &'a Runtime,
    tiling: Tiling,
    uploader: Uploader<'a>,
    /// The timeline whose epoch is `ready_groups`.
    sums: TimelineId,
    tasks: &'a [TaskWorkItem],
    /// Tasks that the runtime has taken.
    submitted: usize,
    completions: Vec<Completion>,
    /// Tiles of each group that are not compressed yet.
    unfinished: Vec<u32>,
    compressed: u32,
    /// The first groups, all of whose tiles are compressed.
    ready_groups: u32,
}

impl Stream<'_> {
    /// Submits what there is room for.
    fn submit(&mut self) -> Result<(), Box<dyn Error>> {
        if self.submitted < self.tasks.len() {
            self.submitted += self.runtime.submit_batch(&self.tasks[self.submitted..])?.count();
        }
        Ok(())
    }

    /// Takes over what has ended, waiting for something if there is time, and puts new tasks into the freed room.
    fn take(&mut self, timeout: Duration) -> Result<(), Box<dyn Error>> {
        self.runtime.poll()?;
        let known = self.completions.len();
        let taken = self.runtime.completions(&mut self.completions, usize::MAX, timeout)?;
        if taken == 0 && !timeout.is_zero() {
            let (ended, all, seconds) = (self.completions.len(), self.tasks.len(), timeout.as_secs());
            return Err(format!("no task has ended for {seconds} s, after {ended} of {all}").into());
        }
        for index in known..self.completions.len() {
            let Completion { outcome, task_id, .. } = self.completions[index];
            if let Outcome::Faulted(code) = outcome {
                return Err(format!("{} faulted with code {code:#x}", self.describe(task_id)).into());
            }
            if task_id < self.tiling.tiles() {
                self.compressed += 1;
                self.unfinished[(task_id / self.tiling.group) as usize] -= 1;
            }
        }
        let ready = self.unfinished.iter().take_while(|left| **left == 0).count() as u32;
        if ready > self.ready_groups {
            self.ready_groups = ready;
            self.runtime.signal(self.sums, ready.into())?;
        }
        self.submit()
    }

    fn describe(&self, task_id: u32) -> String {
        match task_id.checked_sub(self.tiling.tiles()) {
            None => format!("the task of tile {task_id}"),
            Some(group) => format!("the checksum of group {group}"),
        }
    }

    fn progress(&self) -> Result<Progress, BackendError> {
        let summed = self.completions.len() as u32 - self.compressed;
        Ok(Progress { uploaded: self.uploader.uploaded()?, compressed: self.compressed, summed })
    }
}

/// The trace with time counted from its first tick; the device's clock wraps. A turn covers the tick of its end, so
/// that turns that follow each other leave no gap.
fn spans(trace: &[TraceRecord]) -> Vec<TurnSpan> {
    let some = trace.first().map_or(0, |turn| turn.began);
    let before = trace.iter().map(|turn| some.wrapping_sub(turn.began) as i32).max().unwrap_or(0);
    let origin = some.wrapping_sub(before as u32);
    let span = |turn: &TraceRecord| TurnSpan {
        began: turn.began.wrapping_sub(origin),
        ended: turn.ended.wrapping_sub(origin).saturating_add(1),
        worker: turn.worker,
        task_id: turn.task_id,
        priority: turn.priority,
        state: turn.state,
        pc: turn.pc,
    };
    trace.iter().map(span).collect()
}
