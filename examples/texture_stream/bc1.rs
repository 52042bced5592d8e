//! BC1 in integers: the reference encoder that the device's words are compared with bit for bit, and the decoder.
//!
//! A BC1 block stores 4x4 texels in two words: two RGB565 endpoints, then a two-bit index a texel into the palette of
//! the endpoints and the two colours between them. [`encode_block`] has a twin in `bc1.glsl`, function for function;
//! every step is 32-bit integer arithmetic that cannot overflow, so neither compiler has a rounding of its own to
//! choose. The bounds that show it stand at the steps.

use crate::png_io::Image;

/// Least-squares steps; each one needs the indices of the one before. On the photograph of this example they gain 2 dB,
/// and further ones under 0.01 dB.
const ROUNDS: usize = 4;

/// Trials of one level down and up, for two ends of three components. They gain 0.15 dB, and a second sweep 0.04 dB.
const NUDGES: usize = 12;

/// Matrix products that turn the axis towards the principal one.
const AXIS_STEPS: u32 = 6;

/// The largest value of an endpoint's red, green and blue: 5, 6 and 5 bits.
const LEVELS: [i32; 3] = [31, 63, 31];

/// A colour, or anything else with three components.
type Vec3 = [i32; 3];

/// Two endpoints in [`LEVELS`], the best index for each texel between them, and what that leaves: the sum of squared
/// differences over all texels and channels, at most 16 * 3 * 255^2 < 2^22.
#[derive(Clone, Copy)]
struct Fit {
    ends: [Vec3; 2],
    indices: u32,
    error: i32,
}

fn colour(texel: u32) -> Vec3 {
    [texel & 255, texel >> 8 & 255, texel >> 16 & 255].map(|channel| channel as i32)
}

fn dot(a: Vec3, b: Vec3) -> i32 {
    a[0] * b[0] + a[1] * b[1] + a[2] * b[2]
}

/// How far to shift `value` right so that it has at most `bits` bits.
fn excess_bits(value: i32, bits: i32) -> i32 {
    (32 - value.leading_zeros() as i32 - bits).max(0)
}

/// `v` shifted down to 13 bits a component, so that its product with 15-bit numbers, three times, stays below 2^30.
fn shortened(v: Vec3) -> Vec3 {
    let largest = v[0].abs().max(v[1].abs()).max(v[2].abs());
    v.map(|component| component >> excess_bits(largest, 13))
}

/// The direction in which the block's colours spread most: power iteration on their covariance matrix.
fn principal_axis(texels: &[u32; 16]) -> Vec3 {
    let (mut sum, mut squares, mut products) = ([0; 3], [0; 3], [0; 3]);
    for &texel in texels {
        let [r, g, b] = colour(texel);
        sum = [sum[0] + r, sum[1] + g, sum[2] + b];
        squares = [squares[0] + r * r, squares[1] + g * g, squares[2] + b * b];
        products = [products[0] + r * g, products[1] + r * b, products[2] + g * b];
    }
    // 256 times the covariance: at most 64 * 255^2 < 2^22, and each term below 2^24.
    let [rr, gg, bb] = [0, 1, 2].map(|c| 16 * squares[c] - sum[c] * sum[c]);
    let [rg, rb, gb] = [(0, 0, 1), (1, 0, 2), (2, 1, 2)].map(|(p, c, d)| 16 * products[p] - sum[c] * sum[d]);
    let shift = excess_bits(rr.max(gg).max(bb), 15);
    let rows = [[rr, rg, rb], [rg, gg, gb], [rb, gb, bb]].map(|row| row.map(|entry| entry >> shift));

    // The row of the largest variance is already one product away from a unit vector.
    let mut axis = if rr >= gg && rr >= bb {
        rows[0]
    } else if gg >= bb {
        rows[1]
    } else {
        rows[2]
    };
    for _ in 0..AXIS_STEPS {
        let short = shortened(axis);
        axis = rows.map(|row| dot(row, short));
    }
    shortened(axis)
}

