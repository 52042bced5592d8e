//! A frame loop that streams textures through tasks: its own instance, device and queue (`vulkan.rs`), one submission a frame, and in it a slice of
//! taskring's that fills what the frame leaves over. Headless; writes some frames as PNG files into `target/engine`.
//!
//! The tiles of a picture come packed in runs. A task unpacks its tile, a run a turn, once the engine's own timeline has reached the frame in which
//! the tile is wanted. The frames draw what has arrived.

mod draw;
mod vulkan;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use draw::{draw_tile, show, write_png};
use taskring::{
    BufferDesc, Completion, MemoryKind, Outcome, Program, Runtime, RuntimeOptions, Signaller, Task, Timeline, Width,
};
use vulkan::Vulkan;

/// Texels of a tile's side, tiles of the picture's side.
const TILE: u32 = 32;
const TILES: u32 = 8;
const SIDE: u32 = TILE * TILES;
/// What a frame may take.
const FRAME: Duration = Duration::from_millis(16);
const LONG: Duration = Duration::from_secs(30);

/// A run is its length and its texel; one of length 0 is the last.
const UNPACK: &str = "Turn unpack(TaskWorkItem task) {
    uint at = task.param + 2u * task.continuation_pc;
    uint length = buffer_load(task_input(task), at);
    uint texel = buffer_load(task_input(task), at + 1u);
    if (length == 0u) return task_complete();
    uint to = task.task_id * 32u * 32u + task.continuation_data;
    for (uint i = 0u; i < length; i++) buffer_store(task_output(task), to + i, texel);
    return task_yield(task.continuation_pc + 1u, task.continuation_data + length);
}";

/// The picture: rings around its middle.
fn texel(x: u32, y: u32) -> u32 {
    let (x, y) = (i64::from(x) - i64::from(SIDE / 2), i64::from(y) - i64::from(SIDE / 2));
    [0xff20_60c0, 0xffe0_e0d0, 0xff30_8040, 0xffb0_4030][((x * x + y * y).isqrt() / 16 % 4) as usize]
}

/// The tile's runs.
fn packed(tile: u32) -> Vec<u32> {
    let (left, top) = (tile % TILES * TILE, tile / TILES * TILE);
    let texels: Vec<u32> = (0..TILE * TILE).map(|at| texel(left + at % TILE, top + at / TILE)).collect();
    let runs = texels.chunk_by(|a, b| a == b).flat_map(|run| [run.len() as u32, run[0]]);
    runs.chain([0, 0]).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::path::Path::new("target/engine");
    std::fs::create_dir_all(folder)?;
    let mut engine = Vulkan::new()?;
    let (atlas, screen) = (engine.image(SIDE)?, engine.image(SIDE)?);
    let bytes = u64::from(SIDE * SIDE * 4);
    let readback = engine.readback(bytes)?;

    // SAFETY: all that is made of it below is dropped before the engine.
    let device = unsafe { engine.lend() }?;
    println!("{}", device.description());
    let program = Program::builder().op("unpack", UNPACK, Width::Lane).build()?;
    let options = RuntimeOptions { record_only: true, ..RuntimeOptions::default() };
    let runtime = Runtime::new(&device, &program, options)?;
    // SAFETY: the semaphore is the engine's and outlives all this; only its frames signal it, in order.
    let frames = Arc::new(unsafe { Timeline::borrow(&device, engine.frames) });
    let clock = runtime.register_timeline(&frames, Signaller::Anyone)?;

    let mut streams = Vec::new();
    let starts: Vec<u32> = (0..TILES * TILES)
        .map(|tile| {
            let start = streams.len() as u32;
            streams.extend(packed(tile));
            start
        })
        .collect();
    let allocate = |name, bytes, kind| device.allocate(BufferDesc::new(name, bytes, kind));
    let packed = Arc::new(allocate("packed tiles", streams.len() as u64 * 4, MemoryKind::Mailbox)?);
    packed.mapped().ok_or("a mailbox is mapped")?.write(0, bytemuck::cast_slice(&streams))?;
    let tiles = Arc::new(allocate("tiles", bytes, MemoryKind::Private)?);
    let input = runtime.register_buffer(0, &packed, 0..packed.bytes())?;
    let output = runtime.register_buffer(0, &tiles, 0..bytes)?;

    // Four tiles are wanted with the end of each frame.
    let unpack = Task::new(program.op("unpack")?).input(input).output(output);
    let wanted = |(tile, start): (u32, &u32)| unpack.id(tile).param(*start).paused_until(clock, 1 + tile / 4).item();
    let tasks: Vec<_> = (0..).zip(&starts).map(wanted).collect();

    let (mut own, mut arrived, mut drawn, mut frame) = (Duration::ZERO, Vec::<Completion>::new(), 0, 0u64);
    let began = Instant::now();
    while drawn < tasks.len() {
        frame += 1;
        engine.begin(frame == 1)?;
        // SAFETY: it is submitted below, once, with this value; the frame before has ended.
        unsafe {
            let spare = FRAME.saturating_sub(own).max(Duration::from_millis(1));
            runtime.record_slice(engine.commands, (&frames, frame), spare)?
        };
        let recorded = Instant::now();
        for done in &arrived[drawn..] {
            assert_eq!(done.outcome, Outcome::Done);
            draw_tile(&engine, tiles.raw(), atlas, done.task_id);
        }
        drawn = arrived.len();
        show(&engine, atlas, screen, readback);
        engine.submit(frame)?;
        assert!(frames.wait(frame, LONG)?, "a frame takes longer than {LONG:?}");
        if frame == 1 {
            // Nothing was streamed yet: this is what a frame takes by itself.
            own = recorded.elapsed();
            assert_eq!(runtime.submit_batch(&tasks)?.count(), tasks.len());
        }
        runtime.poll()?;
        runtime.completions(&mut arrived, tasks.len(), Duration::ZERO)?;
        if frame % 8 == 0 || drawn == tasks.len() {
            write_png(&folder.join(format!("frame{frame:03}.png")), engine.picture(bytes as usize)?)?;
        }
        assert!(began.elapsed() < LONG, "the tiles never arrive");
    }
    let expected: Vec<u32> = (0..SIDE * SIDE).map(|at| texel(at % SIDE, at / SIDE)).collect();
    assert!(engine.picture(bytes as usize)? == bytemuck::cast_slice::<_, u8>(&expected), "the picture is wrong");
    println!("{drawn} tiles in {frame} frames and {} slices; see {}", runtime.stats().slices, folder.display());

    // In this order; the engine goes last.
    drop((runtime, frames, packed, tiles));
    device.release().map_err(|_| "something of taskring's is left")?;
    Ok(())
}
