//! The one home of every number and structure that the host and the GPU share.
//!
//! This file is read twice: by the crate, where the macros make Rust constants and `repr(C)` structs of it, and by
//! `build.rs`, where they make the same GLSL of it. So it holds nothing but the two macros' input, and every field is
//! one `u32`.

shared_consts! {
    /// Words of a task slot.
    pub TASK_SLOT_WORDS: usize = 16;
    /// Bytes of a task slot: one write-combining line.
    pub TASK_SLOT_BYTES: usize = 64;

    /// The task waits for its resume epoch.
    pub TASK_FLAG_PAUSED = 1;
    /// The task has yielded since it last resumed.
    pub TASK_FLAG_YIELDED = 2;
    /// The task has asked to be requeued.
    pub TASK_FLAG_REQUEUE_REQUESTED = 4;
    /// The task was paused and its epoch has been reached.
    pub TASK_FLAG_RESUME_READY = 8;
    /// Position of the timeline index in the flags word: bits 8 to 15 name the timeline of `resume_epoch`.
    pub TASK_FLAG_TIMELINE_SHIFT = 8;
    /// The bits of the timeline's index in the flags word.
    pub TASK_FLAG_TIMELINE_MASK = 0xff00;
    /// Position of the timeline's generation in the flags word: bits 16 to 23, so that a task never waits for a timeline that took over the
    /// index of a closed one. Together with the bits below they are the timeline's word.
    pub TASK_FLAG_TIMELINE_GENERATION_SHIFT = 16;
    /// Largest timeline word: index in bits 0 to 7, generation in bits 8 to 15.
    pub TASK_TIMELINE_WORD_MASK = 0xffff;

    /// State code: the slot holds no task.
    pub TASK_STATE_EMPTY = 0;
    /// State code: the task may run.
    pub TASK_STATE_READY = 1;
    /// State code: a worker runs the task.
    pub TASK_STATE_RUNNING = 2;
    /// State code: the task has ended well.
    pub TASK_STATE_DONE = 3;
    /// State code: the task waits for its resume epoch.
    pub TASK_STATE_PAUSED = 4;
    /// State code: the task gave way and may run again.
    pub TASK_STATE_YIELDED = 5;
    /// State code: the task changed partition and may run again.
    pub TASK_STATE_REQUEUED = 6;
    /// State code: the task has ended with a fault code.
    pub TASK_STATE_FAULTED = 7;

    /// Priority code: before everything else.
    pub TASK_PRIORITY_CRITICAL = 0;
    /// Priority code.
    pub TASK_PRIORITY_HIGH = 1;
    /// Priority code: the default.
    pub TASK_PRIORITY_NORMAL = 2;
    /// Priority code.
    pub TASK_PRIORITY_LOW = 3;
    /// Priority code: when nothing more urgent is ready.
    pub TASK_PRIORITY_IDLE = 4;
    /// Number of priorities, and so of partitions.
    pub TASK_PRIORITIES = 5;

    /// Fault codes from here up are the runtime's; an op's own codes stay below.
    pub TASK_FAULT_RUNTIME = 0x80000000;
    /// The op handle is not in the program's op table.
    pub TASK_FAULT_UNKNOWN_OP = 0x80000001;
    /// The priority word, of the task or of a requeue, is none of the five.
    pub TASK_FAULT_BAD_PRIORITY = 0x80000002;
    /// The tenant is switched off, or at or past the end of the tenant table.
    pub TASK_FAULT_BAD_TENANT = 0x80000003;
    /// A buffer handle is not registered, or is another tenant's.
    pub TASK_FAULT_BAD_HANDLE = 0x80000004;
    /// An access left its buffer. Loads gave 0 and stores were dropped.
    pub TASK_FAULT_OUT_OF_BOUNDS = 0x80000005;
    /// A counter of the slot was at its maximum.
    pub TASK_FAULT_COUNTER_OVERFLOW = 0x80000006;
    /// The task was published in a state other than Ready, Yielded, Requeued or Paused.
    pub TASK_FAULT_BAD_STATE = 0x80000007;
    /// Flag bits 8 to 15, or the op's pause, name a timeline that does not exist.
    pub TASK_FAULT_BAD_TIMELINE = 0x80000008;
    /// The driver cut the task's turn and the op is not declared restartable.
    pub TASK_FAULT_CUT = 0x80000009;
    /// The host cancelled the task, or stopped the runtime before it ended.
    pub TASK_FAULT_CANCELLED = 0x8000000a;
    /// The op returned a turn that is none of the five.
    pub TASK_FAULT_BAD_TURN = 0x8000000b;
    /// The timeline that the task waited for, or was to wait for, is closed.
    pub TASK_FAULT_TIMELINE_CLOSED = 0x8000000c;
    /// The timeline that the task waited for, or was to wait for, is lost: nothing more is heard of its semaphore.
    pub TASK_FAULT_TIMELINE_LOST = 0x8000000d;

    /// How an op ends its turn: done.
    pub TASK_TURN_COMPLETE = 1;
    /// How an op ends its turn: give way, stay in the partition.
    pub TASK_TURN_YIELD = 2;
    /// How an op ends its turn: wait for an epoch.
    pub TASK_TURN_PAUSE = 3;
    /// How an op ends its turn: move to another partition.
    pub TASK_TURN_REQUEUE = 4;
    /// How an op ends its turn: end with a fault code.
    pub TASK_TURN_FAULT = 5;

    /// Bits of a ring entry or ticket that hold a slot index; so at most 2^24 slots.
    pub TR_INDEX_MASK = 0x00ffffff;
    /// Ring entry bit: the task's op is subgroup-wide.
    pub TR_ENTRY_WIDE = 0x01000000;
    /// Position of a ring entry's lap tag.
    pub TR_ENTRY_LAP_SHIFT = 25;
    /// The lap tag's values, after the shift.
    pub TR_ENTRY_LAP_MASK = 0x7f;
    /// Position of a ticket's generation.
    pub TR_TICKET_GENERATION_SHIFT = 24;

    /// Op width: the program has no such op.
    pub TR_WIDTH_UNKNOWN = 0;
    /// Op width: one lane runs a task.
    pub TR_WIDTH_LANE = 1;
    /// Op width: a subgroup runs a task.
    pub TR_WIDTH_SUBGROUP = 2;

    /// Why a worker left its slice: it did not say. The driver cut it.
    pub TR_EXIT_NONE = 0;
    /// Why a worker left its slice: its turns or its time were spent.
    pub TR_EXIT_BUDGET = 1;
    /// Why a worker left its slice: there was nothing to do for as long as the slice may linger.
    pub TR_EXIT_IDLE = 2;
    /// Why a worker left its slice: the host asked it to.
    pub TR_EXIT_STOP = 4;
    /// Why a worker left its slice: the driver ended its loops (seen by a loop that did not count).
    pub TR_EXIT_CUT = 8;
    /// Why a worker left its slice: the workgroup is not one subgroup of the size that the host asked for.
    pub TR_EXIT_SHAPE = 16;

    /// Buckets of the wait wheel: one for each epoch, modulo this.
    pub TR_WHEEL_BUCKETS = 256;
    /// Fewest lists of a bucket: as many as a word has bits, of which each says whether its list is empty.
    pub TR_WHEEL_FEWEST = 32;
    /// Most lists of a bucket. A list is gone along by one lane, task by task: so many waiters of one epoch are woken side by side.
    pub TR_WHEEL_MOST = 4096;
    /// Words of such bits that a waking lane takes at once, so that it waits for memory once for all of them.
    pub TR_WAKE_WORDS = 8;
    /// Waiters of one list that a worker places in one turn; what is left of the list is in a ring by then, for anyone.
    pub TR_FOLLOW_HOPS = 64;
    /// Ends a wait list.
    pub TR_NIL = 0xffffffff;
    /// In `SlotMeta::next` of a paused task that goes round its ring: its 64-bit epoch is not fixed yet.
    pub TR_UNDECIDED = 0xfffffffe;
    /// Attempts to put a task into its wait list before it goes round its ring instead.
    pub TR_PARK_ATTEMPTS = 32;

    /// Attempts to take a batch from a ring whose head other workers move, before the worker looks round anew.
    pub TR_CLAIM_ATTEMPTS = 8;
    /// Turns in a row in which a worker passes by other tasks because a Critical one is about to come into sight; a lost race for one counts as half of them.
    pub TR_CLAIM_PASSES = 16;
    /// The most batches that a worker claims at once.
    pub TR_CLAIM_BATCHES = 8;
    /// How long a batch may have taken for the next ones to be claimed like that, in units of `SliceLaunch::timed`: 16 µs.
    pub TR_CLAIM_QUICK = 64;

    /// Batches of lines that a worker takes at once where many are published: a head gives out no more than one worker takes in the time
    /// from reading it to swapping it.
    pub TR_ADMIT_ROUNDS = 4;

    /// Bit of a completion record: the task faulted.
    pub TR_RECORD_FAULTED = 1;
    /// Bit of a completion record: the slot's counts go with it.
    pub TR_RECORD_COUNTED = 2;
    /// Position of a completion record's lap.
    pub TR_RECORD_LAP_SHIFT = 2;
    /// Odd factors of a completion record's words in its check: a change of one word alone is always seen.
    pub TR_CHECK_LAP = 0x9e3779b1;
    /// The ticket's.
    pub TR_CHECK_TICKET = 0x85ebca6b;
    /// That of `continuation_data`.
    pub TR_CHECK_DATA = 0xc2b2ae35;

    /// Looks at the doorbell alone that a worker takes in a turn, when nothing is on its way.
    pub TR_DOZE_LOOKS = 16;
    /// Such turns in a row, before a worker that was rung and came too late, or that keeps a waiter, looks at everything.
    pub TR_DOZE_NAPS = 4;

    /// Doorbell word: submission ring positions before this one are published.
    pub TR_BELL_TAIL = 0;
    /// Doorbell word: slices up to this number are to end; 0 for none.
    pub TR_BELL_STOP = 1;
    /// Doorbell word: how often an epoch has changed, wrapping.
    pub TR_BELL_SIGNALS = 2;
    /// Doorbell word: timelines in use.
    pub TR_BELL_TIMELINES = 3;
    /// Doorbell word: tenants below this are all on.
    pub TR_BELL_OPEN_TENANTS = 4;
    /// Doorbell word: changes with every epoch that a command buffer writes.
    pub TR_BELL_RECORDED = 5;
    /// Doorbell word: how often the host has cancelled tasks, wrapping.
    pub TR_BELL_CANCELS = 6;
    /// Doorbell word: tasks that the host has cancelled and that have not ended.
    pub TR_BELL_CANCELLING = 7;
    /// Words of the doorbell's line; the epochs follow.
    pub TR_BELL_WORDS = 32;
    /// Timelines that the flags word can name.
    pub TR_TIMELINES = 256;
    /// First word after the epochs that the host writes: those that command buffers write. A timeline is where the larger of both is.
    pub TR_BELL_CARRIED = 1056;
    /// First word after those: one for each slot, that says whether its task is cancelled.
    pub TR_BELL_SLOTS = 2080;
    /// In a slot's word: the task with the ticket generation in the low bits is cancelled.
    pub TR_CANCEL = 0x100;

    /// Batches that count as a turn of the budget where the driver ends loops, since they take turns of loops too.
    pub TR_BATCHES_A_TURN = 4;

    /// The longest time that is told by a clock without an upper half, which goes round after 2^24 units: a slice there lasts and lingers no longer.
    pub TR_SHORT_TIME = 0x700000;

    /// Turns after which a worker looks at every epoch, whatever the doorbell said: a hint that was lost costs time, and nothing else.
    pub TR_LOOK_TURNS = 1024;

    /// A buffer handle's bits that index the buffer table; the bits above are its generation.
    pub TR_HANDLE_INDEX_MASK = 0x000fffff;
    /// Position of a buffer handle's generation.
    pub TR_HANDLE_GENERATION_SHIFT = 20;

    /// Largest age that selection tells apart, in ticks.
    pub TR_AGE_LIMIT = 0x04000000;
}

