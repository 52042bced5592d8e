// Waiters that a worker keeps.
//
// Most waiters hang in the wheel. One that begins to wait while nothing else is to be done hangs nowhere: its worker keeps it, a waiter for each lane, and
// looks at its epoch itself, beside the doorbell. That saves the way through lock, bits and list, which is most of a resumption. Nobody else knows of it,
// so before the worker runs anything but a quick batch, or leaves, it lets go of it: hangs it up as ever.

uint tr_held;             // each lane: the slot of the waiter that it keeps, TR_NIL for none
uint tr_held_timeline;    // each lane; some timeline if it keeps none
uvec2 tr_held_target;     // each lane
uint tr_held_due;         // each lane: the target, if it is below 2^32 and the task may be plain then; else ~0
bool tr_holds;            // uniform: whether any lane keeps one
uint tr_watched;          // how often an epoch had changed when this worker last looked at the epochs of what it keeps
uint tr_watched_recorded; // likewise, of the epochs that command buffers write

// Keeps nothing in this lane.
void tr_hold_nothing() {
    tr_held = TR_NIL;
    tr_held_due = ~0u;
}

// Keeps this lane's paused task, whose words are in its slot. Its epoch was read after `tr_watched`, so what changed since is still to be heard.
void tr_hold(uint slot, uint timeline, uvec2 target, bool quick) {
    tr_held = slot;
    tr_held_timeline = timeline;
    tr_held_target = target;
    tr_held_due = quick && target.y == 0u ? target.x : ~0u;
}

// Of the epoch of this lane's waiter the low half, to be looked at beside the doorbell.
uint tr_held_epoch() {
    uint word = tr_held_timeline * 4u;
    return max(tr_load(tr_push.bell, TR_BELL_WORDS + word), tr_load(tr_push.bell, TR_BELL_CARRIED + word));
}

// Whether that says that the lane's waiter is due. Any half is of an epoch that there was, so a target below 2^32 has come if a low half is as large, whatever
// its high half was. It is not the last epoch of a closed timeline, and before it came there, the host had not closed the timeline.
bool tr_held_is_due(uint low) {
    return low >= tr_held_due && low != ~0u;
}

// Hangs up what this worker keeps. Uniform control flow.
void tr_let_go() {
    bool homeless = false;
    if (tr_held != TR_NIL) {
        TaskWorkItem item = tr_push.slots.slot[tr_held];
        uint rest = tr_held; // not TR_NIL: if it should have been woken meanwhile, others look through the wheel for it
        homeless = !tr_park(tr_held, tr_push.metas.meta[tr_held].ticket, item, tr_held_target, rest);
        if (homeless) tr_push.metas.meta[tr_held].next = TR_NIL;
    }
    if (tr_any(homeless)) {
        tr_count_lists(subgroupBallot(homeless), uvec4(0u));
        tr_put(homeless, tr_held, TASK_PRIORITY_CRITICAL, false);
    }
    tr_hold_nothing();
    tr_holds = false;
}

// Whether there is news for the waiters that this worker keeps. Uniform control flow.
bool tr_hears(uint signals, uint recorded) {
    if (!tr_holds || (signals == tr_watched && recorded == tr_watched_recorded)) return false;
    tr_catch_up(); // pairs as in tr_wake
    return true;
}

// Looks at the epochs that the kept waiters wait for, after tr_hears: each lane knows its timeline's then. Gives its status. Uniform control flow.
uint tr_watch(uint signals, uint recorded) {
    tr_known_timeline = tr_held == TR_NIL ? TR_NIL : tr_held_timeline;
    bool whole = true;
    // All lanes, so that they wait for memory once; one that keeps nothing looks at some timeline and forgets it.
    // Without fences, as any half is of an epoch that there was: a target below 2^32 has come if a low half is as large, whatever its high half was, or if a
    // high half is not 0.
    uint low = tr_held_epoch();
    uint word = tr_held_timeline * 4u + 1u;
    uint high = tr_load(tr_push.bell, TR_BELL_WORDS + word) | tr_load(tr_push.bell, TR_BELL_CARRIED + word);
    uint status = tr_status(tr_held_timeline);
    tr_known_epoch = uvec2(high == 0u ? low : 0u, high);
    // A closed timeline's, perhaps: pairs with the host's store fence between its status and its last epoch.
    if (tr_any(low == ~0u || high == ~0u)) {
        tr_acquire();
        status = tr_status(tr_held_timeline);
    }
    if (tr_held != TR_NIL && tr_held_target.y != 0u) {
        whole = tr_epoch(tr_held_timeline, tr_known_epoch);
        if (!whole) tr_known_epoch = uvec2(0u);
    }
    tr_watched = tr_any(!whole) ? signals - 1u : signals;
    tr_watched_recorded = recorded;
    return status;
}
