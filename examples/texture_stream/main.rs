//! Compresses a photograph to BC1 on the device while it is still being uploaded, and draws who ran what when.
//!
//! `README.md` beside this file says what to look at; `--help` lists the options.

mod bc1;
mod canvas;
mod check;
mod checksum;
mod picture;
mod png_io;
mod stream;
mod tiling;
mod upload;

use std::error::Error;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use taskring::{Device, DeviceOptions, DeviceSelector, Runtime, RuntimeOptions, TaskPriority};

use png_io::Image;
use stream::{Progress, Streamed};
use tiling::Tiling;

/// Trace records for a slice at most; each takes 32 bytes.
const MOST_TRACED: u32 = 1 << 20;

/// Compress a picture to BC1 on the device while it is still being uploaded, and draw the schedule.
#[derive(Debug, Parser)]
#[command(name = "texture_stream")]
struct Arguments {
    /// A PNG file [default: the photograph beside the example's source]
    image: Option<PathBuf>,
    /// A tile's edge in texels, a multiple of 4
    #[arg(long, value_name = "TEXELS", default_value = "64", value_parser = tile_edge)]
    tile: u32,
    /// Tiles that one checksum task adds up
    #[arg(long, value_name = "TILES", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    group: u32,
    /// Tiles uploaded and not yet compressed, at most
    #[arg(long, value_name = "TILES", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    ahead: u32,
    /// Where the two pictures go
    #[arg(long, value_name = "FOLDER", default_value = "target/texture_stream")]
    out: PathBuf,
    /// Workers in a slice [default: 256 on a GPU, the number of cores on a CPU driver]
    #[arg(long)]
    workers: Option<u32>,
    /// The device: its index, or a part of its name [default: the best one]
    #[arg(long, value_name = "INDEX|NAME", value_parser = device_selector)]
    device: Option<DeviceSelector>,
    /// Run under the Vulkan validation layer; whatever it says is an error (TASKRING_VALIDATION=1 does the same)
    #[arg(long)]
    validate: bool,
}

fn tile_edge(text: &str) -> Result<u32, String> {
    let edge = text.parse().ok().filter(|edge: &u32| *edge > 0 && edge.is_multiple_of(4));
    edge.ok_or_else(|| "it must be a positive multiple of 4".into())
}

fn device_selector(text: &str) -> Result<DeviceSelector, std::convert::Infallible> {
    Ok(text.parse().map_or_else(|_| DeviceSelector::Name(text.into()), DeviceSelector::Index))
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_default_directive(tracing_subscriber::filter::LevelFilter::WARN.into())
        .from_env_lossy();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(stderr).init();
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("texture_stream: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let device = Device::new(DeviceOptions {
        selector: arguments.device.clone().unwrap_or_default(),
        validation: arguments.validate,
        application_name: "texture_stream".into(),
    })?;
    println!("device    {}", device.description());
    let log = device.validation_log().clone();

    let path = arguments.image.clone().unwrap_or_else(photograph);
    let picture = png_io::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let image = picture.padded(4);
    let tiling = Tiling { width: image.width, height: image.height, edge: arguments.tile, group: arguments.group };
    println!("picture   {}, {} x {} texels", path.display(), picture.width, picture.height);

    let outcome = compress(arguments, device, &image, tiling).and_then(|streamed| {
        let checked = Instant::now();
        let problems = check::problems(&streamed, tiling, &bc1::encode_image(&image));
        println!("check     {:.3} s on the CPU", checked.elapsed().as_secs_f64());
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        write_pictures(&arguments.out, &name, &picture, tiling, &streamed)?;
        if problems.is_empty() {
            println!("result    all {} blocks and the checksum equal the CPU reference", streamed.blocks.len());
            return Ok(());
        }
        Err(listed("the result is wrong", &problems).into())
    });
    // The runtime and the device are gone by now, so the layer has said all that it has to say.
    let messages = log.messages();
    if !messages.is_empty() {
        eprintln!("{}", listed("validation", &messages));
        outcome?;
        return Err(format!("the validation layer said {} things", messages.len()).into());
    }
    outcome
}

fn photograph() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/texture_stream/astronaut.png")
}

