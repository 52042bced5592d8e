//! A device that is not idle before the clock starts.

use std::time::{Duration, Instant};

use taskring::{BackendError, Device, Mode, Program, Runtime, RuntimeOptions, Task};

use crate::run::LONGEST;

/// How long a device is kept busy for its clocks to be up: an idle H100's fall within a tenth of a second to a sixth of what they are under load.
const RISES: Duration = Duration::from_millis(150);

/// Keeps the device busy while the host does what is not timed, and the device would be idle meanwhile.
#[derive(Debug)]
pub struct Warmer(Option<Runtime>);

impl Warmer {
    /// With tasks of this program that yield for longer than anything is measured. For a CPU, whose clocks are up already, one that does nothing.
    ///
    /// # Errors
    /// As [`Runtime::new`] and [`Runtime::submit_batch`].
    pub fn new(device: &Device, program: &Program, endless: Task) -> Result<Self, BackendError> {
        if device.is_cpu() {
            return Ok(Self(None));
        }
        let options = RuntimeOptions { mode: Mode::Boundary, launch_on_submit: false, ..Default::default() };
        let runtime = Runtime::new(device, program, options)?;
        // They yield until the runtime goes.
        _ = runtime.submit_batch(&vec![endless.item(); 1 << 10])?;
        Ok(Self(Some(runtime)))
    }

    /// Keeps it busy until its clocks are up.
    ///
    /// # Errors
    /// As [`Runtime::run_slice`].
    pub fn warm(&self) -> Result<(), BackendError> {
        let Some(runtime) = &self.0 else { return Ok(()) };
        let start = Instant::now();
        while start.elapsed() < RISES {
            runtime.run_slice(LONGEST)?;
        }
        Ok(())
    }
}
