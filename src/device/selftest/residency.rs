//! How a runtime should live on a device, decided from its self-test alone.

use super::outcome::{Loops, MemoryClass, Probe, SelfTest};

/// Where a driver cuts loops, a slice plans as many turns as one in so many of the cap. The cap counts the turns of all loops of an invocation: the
/// scheduler's, some hundred in a worker's turn as Mesa 22.3 compiles it (which cuts one that always has a batch in its 669th turn) and a tenth of that
/// for each further batch, and those in ops, of which nobody knows beforehand how many they take. So the scheduler gets half, and what is cut
/// all the same, the runtime recovers.
const SHARE_OF_LOOP_CAP: u32 = 192;

/// How a runtime should live on a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Residency {
    /// Slices read their mailbox while they run.
    #[non_exhaustive]
    Live {
        /// The memory that the mailbox must be in. Where an allocator gives other memory, there is no live mode.
        mailbox: MemoryClass,
        /// The memory that reports should be in.
        report: MemoryClass,
        /// The most workgroups that are known to make progress together, 0 if none was tried. A runtime may launch more if none of them waits
        /// for another.
        workgroups: u32,
        /// What spoke for it, in sentences.
        reasons: Vec<String>,
    },
    /// Slices read their mailbox when they begin, ordered by their submission: what Vulkan promises everywhere.
    #[non_exhaustive]
    Boundary {
        /// The most turns that a slice may plan, where the driver cuts loops.
        turn_limit: Option<u32>,
        /// What spoke against a live mailbox, in sentences: everything, not only the first.
        reasons: Vec<String>,
    },
}

impl Residency {
    /// Decides. Live mode needs all of: memory in which a running kernel sees the host, memory in which the host sees it, loops that the driver
    /// leaves alone, at least one workgroup that progresses, and a long conversation that went well. One that was not measured counts as missing.
    ///
    /// Whether another queue advances does not decide it: a runtime leaves the device when it is idle, in either mode.
    #[must_use]
    pub fn choose(test: &SelfTest) -> Self {
        let mut against = Vec::new();
        let mailbox = test.mailbox();
        if mailbox.is_none() {
            against.push("a running kernel sees the host's writes in no kind of memory".to_owned());
        }
        let report = test.report();
        if report.is_none() {
            against.push("the host sees a running kernel's writes in no kind of memory".to_owned());
        }
        let turn_limit = match &test.loops {
            Probe::Measured(Loops { cut: false, .. }) => None,
            Probe::Measured(Loops { cut: true, turns }) => {
                against.push(format!("the driver ends loops after {turns} turns, which a polling kernel soon spends"));
                Some((turns / SHARE_OF_LOOP_CAP).max(1))
            }
            Probe::NotMeasured(reason) => {
                against.push(format!("whether the driver ends loops is not known: {reason}"));
                None
            }
        };
        let workgroups = match &test.workgroups {
            Probe::Measured(workgroups) => *workgroups,
            Probe::NotMeasured(_) => 0,
        };
        if workgroups == 0 {
            against.push("not even one workgroup is known to make progress".to_owned());
        }
        // Without a mailbox there was nobody to talk to: the reason is there already.
        if let (Some(_), Some(_), Probe::NotMeasured(reason)) = (mailbox, report, &test.round_trip) {
            against.push(format!("the host and a kernel could not keep up a conversation: {reason}"));
        }
        match (mailbox, report) {
            (Some(mailbox), Some(report)) if against.is_empty() => {
                let mut reasons = vec![
                    format!("a running kernel sees the host's writes in {mailbox} memory"),
                    format!("the host sees a running kernel's writes in {report} memory"),
                ];
                let blind = test.memory.iter().filter(|outcome| outcome.mailbox == Probe::Measured(false));
                reasons.extend(blind.map(|outcome| format!("it does not see them in {} memory", outcome.class)));
                reasons.push(format!("{workgroups} workgroups make progress together"));
                Self::Live { mailbox, report, workgroups, reasons }
            }
            _ => Self::Boundary { turn_limit, reasons: against },
        }
    }

    /// Whether slices read their mailbox while they run.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live { .. })
    }

    /// The most turns that a slice may plan, where the driver cuts loops.
    #[must_use]
    pub fn turn_limit(&self) -> Option<u32> {
        match self {
            Self::Live { .. } => None,
            Self::Boundary { turn_limit, .. } => *turn_limit,
        }
    }

    /// What the choice was made for, in sentences.
    #[must_use]
    pub fn reasons(&self) -> &[String] {
        match self {
            Self::Live { reasons, .. } | Self::Boundary { reasons, .. } => reasons,
        }
    }
}