shared_structs! {
    /// One task: the 64 bytes that the host publishes and a slot holds.
    pub struct TaskWorkItem {
        /// Word 0: a `TaskState` code.
        pub state,
        /// Word 1: index of the operation in the program's op table.
        pub op_handle,
        /// Word 2: the tenant that the scheduler checks before the task may run.
        pub tenant_id,
        /// Word 3: a `TaskPriority` code.
        pub priority,
        /// Word 4: handle of the input buffer, 0 for none.
        pub input_handle,
        /// Word 5: handle of the output buffer, 0 for none.
        pub output_handle,
        /// Word 6: one parameter word.
        pub param,
        /// Word 7: program counter or block id at which the op resumes.
        pub continuation_pc,
        /// Word 8: op-local scratch word; the fault code of a faulted task.
        pub continuation_data,
        /// Word 9: epoch at which a paused task may resume.
        pub resume_epoch,
        /// Word 10: stable id that joins the runs of a continuation.
        pub task_id,
        /// Word 11: parent of a split or fanned-out task, 0 if none.
        pub parent_task_id,
        /// Word 12: scheduler age accumulated while waiting, in ticks.
        pub age_ticks,
        /// Word 13: times requeued.
        pub requeue_count,
        /// Word 14: times yielded.
        pub yield_count,
        /// Word 15: `TASK_FLAG_*` bits in bits 0 to 3; bits 8 to 23 name the timeline of `resume_epoch`, the index below the generation. Nothing uses
        /// the others; completion clears all.
        pub flags,
    }

    /// What the device keeps beside each slot.
    pub struct SlotMeta {
        /// The ticket (slot index and generation) under which the host submitted the task.
        pub ticket,
        /// The tick at which the task last entered a ring.
        pub enqueue_tick,
        /// The next slot of the same wait list.
        pub next,
        /// High half of the 64-bit epoch that a paused task waits for; the low half is its `resume_epoch`.
        pub target_hi,
    }

    /// What the host tells a slice. Written before the slice is submitted, constant while it runs.
    pub struct SliceLaunch {
        /// Number of this slice, never 0.
        pub slice,
        /// Number of the slice that must have ended well before this one may run; 0 for the first one.
        pub previous,
        /// Workgroups of this slice.
        pub workers,
        /// Turns that a worker may take.
        pub turn_budget,
        /// How long the slice may last, in units of `timed`.
        pub time_budget,
        /// How long the slice stays without anything to do, in units of `timed`.
        pub linger,
        /// 1 to count time in 256 ticks of the device's clock, 0 to count it in each worker's turns.
        pub timed,
        /// Ticks of age that outweigh one step of priority.
        pub aging_ticks,
        /// Entries of the tenant table.
        pub tenants,
        /// Entries of the buffer table.
        pub buffers,
        /// Largest batch that a worker claims.
        pub batch,
        /// Fault injection: the turn from which on every worker that runs a task behaves as if the driver had cut it, 0 for never.
        pub cut_turn,
        /// Always 2: a loop bound that no compiler knows, to see whether loops still turn.
        pub two,
        /// Records that the trace can hold, 0 to trace nothing.
        pub trace_capacity,
        /// Shards of the rings, a power of two.
        pub shards,
        /// 1 if it was submitted while the one before it was running: it lingers no longer than both together.
        pub follows,
        /// 1 if completions carry ages and counts.
        pub counts,
        /// Lists of a bucket of the wheel, a power of two; a slot's index chooses.
        pub lists,
        /// 1 where the driver ends loops: then batches are part of the turn budget.
        pub capped,
        /// Not used.
        pub reserved2,
    }

    /// What a slice tells the host when its last worker leaves.
    pub struct SliceExit {
        /// Number of the slice. Written last: until it matches, there is no record.
        pub slice,
        /// `TR_EXIT_*` bits of all workers.
        pub reasons,
        /// Workers that left without a reason.
        pub cut_workers,
        /// Submission ring positions before this one are admitted.
        pub admitted,
        /// Completion ring positions before this one are written.
        pub completed,
        /// Entries in the five rings.
        pub ready,
        /// Tasks in wait lists.
        pub waiting,
        /// Turns that found something to do, of all workers.
        pub turns,
        /// The tick: claims so far, wrapping.
        pub tick,
        /// Trace records written so far in this slice; more than the capacity means that some were dropped.
        pub traced,
        /// Pauses so far, wrapping.
        pub pauses,
        /// Resumes so far, wrapping.
        pub resumes,
        /// Subgroup size of the slice.
        pub subgroup_size,
        /// The doorbell's tail as the last worker saw it: what was published later, this slice has not seen.
        pub doorbell,
        /// How often an epoch had changed when the last worker last looked at every timeline.
        pub heard,
        /// 1 if a waiter was parked behind its waker's back, and nobody has looked after it yet.
        pub dirty,
        /// How long the slice lasted, in units of `SliceLaunch::timed`.
        pub elapsed,
        /// Not used.
        pub reserved0,
        /// Not used.
        pub reserved1,
        /// Not used.
        pub reserved2,
    }

    /// The end of one task, as the device reports it: 16 bytes that are stored at once, and that say by themselves whether they are whole.
    pub struct CompletionRecord {
        /// Lap of the completion ring, from 1, above `TR_RECORD_*` bits. Until the lap matches, there is no record.
        pub lap,
        /// The task's ticket.
        pub ticket,
        /// Word 8: the fault code of a faulted task, else the op's scratch word.
        pub continuation_data,
        /// `tr_check` of the others: the words of a record may come into sight one by one.
        pub check,
    }

    /// What else is told of a task that has ended, if any of it is not 0. One for each slot, behind the completion ring.
    pub struct CompletionCounts {
        /// Word 12.
        pub age_ticks,
        /// Word 13.
        pub requeue_count,
        /// Word 14.
        pub yield_count,
        /// Not used.
        pub reserved0,
    }

    /// A registered buffer, as the device sees it.
    pub struct BufferEntry {
        /// Device address, low half.
        pub address_lo,
        /// Device address, high half.
        pub address_hi,
        /// Length in 32-bit words.
        pub words,
        /// The tenant that may use it.
        pub tenant,
        /// Generation that a handle must carry; 0 for an empty entry.
        pub generation,
        /// 1 if the host may read it while a slice runs.
        pub host_reads,
        /// Not used.
        pub reserved0,
        /// Not used.
        pub reserved1,
    }

    /// The epoch of one timeline as one writer knows it. The writer stores `status`, `hi_first`, `lo` and `hi` one after another; a reader loads in the
    /// opposite order and trusts what it read only if both high halves agree.
    pub struct EpochWord {
        /// Low half.
        pub lo,
        /// High half, stored last.
        pub hi,
        /// High half, stored first.
        pub hi_first,
        /// The timeline's generation; the fault code of whoever waits for it once it is closed or lost. Only in the host's words.
        pub status,
    }

    /// Up to which epoch the waiters of a timeline have been woken. Device only.
    pub struct WakeState {
        /// Low half.
        pub lo,
        /// High half.
        pub hi,
        /// Odd while a worker wakes this timeline's waiters, and others pass by. It grows with each change, so who finds it as it was knows that the
        /// epoch beside it is, too.
        pub turn,
        /// `tr_woken_check` of `lo` and `hi`: a worker that reads them while another writes them finds that it does not match.
        pub check,
    }

    /// One turn of one task, for a picture of the schedule.
    pub struct TraceRecord {
        /// Logical time at which the turn began: trace events so far, wrapping.
        pub began,
        /// Logical time at which it ended.
        pub ended,
        /// The workgroup that ran it.
        pub worker,
        /// The task's id.
        pub task_id,
        /// The op.
        pub op_handle,
        /// The partition that it was claimed from.
        pub priority,
        /// State after the turn.
        pub state,
        /// `continuation_pc` before the turn.
        pub pc,
        /// The tick at which the task entered the ring that it was claimed from, read before its entry was written; `claimed` for one that was in
        /// none.
        pub enqueued,
        /// The tick at which its worker looked for something to claim, so before it claimed.
        pub claimed,
        /// Not used.
        pub reserved0,
        /// Not used.
        pub reserved1,
    }
}
