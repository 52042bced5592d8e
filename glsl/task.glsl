// What an op sees: how it ends its turn, and the only way to its buffers.

// How a turn ended. Made by the task_* functions below.
struct Turn {
    uint action;
    uint pc;
    uint data;
    uint argument; // epoch, priority or fault code
    uint timeline;
};

// A registered buffer, by its handle. It can't be forged: each access checks tenant, generation and length.
struct Buffer {
    uint handle;
};

const uint TR_SAME_TIMELINE = 0xffffffffu;

struct TrView {
    uint handle;
    uvec2 address;
    uint words;
    bool host_reads;
};

uint tr_tenant;       // of the task that runs
uint tr_fault;        // what its accesses did wrong, 0 if nothing
TrView tr_input_view; // its input and output, looked up once a turn
TrView tr_output_view;

Turn task_complete() { return Turn(TASK_TURN_COMPLETE, 0u, 0u, 0u, 0u); }
Turn task_yield(uint pc, uint data) { return Turn(TASK_TURN_YIELD, pc, data, 0u, 0u); }
Turn task_pause(uint pc, uint data, uint epoch) { return Turn(TASK_TURN_PAUSE, pc, data, epoch, TR_SAME_TIMELINE); }
Turn task_pause_on(uint timeline, uint pc, uint data, uint epoch) { return Turn(TASK_TURN_PAUSE, pc, data, epoch, timeline); }
Turn task_requeue(uint pc, uint data, uint priority) { return Turn(TASK_TURN_REQUEUE, pc, data, priority, 0u); }
Turn task_fault(uint code) { return Turn(TASK_TURN_FAULT, 0u, 0u, code, 0u); }

uint task_lane() { return gl_SubgroupInvocationID; }
uint task_lanes() { return gl_SubgroupSize; }

// Subgroup-wide ops only, where all lanes pass: stores of one lane are visible to the loads of the others.
void task_barrier() { tr_converge(); }

// Looks a handle up for the running task's tenant; a view of 0 words for what is not registered. A handle of 0 is "no buffer".
bool tr_resolve(uint handle, out TrView view) {
    view = TrView(handle, uvec2(0u), 0u, false);
    uint index = handle & TR_HANDLE_INDEX_MASK;
    if (handle == 0u || index >= tr_launch.buffers) return false;
    BufferEntry entry = tr_push.buffers.entry[index];
    if (entry.generation == 0u || entry.generation != handle >> TR_HANDLE_GENERATION_SHIFT) return false;
    if (entry.tenant != tr_tenant) return false;
    view.address = uvec2(entry.address_lo, entry.address_hi);
    view.words = entry.words;
    view.host_reads = entry.host_reads != 0u;
    return true;
}

TrView tr_view(Buffer b) {
    if (b.handle == 0u && tr_fault == 0u) tr_fault = TASK_FAULT_BAD_HANDLE;
    if (b.handle == tr_input_view.handle) return tr_input_view;
    if (b.handle == tr_output_view.handle) return tr_output_view;
    TrView view;
    if (!tr_resolve(b.handle, view) && tr_fault == 0u) tr_fault = TASK_FAULT_BAD_HANDLE;
    return view;
}

// True if word `word` of the buffer exists; remembers the fault if not.
bool tr_inside(TrView view, uint word) {
    if (word < view.words) return true;
    if (tr_fault == 0u) tr_fault = TASK_FAULT_OUT_OF_BOUNDS;
    return false;
}

Buffer task_input(TaskWorkItem task) { return Buffer(task.input_handle); }
Buffer task_output(TaskWorkItem task) { return Buffer(task.output_handle); }
Buffer task_buffer(TaskWorkItem task, uint handle) { return Buffer(handle); }

uint buffer_words(Buffer b) { return tr_view(b).words; }

uint buffer_load(Buffer b, uint word) {
    TrView view = tr_view(b);
    if (!tr_inside(view, word)) return 0u;
    return TrWords(view.address).word[word];
}

void buffer_store(Buffer b, uint word, uint value) {
    TrView view = tr_view(b);
    if (tr_inside(view, word)) TrWords(view.address).word[word] = value;
}

// The same value, once it has come. A device may send an atomic whose result nobody uses to memory of the host and wait for nothing, and no fence of the
// device's scope changes that: on an H200 the task's record was there first, two times out of five. No compiler knows that the other factor is 0.
uint tr_awaited(uint before) {
    tr_fault |= before & (tr_launch.two - 2u);
    return before;
}

// Relaxed, at device scope; each gives the value that was there before.
#define TR_BUFFER_ATOMIC(name, operation) \
    uint name(Buffer b, uint word, uint value) { \
        TrView view = tr_view(b); \
        if (!tr_inside(view, word)) return 0u; \
        if (view.host_reads) return tr_awaited(operation(TrWords(view.address), word, value)); \
        return operation(TrWords(view.address), word, value); \
    }
TR_BUFFER_ATOMIC(buffer_atomic_add, tr_add)
TR_BUFFER_ATOMIC(buffer_atomic_and, tr_and)
TR_BUFFER_ATOMIC(buffer_atomic_or, tr_or)
TR_BUFFER_ATOMIC(buffer_atomic_xor, tr_xor)
TR_BUFFER_ATOMIC(buffer_atomic_min, tr_min)
TR_BUFFER_ATOMIC(buffer_atomic_max, tr_max)
TR_BUFFER_ATOMIC(buffer_atomic_exchange, tr_exchange)
#undef TR_BUFFER_ATOMIC

uint buffer_atomic_load(Buffer b, uint word) {
    TrView view = tr_view(b);
    if (!tr_inside(view, word)) return 0u;
    return tr_load(TrWords(view.address), word);
}

void buffer_atomic_store(Buffer b, uint word, uint value) {
    TrView view = tr_view(b);
    if (tr_inside(view, word)) tr_store(TrWords(view.address), word, value);
}

uint buffer_atomic_compare_exchange(Buffer b, uint word, uint expected, uint value) {
    TrView view = tr_view(b);
    if (!tr_inside(view, word)) return 0u;
    uint before = tr_compare_exchange(TrWords(view.address), word, expected, value);
    return view.host_reads ? tr_awaited(before) : before;
}