/// The two texels that lie farthest apart along `axis`, rounded to endpoints.
fn extremes(texels: &[u32; 16], axis: Vec3) -> [Vec3; 2] {
    let (mut low, mut high) = (colour(texels[0]), colour(texels[0]));
    for &texel in texels {
        let here = colour(texel);
        if dot(here, axis) < dot(low, axis) {
            low = here;
        }
        if dot(here, axis) > dot(high, axis) {
            high = here;
        }
    }
    [high, low].map(|end| [0, 1, 2].map(|c| (end[c] * LEVELS[c] + 127) / 255))
}

/// The four colours that endpoints span, as the decoder sees them: first end, second end, a third of the way from the
/// first to the second, two thirds.
fn palette(ends: [Vec3; 2]) -> [Vec3; 4] {
    let [a, b] = ends.map(|[r, g, b]| [r << 3 | r >> 2, g << 2 | g >> 4, b << 3 | b >> 2]);
    [a, b, [0, 1, 2].map(|c| (2 * a[c] + b[c] + 1) / 3), [0, 1, 2].map(|c| (a[c] + 2 * b[c] + 1) / 3)]
}

/// Gives each texel the nearest colour of the palette, the first of several.
fn fit(texels: &[u32; 16], ends: [Vec3; 2]) -> Fit {
    let palette = palette(ends);
    let mut fit = Fit { ends, indices: 0, error: 0 };
    for (texel, here) in texels.iter().map(|&texel| colour(texel)).enumerate() {
        let (mut nearest, mut distance) = (0, i32::MAX);
        for (index, there) in palette.iter().enumerate() {
            let apart = [0, 1, 2].map(|c| here[c] - there[c]);
            if dot(apart, apart) < distance {
                (nearest, distance) = (index as u32, dot(apart, apart));
            }
        }
        fit.indices |= nearest << (2 * texel);
        fit.error += distance;
    }
    fit
}

/// The endpoints that suit the indices best, by least squares; the old ones where all texels share one index.
fn least_squares(texels: &[u32; 16], old: Fit) -> [Vec3; 2] {
    // Thirds of the first end in each index's colour: 3, 0, 2, 1, packed two bits each.
    const WEIGHTS: u32 = 0b01_10_00_11;
    let (mut aa, mut ab, mut bb) = (0, 0, 0);
    let (mut at, mut bt) = ([0; 3], [0; 3]);
    for (texel, here) in texels.iter().map(|&texel| colour(texel)).enumerate() {
        let a = (WEIGHTS >> (2 * (old.indices >> (2 * texel) & 3)) & 3) as i32;
        let b = 3 - a;
        (aa, ab, bb) = (aa + a * a, ab + a * b, bb + b * b);
        (at, bt) = ([0, 1, 2].map(|c| at[c] + a * here[c]), [0, 1, 2].map(|c| bt[c] + b * here[c]));
    }
    // At most 72 * 72, so `full`, which stands for 255, is below 2^21, and 63 times it below 2^27.
    let determinant = aa * bb - ab * ab;
    if determinant == 0 {
        return old.ends;
    }
    let full = 255 * determinant;
    let level = |end: i32, c: usize| ((3 * end).clamp(0, full) * LEVELS[c] + full / 2) / full;
    // The sums reach 48 * 255 and their factors 144, so three times a product stays below 2^23.
    [[0, 1, 2].map(|c| level(bb * at[c] - ab * bt[c], c)), [0, 1, 2].map(|c| level(aa * bt[c] - ab * at[c], c))]
}

fn packed(end: Vec3) -> u32 {
    (end[0] << 11 | end[1] << 5 | end[2]) as u32
}

/// The endpoints with one component, `nudge / 2` of six, a level lower (even) or higher (odd).
fn nudged(mut ends: [Vec3; 2], nudge: usize) -> [Vec3; 2] {
    let (end, channel, step) = (nudge / 6, nudge / 2 % 3, 2 * (nudge as i32 % 2) - 1);
    ends[end][channel] = (ends[end][channel] + step).clamp(0, LEVELS[channel]);
    ends
}

