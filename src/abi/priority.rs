//! Word 3 of a slot: how urgent its task is.

use super::{
    TASK_PRIORITIES, TASK_PRIORITY_CRITICAL, TASK_PRIORITY_HIGH, TASK_PRIORITY_IDLE, TASK_PRIORITY_LOW,
    TASK_PRIORITY_NORMAL,
};

/// How urgent a task is, the most urgent first: `Critical < Idle`.
///
/// Age overrides every priority: a task that has waited long enough runs before younger, more urgent ones.
#[repr(u32)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskPriority {
    /// Before everything else.
    Critical = TASK_PRIORITY_CRITICAL,
    /// Before the default.
    High = TASK_PRIORITY_HIGH,
    /// The default.
    #[default]
    Normal = TASK_PRIORITY_NORMAL,
    /// After the default.
    Low = TASK_PRIORITY_LOW,
    /// When nothing more urgent is ready.
    Idle = TASK_PRIORITY_IDLE,
}

impl TaskPriority {
    /// Every priority, the most urgent first, so that the one with code `n` is `ALL[n]`.
    pub const ALL: [Self; TASK_PRIORITIES as usize] = [Self::Critical, Self::High, Self::Normal, Self::Low, Self::Idle];

    /// The priority with this code, if there is one.
    #[must_use]
    pub const fn from_word(word: u32) -> Option<Self> {
        Some(match word {
            TASK_PRIORITY_CRITICAL => Self::Critical,
            TASK_PRIORITY_HIGH => Self::High,
            TASK_PRIORITY_NORMAL => Self::Normal,
            TASK_PRIORITY_LOW => Self::Low,
            TASK_PRIORITY_IDLE => Self::Idle,
            _ => return None,
        })
    }

    /// The priority's code.
    #[must_use]
    pub const fn word(self) -> u32 {
        self as u32
    }
}

#[cfg(test)]
mod tests {
    use super::TaskPriority::{self, Critical, High, Idle, Low, Normal};
    use proptest::prelude::*;

    #[test]
    fn every_priority_has_its_published_code_and_comes_back_from_it() {
        for (code, priority) in (0..).zip([Critical, High, Normal, Low, Idle]) {
            assert_eq!(priority.word(), code);
            assert_eq!(TaskPriority::from_word(code), Some(priority));
            assert_eq!(TaskPriority::ALL[code as usize], priority);
        }
    }

    #[test]
    fn the_more_urgent_priority_sorts_first_and_the_default_is_normal() {
        assert!(TaskPriority::ALL.is_sorted_by(|a, b| a < b));
        assert_eq!(TaskPriority::default(), Normal);
    }

    proptest! {
        #[test]
        fn a_word_past_the_last_code_is_no_priority(word in 5u32..) {
            prop_assert_eq!(TaskPriority::from_word(word), None);
        }
    }
}