fn listed(what: &str, lines: &[String]) -> String {
    const MOST: usize = 8;
    let mut text = format!("{what}:\n  {}", lines[..lines.len().min(MOST)].join("\n  "));
    if lines.len() > MOST {
        text += &format!("\n  and {} more", lines.len() - MOST);
    }
    text
}

/// Everything that happens on the device, and the report on it.
fn compress(arguments: &Arguments, device: Device, image: &Image, tiling: Tiling) -> Result<Streamed, Box<dyn Error>> {
    let start = Instant::now();
    let program = stream::program()?;
    let compiled = start.elapsed();
    let turns: u32 = (0..tiling.tiles()).map(|tile| tiling.turns(tile)).sum();
    let trace_capacity = (turns + tiling.groups()).min(MOST_TRACED);
    let options = RuntimeOptions { workers: arguments.workers, trace_capacity, ..RuntimeOptions::default() };
    let runtime = Runtime::new(&device, &program, options)?;
    let ready = start.elapsed();

    let mut line = ProgressLine::new(tiling);
    let streamed = stream::stream(&runtime, &program, image, tiling, arguments.ahead, &mut |now| line.show(now));
    line.end();
    let streamed = streamed?;
    report(&streamed, tiling);
    let seconds = streamed.elapsed.as_secs_f64();
    let texels = f64::from(tiling.width) * f64::from(tiling.height) / 1e6;
    println!(
        "time      {:.3} s shader compilation, {:.3} s pipeline and memory, {seconds:.3} s stream ({:.2} Mtexel/s)",
        compiled.as_secs_f64(),
        (ready - compiled).as_secs_f64(),
        texels / seconds,
    );
    Ok(streamed)
}

fn report(streamed: &Streamed, tiling: Tiling) {
    let count = |wanted| (0..tiling.tiles()).filter(|&tile| tiling.priority(tile) == wanted).count();
    println!(
        "tiles     {} of {edge} x {edge}: {} high, {} normal, {} low",
        tiling.tiles(),
        count(TaskPriority::High),
        count(TaskPriority::Normal),
        count(TaskPriority::Low),
        edge = tiling.edge,
    );
    println!("uploads   on {}", streamed.queue);
    let stats = &streamed.stats;
    let yields: u64 = streamed.completions.iter().map(|completion| u64::from(completion.yield_count)).sum();
    println!("tasks     {} done: {} tiles, {} checksums", stats.done, tiling.tiles(), tiling.groups());
    println!("turns     {yields} yields, {} pauses, {} resumes, {} slices", stats.pauses, stats.resumes, stats.slices);
    if stats.recoveries > 0 {
        let count = stats.recoveries;
        println!(
            "          {count} slices were cut by the driver and recovered; the schedule's clock starts again then"
        );
    }
    if stats.untraced > 0 {
        println!("          {} turns are missing in the picture of the schedule: the trace was full", stats.untraced);
    }
    println!("checksum  {:08x} over {} blocks, {} groups", streamed.sum[0], streamed.sum[1], streamed.sum[2]);
}

/// Writes the decoded picture and the schedule, and says how good the one is and where both are.
fn write_pictures(
    folder: &Path,
    name: &str,
    picture: &Image,
    tiling: Tiling,
    streamed: &Streamed,
) -> Result<(), Box<dyn Error>> {
    let decoded = bc1::decode_image(tiling.width, tiling.height, &streamed.blocks);
    let decoded = decoded.cropped(picture.width, picture.height);
    println!("quality   {:.2} dB peak signal to noise", bc1::psnr(picture, &decoded));

    let explained = |error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(explained)?;
    let decoded_path = folder.join("decoded.png");
    png_io::write(&decoded_path, &decoded)?;
    let (tiles, all) = (tiling.tiles(), tiling.tiles() + tiling.groups());
    let title = format!("{name}: tasks 0 to {} are tiles, {tiles} to {} checksums", tiles - 1, all - 1);
    let schedule = picture::schedule(&title, &streamed.turns);
    let schedule_path = folder.join("schedule.png");
    png_io::write_rgb(&schedule_path, schedule.width, schedule.height, &schedule.rgb)?;
    println!("decoded   {}", decoded_path.display());
    println!("schedule  {}", schedule_path.display());
    Ok(())
}

/// Shows progress on stderr: one line that changes on a terminal, a line each tenth elsewhere.
struct ProgressLine {
    tiling: Tiling,
    live: bool,
    tenths: u32,
}

