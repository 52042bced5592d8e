// The state machine of one task, in registers: what TaskWorkItem's transitions do on the host, word for word.

TaskWorkItem tr_faulted(TaskWorkItem item, uint code) {
    item.state = TASK_STATE_FAULTED;
    item.continuation_data = code;
    return item;
}

TaskWorkItem tr_resumed(TaskWorkItem item) {
    item.state = TASK_STATE_READY;
    item.flags = (item.flags | TASK_FLAG_RESUME_READY) & ~(TASK_FLAG_PAUSED | TASK_FLAG_YIELDED);
    return item;
}

uint tr_timeline(TaskWorkItem item) {
    return (item.flags & TASK_FLAG_TIMELINE_MASK) >> TASK_FLAG_TIMELINE_SHIFT;
}

bool tr_is_timeline(uint index) {
    return index < tr_load(tr_push.bell, TR_BELL_TIMELINES);
}

uint tr_saturating_add(uint a, uint b) {
    return a + min(b, ~a);
}

bool tr_is_schedulable(uint state) {
    return state < 32u && ((1u << TASK_STATE_READY | 1u << TASK_STATE_YIELDED | 1u << TASK_STATE_REQUEUED) >> (state & 31u) & 1u) != 0u;
}

// What is wrong with a line of the submission ring, 0 if it can be placed.
uint tr_placement_fault(TaskWorkItem item) {
    if (!tr_is_schedulable(item.state) && item.state != TASK_STATE_PAUSED) return TASK_FAULT_BAD_STATE;
    if (item.priority >= TASK_PRIORITIES) return TASK_FAULT_BAD_PRIORITY;
    if (item.state == TASK_STATE_PAUSED && !tr_is_timeline(tr_timeline(item))) return TASK_FAULT_BAD_TIMELINE;
    return 0u;
}

uint tr_cancelling; // whether any task is cancelled, as this turn began

uint tr_open_tenants; // those below are all on, as this turn began: nobody has to wait for their words

// Acquires what was published with a word that was loaded before, and with it both of these.
void tr_catch_up() {
    tr_acquire();
    tr_cancelling = tr_load(tr_push.bell, TR_BELL_CANCELLING);
    tr_open_tenants = tr_load(tr_push.bell, TR_BELL_OPEN_TENANTS);
}

// Begins a task's turn: whose accesses they are, and none of them did anything wrong yet.
void tr_begin(TaskWorkItem item) {
    tr_tenant = item.tenant_id;
    tr_fault = 0u;
    tr_input_view = TrView(0u, uvec2(0u), 0u, false);
    tr_output_view = tr_input_view;
}

// Looks up a task's input and output, after tr_begin; false if there is one that is not registered.
bool tr_open(TaskWorkItem item) {
    bool input_known = tr_resolve(item.input_handle, tr_input_view);
    bool output_known = tr_resolve(item.output_handle, tr_output_view);
    return (input_known || item.input_handle == 0u) && (output_known || item.output_handle == 0u);
}

// What forbids a claimed task to run, 0 if nothing. Opens its buffers.
uint tr_run_fault(TaskWorkItem item) {
    tr_begin(item);
    if (tr_op_width(item.op_handle) == TR_WIDTH_UNKNOWN) return TASK_FAULT_UNKNOWN_OP;
    // The bound comes first: an id past the table's end never reads it.
    if (item.tenant_id >= tr_launch.tenants) return TASK_FAULT_BAD_TENANT;
    if (item.tenant_id >= tr_open_tenants && tr_load(tr_push.tenants, item.tenant_id) == 0u) return TASK_FAULT_BAD_TENANT;
    return tr_open(item) ? 0u : TASK_FAULT_BAD_HANDLE;
}

bool tr_cuts; // whether this turn is cut, as a driver would; for tests

// Whether each lane's task, which was in no ring, runs without further ado, by the short text of a quick op. Opens its buffers. Uniform control flow.
bool tr_all_plain(bool mine, TaskWorkItem item) {
    bool plain = tr_cancelling == 0u; // lanes may have loaded different words
    if (mine) {
        tr_begin(item);
        plain = plain && all(bvec4(tr_is_schedulable(item.state), item.priority < TASK_PRIORITIES, item.tenant_id < min(tr_open_tenants, tr_launch.tenants),
                          tr_is_quick(item.op_handle)));
        if ((item.input_handle | item.output_handle) != 0u) plain = tr_open(item) && plain;
    }
    return !tr_any(!plain) && tr_launch.trace_capacity == 0u && !tr_cuts;
}

// The task after its turn. A refused step is a fault, never a lost count.
TaskWorkItem tr_after_turn(TaskWorkItem item, Turn turn, uint access_fault) {
    if (access_fault != 0u) return tr_faulted(item, access_fault);
    switch (turn.action) {
    case TASK_TURN_COMPLETE:
        item.state = TASK_STATE_DONE;
        item.flags = 0u;
        return item;
    case TASK_TURN_YIELD:
        if (item.yield_count == ~0u) return tr_faulted(item, TASK_FAULT_COUNTER_OVERFLOW);
        item.state = TASK_STATE_YIELDED;
        item.yield_count += 1u;
        item.flags |= TASK_FLAG_YIELDED;
        break;
    case TASK_TURN_PAUSE:
        if (turn.timeline != TR_SAME_TIMELINE) {
            if (turn.timeline > TASK_TIMELINE_WORD_MASK) return tr_faulted(item, TASK_FAULT_BAD_TIMELINE);
            uint others = item.flags & ~(TASK_TIMELINE_WORD_MASK << TASK_FLAG_TIMELINE_SHIFT);
            item.flags = others | turn.timeline << TASK_FLAG_TIMELINE_SHIFT;
        }
        if (!tr_is_timeline(tr_timeline(item))) return tr_faulted(item, TASK_FAULT_BAD_TIMELINE);
        item.state = TASK_STATE_PAUSED;
        item.resume_epoch = turn.argument;
        item.flags = (item.flags | TASK_FLAG_PAUSED) & ~TASK_FLAG_RESUME_READY;
        break;
    case TASK_TURN_REQUEUE:
        if (turn.argument >= TASK_PRIORITIES) return tr_faulted(item, TASK_FAULT_BAD_PRIORITY);
        if (item.requeue_count == ~0u || item.age_ticks == ~0u) return tr_faulted(item, TASK_FAULT_COUNTER_OVERFLOW);
        item.state = TASK_STATE_REQUEUED;
        item.priority = turn.argument;
        item.requeue_count += 1u;
        item.age_ticks += 1u;
        item.flags |= TASK_FLAG_REQUEUE_REQUESTED;
        break;
    case TASK_TURN_FAULT:
        return tr_faulted(item, turn.argument);
    default:
        return tr_faulted(item, TASK_FAULT_BAD_TURN);
    }
    item.continuation_pc = turn.pc;
    item.continuation_data = turn.data;
    return item;
}
