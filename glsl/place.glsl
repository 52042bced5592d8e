// Where a task goes when nobody runs it.

const uint TR_TARGET_OPEN = 0u;  // from `resume_epoch`, by the timeline's epoch as it is now
const uint TR_TARGET_GIVEN = 1u; // from `meta`, where the host's line had it: the task begins to wait
const uint TR_TARGET_KEPT = 2u;  // from `meta`: the task has been waiting

// The counts of a task that has ended, before its record. False if there is nothing to say.
bool tr_store_counts(uint slot, TaskWorkItem item) {
    if (tr_launch.counts == 0u || (item.age_ticks | item.requeue_count | item.yield_count) == 0u) return false;
    tr_push.completions.record[tr_capacity_mask() + 1u + slot] = uvec4(item.age_ticks, item.requeue_count, item.yield_count, 0u);
    return true;
}

// The record of a task that has ended, after a tr_release.
void tr_complete(bool mine, uint record, uint ticket, TaskWorkItem item, bool counted) {
    uint bits = (item.state == TASK_STATE_FAULTED ? TR_RECORD_FAULTED : 0u) | (counted ? TR_RECORD_COUNTED : 0u);
    uint lap = (record >> tr_push.capacity_log2) + 1u; // no lap is 0
    if (mine) tr_publish_completion(record & tr_capacity_mask(), lap << TR_RECORD_LAP_SHIFT | bits, ticket, item.continuation_data);
}

// Records tasks that have ended and whose slots say so. Uniform control flow.
void tr_end(bool mine, uint slot, uint ticket, TaskWorkItem item) {
    uvec4 ending = subgroupBallot(mine);
    uint asked = tr_ask(TR_CONTROL_COMPLETED, ending);
    bool counted = mine && tr_store_counts(slot, item);
    tr_release(); // pairs with the host's acquire of a record that is whole
    tr_complete(mine, tr_reserved(asked, ending), ticket, item, counted);
}

// The shortest way there is, for plain tasks that end in this turn: a task comes back sooner for each instruction that it does not pass. Short ops
// without loops are in the kernel once more for it; nothing here turns a loop, so a driver that ends loops cuts nothing. Whoever took the batch calls
// it at once, while its tasks are in the registers that they came in. If that was all, no task of the batch is left; else it goes the other way, from
// where it is.
void tr_quick(inout TrBatch batch) {
    bool mine = batch.mine;
    batch.ran = true;
    bool ended = true;
    if (mine) {
        batch.item.state = TASK_STATE_RUNNING;
        // What a recovery must know: without a record this turn was cut. With one, nobody asks the slot, which is not written again. That of a waiter has the rest.
        if (batch.lined) {
            tr_push.slots.slot[batch.slot] = batch.item;
            tr_push.metas.meta[batch.slot] = batch.meta; // after its task, as in tr_dispose
        } else {
            tr_push.slots.slot[batch.slot].flags = batch.item.flags;
            tr_push.slots.slot[batch.slot].state = batch.item.state;
        }
        Turn turn = tr_run_quick(batch.item);
        ended = turn.action == TASK_TURN_COMPLETE && tr_fault == 0u;
        if (ended) batch.item.state = TASK_STATE_DONE;
        else batch.item = tr_after_turn(batch.item, turn, tr_fault);
    }
    if (tr_any(!ended)) return;
    tr_end(mine, batch.slot, batch.meta.ticket, batch.item);
    batch.count = 0u;
}

// What tr_dispose does, where all have run and have ended: their slots have all other words already. Uniform control flow.
void tr_finish(bool mine, uint slot, uint ticket, TaskWorkItem item) {
    if (mine) {
        // What a recovery asks an ended task's slot for; the state last, by which it knows that it has ended.
        tr_push.slots.slot[slot].age_ticks = item.age_ticks;
        tr_push.slots.slot[slot].continuation_data = item.continuation_data;
        tr_push.slots.slot[slot].state = item.state;
    }
    tr_end(mine, slot, ticket, item);
}

