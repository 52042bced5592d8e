//! The running checksum over the compressed blocks, as the host computes it in one go: the twin of `checksum.glsl`.

/// MurmurHash3's 32-bit finalizer (Austin Appleby, public domain).
fn mixed(mut h: u32) -> u32 {
    h = (h ^ h >> 16).wrapping_mul(0x85eb_ca6b);
    h = (h ^ h >> 13).wrapping_mul(0xc2b2_ae35);
    h ^ h >> 16
}

/// The wrapping sum over all words of a hash of the word and its index: whatever order the words are added in, the sum
/// is the same, and a missing, doubled or moved word changes it.
pub(crate) fn checksum(blocks: &[[u32; 2]]) -> u32 {
    let words = blocks.as_flattened().iter();
    words.zip(1..).map(|(&word, position)| mixed(mixed(position) ^ word)).fold(0, u32::wrapping_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_a_moved_and_a_missing_word_change_the_sum() {
        let blocks = [[1, 2], [3, 4], [0, 0]];
        let sums = [
            checksum(&blocks),
            checksum(&[[1, 2], [3, 5], [0, 0]]),
            checksum(&[[2, 1], [3, 4], [0, 0]]),
            checksum(&[[1, 2], [3, 4], [0, 1]]),
            checksum(&[[1, 2], [3, 4]]),
        ];
        assert!(sums[1..].iter().all(|sum| *sum != sums[0]), "{sums:x?}");
    }
}
