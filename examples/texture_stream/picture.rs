//! A picture of the schedule: what each worker ran, when, at which priority, and how each turn ended.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::canvas::{Canvas, Rgb, text_width};

/// One turn of one task, from the runtime's trace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TurnSpan {
    /// The scheduler's tick at which the turn began.
    pub(crate) began: u32,
    /// The first tick after it; not before `began`.
    pub(crate) ended: u32,
    /// The subgroup that ran it.
    pub(crate) worker: u32,
    /// The task's stable id.
    pub(crate) task_id: u32,
    /// `TaskPriority` code.
    pub(crate) priority: u32,
    /// `TaskState` code after the turn.
    pub(crate) state: u32,
    /// The program counter with which the turn began; 0 is a task's first turn.
    pub(crate) pc: u32,
}

/// Names and colours by priority code (the palette of Okabe and Ito, which colour-blind readers tell apart).
const PRIORITIES: [(&str, Rgb); 5] = [
    ("critical", [0xd5, 0x5e, 0x00]),
    ("high", [0xf0, 0xb4, 0x29]),
    ("normal", [0x00, 0x9e, 0x73]),
    ("low", [0x56, 0xb4, 0xe9]),
    ("idle", [0xb0, 0xb7, 0xbd]),
];

/// The mark at a bar's end.
struct Mark {
    /// The `TaskState` code that it stands for.
    state: u32,
    name: &'static str,
    colour: Rgb,
    width: i32,
    /// The part of the bar's height that it covers, in halves.
    halves: std::ops::Range<i32>,
}

/// A turn's possible ends. Shape tells them apart as well as colour.
const MARKS: [Mark; 5] = [
    Mark { state: 5, name: "yield", colour: PAPER, width: 1, halves: 0..2 },
    Mark { state: 3, name: "done", colour: INK, width: 3, halves: 0..2 },
    Mark { state: 4, name: "pause", colour: INK, width: 3, halves: 0..1 },
    Mark { state: 6, name: "requeue", colour: INK, width: 3, halves: 1..2 },
    Mark { state: 7, name: "fault", colour: [0xe0, 0x00, 0xd0], width: 5, halves: 0..2 },
];

const PAPER: Rgb = [0xff; 3];
const BAND: Rgb = [0xf1, 0xf3, 0xf5];
const GRID: Rgb = [0xd5, 0xda, 0xdf];
const INK: Rgb = [0x1c, 0x21, 0x27];
const UNKNOWN: Rgb = [0x70, 0x70, 0x70];

/// Rows at most; of more workers the busiest are shown.
const MOST_ROWS: usize = 64;

const WIDTH: i32 = 1600;
const LEFT: i32 = 96;
const RIGHT: i32 = 44;
const PLOT: i32 = WIDTH - LEFT - RIGHT;
const TOP: i32 = 148;
const BOTTOM: i32 = 28;

/// Room under a band of rows for the labels of its ticks.
const UNDER_BAND: i32 = 44;

/// How tall all bands together may be.
const BANDS_HEIGHT: i32 = 1200;

/// Where time and workers lie in the picture. Few workers leave room to wrap time like text: into bands, each of which
/// has a row for every worker.
struct Axes {
    origin: u32,
    bands: u32,
    /// Ticks in a band.
    span: u32,
    /// Worker ids from top to bottom.
    workers: Vec<u32>,
    pitch: i32,
}

impl Axes {
    fn new(spans: &[TurnSpan]) -> Axes {
        let origin = spans.iter().map(|span| span.began).min().unwrap_or(0);
        let end = spans.iter().map(|span| span.ended).max().unwrap_or(0);
        let ticks = (end - origin).max(1);
        let workers = busiest(spans);
        let rows = workers.len().max(1) as i32;
        // Eight pixels a tick are enough for most turns to have their task's number.
        let wanted = (u64::from(ticks) * 8).div_ceil(PLOT as u64);
        let most = (BANDS_HEIGHT / (rows * 20 + UNDER_BAND)).max(1);
        let span = ticks.div_ceil(wanted.min(most as u64) as u32);
        let span = span.checked_next_multiple_of(round_step(span)).unwrap_or(span);
        let bands = ticks.div_ceil(span);
        // Few rows may be tall, but not absurdly so.
        let pitch = ((BANDS_HEIGHT / bands as i32 - UNDER_BAND) / rows).clamp(12, 40);
        Axes { origin, bands, span, workers, pitch }
    }