/// Compresses 4x4 texels, row by row, as in [`Image`]; their alpha is not looked at.
///
/// Starts with the extreme texels along the principal axis, refines by least squares, then tries each endpoint
/// component a level down and up, which is also what finds the mixed palettes for flat blocks. The best attempt stays.
/// All blocks make the same number of attempts, through one call of [`fit`]: on the device lanes stay together, and
/// the one large inlined function is there once.
pub(crate) fn encode_block(texels: &[u32; 16]) -> [u32; 2] {
    let start = extremes(texels, principal_axis(texels));
    let mut best = Fit { ends: start, indices: 0, error: i32::MAX };
    for attempt in 0..=ROUNDS + NUDGES {
        let next = if attempt == 0 {
            start
        } else if attempt <= ROUNDS {
            least_squares(texels, best)
        } else {
            nudged(best.ends, attempt - ROUNDS - 1)
        };
        let next = fit(texels, next);
        if next.error < best.error {
            best = next;
        }
    }
    // Four colours need a first endpoint above the second. Equal ones decode alike with both palettes: `fit` gives
    // every texel the first of four equal colours then.
    let [first, second] = best.ends.map(packed);
    if first >= second {
        [first | second << 16, best.indices]
    } else {
        [second | first << 16, best.indices ^ 0x5555_5555]
    }
}

/// The 4x4 texels of a block, row by row.
///
/// Decoders may round the middle colours differently by a level; this one rounds to the nearest.
pub(crate) fn decode_block(block: [u32; 2]) -> [u32; 16] {
    let ends = [block[0] & 0xffff, block[0] >> 16];
    let mut colours = palette(ends.map(|end| [end >> 11, end >> 5 & 63, end & 31].map(|level| level as i32)));
    let mut alpha = [255; 4];
    if ends[0] <= ends[1] {
        // Three colours and a hole: never written by this encoder, but part of the format.
        colours[2] = [0, 1, 2].map(|c| (colours[0][c] + colours[1][c]) / 2);
        (colours[3], alpha[3]) = ([0; 3], 0);
    }
    std::array::from_fn(|texel| {
        let index = (block[1] >> (2 * texel) & 3) as usize;
        let [r, g, b] = colours[index].map(|channel| channel as u8);
        u32::from_le_bytes([r, g, b, alpha[index]])
    })
}

/// The positions in a picture of a block's texels; blocks count row by row, `width` is a multiple of 4.
fn positions(width: u32, block: usize) -> [usize; 16] {
    let (width, across) = (width as usize, width as usize / 4);
    let corner = block / across * 4 * width + block % across * 4;
    std::array::from_fn(|texel| corner + texel / 4 * width + texel % 4)
}

/// The blocks of a picture, row by row, two words each. Its sides are multiples of 4 ([`Image::padded`]).
pub(crate) fn encode_image(image: &Image) -> Vec<[u32; 2]> {
    let blocks = image.texels.len() / 16;
    let texels = |block| positions(image.width, block).map(|position| image.texels[position]);
    (0..blocks).map(|block| encode_block(&texels(block))).collect()
}

/// The picture that blocks hold; `width` and `height` are multiples of 4.
pub(crate) fn decode_image(width: u32, height: u32, blocks: &[[u32; 2]]) -> Image {
    let mut texels = vec![0; width as usize * height as usize];
    for (block, &words) in blocks.iter().enumerate() {
        for (position, texel) in positions(width, block).into_iter().zip(decode_block(words)) {
            texels[position] = texel;
        }
    }
    Image { width, height, texels }
}

