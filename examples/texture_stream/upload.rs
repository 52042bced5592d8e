//! Uploads a picture, tile by tile, on a queue of the device: its transfer queue, where it has one.
//!
//! The host puts a tile's texels into a place of the staging buffer. A command buffer copies them from there into the
//! picture, row by row, and writes the tile's number where slices look; its submission signals the number on a timeline
//! semaphore. There are a few places, each with its command buffer; before one is used anew, the host waits for the
//! upload that had it. That wait ends: no upload waits for anything, and slices that stand before one on its queue end.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use taskring::device::QueueRole;
use taskring::{BackendError, Buffer, BufferDesc, Device, MemoryKind, Runtime, Signaller, Timeline, TimelineId, vk};

use crate::png_io::Image;
use crate::stream::{PATIENCE, mapped};
use crate::tiling::Tiling;

/// Uploads that may be under way at once.
const PLACES: u32 = 4;

/// The picture's header, the four words of [`Tiling::header`].
const HEADER_BYTES: u64 = 16;

/// Where uploads run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct UploadQueue(pub(crate) QueueRole);

impl UploadQueue {
    /// The queue that takes the least from the slices, and its family.
    fn best(device: &Device) -> (Self, u32) {
        let mut rest = [QueueRole::Transfer, QueueRole::Other].into_iter();
        let spare = rest.find_map(|role| Some((Self(role), device.family_of(role)?)));
        spare.unwrap_or((Self(QueueRole::Slices), device.queue_family()))
    }
}

impl fmt::Display for UploadQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            QueueRole::Transfer => "the transfer queue",
            QueueRole::Other => "a second compute queue, as there is no transfer queue",
            QueueRole::Slices => "the slices' own queue, as there is no other",
        })
    }
}

/// Uploads tiles in order. Keeps whatever its submissions use, the runtime included, until they have ended.
pub(crate) struct Uploader<'a> {
    runtime: Runtime,
    staging: Arc<Buffer>,
    picture: Arc<Buffer>,
    image: &'a Image,
    tiling: Tiling,
    /// Where the uploads run.
    pub(crate) queue: UploadQueue,
    pool: vk::CommandPool,
    /// One for each place.
    commands: Vec<vk::CommandBuffer>,
    /// Stands at the number of uploaded tiles.
    semaphore: Arc<Timeline>,
    /// The same for tasks: its epoch is that number.
    pub(crate) timeline: TimelineId,
    submitted: u32,
}

impl<'a> Uploader<'a> {
    /// Makes the device's picture, which tiles of `image`, as large as `tiling` says, are uploaded to.
    pub(crate) fn new(runtime: &Runtime, image: &'a Image, tiling: Tiling) -> Result<Self, Box<dyn Error>> {
        let device = runtime.device();
        let (queue, family) = UploadQueue::best(device);
        let allocate = |name, bytes, kind, shared| {
            device.allocate(BufferDesc { shared, ..BufferDesc::new(name, bytes, kind) }).map(Arc::new)
        };
        let staging = allocate("staged texels", u64::from(PLACES) * place_bytes(tiling), MemoryKind::Mailbox, false)?;
        // Shared, since the queue that uploads may be of another family than the slices'.
        let picture = allocate("texels", HEADER_BYTES + 4 * image.texels.len() as u64, MemoryKind::Private, true)?;
        let semaphore = Arc::new(Timeline::new(device, "uploaded tiles", 0)?);
        let timeline = runtime.register_timeline(&semaphore, Signaller::Recorded)?;
        let info = vk::CommandPoolCreateInfo::default()
            .flags(vk::CommandPoolCreateFlags::RESET_COMMAND_BUFFER | vk::CommandPoolCreateFlags::TRANSIENT)
            .queue_family_index(family);
        // SAFETY: the device was made with the families of its plan, and this one is the plan's, as `best` sees to.
        let pool = unsafe { device.raw().create_command_pool(&info, None) }?;
        // From here on, dropping the value cleans up.
        let mut uploader = Self {
            runtime: runtime.clone(),
            staging,
            picture,
            image,
            tiling,
            queue,
            pool,
            commands: Vec::new(),
            semaphore,
            timeline,
            submitted: 0,
        };
        let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(PLACES);
        // SAFETY: the pool was just made, and only this value has it.
        uploader.commands = unsafe { device.raw().allocate_command_buffers(&info) }?;
        Ok(uploader)
    }

    /// The picture: its header and its texels. Only the device reaches it.
    pub(crate) fn picture(&self) -> &Arc<Buffer> {
        &self.picture
    }

