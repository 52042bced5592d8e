// Paused tasks and the epochs that they wait for: a hashed timing wheel (Varghese and Lauck, 1987). A waiter hangs in the list of its
// epoch, so an epoch that advances by n looks at n buckets, however many tasks wait for others.

bool tr_reached(uvec2 epoch, uvec2 target) {
    return epoch.y > target.y || (epoch.y == target.y && epoch.x >= target.x);
}

// The epoch of a timeline as (low, high): the larger of what the host and what command buffers wrote. False if one of them was writing it, and
// the caller looks again next turn. Loads in the opposite order of the writers' stores, each fenced from the next: pairs with the store fences
// of the host's epoch writer and with the barriers between the fills of `record_signal`.
bool tr_epoch(uint timeline, out uvec2 epoch) {
    uint word = TR_BELL_WORDS + timeline * 4u;
    uint carried_word = TR_BELL_CARRIED + timeline * 4u;
    uvec2 carried;
    epoch.y = tr_load(tr_push.bell, word + 1u);
    carried.y = tr_load(tr_push.bell, carried_word + 1u);
    tr_acquire();
    epoch.x = tr_load(tr_push.bell, word);
    carried.x = tr_load(tr_push.bell, carried_word);
    tr_acquire();
    bool whole = tr_load(tr_push.bell, word + 2u) == epoch.y && tr_load(tr_push.bell, carried_word + 2u) == carried.y;
    if (tr_reached(carried, epoch)) epoch = carried;
    return whole;
}

// Whether the host cancelled this task. A task without a wait list looks when it runs next, one with a list when it is hung there; the others a
// worker looks through, see tr_take_cancels.
bool tr_cancelled(uint slot, uint ticket) {
    return tr_load(tr_push.bell, TR_BELL_SLOTS + slot) == (TR_CANCEL | ticket >> TR_TICKET_GENERATION_SHIFT);
}

// A timeline's generation, or the fault code of whoever waits for it.
uint tr_status(uint timeline) {
    return tr_load(tr_push.bell, TR_BELL_WORDS + timeline * 4u + 3u);
}

// What forbids a paused task to wait, 0 if nothing; by the status of its timeline and tr_cancelled. After tr_epoch: who saw the last epoch of a closed timeline sees its
// status too.
uint tr_wait_fault(TaskWorkItem item, uint status, bool cancelled) {
    if (status >= TASK_FAULT_RUNTIME) return status;
    if (status != (item.flags >> TASK_FLAG_TIMELINE_GENERATION_SHIFT & 0xffu)) return TASK_FAULT_TIMELINE_CLOSED;
    return cancelled ? TASK_FAULT_CANCELLED : 0u;
}

// The 64-bit epoch that a 32-bit `resume_epoch` means: of those that end in these 32 bits the nearest to `epoch` that is not below zero. Up
// to 2^31 behind is "already reached".
uvec2 tr_target(uvec2 epoch, uint resume_epoch) {
    bool ahead = int(resume_epoch - epoch.x) >= 0;
    if (ahead && resume_epoch < epoch.x) return uvec2(resume_epoch, epoch.y + 1u);
    if (!ahead && resume_epoch > epoch.x && epoch.y > 0u) return uvec2(resume_epoch, epoch.y - 1u);
    return uvec2(resume_epoch, epoch.y);
}

// Index of the list that a waiter hangs in. Timelines share the wheel, each from another start; a bucket has many lists so that many lanes wake
// its waiters.
uint tr_bucket(uint timeline, uint epoch_lo) {
    return epoch_lo + timeline * 37u;
}

uint tr_list(uint bucket, uint sublist) {
    return (bucket & (TR_WHEEL_BUCKETS - 1u)) * tr_launch.lists + (sublist & (tr_launch.lists - 1u));
}

// Index of the word that has a list's bit: 1 as long as nobody has hung anything there, as all words of an empty wheel are ~0.
uint tr_list_word(uint list) {
    return TR_WHEEL_BUCKETS * tr_launch.lists + list / 32u;
}

// One attempt to hang a slot into its list. Its words were written before a tr_release; pairs with the tr_pass_on after the exchange in tr_empty.
bool tr_hang(uint list, uint slot) {
    uint head = tr_load(tr_push.wheel, list);
    tr_push.metas.meta[slot].next = head;
    tr_release();
    return tr_compare_exchange(tr_push.wheel, list, head, slot) == head;
}

// Index of a timeline's WakeState in the control words.
uint tr_wake_word(uint timeline) {
    return TR_CONTROL_WAKES + timeline * 4u;
}

// With odd factors: if one of two words that are written is seen and the other is not, the check does not match.
uint tr_woken_check(uvec2 woken) {
    return woken.x * TR_CHECK_LAP + woken.y * TR_CHECK_TICKET;
}

// An epoch that each lane has seen in this turn, so that it need not look again for the next waiter of the same timeline, whose epoch does not go back. (Its index may
// be given to another one while a slice runs, but only if a slice before it has ended that knew of the closing: no waiter of the former is left then,
// and none of the heir's is met before its words.)
uint tr_known_timeline;
uvec2 tr_known_epoch;

// Says that a waiter hangs where its waker may have looked already.
void tr_set_dirty() {
    tr_release(); // pairs with the tr_converge_and_pass_on before tr_empty, after the exchange in tr_take_dirty
    tr_exchange(tr_push.control, TR_CONTROL_DIRTY, 1u);
}

// Whether somebody said so since the last time. Uniform control flow.
bool tr_take_dirty() {
    uint dirty = 0u;
    if (tr_first()) dirty = tr_exchange(tr_push.control, TR_CONTROL_DIRTY, 0u);
    return tr_uniform(dirty) != 0u;
}

// Hangs this lane's paused task into its list; false if other workers were in the way too often, and the task goes round its ring instead. If the task
// should have been woken meanwhile, `rest` gets what hangs in that list, for this worker to place anew.
bool tr_park(uint slot, uint ticket, TaskWorkItem item, uvec2 target, inout uint rest) {
    uint timeline = tr_timeline(item);
    uint list = tr_list(tr_bucket(timeline, target.x), slot);
    bool parked = false;
    for (uint attempt = 0u; attempt < TR_PARK_ATTEMPTS && !parked; ++attempt) parked = tr_hang(list, slot);
    if (!parked) return false;
    tr_release(); // pairs with the tr_pass_on in tr_empty: who takes the list's bit finds the task in the list
    tr_and(tr_push.wheel, tr_list_word(list), ~(1u << (list & 31u)));
    // The waker reads the epoch, or who is cancelled, and then takes the bits of the lists up to it. If it took this one's before we set it, our step
    // follows its exchange in the word's modification order, and after this fence (pairs with the tr_converge_and_pass_on before tr_empty) we read something at
    // least as new as what it read. So one of us sees the other: nobody is left behind.
    tr_acquire();
    uvec2 epoch;
    bool whole = tr_epoch(timeline, epoch);
    bool waits = tr_wait_fault(item, tr_status(timeline), tr_cancelled(slot, ticket)) == 0u;
    if (whole && !tr_reached(epoch, target) && waits) return true;
    if (whole && rest == TR_NIL) {
        rest = tr_exchange(tr_push.wheel, list, TR_NIL);
        tr_acquire(); // pairs with tr_release in tr_hang
    } else {
        tr_set_dirty();
    }
    return true;
}
