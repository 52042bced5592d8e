//! Pictures in and out: any PNG file to packed texels, and texels or RGB bytes to a PNG file.

use std::error::Error;
use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::Path;

use png::{ColorType, Transformations};

/// A picture of packed RGBA8 texels, row by row: red in a word's lowest byte, alpha in its highest.
///
/// A texel is a word because the device reads words: `texels` is copied into the input buffer as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// Texels a row.
    pub(crate) width: u32,
    /// Rows.
    pub(crate) height: u32,
    /// `width * height` texels.
    pub(crate) texels: Vec<u32>,
}

impl Image {
    /// The smallest picture with sides that are multiples of `step` and this one in its upper left corner; the texels
    /// that it adds repeat the last column and the last row, which a block compressor finds easy.
    pub(crate) fn padded(&self, step: u32) -> Image {
        let (width, height) = (self.width.next_multiple_of(step), self.height.next_multiple_of(step));
        self.remapped(width, height)
    }

    /// The upper left corner of the picture: `padded` taken back.
    pub(crate) fn cropped(&self, width: u32, height: u32) -> Image {
        self.remapped(width.min(self.width), height.min(self.height))
    }

    /// A picture of another size, whose texels past this one's edges repeat the edge.
    fn remapped(&self, width: u32, height: u32) -> Image {
        let row = |y: u32| &self.texels[y.min(self.height - 1) as usize * self.width as usize..][..self.width as usize];
        let column = |x: u32| x.min(self.width - 1) as usize;
        let texels = (0..height).flat_map(|y| (0..width).map(move |x| row(y)[column(x)])).collect();
        Image { width, height, texels }
    }
}

/// Reads a PNG file of any colour type and depth; 16-bit channels keep their high byte, and a picture without alpha is
/// opaque.
pub(crate) fn read(path: &Path) -> Result<Image, Box<dyn Error>> {
    decode(BufReader::new(File::open(path)?))
}

fn decode(source: impl std::io::BufRead + std::io::Seek) -> Result<Image, Box<dyn Error>> {
    let mut decoder = png::Decoder::new(source);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let mut reader = decoder.read_info()?;
    let mut bytes = vec![0; reader.output_buffer_size().ok_or("the picture does not fit into memory")?];
    let frame = reader.next_frame(&mut bytes)?;
    bytes.truncate(frame.buffer_size());
    let pixels = bytes.chunks_exact(frame.color_type.samples());
    let rgba: fn(&[u8]) -> [u8; 4] = match frame.color_type {
        ColorType::Grayscale => |p| [p[0], p[0], p[0], 255],
        ColorType::GrayscaleAlpha => |p| [p[0], p[0], p[0], p[1]],
        ColorType::Rgb => |p| [p[0], p[1], p[2], 255],
        ColorType::Rgba => |p| [p[0], p[1], p[2], p[3]],
        ColorType::Indexed => return Err("a palette was left unexpanded".into()),
    };
    let texels = pixels.map(|p| u32::from_le_bytes(rgba(p))).collect();
    Ok(Image { width: frame.width, height: frame.height, texels })
}

/// Writes packed texels as an RGBA8 file.
pub(crate) fn write(path: &Path, image: &Image) -> Result<(), Box<dyn Error>> {
    let bytes: Vec<u8> = image.texels.iter().flat_map(|texel| texel.to_le_bytes()).collect();
    encode(BufWriter::new(File::create(path)?), image.width, image.height, ColorType::Rgba, &bytes)
}

/// Writes three bytes a pixel, row by row, as an RGB8 file.
pub(crate) fn write_rgb(path: &Path, width: u32, height: u32, rgb: &[u8]) -> Result<(), Box<dyn Error>> {
    encode(BufWriter::new(File::create(path)?), width, height, ColorType::Rgb, rgb)
}

fn encode(
    sink: impl std::io::Write,
    width: u32,
    height: u32,
    color: ColorType,
    bytes: &[u8],
) -> Result<(), Box<dyn Error>> {
    let mut encoder = png::Encoder::new(sink, width, height);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(bytes)?;
    Ok(writer.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use png::BitDepth;
    use std::io::Cursor;

    fn decoded(color: ColorType, depth: BitDepth, palette: Option<&'static [u8]>, data: &[u8]) -> Vec<u32> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, 2, 1);
        encoder.set_color(color);
        encoder.set_depth(depth);
        if let Some(palette) = palette {
            encoder.set_palette(palette);
        }
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(data).unwrap();
        writer.finish().unwrap();
        decode(Cursor::new(file)).unwrap().texels
    }

    #[test]
    fn every_colour_type_becomes_packed_rgba() {
        use BitDepth::{Eight, One, Sixteen};
        assert_eq!(decoded(ColorType::Grayscale, Eight, None, &[1, 2]), [0xff01_0101, 0xff02_0202]);
        assert_eq!(decoded(ColorType::Grayscale, One, None, &[0x40]), [0xff00_0000, 0xffff_ffff]);
        assert_eq!(decoded(ColorType::GrayscaleAlpha, Eight, None, &[1, 9, 2, 8]), [0x0901_0101, 0x0802_0202]);
        assert_eq!(decoded(ColorType::Rgb, Eight, None, &[1, 2, 3, 4, 5, 6]), [0xff03_0201, 0xff06_0504]);
        assert_eq!(decoded(ColorType::Rgba, Eight, None, &[1, 2, 3, 4, 5, 6, 7, 8]), [0x0403_0201, 0x0807_0605]);
        assert_eq!(decoded(ColorType::Grayscale, Sixteen, None, &[1, 77, 2, 88]), [0xff01_0101, 0xff02_0202]);
        let palette: &[u8] = &[1, 2, 3, 4, 5, 6];
        assert_eq!(decoded(ColorType::Indexed, Eight, Some(palette), &[1, 0]), [0xff06_0504, 0xff03_0201]);
    }

    #[test]
    fn a_written_picture_reads_back_unchanged() {
        let image = Image { width: 2, height: 2, texels: vec![0x0102_0304, 0xffee_ddcc, 0, 0xffff_ffff] };
        let bytes: Vec<u8> = image.texels.iter().flat_map(|texel| texel.to_le_bytes()).collect();
        let mut file = Vec::new();
        encode(&mut file, 2, 2, ColorType::Rgba, &bytes).unwrap();
        assert_eq!(decode(Cursor::new(file)).unwrap(), image);
    }

    #[test]
    fn padding_repeats_the_edge_and_cropping_takes_it_back() {
        let image = Image { width: 3, height: 1, texels: vec![1, 2, 3] };
        let padded = image.padded(4);
        assert_eq!((padded.width, padded.height), (4, 4));
        assert_eq!(padded.texels, [1, 2, 3, 3].repeat(4));
        assert_eq!(padded.cropped(3, 1), image);
    }
}