    /// Tiles whose uploads were submitted.
    pub(crate) fn submitted(&self) -> u32 {
        self.submitted
    }

    /// Tiles whose texels are in the picture.
    pub(crate) fn uploaded(&self) -> Result<u64, BackendError> {
        self.semaphore.value()
    }

    /// Waits until so many tiles are uploaded; they must have been submitted.
    pub(crate) fn wait(&self, tiles: u32) -> Result<(), Box<dyn Error>> {
        if self.semaphore.wait(tiles.into(), PATIENCE)? {
            return Ok(());
        }
        Err(format!("{tiles} tiles are not uploaded after {} s, {} are", PATIENCE.as_secs(), self.uploaded()?).into())
    }

    /// Submits the upload of the next tile, if there is one.
    pub(crate) fn upload_next(&mut self) -> Result<(), Box<dyn Error>> {
        let (tile, number) = (self.submitted, self.submitted + 1);
        if tile == self.tiling.tiles() {
            return Ok(());
        }
        // The place's last upload, if there was one.
        self.wait(number.saturating_sub(PLACES))?;
        let (rows, device) = (self.stage(tile)?, self.runtime.device());
        let (raw, commands) = (device.raw(), self.commands[(tile % PLACES) as usize]);
        let info = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the submission that had it has ended, as the wait above saw, and the pool lets it be reset.
        unsafe { raw.begin_command_buffer(commands, &info) }?;
        if tile == 0 {
            let header: [u8; HEADER_BYTES as usize] = bytemuck::cast(self.tiling.header());
            // SAFETY: it records, and the picture, which this value keeps, was made with room for the header.
            unsafe { raw.cmd_update_buffer(commands, self.picture.raw(), 0, &header) };
        }
        // SAFETY: it records, and `stage` has checked that the regions are inside both buffers, which this value keeps.
        unsafe { raw.cmd_copy_buffer(commands, self.staging.raw(), self.picture.raw(), &rows) };
        // SAFETY: it records, and this value keeps the runtime and the timeline open until the submission has ended.
        unsafe { self.runtime.record_signal(commands, self.timeline, number.into()) }?;
        // SAFETY: it is in the recording state since above, where only this thread has it.
        unsafe { raw.end_command_buffer(commands) }?;
        let (commands, signal) = ([commands], Some((self.semaphore.raw(), number.into())));
        // SAFETY: this value keeps what the commands use until they end; values are signalled here, in order.
        unsafe { device.submit_on(self.queue.0, &commands, None, signal) }?;
        self.submitted = number;
        Ok(())
    }

    /// Puts a tile's rows into its place, one behind the other, and says what is to be copied where.
    fn stage(&self, tile: u32) -> Result<Vec<vk::BufferCopy>, Box<dyn Error>> {
        let (staging, columns) = (mapped(&self.staging)?, self.tiling.columns(tile));
        let (place, row_bytes) = (u64::from(tile % PLACES) * place_bytes(self.tiling), 4 * columns.len() as u64);
        let stage_row = |(n, row): (u64, u32)| {
            let first = row as usize * self.tiling.width as usize + columns.start as usize;
            let from = place + n * row_bytes;
            staging.write(from, bytemuck::cast_slice(&self.image.texels[first..first + columns.len()]))?;
            Ok(vk::BufferCopy { src_offset: from, dst_offset: HEADER_BYTES + 4 * first as u64, size: row_bytes })
        };
        (0..).zip(self.tiling.rows(tile)).map(stage_row).collect()
    }
}

/// Room for the largest tile, which is the first.
fn place_bytes(tiling: Tiling) -> u64 {
    4 * tiling.columns(0).len() as u64 * tiling.rows(0).len() as u64
}

impl Drop for Uploader<'_> {
    fn drop(&mut self) {
        let ended = self.semaphore.wait(self.submitted.into(), PATIENCE);
        if !matches!(ended, Ok(true) | Err(BackendError::DeviceLost { .. })) {
            // Unless it is lost, the device may still use all of it: better leaked than freed under its hands.
            tracing::error!(?ended, "an upload still runs; its buffers, its commands and the runtime are leaked");
            std::mem::forget((self.runtime.clone(), self.staging.clone(), self.picture.clone()));
            return;
        }
        // SAFETY: nothing of the pool is pending, as the wait has seen, and only this value has it.
        unsafe { self.runtime.device().raw().destroy_command_pool(self.pool, None) };
    }
}