    /// The bands that a turn touches.
    fn bands_of(&self, span: &TurnSpan) -> RangeInclusive<u32> {
        let band = |tick: u32| (tick - self.origin) / self.span;
        band(span.began)..=band(span.ended.saturating_sub(1).max(span.began)).min(self.bands - 1)
    }

    /// The column of a tick in a band, whose edge it does not cross.
    fn x(&self, band: u32, tick: u32) -> i32 {
        let into = i64::from(tick - self.origin) - i64::from(band) * i64::from(self.span);
        LEFT + (into.clamp(0, self.span.into()) * i64::from(PLOT) / i64::from(self.span)) as i32
    }

    fn y(&self, band: u32, row: usize) -> i32 {
        let rows = self.workers.len().max(1) as i32;
        TOP + band as i32 * (rows * self.pitch + UNDER_BAND) + row as i32 * self.pitch
    }

    fn bottom(&self, band: u32) -> i32 {
        self.y(band, self.workers.len().max(1))
    }
}

/// The ids of the workers with most ticks spent in turns (a turn counts as one at least), in ascending order.
fn busiest(spans: &[TurnSpan]) -> Vec<u32> {
    let mut busy = BTreeMap::<u32, u64>::new();
    for span in spans {
        *busy.entry(span.worker).or_default() += u64::from(span.ended - span.began).max(1);
    }
    let mut workers: Vec<_> = busy.into_iter().collect();
    workers.sort_by_key(|&(worker, ticks)| (std::cmp::Reverse(ticks), worker));
    workers.truncate(MOST_ROWS);
    let mut ids: Vec<_> = workers.into_iter().map(|(worker, _)| worker).collect();
    ids.sort_unstable();
    ids
}

/// Draws the schedule: time to the right, a row for each worker, a bar for each turn in its priority's colour, its end
/// marked by how it ended; a bar that is wide enough carries its task's number.
pub(crate) fn schedule(title: &str, spans: &[TurnSpan]) -> Canvas {
    let axes = Axes::new(spans);
    let height = axes.bottom(axes.bands - 1) + UNDER_BAND + BOTTOM;
    let mut canvas = Canvas::new(WIDTH as u32, height as u32, PAPER);
    canvas.text(LEFT, 20, 3, INK, title);
    draw_key(&mut canvas, spans);
    for band in 0..axes.bands {
        draw_band(&mut canvas, &axes, band);
    }
    for span in spans {
        if let Ok(row) = axes.workers.binary_search(&span.worker) {
            draw_turn(&mut canvas, &axes, row, span);
        }
    }
    draw_caption(&mut canvas, &axes, spans, height);
    canvas
}

fn draw_bar(canvas: &mut Canvas, x: i32, y: i32, width: i32, height: i32, colour: Rgb, state: u32) {
    canvas.fill(x, y, width, height, colour);
    if let Some(mark) = MARKS.iter().find(|mark| mark.state == state) {
        // Even the narrowest bar keeps half of its colour.
        let wide = mark.width.min(width / 2);
        let (top, bottom) = (mark.halves.start * height / 2, mark.halves.end * height / 2);
        canvas.fill(x + width - wide, y + top, wide, bottom - top, mark.colour);
    }
}

