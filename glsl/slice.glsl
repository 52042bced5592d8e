// When a slice begins and ends.

// The time, in units of SliceLaunch::timed.
uint tr_now(uint turn) {
    if (tr_launch.timed == 0u) return turn;
    uvec2 clock = clockRealtime2x32EXT();
    return tr_uniform(clock.x >> 8u | clock.y << 24u);
}

// Whether the time may be of a clock whose upper half is always 0, such as that of Mesa's CPU driver, and so goes round after 2^24 units.
bool tr_is_short(uint now) {
    return tr_launch.timed != 0u && now < 1u << 24u;
}

// How long since then. The clocks of two workers may differ a little, so time may seem to run backward.
int tr_since(uint now, uint then) {
    int units = int(now - then);
    return tr_is_short(now) ? units << 8 >> 8 : units;
}

// Whether that is longer than so many units, or than a short time can be told.
bool tr_is_over(uint now, uint then, uint units) {
    return tr_since(now, then) > int(tr_is_short(now) ? min(units, TR_SHORT_TIME) : units);
}

// When this slice began, by the first of its workers: on a device that has no room for all, some begin when others leave.
uint tr_began(uint now) {
    if (tr_launch.timed == 0u) return now;
    uint first = 0u;
    if (tr_first()) first = tr_compare_exchange(tr_push.control, TR_CONTROL_BEGAN, 0u, max(now, 1u));
    first = tr_uniform(first);
    return first == 0u ? now : first;
}

// What forbids this slice to run at all.
uint tr_unfit() {
    if (gl_NumSubgroups != 1u || gl_SubgroupSize != gl_WorkGroupSize.x) return TR_EXIT_SHAPE;
    // The one before was cut: what it left has to be mended first.
    if (tr_look(tr_push.control, TR_CONTROL_ENDED) != tr_launch.previous) return TR_EXIT_CUT;
    return TR_EXIT_NONE;
}

uint tr_batches; // that this worker has worked on, in this slice

// What ends this slice, whatever there is to do.
uint tr_called_off(TrNews news, uint turn, uint now, uint began) {
    uint spent = turn + tr_launch.capped * (tr_batches / TR_BATCHES_A_TURN);
    if (spent >= tr_launch.turn_budget || tr_is_over(now, began, tr_launch.time_budget)) return TR_EXIT_BUDGET;
    if (news.stop != 0u && int(news.stop - tr_launch.slice) >= 0) return TR_EXIT_STOP;
    return TR_EXIT_NONE;
}

// Says why this worker leaves; the last one to leave writes the slice's exit record.
void tr_leave(uint reason, uint turns, int lasted) {
    tr_converge();
    if (!tr_first()) return;
    TrWords control = tr_push.control;
    if (reason == TR_EXIT_NONE || reason == TR_EXIT_CUT) tr_add(control, TR_CONTROL_CUT, 1u);
    tr_or(control, TR_CONTROL_REASONS, reason);
    tr_add(control, TR_CONTROL_TURNS, turns);
    tr_release(); // pairs with the tr_acquire of the last worker
    if (tr_add(control, TR_CONTROL_ARRIVED, 1u) + 1u != tr_launch.workers) return;
    tr_acquire(); // pairs with the tr_release of every other worker

    // No loops from here on: the driver may have ended them for good.
    uint tick = tr_load(control, TR_CONTROL_TICK);
    uint reasons = tr_load(control, TR_CONTROL_REASONS);
    SliceExit record;
    record.slice = 0u;
    record.reasons = reasons;
    record.cut_workers = tr_load(control, TR_CONTROL_CUT);
    record.admitted = tr_load(control, TR_CONTROL_ADMITTED);
    record.completed = tr_load(control, TR_CONTROL_COMPLETED);
    record.ready = tr_load(control, TR_CONTROL_PUSHED) - tick;
    record.pauses = tr_load(control, TR_CONTROL_PAUSES);
    record.resumes = tr_load(control, TR_CONTROL_RESUMES);
    record.waiting = record.pauses - record.resumes;
    record.turns = tr_load(control, TR_CONTROL_TURNS);
    record.tick = tick;
    record.traced = tr_load(control, TR_CONTROL_TRACED);
    record.subgroup_size = gl_SubgroupSize;
    record.doorbell = tr_load(tr_push.bell, TR_BELL_TAIL);
    record.heard = tr_heard;
    record.dirty = tr_load(control, TR_CONTROL_DIRTY);
    record.elapsed = uint(max(lasted, 0));
    record.reserved0 = 0u;
    record.reserved1 = 0u;
    record.reserved2 = 0u;
    tr_push.exit_record.record = record;
    // For the next slice, which the submission orders after this one.
    tr_store(control, TR_CONTROL_ARRIVED, 0u);
    tr_store(control, TR_CONTROL_REASONS, 0u);
    tr_store(control, TR_CONTROL_CUT, 0u);
    tr_store(control, TR_CONTROL_TURNS, 0u);
    tr_store(control, TR_CONTROL_TRACED, 0u);
    tr_store(control, TR_CONTROL_BEGAN, 0u);
    tr_store(control, TR_CONTROL_IDLED, reasons == TR_EXIT_IDLE ? 1u : 0u);
    if (record.cut_workers == 0u) tr_store(control, TR_CONTROL_ENDED, tr_launch.slice);
    tr_release(); // pairs with the host's wait for the submission
    tr_publish_exit(tr_launch.slice);
}
