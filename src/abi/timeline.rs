//! Names of timelines.

use super::TASK_TIMELINE_WORD_MASK;

/// Names a timeline of a runtime: its index, and how often that index has been given out before, so that a task never waits for a timeline that took
/// over the index of a closed one. Tasks carry it in bits 8 to 23 of their flags, so 0, the default timeline, is what plain tasks are on.
///
/// Generations wrap after 256 timelines of one index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelineId {
    index: u8,
    generation: u8,
}

impl TimelineId {
    /// The timeline that every runtime has, at epoch 0 at first.
    pub const DEFAULT: Self = Self::new(0, 0);

    pub(crate) const fn new(index: u8, generation: u8) -> Self {
        Self { index, generation }
    }

    /// What an op passes to `task_pause_on`: index in bits 0 to 7, generation in bits 8 to 15.
    #[must_use]
    pub const fn word(self) -> u32 {
        self.index as u32 | (self.generation as u32) << 8
    }

    /// The timeline that a word names; `None` if bits above the lower 16 are set.
    #[must_use]
    pub const fn from_word(word: u32) -> Option<Self> {
        if word > TASK_TIMELINE_WORD_MASK { None } else { Some(Self::new(word as u8, (word >> 8) as u8)) }
    }

    /// Its place in the runtime's table.
    #[must_use]
    pub const fn index(self) -> u8 {
        self.index
    }

    /// How often timelines had its index before, wrapping.
    #[must_use]
    pub const fn generation(self) -> u8 {
        self.generation
    }
}

/// The first timeline that ever has this index.
impl From<u8> for TimelineId {
    fn from(index: u8) -> Self {
        Self::new(index, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_names_one_timeline_and_longer_words_name_none() {
        for id in [TimelineId::DEFAULT, TimelineId::new(7, 0), TimelineId::new(255, 255)] {
            assert_eq!(TimelineId::from_word(id.word()), Some(id));
        }
        assert_eq!(TimelineId::from_word(0x1_0000), None);
    }
}
