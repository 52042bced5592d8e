//! Exactly once: each task that was submitted completes, and completes once.

use taskring::{Completion, Outcome};

use crate::Error;

/// Keeps count of a runtime's submissions and completions while they are measured, from the runtime's first task on. A bit for each task, so it
/// costs next to nothing.
#[derive(Debug, Default)]
pub struct Tally {
    submissions: u64,
    completions: u64,
    faults: u64,
    /// One bit for each submission number.
    completed: Vec<u64>,
}

impl Tally {
    /// Notes that so many tasks were taken.
    pub fn submitted(&mut self, count: usize) {
        self.submissions += count as u64;
    }

    /// Notes completions.
    ///
    /// # Errors
    /// [`Error::Wrong`] for a task that did not end Done, or has completed before.
    pub fn completed(&mut self, completions: &[Completion]) -> Result<(), Error> {
        self.ended(completions, |_| Outcome::Done)
    }

    /// Notes completions of tasks that are to end as `expected` says.
    ///
    /// # Errors
    /// [`Error::Wrong`] for a task that ended otherwise, or has completed before.
    pub fn ended(
        &mut self,
        completions: &[Completion],
        expected: impl Fn(&Completion) -> Outcome,
    ) -> Result<(), Error> {
        completions.iter().try_for_each(|one| {
            if one.outcome != expected(one) {
                return Err(Error::Wrong { what: format!("submission {}: {:?}", one.id.number(), one.outcome) });
            }
            self.faults += u64::from(one.outcome != Outcome::Done);
            self.complete(one.id.number())
        })
    }

    /// How many of them faulted, as they were to.
    pub(crate) fn faults(&self) -> u64 {
        self.faults
    }

    /// Says whether all that was submitted has completed, and nothing else.
    ///
    /// # Errors
    /// [`Error::Wrong`] if not.
    pub fn settle(&self) -> Result<(), Error> {
        let (submissions, completions) = (self.submissions, self.completions);
        // All completions are of different tasks, so that equal numbers mean the same tasks.
        if submissions != completions {
            let what = format!("{submissions} tasks were submitted and {completions} completed");
            return Err(Error::Wrong { what });
        }
        Ok(())
    }

    fn complete(&mut self, number: u64) -> Result<(), Error> {
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.completed.len() <= word {
            self.completed.resize(word + 1, 0);
        }
        if self.completed[word] & bit != 0 {
            return Err(Error::Wrong { what: format!("submission {number} completed twice") });
        }
        self.completed[word] |= bit;
        self.completions += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_once_settles() {
        let mut tally = Tally::default();
        tally.submitted(130);
        (0..130).rev().for_each(|number| tally.complete(number).unwrap());
        tally.settle().unwrap();
    }

    #[test]
    fn a_task_that_is_lost_or_doubled_is_found() {
        let mut tally = Tally::default();
        tally.submitted(2);
        tally.complete(1).unwrap();
        assert!(tally.settle().is_err(), "one is missing");
        assert!(tally.complete(1).unwrap_err().to_string().contains("submission 1 completed twice"));
    }
}