// Puts each lane's task where its state says: into a ring, a wait list, or the completion ring. The task and its meta are in registers, and its
// slot belongs to this lane. `target_from` says where the 64-bit epoch of a paused task comes from. True for lanes whose task could not be put anywhere, and has
// to go round its ring (tr_put). `rest` is what is left of the list that it was the first of. Uniform control flow.
bool tr_dispose(bool mine, uint slot, SlotMeta meta, TaskWorkItem item, uint target_from, inout uint rest) {
    bool paused = mine && item.state == TASK_STATE_PAUSED;
    bool undecided = false; // the host was just writing the epoch that the target is counted from: the task goes round its ring
    uint timeline = tr_timeline(item);
    uvec2 target = uvec2(0u);
    if (paused) {
        target = uvec2(item.resume_epoch, meta.target_hi);
        uvec2 epoch = tr_known_epoch;
        bool whole = true;
        if (target_from == TR_TARGET_OPEN || timeline != tr_known_timeline || !tr_reached(epoch, target)) {
            whole = tr_epoch(timeline, epoch);
            tr_known_timeline = whole ? timeline : TR_NIL;
            tr_known_epoch = epoch;
        }
        uint fault = tr_wait_fault(item, tr_status(timeline), tr_cancelled(slot, meta.ticket));
        undecided = fault == 0u && target_from == TR_TARGET_OPEN && !whole;
        if (target_from == TR_TARGET_OPEN) target = tr_target(epoch, item.resume_epoch);
        if (fault != 0u) item = tr_faulted(item, fault);
        else if (whole && tr_reached(epoch, target)) item = tr_resumed(item);
    }
    bool parks = mine && item.state == TASK_STATE_PAUSED && !undecided;
    bool ends = mine && (item.state == TASK_STATE_DONE || item.state == TASK_STATE_FAULTED);
    bool queues = mine && item.state != TASK_STATE_PAUSED && !ends;
    bool stays = mine && !ends;
    bool wide = tr_op_width(item.op_handle) == TR_WIDTH_SUBGROUP;
    uint tick = 0u;
    uint position = 0u;
    uint asked = 0u;
    // All may have ended, and often do: then there is one word to wait for, and not three.
    if (tr_any(stays || paused)) {
        tr_count(TR_CONTROL_PAUSES, subgroupBallot(paused && target_from != TR_TARGET_KEPT && !undecided));
        tr_count(TR_CONTROL_RESUMES, subgroupBallot(paused && item.state != TASK_STATE_PAUSED));
        position = tr_reserve_entries(queues, item.priority);
        tick = tr_tick(); // behind it: whoever looks at a later tick knows of a Critical task
    }
    uvec4 ending = subgroupBallot(ends);
    bool any_ends = subgroupBallotBitCount(ending) > 0u;
    if (any_ends) asked = tr_ask(TR_CONTROL_COMPLETED, ending);

    if (mine) {
        // In this order: a recovery must not take the slot's former task for the one with this ticket.
        tr_push.slots.slot[slot] = item;
        tr_push.metas.meta[slot] = SlotMeta(meta.ticket, tick, undecided ? TR_UNDECIDED : TR_NIL, target.y);
    }
    if (queues) tr_stamp(item.priority, position, tick);
    bool counted = ends && tr_store_counts(slot, item);
    tr_release(); // pairs with the tr_acquire of whoever claims or wakes the task, and with the host's acquire of a record that is whole
    if (queues) tr_enqueue(item.priority, position, slot, wide);
    if (any_ends) tr_complete(ends, tr_reserved(asked, ending), meta.ticket, item, counted);

    if (!tr_any(parks || undecided)) return false;
    bool holds = parks && tr_idles && tr_held == TR_NIL && target_from != TR_TARGET_KEPT && !wide;
    if (holds) tr_hold(slot, timeline, target, tr_is_quick(item.op_handle));
    tr_holds = tr_any(tr_held != TR_NIL);
    bool homeless = undecided;
    if (parks && !holds) homeless = !tr_park(slot, meta.ticket, item, target, rest);
    // The rest of its list stays behind it, if it was the first of one.
    if (homeless) tr_push.metas.meta[slot].next = undecided ? TR_UNDECIDED : target_from == TR_TARGET_KEPT ? meta.next : TR_NIL;
    return homeless;
}
