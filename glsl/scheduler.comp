// The resident kernel. A workgroup is one subgroup is one worker; it takes turns until its slice ends. No workgroup waits for another:
// every step that another worker won is tried again next turn.

// Puts each lane's task where its state says: into a ring, a wait list, or the completion ring. The task is in registers and its
// slot belongs to this lane. `fresh`: the 64-bit epoch that a paused task waits for is still to be fixed. Uniform control flow.
void tr_dispose(bool mine, uint slot, TaskWorkItem item, bool fresh) {
    bool paused = mine && item.state == TASK_STATE_PAUSED;
    bool undecided = false; // the host was just writing the epoch that the target is counted from: the task goes round its ring
    uint timeline = tr_timeline(item);
    uvec2 target = uvec2(0u);
    if (paused) {
        uvec2 epoch;
        bool whole = tr_epoch(timeline, epoch);
        undecided = fresh && !whole;
        target = fresh ? tr_target(epoch, item.resume_epoch) : uvec2(item.resume_epoch, tr_push.metas.meta[slot].target_hi);
        if (whole && tr_reached(epoch, target)) item = tr_resumed(item);
    }
    bool parks = mine && item.state == TASK_STATE_PAUSED && !undecided;
    bool ends = mine && (item.state == TASK_STATE_DONE || item.state == TASK_STATE_FAULTED);
    bool queues = mine && item.state != TASK_STATE_PAUSED && !ends;
    tr_count(TR_CONTROL_PAUSES, subgroupBallot(paused && fresh && !undecided));
    tr_count(TR_CONTROL_RESUMES, subgroupBallot(paused && queues));

    uint tick = tr_tick();
    bool wide = tr_op_width(item.op_handle) == TR_WIDTH_SUBGROUP;
    uint position = tr_reserve_entries(queues, item.priority);
    uvec4 ending = subgroupBallot(ends);
    uint record = 0u;
    if (subgroupBallotBitCount(ending) > 0u) record = tr_reserve(TR_CONTROL_COMPLETED, ending);

    if (mine) {
        tr_push.slots.slot[slot] = item;
        tr_push.metas.meta[slot].enqueue_tick = tick;
        tr_push.metas.meta[slot].target_hi = target.y;
        if (undecided) tr_push.metas.meta[slot].next = TR_UNDECIDED;
    }
    if (queues) tr_stamp(item.priority, position, tick);
    if (ends) {
        uint at = record & tr_capacity_mask();
        tr_push.completions.record[at].ticket = tr_push.metas.meta[slot].ticket;
        tr_push.completions.record[at].state = item.state;
        tr_push.completions.record[at].continuation_data = item.continuation_data;
        tr_push.completions.record[at].task_id = item.task_id;
        tr_push.completions.record[at].age_ticks = item.age_ticks;
        tr_push.completions.record[at].requeue_count = item.requeue_count;
        tr_push.completions.record[at].yield_count = item.yield_count;
    }
    tr_release(); // pairs with the tr_acquire of whoever claims or wakes the task, and with the host's acquire of the record's lap
    if (queues) tr_enqueue(item.priority, position, slot, wide);
    if (ends) tr_publish_completion(record & tr_capacity_mask(), (record >> tr_push.capacity_log2) + 1u);

    bool homeless = undecided;
    if (parks) homeless = !tr_park(slot, timeline, target);
    position = tr_reserve_entries(homeless, item.priority);
    if (homeless) {
        tr_stamp(item.priority, position, tick);
        tr_release(); // pairs with tr_acquire in tr_claim
        tr_enqueue(item.priority, position, slot, wide);
    }
}

// Takes a batch of published lines into slots. True if there was one to take.
bool tr_admit() {
    uint head = subgroupBroadcastFirst(tr_load(tr_push.control, TR_CONTROL_ADMITTED));
    uint count = min(tr_launch.published - head, min(tr_launch.batch, gl_SubgroupSize));
    if (count == 0u) return false;
    bool won = false;
    if (subgroupElect()) won = tr_compare_exchange(tr_push.control, TR_CONTROL_ADMITTED, head, head + count) == head;
    if (!subgroupBroadcastFirst(won)) return true;
    tr_acquire(); // pairs with the host's publication of the lines

    bool mine = gl_SubgroupInvocationID < count;
    TaskWorkItem item;
    uint slot = 0u;
    if (mine) {
        uint line = (head + gl_SubgroupInvocationID) & tr_capacity_mask();
        uint ticket = tr_push.tickets.word[line];
        slot = ticket & tr_capacity_mask();
        item = tr_push.lines.slot[line];
        // A recovery must not take the slot's former task for this one.
        tr_push.slots.slot[slot].state = TASK_STATE_EMPTY;
        tr_push.metas.meta[slot].ticket = ticket;
        uint fault = tr_placement_fault(item);
        if (fault != 0u) item = tr_faulted(item, fault);
    }
    tr_dispose(mine, slot, item, true);
    return true;
}

