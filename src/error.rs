//! The one error of the crate.

use std::sync::Arc;
use std::time::Duration;

use ash::vk;

use crate::abi::{TaskState, TimelineId};
use crate::device::{FaultReport, Miss};
use crate::runtime::Carrier;

/// A step of the task state machine, as errors name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskAction {
    /// A worker takes the task.
    Claim,
    /// The task waits for an epoch.
    Pause,
    /// The epoch of a paused task was reached.
    Resume,
    /// The task gives way and stays in its partition.
    Yield,
    /// The task moves to another partition.
    Requeue,
    /// The task ends well.
    Complete,
    /// The task ends with a fault code.
    Fault,
    /// The slot of an ended task is emptied.
    Recycle,
}

impl std::fmt::Display for TaskAction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Claim => "claim",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Yield => "yield",
            Self::Requeue => "requeue",
            Self::Complete => "complete",
            Self::Fault => "fault",
            Self::Recycle => "recycle",
        })
    }
}

/// Why a device cannot run taskring.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejection {
    /// The device's own name.
    pub device: String,
    /// Its index in the loader's enumeration order.
    pub index: usize,
    /// Everything that it lacks, not only the first thing.
    pub reasons: Vec<String>,
}

impl std::fmt::Display for Rejection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "#{} {}: {}", self.index, self.device, self.reasons.join("; "))
    }
}