fn draw_turn(canvas: &mut Canvas, axes: &Axes, row: usize, span: &TurnSpan) {
    let colour = PRIORITIES.get(span.priority as usize).map_or(UNKNOWN, |&(_, colour)| colour);
    let (bands, height) = (axes.bands_of(span), axes.pitch - 3);
    for band in bands.clone() {
        let (x, y) = (axes.x(band, span.began), axes.y(band, row) + 1);
        let width = (axes.x(band, span.ended) - x).max(2);
        draw_bar(canvas, x, y, width, height, colour, if band == *bands.end() { span.state } else { 0 });
        let first = if span.pc == 0 { "*" } else { "" };
        let label = format!("{}{first}", span.task_id);
        let fits = |scale: &i32| 7 * scale + 2 <= height && text_width(&label, *scale) + 4 <= width;
        if let Some(scale) = [2, 1].into_iter().find(fits) {
            canvas.text(x + 2, y + (height - 7 * scale + 1) / 2, scale, INK, &label);
        }
    }
}

/// The legend: a swatch for each priority and a short bar for each end that occurs, with how many turns had it.
fn draw_key(canvas: &mut Canvas, spans: &[TurnSpan]) {
    const SAMPLE: i32 = 32;
    let mut entry = |x: i32, y: i32, colour: Rgb, state: u32, name: &str, turns: usize| {
        // The bar of a next turn shows where this one ends.
        draw_bar(canvas, x, y - 3, SAMPLE, 20, colour, 0);
        draw_bar(canvas, x, y - 3, SAMPLE * 2 / 3, 20, colour, state);
        canvas.text(x + SAMPLE + 8, y, 2, INK, &format!("{name} {turns}")) + 28
    };
    let (mut x, second) = (LEFT + text_width("turns by priority  ", 2), 94);
    for (code, (name, colour)) in (0..).zip(PRIORITIES) {
        let turns = spans.iter().filter(|span| span.priority == code).count();
        if turns > 0 {
            x = entry(x, 64, colour, 0, name, turns);
        }
    }
    x = LEFT + text_width("turns by priority  ", 2);
    for mark in &MARKS {
        let turns = spans.iter().filter(|span| span.state == mark.state).count();
        if turns > 0 {
            x = entry(x, second, PRIORITIES[4].1, mark.state, mark.name, turns);
        }
    }
    canvas.text(LEFT, 64, 2, INK, "turns by priority");
    canvas.text(LEFT, second, 2, INK, "turns by their end");
}

fn draw_band(canvas: &mut Canvas, axes: &Axes, band: u32) {
    // A label needs 18 rows of pixels, so narrow rows share one.
    let labelled = (18 + axes.pitch - 1) / axes.pitch;
    for (row, worker) in axes.workers.iter().enumerate() {
        let y = axes.y(band, row);
        if row % 2 == 0 {
            canvas.fill(LEFT, y, PLOT, axes.pitch, BAND);
        }
        if row % labelled as usize == 0 {
            let label = worker.to_string();
            canvas.text(LEFT - 10 - text_width(&label, 2), y + (axes.pitch - 14) / 2, 2, INK, &label);
        }
    }
    let (top, bottom) = (axes.y(band, 0), axes.bottom(band));
    for tick in (0..=axes.span).step_by(round_step(axes.span) as usize) {
        let x = LEFT + (i64::from(tick) * i64::from(PLOT) / i64::from(axes.span)) as i32;
        let label = (u64::from(band) * u64::from(axes.span) + u64::from(tick)).to_string();
        canvas.fill(x, top, 1, bottom - top + 6, GRID);
        canvas.text(x - text_width(&label, 2) / 2, bottom + 12, 2, INK, &label);
    }
    canvas.fill(LEFT, bottom, PLOT, 2, INK);
    canvas.fill(LEFT - 2, top, 2, bottom - top + 2, INK);
}

fn draw_caption(canvas: &mut Canvas, axes: &Axes, spans: &[TurnSpan], height: i32) {
    canvas.text(12, TOP - 24, 2, INK, "worker");
    let all = spans.iter().map(|span| span.worker).collect::<BTreeSet<_>>().len();
    let shown = axes.workers.len();
    let mut label =
        "a tick is a turn's beginning or end on any worker; a number is a task, * in its first turn".to_owned();
    if shown < all {
        label += &format!("; the busiest {shown} of {all} workers");
    }
    canvas.text((WIDTH - text_width(&label, 2)) / 2, height - 24, 2, INK, &label);
}