/// Peak signal-to-noise ratio of two equally large pictures in decibels, over red, green and blue; infinite for equal
/// ones.
pub(crate) fn psnr(a: &Image, b: &Image) -> f64 {
    let apart = |(&a, &b): (&u32, &u32)| {
        let (a, b) = (colour(a), colour(b));
        let d = [0, 1, 2].map(|c| a[c] - b[c]);
        f64::from(dot(d, d))
    };
    let sum: f64 = a.texels.iter().zip(&b.texels).map(apart).sum();
    10.0 * (255.0 * 255.0 * 3.0 * a.texels.len() as f64 / sum).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: u32 = 0xff00_00ff;
    const BLUE: u32 = 0xffff_0000;

    fn error(texels: &[u32; 16]) -> i32 {
        let decoded = decode_block(encode_block(texels));
        let apart = |(&a, b): (&u32, u32)| [0, 1, 2].map(|c| colour(a)[c] - colour(b)[c]);
        texels.iter().zip(decoded).map(apart).map(|d| dot(d, d)).sum()
    }

    #[test]
    fn a_block_of_two_exact_colours_is_lossless() {
        let texels = std::array::from_fn(|texel| if texel % 3 == 0 { RED } else { BLUE });
        assert_eq!(decode_block(encode_block(&texels)), texels);
    }

    #[test]
    fn a_flat_block_is_a_level_off_at_most_a_channel() {
        for grey in 0..=255 {
            let worst = error(&[0xff00_0000 | (grey * 0x0001_0101); 16]);
            assert!(worst <= 16 * 3, "grey {grey} leaves {worst}");
        }
    }

    #[test]
    fn the_first_endpoint_is_never_below_the_second() {
        let mut seed = 1_u32;
        let mut random = || {
            seed = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            seed ^ seed >> 15
        };
        for _ in 0..2000 {
            let [ends, indices] = encode_block(&std::array::from_fn(|_| random()));
            assert!(ends & 0xffff > ends >> 16 || ends & 0xffff == ends >> 16 && indices == 0);
        }
    }

    #[test]
    fn the_extremes_of_every_channel_stay_in_range() {
        // Debug builds panic on overflow: these blocks have the largest sums and the widest spreads.
        for pattern in 0_u32..1 << 12 {
            let corner = |bits: u32| [0, 1, 2].map(|c| 255 * (bits >> c & 1)).iter().rev().fold(0, |t, c| t << 8 | c);
            let texels = std::array::from_fn(|texel| corner(pattern >> (texel % 4 * 3)));
            encode_block(&texels);
        }
    }

    #[test]
    fn equal_endpoints_and_lower_first_ones_decode_with_three_colours() {
        let texels = decode_block([0xffff_0000, 0b11_10_01_00]);
        assert_eq!(texels[..4], [0xff00_0000, 0xffff_ffff, 0xff7f_7f7f, 0]);
    }

    #[test]
    fn an_image_keeps_its_blocks_apart() {
        let texels = (0..8 * 8).map(|i| if (i % 8 / 4 + i / 32) % 2 == 0 { RED } else { BLUE }).collect();
        let image = Image { width: 8, height: 8, texels };
        let blocks = encode_image(&image);
        assert_eq!(blocks.len(), 4);
        assert_ne!(blocks[0], blocks[1]);
        assert_eq!(decode_image(8, 8, &blocks), image);
    }

    #[test]
    fn the_photograph_survives_with_35_decibels() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/texture_stream/astronaut.png");
        let image = crate::png_io::read(&path).unwrap();
        let ratio = psnr(&image, &decode_image(image.width, image.height, &encode_image(&image)));
        assert!(ratio > 35.2, "{ratio} dB");
    }

    #[test]
    fn psnr_of_one_level_everywhere_is_the_textbook_48_decibels() {
        let image = |texel| Image { width: 4, height: 4, texels: vec![texel; 16] };
        assert!((psnr(&image(0x0001_0101), &image(0x0002_0202)) - 48.13).abs() < 0.01);
        assert_eq!(psnr(&image(7), &image(7)), f64::INFINITY);
    }
}
