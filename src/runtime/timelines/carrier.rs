//! Who brings a timeline's epochs to the device.

/// Who signals a timeline semaphore, as the caller knows it. Decides, with what the device can do, how its epochs reach the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Signaller {
    /// [`Runtime::signal`](crate::Runtime::signal), and nobody else: nobody else is heard.
    Runtime,
    /// Submissions that were recorded with [`Runtime::record_signal`](crate::Runtime::record_signal).
    Recorded,
    /// Submissions that are announced with [`Runtime::promise`](crate::Runtime::promise) once they are submitted.
    Promised,
    /// Anybody at any time. While slices run, the runtime's own thread polls the semaphore, which on a GPU takes a core.
    Anyone,
}

/// How the epochs of a timeline reach tasks that wait while slices run. Unless it is `Signal`, the host also looks at the semaphore's counter each time it
/// drives, and a thread that waits for any of them, blocked where that is in nobody's way, launches a slice when one moves while none runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Carrier {
    /// `signal` writes the epoch where the kernel looks, and signals the semaphore after that.
    Signal,
    /// The submission that signals the semaphore writes the epoch too.
    Recorded,
    /// A submission on another queue waits for the semaphore, and writes the epoch.
    Queue,
    /// A thread of the host polls the semaphore's counter, and writes the epoch.
    Relay,
}

impl Carrier {
    /// In boundary mode nothing is written for a slice that runs. A submission may wait for the semaphore only where that holds up nobody else's.
    pub(in crate::runtime) fn choose(signaller: Signaller, live: bool, other_queue_advances: bool) -> Self {
        match signaller {
            Signaller::Runtime => Self::Signal,
            Signaller::Recorded if live => Self::Recorded,
            Signaller::Promised if live && other_queue_advances => Self::Queue,
            Signaller::Recorded | Signaller::Promised | Signaller::Anyone => Self::Relay,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submission_of_ours_waits_only_for_promises_and_only_where_another_queue_advances() {
        let signallers = [Signaller::Runtime, Signaller::Recorded, Signaller::Promised, Signaller::Anyone];
        let chosen = |live, advances| signallers.map(|signaller| Carrier::choose(signaller, live, advances));
        assert_eq!(chosen(true, true), [Carrier::Signal, Carrier::Recorded, Carrier::Queue, Carrier::Relay]);
        assert_eq!(chosen(true, false), [Carrier::Signal, Carrier::Recorded, Carrier::Relay, Carrier::Relay]);
        assert_eq!(chosen(false, true), [Carrier::Signal, Carrier::Relay, Carrier::Relay, Carrier::Relay]);
    }
}