impl ProgressLine {
    fn new(tiling: Tiling) -> Self {
        Self { tiling, live: stderr().is_terminal(), tenths: 0 }
    }

    fn show(&mut self, now: Progress) {
        let (tiles, groups) = (self.tiling.tiles(), self.tiling.groups());
        let Progress { uploaded, compressed, summed } = now;
        let line = format!(
            "uploaded {uploaded}/{tiles} tiles, compressed {compressed}/{tiles}, summed {summed}/{groups} groups"
        );
        let tenths = 10 * (compressed + summed) / (tiles + groups);
        if self.live {
            eprint!("\r{line}");
        } else if tenths > self.tenths {
            eprintln!("{:3} %  {line}", 10 * tenths);
        }
        self.tenths = tenths;
    }

    fn end(&self) {
        if self.live {
            eprintln!();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use upload::Uploader;

    /// A picture with sides that are no multiples of 4, and something different everywhere.
    fn gradient(width: u32, height: u32) -> Image {
        let texel = |x: u32, y: u32| u32::from_le_bytes([(x * 3) as u8, (y * 5) as u8, (x * y) as u8, 255]);
        let texels = (0..height).flat_map(|y| (0..width).map(move |x| texel(x, y))).collect();
        Image { width, height, texels }
    }

    fn streamed(tile: u32, ahead: u32, options: RuntimeOptions) -> Result<Streamed, Box<dyn Error>> {
        let device = Device::new(DeviceOptions::default())?;
        let log = device.validation_log().clone();
        let image = gradient(70, 90).padded(4);
        let tiling = Tiling { width: image.width, height: image.height, edge: tile, group: 3 };
        let program = stream::program()?;
        let runtime = Runtime::new(&device, &program, options)?;
        drop(device);
        let streamed = stream::stream(&runtime, &program, &image, tiling, ahead, &mut |_| ())?;
        drop(runtime);
        assert_eq!(check::problems(&streamed, tiling, &bc1::encode_image(&image)), [""; 0]);
        assert_eq!(log.messages(), [""; 0]);
        Ok(streamed)
    }

    #[test]
    fn a_streamed_picture_equals_the_reference_block_for_block() -> Result<(), Box<dyn Error>> {
        streamed(32, 4, RuntimeOptions::default()).map(drop)
    }

    #[test]
    fn more_tasks_than_the_ring_holds_are_streamed_too() -> Result<(), Box<dyn Error>> {
        // 18 by 23 tiles and 138 groups.
        streamed(4, 1000, RuntimeOptions { capacity: 64, ..RuntimeOptions::default() }).map(drop)
    }

    #[test]
    fn with_one_tile_ahead_each_waits_for_the_one_before() -> Result<(), Box<dyn Error>> {
        streamed(20, 1, RuntimeOptions::default()).map(drop)
    }

    #[test]
    fn uploads_that_nobody_waits_for_end_before_what_they_use_goes() -> Result<(), Box<dyn Error>> {
        let device = Device::new(DeviceOptions::default())?;
        let log = device.validation_log().clone();
        let image = gradient(70, 90).padded(4);
        let tiling = Tiling { width: image.width, height: image.height, edge: 16, group: 3 };
        let runtime = Runtime::new(&device, &stream::program()?, RuntimeOptions::default())?;
        let mut uploader = Uploader::new(&runtime, &image, tiling)?;
        let picture = uploader.picture().clone();
        // One more than there are, which is none.
        for _ in 0..=tiling.tiles() {
            uploader.upload_next()?;
        }
        assert_eq!(uploader.submitted(), tiling.tiles());
        drop((runtime, device, uploader));
        assert_eq!(Arc::strong_count(&picture), 1);
        drop(picture);
        assert_eq!(log.messages(), [""; 0]);
        Ok(())
    }

    #[test]
    fn a_slice_that_is_cut_does_not_show_in_the_blocks() -> Result<(), Box<dyn Error>> {
        // The first slice has one worker and, as only polling launches it, an uploaded tile: four turns to run.
        let base = RuntimeOptions::default();
        let options = RuntimeOptions { workers: Some(1), launch_on_submit: false, cut_turn: Some(3), ..base };
        let streamed = streamed(16, 8, options)?;
        assert_eq!(streamed.stats.recoveries, 1);
        Ok(())
    }
}