fn listed(missing: &[Miss]) -> String {
    missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn rejections(list: &[Rejection]) -> String {
    if list.is_empty() {
        return "the loader lists none (is a driver installed? VK_DRIVER_FILES names one)".into();
    }
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
}

fn said(fault: &Option<Arc<FaultReport>>) -> String {
    fault.as_ref().map(|fault| format!(": {fault}")).unwrap_or_default()
}

/// Everything that can go wrong, each with the data that says what and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The state machine has no such step.
    #[error("cannot {action} a task that is {state:?}; only tasks in a legal source state take this step")]
    IllegalTransition {
        /// The step that was asked for.
        action: TaskAction,
        /// The state that the task is in.
        state: TaskState,
    },
    /// Word 0 of the slot is no `TaskState` code.
    #[error(
        "cannot {action} a task whose state word is {word:#x}: no such state; the slot was overwritten or never a task"
    )]
    UnknownTransitionState {
        /// The step that was asked for.
        action: TaskAction,
        /// The raw state word.
        word: u32,
    },
    /// A snapshot met a slot whose word 0 is no `TaskState` code.
    #[error("slot {index} has the state word {word:#x}: no such state; the slot was overwritten or never a task")]
    UnknownState {
        /// Index of the slot in the slice that was given.
        index: usize,
        /// The raw state word.
        word: u32,
    },
    /// A counter is at its maximum and the step was refused.
    #[error("{counter} would overflow; the step was refused and the value kept")]
    CounterOverflow {
        /// The counter's field name.
        counter: &'static str,
    },

    /// The Vulkan loader could not be opened.
    #[error("no Vulkan loader: {reason}; install libvulkan1 (Debian, Ubuntu) or your system's Vulkan loader")]
    NoLoader {
        /// What the dynamic linker said.
        reason: String,
    },
    /// No device meets the requirements, or none matches the selection.
    #[error("no usable Vulkan device for {wanted}: {}", rejections(.rejected))]
    NoDevice {
        /// What was asked for.
        wanted: String,
        /// Every device that was refused, with all its reasons.
        rejected: Vec<Rejection>,
    },
    /// An engine's device cannot be used as it is.
    #[error("the device {device} cannot be borrowed: {}", listed(.missing))]
    Unfit {
        /// The device's own name.
        device: String,
        /// Everything that is missing.
        missing: Vec<Miss>,
    },
    /// Validation was asked for and the layer is not installed.
    #[error("the layer {layer} is not installed; install vulkan-validationlayers or do not ask for validation")]
    NoValidationLayer {
        /// The layer's name.
        layer: &'static str,
    },
    /// Something was submitted to the device's other queue, and it has none.
    #[error("the device has no second queue that can compute; look at DevicePlan::other_queue first")]
    NoOtherQueue,
    /// Something was submitted to the device's transfer queue, and it has none.
    #[error("the device has no queue for copies alone; look at DevicePlan::transfer_queue first")]
    NoTransferQueue,
    /// A timeline was to be exported or imported, and the device cannot.
    #[error(
        "the device cannot share timelines through file descriptors (VK_KHR_external_semaphore_fd); look at \
         DevicePlan::external_timelines first"
    )]
    NoExternalTimelines,
    /// A timeline was to be exported that was not made for it.
    #[error("this timeline was not made to be exported; make it with Timeline::exportable")]
    NotExportable,
    /// A Vulkan call failed.
    #[error("{call} failed: {result:?}")]
    Vulkan {
        /// The Vulkan command.
        call: &'static str,
        /// What it returned.
        #[source]
        result: vk::Result,
    },
    /// The device is lost; every later call says so too. `Runtime::unfinished` still answers.
    #[error("the device was lost in {call}{}; create a new device and resubmit what Runtime::unfinished says", said(.fault))]
    DeviceLost {
        /// The Vulkan command that first said so.
        call: &'static str,
        /// What the driver says about it, if [`DevicePlan::fault_reports`](crate::device::DevicePlan::fault_reports) is set.
        fault: Option<Arc<FaultReport>>,
    },
    /// An allocation failed.
    #[error("cannot allocate {bytes} bytes of {kind} memory for {name}: {reason}")]
    Allocation {
        /// Debug name of what was to be allocated.
        name: String,
        /// Size in bytes.
        bytes: u64,
        /// Which kind of memory.
        kind: &'static str,
        /// The allocator's words.
        reason: String,
    },
    /// A mapped access would leave its buffer.
    #[error("{bytes} bytes at offset {offset} leave the buffer {name} of {size} bytes")]
    OutOfRange {
        /// Debug name of the buffer.
        name: String,
        /// First byte of the access.
        offset: u64,
        /// Length of the access in bytes.
        bytes: u64,
        /// Size of the buffer in bytes.
        size: u64,
    },
    /// An option is out of its range.
    #[error("option {option} is {value}; it must be {must}")]
    BadOption {
        /// The option's name.
        option: &'static str,
        /// The value that was given.
        value: u64,
        /// What it must be.
        must: &'static str,
    },

    /// An op's source did not compile.
    #[error("op `{op}`{}: {message}", .line.map(|l| format!(", line {l}")).unwrap_or_default())]
    OpCompile {
        /// The op's name.
        op: String,
        /// Line in the op's own source, 1-based, where the compiler named one.
        line: Option<u32>,
        /// The compiler's words.
        message: String,
    },
    /// An op does what only an op declared `unsafe` may do.
    #[error("op `{op}` {what}; use the checked accessors, or declare the op unsafe")]
    OpRejected {
        /// The op's name.
        op: String,
        /// What the op's SPIR-V does.
        what: String,
    },
    /// A program cannot be built as asked.
    #[error("bad program: {reason}")]
    BadProgram {
        /// What is wrong.
        reason: String,
    },

    /// A transfer body did not compile.
    #[error("the transfer body{}: {message}", .line.map(|l| format!(", line {l}")).unwrap_or_default())]
    TransferCompile {
        /// Line in the body, 1-based, where the compiler named one.
        line: Option<u32>,
        /// The compiler's words.
        message: String,
    },
    /// A state convergence program cannot be built as asked.
    #[error("bad transfer: {reason}")]
    BadTransfer {
        /// What is wrong.
        reason: String,
    },

    /// An item of a submission is wrong in a way that the host can see; nothing of the batch was published.
    #[error("task {index} of the batch is refused: {problem}; nothing was published")]
    Refused {
        /// Index of the first bad item in the batch.
        index: usize,
        /// What is wrong with it.
        problem: TaskProblem,
    },
    /// The runtime's own thread could not be started.
    #[error("no thread for the runtime: {reason}")]
    NoThread {
        /// What the system says.
        reason: String,
    },
    /// The submission ring has no room for the task.
    #[error("the runtime holds {capacity} unfinished tasks, its capacity; consume completions and submit again")]
    Full {
        /// How many tasks the runtime can hold.
        capacity: u32,
    },
    /// A wait ended without what it waited for.
    #[error("timed out after {waited_ms} ms waiting for {wanted}; reached: {reached}")]
    Timeout {
        /// What was waited for.
        wanted: String,
        /// How far it got.
        reached: String,
        /// How long the wait was, in milliseconds.
        waited_ms: u64,
    },
    /// Nothing can make progress: what is left waits for epochs that nobody has signalled.
    #[error(
        "{paused} tasks wait for epochs that are not reached and nothing else is left to run; signal their timelines"
    )]
    Stalled {
        /// Number of tasks that wait.
        paused: u32,
    },
    /// A recorded slice would end with a value that its semaphore has already, or will have before it.
    #[error(
        "record_slice: the value {value} is not greater than {taken}, which the timeline semaphore has reached or a slice \
         recorded before ends with; give the value that this command buffer's submission signals"
    )]
    ValueTaken {
        /// The value that was given.
        value: u64,
        /// What it has to exceed.
        taken: u64,
    },
    /// One signal from the host would move a timeline further than the device allows.
    #[error(
        "the timeline cannot go from {current} to {value} at once: this device allows steps of {limit}; signal in \
         smaller steps"
    )]
    TimelineJump {
        /// The value that was given.
        value: u64,
        /// Where the timeline stands.
        current: u64,
        /// The longest step, `maxTimelineSemaphoreValueDifference`.
        limit: u64,
    },
    /// The runtime was stopped.
    #[error("the runtime is stopped; make a new one to submit more")]
    Stopped,
    /// A timeline index that was never created.
    #[error("timeline {timeline} does not exist; {count} do")]
    UnknownTimeline {
        /// The index that was given.
        timeline: u32,
        /// How many timelines there are.
        count: u32,
    },
    /// A timeline that is closed, by whoever had it before or for good.
    #[error("timeline {} of generation {} is closed; register it again for a new id", timeline.index(), timeline.generation())]
    ClosedTimeline {
        /// The id that was given.
        timeline: TimelineId,
    },
    /// A call that needs another carrier than the timeline has.
    #[error("timeline {} is carried by {carrier:?}; {call} is for those that {needs}", timeline.index())]
    WrongCarrier {
        /// The id that was given.
        timeline: TimelineId,
        /// How its epochs reach the device.
        carrier: Carrier,
        /// What was called.
        call: &'static str,
        /// Whom it is for.
        needs: &'static str,
    },
    /// A timeline may only grow.
    #[error("timeline {timeline} is at {current} and cannot go back to {value}")]
    EpochWentBack {
        /// The timeline's index.
        timeline: u32,
        /// The value that was given.
        value: u64,
        /// Where the timeline is.
        current: u64,
    },
    /// A submission that was never made.
    #[error("submission {number} was not made in this runtime")]
    UnknownSubmission {
        /// Its number.
        number: u64,
    },
    /// A task whose end is announced already.
    #[error("the end of submission {number} is announced for another group; a task can be in one")]
    AlreadyAnnounced {
        /// The submission's number.
        number: u64,
    },
    /// A task's handle was asked once more after it had given the completion.
    #[error("the completion of submission {number} was taken already; a handle gives it once")]
    AlreadyTaken {
        /// The submission's number.
        number: u64,
    },
    /// A tenant id at or past the end of the tenant table.
    #[error("tenant {tenant} does not exist; the table has {count}, as RuntimeOptions::tenants says")]
    UnknownTenant {
        /// The id that was given.
        tenant: u32,
        /// Number of entries in the table.
        count: u32,
    },
    /// A buffer handle that is not registered (any more).
    #[error("buffer handle {handle:#010x} is not registered in this runtime, or not any more")]
    UnknownHandle {
        /// The handle that was given.
        handle: u32,
    },
    /// The device broke the protocol: a bug in a kernel, a driver, or a write from elsewhere.
    #[error("protocol violation: {what}")]
    Protocol {
        /// What was seen.
        what: String,
    },
}

