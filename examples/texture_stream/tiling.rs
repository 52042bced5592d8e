//! How a picture is cut into tiles, and tiles into groups.

use std::ops::Range;

use taskring::TaskPriority;

/// A grid of square tiles over a picture, counted row by row; those at the right and the bottom may be smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tiling {
    /// The picture's width in texels, a multiple of 4.
    pub(crate) width: u32,
    /// The picture's height in texels, a multiple of 4.
    pub(crate) height: u32,
    /// A tile's edge in texels, a multiple of 4.
    pub(crate) edge: u32,
    /// Tiles that one checksum task adds up.
    pub(crate) group: u32,
}

impl Tiling {
    /// Tiles in a row of tiles.
    pub(crate) fn across(&self) -> u32 {
        self.width.div_ceil(self.edge)
    }

    /// Rows of tiles.
    pub(crate) fn down(&self) -> u32 {
        self.height.div_ceil(self.edge)
    }

    /// Tiles in all.
    pub(crate) fn tiles(&self) -> u32 {
        self.across() * self.down()
    }

    /// Groups in all; the last one may have fewer tiles.
    pub(crate) fn groups(&self) -> u32 {
        self.tiles().div_ceil(self.group)
    }

    /// The tiles of a group.
    pub(crate) fn group_tiles(&self, group: u32) -> Range<u32> {
        group * self.group..self.tiles().min((group + 1) * self.group)
    }

    /// The columns of texels that a tile covers.
    pub(crate) fn columns(&self, tile: u32) -> Range<u32> {
        let left = tile % self.across() * self.edge;
        left..self.width.min(left + self.edge)
    }

    /// The rows of texels that a tile covers.
    pub(crate) fn rows(&self, tile: u32) -> Range<u32> {
        let top = tile / self.across() * self.edge;
        top..self.height.min(top + self.edge)
    }

    /// Turns that a tile's task takes, one a row of blocks; it yields after each but the last.
    pub(crate) fn turns(&self, tile: u32) -> u32 {
        self.rows(tile).len() as u32 / 4
    }

    /// What a viewer looks at first comes first: the middle third is High, the outermost ring of tiles Low.
    pub(crate) fn priority(&self, tile: u32) -> TaskPriority {
        let (column, row) = (tile % self.across(), tile / self.across());
        let border = |at: u32, count: u32| at == 0 || at + 1 == count;
        let central = |at: u32, count: u32| at >= count / 3 && at < count - count / 3;
        if border(column, self.across()) || border(row, self.down()) {
            TaskPriority::Low
        } else if central(column, self.across()) && central(row, self.down()) {
            TaskPriority::High
        } else {
            TaskPriority::Normal
        }
    }

    /// The four words by which both ops know the picture.
    pub(crate) fn header(&self) -> [u32; 4] {
        [self.width, self.height, self.edge, self.across()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PHOTOGRAPH: Tiling = Tiling { width: 512, height: 512, edge: 64, group: 8 };

    #[test]
    fn the_tiles_cover_every_texel_once() {
        let tiling = Tiling { width: 72, height: 52, edge: 32, group: 4 };
        let mut covered = vec![0; 72 * 52];
        for tile in 0..tiling.tiles() {
            for row in tiling.rows(tile) {
                tiling.columns(tile).for_each(|column| covered[(row * 72 + column) as usize] += 1);
            }
        }
        assert!(covered.iter().all(|times| *times == 1));
        let tiles: Vec<_> = (0..tiling.groups()).flat_map(|group| tiling.group_tiles(group)).collect();
        assert_eq!(tiles, (0..tiling.tiles()).collect::<Vec<_>>());
    }

    #[test]
    fn the_centre_is_high_and_the_border_low() {
        let count = |wanted| (0..64).filter(|&tile| PHOTOGRAPH.priority(tile) == wanted).count();
        assert_eq!(PHOTOGRAPH.priority(3 * 8 + 4), TaskPriority::High);
        assert_eq!(PHOTOGRAPH.priority(7), TaskPriority::Low);
        assert_eq!(
            [TaskPriority::High, TaskPriority::Normal, TaskPriority::Low].map(count),
            [16, 20, 28],
            "a 4x4 centre in a 6x6 square in a ring"
        );
    }

    #[test]
    fn a_picture_of_one_tile_has_one_group() {
        let tiling = Tiling { width: 4, height: 8, edge: 64, group: 8 };
        assert_eq!((tiling.tiles(), tiling.groups(), tiling.turns(0)), (1, 1, 2));
        assert_eq!(tiling.group_tiles(0), 0..1);
    }
}