// Resumes the waiters of one timeline up to its epoch. False if another worker is at it.
bool tr_wake_timeline(uint timeline) {
    uint word = timeline * 4u;
    bool won = false;
    bool dirty = false;
    uvec2 woken = uvec2(0u);
    uvec2 epoch = uvec2(0u);
    if (subgroupElect()) {
        won = tr_compare_exchange(tr_push.wakes, word + 2u, 0u, 1u) == 0u;
        if (won) {
            tr_acquire(); // pairs with the tr_release before `busy` is cleared below
            woken = uvec2(tr_load(tr_push.wakes, word), tr_load(tr_push.wakes, word + 1u));
            dirty = tr_exchange(tr_push.wakes, word + 3u, 0u) != 0u;
            tr_acquire(); // pairs with the tr_release before `dirty` is set in tr_park
            if (!tr_epoch(timeline, epoch)) {
                epoch = woken;
                if (dirty) tr_exchange(tr_push.wakes, word + 3u, 1u);
                dirty = false;
            }
        }
    }
    if (!subgroupBroadcastFirst(won)) return false;
    woken = subgroupBroadcastFirst(woken);
    epoch = subgroupBroadcastFirst(epoch);
    tr_converge(); // what the elected lane saw, all lanes pass on below
    uint distance = epoch.x - woken.x;
    bool lapped = epoch.y - woken.y > (epoch.x < woken.x ? 1u : 0u) || distance > TR_WHEEL_BUCKETS;
    uint buckets = subgroupBroadcastFirst(dirty) || lapped ? TR_WHEEL_BUCKETS : distance;

    for (uint i = gl_SubgroupInvocationID; i - gl_SubgroupInvocationID < buckets * TR_WHEEL_LISTS; i += gl_SubgroupSize) {
        uint node = TR_NIL;
        if (i < buckets * TR_WHEEL_LISTS) {
            tr_release(); // pairs with tr_acquire in tr_park: who hangs a task behind us sees the epoch that we saw
            node = tr_exchange(tr_push.wheel, tr_list(timeline, woken.x + 1u + i / TR_WHEEL_LISTS, i), TR_NIL);
        }
        tr_acquire(); // pairs with tr_release in tr_hang
        while (subgroupBallotBitCount(subgroupBallot(node != TR_NIL)) > 0u) {
            bool mine = node != TR_NIL;
            TaskWorkItem item;
            uint slot = node;
            if (mine) {
                item = tr_push.slots.slot[slot];
                node = tr_push.metas.meta[slot].next;
            }
            tr_dispose(mine, slot, item, false);
        }
    }

    if (subgroupElect()) {
        tr_store(tr_push.wakes, word, epoch.x);
        tr_store(tr_push.wakes, word + 1u, epoch.y);
        tr_release(); // pairs with the tr_acquire of the next worker that finds `busy` at 0
        tr_store(tr_push.wakes, word + 2u, 0u);
    }
    return true;
}

// Resumes the waiters of every timeline whose epoch has advanced. True if there were any to look for.
bool tr_wake() {
    bool found = false;
    for (uint base = 0u; base < tr_launch.timelines; base += gl_SubgroupSize) {
        uint own = base + gl_SubgroupInvocationID;
        bool behind = false;
        if (own < tr_launch.timelines) {
            uvec2 epoch;
            uvec2 woken = uvec2(tr_load(tr_push.wakes, own * 4u), tr_load(tr_push.wakes, own * 4u + 1u));
            behind = tr_epoch(own, epoch) && (epoch != woken || tr_load(tr_push.wakes, own * 4u + 3u) != 0u);
        }
        for (;;) {
            uvec4 candidates = subgroupBallot(behind);
            if (subgroupBallotBitCount(candidates) == 0u) break;
            uint timeline = base + subgroupBallotFindLSB(candidates);
            found = tr_wake_timeline(timeline) || found;
            behind = behind && own != timeline;
        }
    }
    return found;
}

// Some drivers end every loop of an invocation after so many turns, and the program goes on as if nothing had happened. No compiler can
// know how often this loop turns.
bool tr_loops_turn() {
    uint bits = 0u;
    for (uint i = 0u; i < tr_launch.two; ++i) bits = bits << 1u | 1u;
    return subgroupBallotBitCount(subgroupBallot(bits != 3u)) == 0u;
}