/// What the host can see to be wrong with a task before it is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TaskProblem {
    /// No such op in the program.
    #[error("op {op} is not in the program, which has {count}")]
    UnknownOp {
        /// The op index.
        op: u32,
        /// Number of ops in the program.
        count: u32,
    },
    /// The priority word is no `TaskPriority` code.
    #[error("priority word {word} is none of the five")]
    BadPriority {
        /// The raw word.
        word: u32,
    },
    /// A task comes in as Ready, Yielded, Requeued or Paused.
    #[error("state word {word} is not Ready, Yielded, Requeued or Paused")]
    BadState {
        /// The raw word.
        word: u32,
    },
    /// The tenant is past the end of the table or switched off.
    #[error(
        "tenant {tenant} is switched off or past the table of {count}; see Runtime::set_tenant and RuntimeOptions::tenants"
    )]
    BadTenant {
        /// The tenant id.
        tenant: u32,
        /// Number of entries in the table.
        count: u32,
    },
    /// The handle is not registered, or belongs to another tenant.
    #[error(
        "buffer handle {handle:#010x} is not registered for tenant {tenant}; a registration is for one tenant of one runtime"
    )]
    BadHandle {
        /// The buffer handle.
        handle: u32,
        /// The task's tenant.
        tenant: u32,
    },
    /// Flag bits 8..23 name a timeline that is closed.
    #[error("timeline {} of generation {} is closed", timeline.index(), timeline.generation())]
    ClosedTimeline {
        /// The timeline's id.
        timeline: TimelineId,
    },
    /// Flag bits 8..15 name a timeline that does not exist.
    #[error("timeline {timeline} does not exist; {count} do")]
    BadTimeline {
        /// The timeline's index.
        timeline: u32,
        /// How many timelines there are.
        count: u32,
    },
}

impl BackendError {
    /// A wait that took too long.
    pub(crate) fn late(wanted: impl Into<String>, reached: impl Into<String>, waited: Duration) -> Self {
        let waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        Self::Timeout { wanted: wanted.into(), reached: reached.into(), waited_ms }
    }

    /// Names the Vulkan command that returned `result`; device loss becomes its own variant.
    pub(crate) fn vulkan(call: &'static str, result: vk::Result) -> Self {
        if result == vk::Result::ERROR_DEVICE_LOST {
            Self::DeviceLost { call, fault: None }
        } else {
            Self::Vulkan { call, result }
        }
    }
}