/// The smallest of 1, 2, 5, 10, 20 … that divides `ticks` into at most a dozen steps.
fn round_step(ticks: u32) -> u32 {
    let steps = (0..9).flat_map(|power| [1, 2, 5].map(|digit| digit * 10_u32.pow(power)));
    steps.into_iter().find(|step| ticks / step <= 12).unwrap_or(1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(worker: u32, began: u32, ended: u32) -> TurnSpan {
        TurnSpan { began, ended, worker, task_id: 1, priority: 1, state: 5, pc: 1 }
    }

    fn pixel(canvas: &Canvas, x: i32, y: i32) -> Rgb {
        let at = 3 * (y as usize * canvas.width as usize + x as usize);
        [canvas.rgb[at], canvas.rgb[at + 1], canvas.rgb[at + 2]]
    }

    #[test]
    fn a_turn_is_a_bar_in_its_priority_s_colour_in_its_worker_s_row() {
        let spans = [span(7, 100, 150), TurnSpan { priority: 3, ..span(9, 150, 200) }];
        let (axes, canvas) = (Axes::new(&spans), schedule("test", &spans));
        assert_eq!(pixel(&canvas, axes.x(0, 102), axes.y(0, 0) + 2), PRIORITIES[1].1);
        assert_eq!(pixel(&canvas, axes.x(0, 155), axes.y(0, 1) + 2), PRIORITIES[3].1);
        assert_eq!(pixel(&canvas, axes.x(0, 155), axes.y(0, 0) + 2), BAND);
    }

    #[test]
    fn a_turn_that_outlasts_its_band_goes_on_in_the_next() {
        let spans = [span(7, 0, 900), span(7, 950, 1000)];
        let (axes, canvas) = (Axes::new(&spans), schedule("test", &spans));
        assert_eq!(axes.bands_of(&spans[0]), 0..=899 / axes.span);
        assert!(axes.bands > 2);
        for band in [0, 1] {
            assert_eq!(pixel(&canvas, LEFT + PLOT - 1, axes.y(band, 0) + 2), PRIORITIES[1].1);
            assert_eq!(pixel(&canvas, LEFT, axes.y(band, 0) + 2), PRIORITIES[1].1);
        }
        assert_eq!(pixel(&canvas, axes.x(axes.bands - 1, 925), axes.y(axes.bands - 1, 0) + 2), BAND);
    }

    #[test]
    fn many_workers_leave_room_for_one_band() {
        let spans: Vec<_> = (0..64).map(|worker| span(worker, worker, 100_000)).collect();
        assert_eq!(Axes::new(&spans).bands, 1);
    }

    #[test]
    fn each_end_of_a_turn_looks_different() {
        let bar = |state| {
            let mut canvas = Canvas::new(12, 12, PAPER);
            draw_bar(&mut canvas, 0, 0, 10, 10, BAND, state);
            canvas.rgb
        };
        let pictures: std::collections::BTreeSet<_> = [0, 3, 4, 5, 6, 7].map(bar).into();
        assert_eq!(pictures.len(), 6);
    }

    #[test]
    fn of_many_workers_the_busiest_are_shown() {
        let spans: Vec<_> = (0..100).map(|worker| span(worker, 0, worker + 1)).collect();
        assert_eq!(busiest(&spans), (36..100).collect::<Vec<_>>());
    }

    #[test]
    fn an_empty_trace_is_an_empty_picture() {
        let canvas = schedule("nothing", &[]);
        assert_eq!(canvas.rgb.len(), 3 * (canvas.width * canvas.height) as usize);
    }

    #[test]
    fn the_longest_trace_has_a_dozen_labels_at_most() {
        for ticks in [1, 12, 13, 999, 1_040_000, u32::MAX] {
            assert!(ticks / round_step(ticks) <= 12, "{ticks}");
        }
    }
}