// Runs a claimed batch for one turn. False if the driver cut it: then nothing is committed and the host recovers the tasks.
bool tr_run(TrClaim claim, bool cut) {
    bool mine = gl_SubgroupInvocationID < claim.count;
    uint slot = claim.wide ? subgroupBroadcastFirst(claim.slot) : claim.slot;
    bool works = mine || claim.wide;
    TaskWorkItem item;
    bool paused = false;
    bool fresh = true;
    bool runs = false;
    if (works) {
        item = tr_push.slots.slot[slot];
        paused = item.state == TASK_STATE_PAUSED; // went round the ring instead of waiting in a list
        if (paused) fresh = tr_push.metas.meta[slot].next == TR_UNDECIDED;
        if (!paused) {
            uint age = uint(max(int(claim.tick - tr_push.metas.meta[slot].enqueue_tick), 0));
            item.age_ticks = tr_saturating_add(item.age_ticks, age);
            uint fault = tr_run_fault(item);
            if (fault != 0u) item = tr_faulted(item, fault);
            else {
                runs = true;
                item.state = TASK_STATE_RUNNING;
            }
        }
    }
    uvec4 running = subgroupBallot(mine && runs);
    if (claim.wide) tr_converge(); // every lane has loaded the task
    // What a recovery must know.
    if (mine && runs) tr_push.slots.slot[slot].state = TASK_STATE_RUNNING;
    uint began = 0u;
    if (tr_launch.trace_capacity > 0u) began = tr_reserve(TR_CONTROL_CLOCK, running);
    uint pc = item.continuation_pc;

    if (claim.wide) {
        if (subgroupBroadcastFirst(runs)) { // lane 0's verdict is everybody's
            Turn turn = tr_run_wide(item);
            turn.action = subgroupBroadcastFirst(turn.action);
            turn.pc = subgroupBroadcastFirst(turn.pc);
            turn.data = subgroupBroadcastFirst(turn.data);
            turn.argument = subgroupBroadcastFirst(turn.argument);
            turn.timeline = subgroupBroadcastFirst(turn.timeline);
            // One lane's fault is the task's.
            bool bad_handle = subgroupBallotBitCount(subgroupBallot(tr_fault == TASK_FAULT_BAD_HANDLE)) > 0u;
            bool out_of_bounds = subgroupBallotBitCount(subgroupBallot(tr_fault == TASK_FAULT_OUT_OF_BOUNDS)) > 0u;
            item = tr_after_turn(item, turn, bad_handle ? TASK_FAULT_BAD_HANDLE : out_of_bounds ? TASK_FAULT_OUT_OF_BOUNDS : 0u);
        }
    } else if (runs) {
        Turn turn = tr_run_lane(item);
        item = tr_after_turn(item, turn, tr_fault);
    }
    if (!tr_loops_turn() || cut) return false;
    tr_converge(); // what each lane wrote, before lane 0 publishes the task

    if (tr_launch.trace_capacity > 0u) {
        uint ended = tr_reserve(TR_CONTROL_CLOCK, running);
        uint at = tr_reserve(TR_CONTROL_TRACED, running);
        if (mine && runs && at < tr_launch.trace_capacity) {
            tr_push.trace.record[at] = TraceRecord(began, ended, gl_WorkGroupID.x, item.task_id, item.op_handle, claim.priority,
                                                   item.state, pc);
        }
    }
    tr_dispose(mine, slot, item, fresh);
    return true;
}

// Says why this worker leaves; the last one to leave writes the slice's exit record.
void tr_leave(uint reason, uint turns) {
    tr_converge();
    if (!subgroupElect()) return;
    TrWords control = tr_push.control;
    if (reason == TR_EXIT_NONE || reason == TR_EXIT_CUT) tr_add(control, TR_CONTROL_CUT, 1u);
    tr_or(control, TR_CONTROL_REASONS, reason);
    tr_add(control, TR_CONTROL_TURNS, turns);
    tr_release(); // pairs with the tr_acquire of the last worker
    if (tr_add(control, TR_CONTROL_ARRIVED, 1u) + 1u != tr_launch.workers) return;
    tr_acquire(); // pairs with the tr_release of every other worker

    // No loops from here on: the driver may have ended them for good.
    uint tick = tr_load(control, TR_CONTROL_TICK);
    SliceExit record;
    record.slice = 0u;
    record.reasons = tr_load(control, TR_CONTROL_REASONS);
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
    tr_release(); // pairs with the host's wait for the submission
    tr_publish_exit(tr_launch.slice);
}

void main() {
    tr_launch = tr_push.launch.launch;
    uint reason = TR_EXIT_NONE;
    uint turns = 0u;
    uint idle = 0u;
    tr_home = gl_WorkGroupID.x & (tr_launch.shards - 1u);
    if (gl_NumSubgroups != 1u || gl_SubgroupSize != gl_WorkGroupSize.x) reason = TR_EXIT_SHAPE;
    for (uint turn = 0u; reason == TR_EXIT_NONE; ++turn) {
        if (turn >= tr_launch.turn_budget) {
            reason = TR_EXIT_BUDGET;
            break;
        }
        tr_away = (tr_home + turn) & (tr_launch.shards - 1u);
        bool found = tr_admit();
        found = tr_wake() || found;
        TrClaim claim = tr_claim();
        found = found || claim.contended;
        if (claim.count > 0u && !tr_run(claim, turn + 1u == tr_launch.cut_turn)) {
            reason = TR_EXIT_CUT;
            break;
        }
        turns += found ? 1u : 0u;
        idle = found ? 0u : idle + 1u;
        if (idle > tr_launch.linger_turns) {
            reason = TR_EXIT_IDLE;
            break;
        }
    }
    tr_leave(reason, turns);
}
