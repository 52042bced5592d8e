// Every load, store and fence that more than one invocation can see. No other file holds an atomic or a barrier.
//
// Orderings are fences around relaxed accesses: a writer stores its data, calls `tr_release`, and then stores the word that publishes
// the data; a reader polls that word relaxed, and calls `tr_acquire` once, after it saw what it waited for. Each call names its partner.
// Scope is the device throughout: a task's next turn may run on any workgroup. Every block's members are `nonprivate`: the memory model's fences
// do not order private accesses, which is what plain ones are otherwise.

layout(buffer_reference, std430, buffer_reference_align = 4) buffer TrWords { nonprivate uint word[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer TrSlots { nonprivate TaskWorkItem slot[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer TrMetas { nonprivate SlotMeta meta[]; };
// One store of 16 bytes each.
layout(buffer_reference, std430, buffer_reference_align = 16) buffer TrRecords { nonprivate uvec4 record[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer TrBuffers { nonprivate BufferEntry entry[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer TrTraces { nonprivate TraceRecord record[]; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer TrLaunches { nonprivate SliceLaunch launch; };
layout(buffer_reference, std430, buffer_reference_align = 16) buffer TrExits { nonprivate SliceExit record; };

// 124 of the 128 bytes that every device has.
layout(push_constant, std430) uniform TrPush {
    TrWords control;       // private: TR_CONTROL_* words
    TrSlots slots;         // private: the tasks
    TrMetas metas;         // private: what the scheduler keeps beside each task
    TrWords rings;         // private: five rings of (entry, enqueue tick)
    TrWords wheel;         // private: heads of the wait lists
    TrSlots lines;         // mailbox: the submission ring
    TrWords tickets;       // mailbox: of each line its ticket, and the high half of the epoch that it waits for
    TrLaunches launch;     // mailbox: orders for this slice
    TrWords bell;          // mailbox: the doorbell's line, and EpochWord of each timeline
    TrWords tenants;       // mailbox: 1 for a tenant that may run
    TrBuffers buffers;     // mailbox: registered buffers
    TrRecords completions; // report: the completion ring, and behind it the counts of each slot's task
    TrWords marks;         // report: the lap of each line that was read
    TrExits exit_record;   // report: why this slice ended
    TrTraces trace;        // report: turns of this slice
    uint capacity_log2;    // of the slots and of every ring
} tr_push;

// Control words, each on a line of its own: a claim in one ring does not slow its neighbours.
const uint TR_CONTROL_LINE = 32u;
const uint TR_CONTROL_ADMITTED = 0u;                                    // submission ring head
const uint TR_CONTROL_COMPLETED = TR_CONTROL_LINE;                      // completion ring tail
const uint TR_CONTROL_TICK = 2u * TR_CONTROL_LINE;                      // tasks claimed from rings
const uint TR_CONTROL_CRITICAL_TAKEN = TR_CONTROL_TICK + 1u;            // those of Critical rings
const uint TR_CONTROL_PUSHED = 3u * TR_CONTROL_LINE;                    // tasks pushed to rings
const uint TR_CONTROL_CRITICAL_PUSHED = TR_CONTROL_PUSHED + 1u;         // those of Critical rings
const uint TR_CONTROL_PAUSES = 4u * TR_CONTROL_LINE;                    // tasks that began to wait
const uint TR_CONTROL_RESUMES = TR_CONTROL_PAUSES + 1u;                 // tasks that ceased to
const uint TR_CONTROL_LISTS = TR_CONTROL_PAUSES + 2u;                   // waiters in rings or workers' hands, each the first of a list
const uint TR_CONTROL_CLOCK = 5u * TR_CONTROL_LINE;                     // trace events
const uint TR_CONTROL_TRACED = TR_CONTROL_CLOCK + 1u;                   // trace records of this slice
const uint TR_CONTROL_ARRIVED = 6u * TR_CONTROL_LINE;                   // workers that left this slice
const uint TR_CONTROL_REASONS = TR_CONTROL_ARRIVED + 1u;                // their reasons
const uint TR_CONTROL_CUT = TR_CONTROL_ARRIVED + 2u;                    // those without one
const uint TR_CONTROL_TURNS = TR_CONTROL_ARRIVED + 3u;                  // turns that found work
const uint TR_CONTROL_BEGAN = TR_CONTROL_ARRIVED + 4u;                  // when the first worker of this slice began
const uint TR_CONTROL_ENDED = TR_CONTROL_ARRIVED + 5u;                  // number of the last slice that ended well
const uint TR_CONTROL_IDLED = TR_CONTROL_ARRIVED + 6u;                  // 1 if it had nothing to do
const uint TR_CONTROL_DIRTY = 7u * TR_CONTROL_LINE;                     // 1 when a waiter was parked behind its waker's back: the whole wheel is looked through once
const uint TR_CONTROL_CANCELS = TR_CONTROL_DIRTY + 1u;                  // cancellations that the wait lists were looked through for
const uint TR_CONTROL_WAKES = 8u * TR_CONTROL_LINE;                     // WakeState of each timeline
const uint TR_CONTROL_RINGS = 40u * TR_CONTROL_LINE;                    // head and tail of each ring

uint tr_control_head(uint ring) { return TR_CONTROL_RINGS + 2u * ring * TR_CONTROL_LINE; }
uint tr_control_tail(uint ring) { return tr_control_head(ring) + TR_CONTROL_LINE; }

// A copy of tr_push.launch, made once: constant while the slice runs. In registers it is too much: NVIDIA's compiler then puts it into memory of each lane, which
// every tr_acquire drops from the cache.
shared SliceLaunch tr_launch;
uint tr_most; // tasks of a batch, at most; in a register, as the shortest ways ask for it

// Needs all invocations of the workgroup, which may have a wrong shape still.
void tr_read_launch() {
    if (gl_LocalInvocationIndex == 0u) tr_launch = tr_push.launch.launch;
    barrier();
    tr_most = min(tr_launch.batch, gl_SubgroupSize);
}

// Data written before is available to whoever sees a word stored after. Pairs with tr_acquire.
void tr_release() {
    memoryBarrier(gl_ScopeDevice, gl_StorageSemanticsBuffer, gl_SemanticsRelease | gl_SemanticsMakeAvailable);
}

// Data published by a word loaded before is visible to loads after. Pairs with tr_release.
void tr_acquire() {
    memoryBarrier(gl_ScopeDevice, gl_StorageSemanticsBuffer, gl_SemanticsAcquire | gl_SemanticsMakeVisible);
}

// Both: what was published before is visible after, and what was written before is available to whoever sees a word stored after.
void tr_pass_on() {
    memoryBarrier(gl_ScopeDevice, gl_StorageSemanticsBuffer,
                  gl_SemanticsAcquireRelease | gl_SemanticsMakeAvailable | gl_SemanticsMakeVisible);
}

// The lanes of a subgroup-wide turn meet, and what each of them wrote is visible to all of them. So one lane may publish for all, or see for all: its tr_release
// makes available to the device what this has made available to the subgroup, and this makes visible to the subgroup what its tr_acquire has made visible to it
// (the memory model's chains). A fence of the device's scope here would be one for nothing, of some 700 cycles on the H100. Needs subgroup-uniform control flow.
void tr_converge() {
    controlBarrier(gl_ScopeSubgroup, gl_ScopeSubgroup, gl_StorageSemanticsBuffer | gl_StorageSemanticsShared,
                   gl_SemanticsAcquireRelease | gl_SemanticsMakeAvailable | gl_SemanticsMakeVisible);
}

// A tr_converge that is each lane's tr_pass_on too, both before the lanes meet and after: what any lane saw, any lane may tell the device of by an atomic of its own, and
// what any lane's atomic was told of, all lanes see.
void tr_converge_and_pass_on() {
    controlBarrier(gl_ScopeSubgroup, gl_ScopeDevice, gl_StorageSemanticsBuffer | gl_StorageSemanticsShared,
                   gl_SemanticsAcquireRelease | gl_SemanticsMakeAvailable | gl_SemanticsMakeVisible);
}

uint tr_load(TrWords words, uint index) {
    return atomicLoad(words.word[index], gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
}

void tr_store(TrWords words, uint index, uint value) {
    atomicStore(words.word[index], value, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
}

uint tr_add(TrWords words, uint index, uint value) {
    return atomicAdd(words.word[index], value, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
}

uint tr_or(TrWords words, uint index, uint value) {
    return atomicOr(words.word[index], value, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
}

uint tr_and(TrWords words, uint index, uint value) {
    return atomicAnd(words.word[index], value, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
}

uint tr_xor(TrWords words, uint index, uint value) {
    return atomicXor(words.word[index], value, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
}

uint tr_min(TrWords words, uint index, uint value) {
    return atomicMin(words.word[index], value, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
}

uint tr_max(TrWords words, uint index, uint value) {
    return atomicMax(words.word[index], value, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
}

uint tr_exchange(TrWords words, uint index, uint value) {
    return atomicExchange(words.word[index], value, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
}

// The value that was there; the exchange happened if it is `expected`.
uint tr_compare_exchange(TrWords words, uint index, uint expected, uint value) {
    return atomicCompSwap(words.word[index], expected, value, gl_ScopeDevice, gl_StorageSemanticsNone,
                          gl_SemanticsRelaxed, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
}

// A completion record: one store of 16 bytes, after a tr_release. Words that come into sight one by one do not match their check until all have;
// the host, when they match, acquires.
void tr_publish_completion(uint index, uint lap_and_bits, uint ticket, uint data) {
    uint check = lap_and_bits * TR_CHECK_LAP + ticket * TR_CHECK_TICKET + data * TR_CHECK_DATA;
    tr_push.completions.record[index] = uvec4(lap_and_bits, ticket, data, check);
}

// The word that publishes an exit record. Pairs with the host's wait for the submission.
void tr_publish_exit(uint slice) {
    atomicStore(tr_push.exit_record.record.slice, slice, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
}

// What one lane tells all: written by it before a tr_converge, read after; two of them in turn, so that nobody writes what a slow lane still reads.
// (A broadcast from a lane that is not constant is a feature of its own.)
shared uvec4 tr_told[2];
uint tr_tellings; // uniform: how many of them, in this slice
// Likewise, what each lane tells: written before a tr_meet, read after, and not written anew before another one.
shared uint tr_lanes_told[128];
// The entries of a claim of several batches; written between two tr_meets.
shared uint tr_claimed[TR_CLAIM_BATCHES * 128u];

// The lanes meet, and see what the others told them. Needs subgroup-uniform control flow.
void tr_meet() {
    controlBarrier(gl_ScopeSubgroup, gl_ScopeWorkgroup, gl_StorageSemanticsShared,
                   gl_SemanticsAcquireRelease | gl_SemanticsMakeAvailable | gl_SemanticsMakeVisible);
}

// A worker is a whole subgroup (tr_unfit), so where control flow is uniform lane 0 takes part: to name it costs an instruction, and to find the first
// lane that takes part some ten.
bool tr_first() {
    return gl_SubgroupInvocationID == 0u;
}

uint tr_uniform(uint value) {
    return subgroupBroadcast(value, 0u);
}

bool tr_uniform(bool value) {
    return subgroupBroadcast(value, 0u);
}

// A word that all lanes may decide by.
uint tr_look(TrWords words, uint index) {
    return tr_uniform(tr_load(words, index));
}

// Whether it is so for any lane. Needs subgroup-uniform control flow, as all ballots do.
bool tr_any(bool here) {
    return subgroupBallot(here) != uvec4(0u);
}

// The two halves of tr_reserve: what is done in between need not wait for the counter.
uint tr_ask(uint control, uvec4 mask) {
    uint base = 0u;
    if (tr_first()) base = tr_add(tr_push.control, control, subgroupBallotBitCount(mask));
    return base;
}

uint tr_reserved(uint asked, uvec4 mask) {
    return tr_uniform(asked) + subgroupBallotExclusiveBitCount(mask);
}

// Reserves positions of a counter for the lanes in `mask`; gives each its own. One atomic for the subgroup.
// Needs subgroup-uniform control flow.
uint tr_reserve(uint control, uvec4 mask) {
    return tr_reserved(tr_ask(control, mask), mask);
}

// Adds the number of lanes in `mask` to a counter that nobody waits for.
void tr_count(uint control, uvec4 mask) {
    uint count = subgroupBallotBitCount(mask);
    if (count > 0u && tr_first()) tr_add(tr_push.control, control, count);
}
