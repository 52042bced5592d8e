//! What a frame draws, and where it goes.

use std::error::Error;
use std::fs::File;
use std::path::Path;

use taskring::vk;

use crate::vulkan::Vulkan;
use crate::{SIDE, TILE, TILES};

const LAYER: vk::ImageSubresourceLayers = vk::ImageSubresourceLayers {
    aspect_mask: vk::ImageAspectFlags::COLOR,
    mip_level: 0,
    base_array_layer: 0,
    layer_count: 1,
};

/// Copies an unpacked tile to its place in the atlas.
pub(crate) fn draw_tile(engine: &Vulkan, tiles: vk::Buffer, atlas: vk::Image, tile: u32) {
    let (x, y) = ((tile % TILES * TILE) as i32, (tile / TILES * TILE) as i32);
    let region = vk::BufferImageCopy::default()
        .buffer_offset(u64::from(tile * TILE * TILE * 4))
        .image_subresource(LAYER)
        .image_offset(vk::Offset3D { x, y, z: 0 })
        .image_extent(vk::Extent3D { width: TILE, height: TILE, depth: 1 });
    let (device, general) = (&engine.device, vk::ImageLayout::GENERAL);
    // SAFETY: it is being recorded, and all of it outlives the frame.
    unsafe { device.cmd_copy_buffer_to_image(engine.commands, tiles, atlas, general, &[region]) };
}

/// Draws the atlas onto the screen, and takes the screen home.
pub(crate) fn show(engine: &Vulkan, atlas: vk::Image, screen: vk::Image, readback: vk::Buffer) {
    let (device, general) = (&engine.device, vk::ImageLayout::GENERAL);
    let corner = vk::Offset3D { x: SIDE as i32, y: SIDE as i32, z: 1 };
    let all = [vk::Offset3D::default(), corner];
    let blit = vk::ImageBlit { src_subresource: LAYER, src_offsets: all, dst_subresource: LAYER, dst_offsets: all };
    engine.barrier();
    let nearest = vk::Filter::NEAREST;
    // SAFETY: it is being recorded, and all of it outlives the frame.
    unsafe { device.cmd_blit_image(engine.commands, atlas, general, screen, general, &[blit], nearest) };
    engine.barrier();
    let extent = vk::Extent3D { width: SIDE, height: SIDE, depth: 1 };
    let region = vk::BufferImageCopy::default().image_subresource(LAYER).image_extent(extent);
    // SAFETY: as above.
    unsafe { device.cmd_copy_image_to_buffer(engine.commands, screen, general, readback, &[region]) };
    engine.barrier();
}

pub(crate) fn write_png(path: &Path, rgba: &[u8]) -> Result<(), Box<dyn Error>> {
    let mut encoder = png::Encoder::new(File::create(path)?, SIDE, SIDE);
    encoder.set_color(png::ColorType::Rgba);
    Ok(encoder.write_header()?.write_image_data(rgba)?)
}
