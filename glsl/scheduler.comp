// The resident kernel. A workgroup is one subgroup is one worker; it takes turns until its slice ends. No workgroup waits for another:
// every step that another worker won is tried again next turn.

// Some drivers end every loop of an invocation after so many turns, and the program goes on as if nothing had happened. No compiler can
// know how often this loop turns.
bool tr_loops_turn() {
    uint bits = 0u;
    for (uint i = 0u; i < tr_launch.two; ++i) bits = bits << 1u | 1u;
    return !tr_any(bits != 3u);
}

// Runs this worker's tasks for one turn. `item` is each lane's task, after it: Running before, and as its turn ended after.
void tr_run(TrBatch batch, bool runs, inout TaskWorkItem item) {
    if (batch.wide) {
        if (!tr_uniform(runs)) return; // lane 0's verdict is everybody's
        Turn turn = tr_run_wide(item);
        turn.action = tr_uniform(turn.action);
        turn.pc = tr_uniform(turn.pc);
        turn.data = tr_uniform(turn.data);
        turn.argument = tr_uniform(turn.argument);
        turn.timeline = tr_uniform(turn.timeline);
        // One lane's fault is the task's.
        bool bad_handle = tr_any(tr_fault == TASK_FAULT_BAD_HANDLE);
        bool out_of_bounds = tr_any(tr_fault == TASK_FAULT_OUT_OF_BOUNDS);
        item = tr_after_turn(item, turn, bad_handle ? TASK_FAULT_BAD_HANDLE : out_of_bounds ? TASK_FAULT_OUT_OF_BOUNDS : 0u);
    } else if (runs) {
        Turn turn = tr_run_lane(item);
        item = tr_after_turn(item, turn, tr_fault);
    }
}

// Works on a batch: those tasks that may run take a turn, and all are put where they belong then. There is one way through this for every task, wherever
// it comes from, since what is not in the instruction cache costs more than a branch. False if the driver cut it: then nothing is committed and the
// host recovers the tasks.
bool tr_work(TrBatch batch) {
    bool mine = batch.mine;
    uint slot = batch.wide ? tr_uniform(batch.slot) : batch.slot;
    uint position = batch.position;
    uint lines = batch.lines;
    TaskWorkItem item = batch.item;
    SlotMeta meta = batch.meta;
    bool loaded = batch.loaded;
    for (uint hop = 0u;; ++hop) {
        ++tr_batches;
        bool works = mine || batch.wide;
        if (works && !loaded) {
            item = tr_push.slots.slot[slot];
            meta = tr_push.metas.meta[slot];
        }
        uint target_from = batch.lined ? TR_TARGET_GIVEN : TR_TARGET_OPEN;
        uint rest = TR_NIL;
        bool paused = mine && !batch.lined && !batch.ran && item.state == TASK_STATE_PAUSED;
        // Went round its ring, or is the first of a list of waiters.
        if (paused && meta.next != TR_UNDECIDED) {
            target_from = TR_TARGET_KEPT;
            rest = meta.next;
        }
        if (batch.runs) {
            bool runs = false;
            uint fault = 0u;
            if (batch.ran) {
                runs = mine;
            } else if (works && item.state != TASK_STATE_PAUSED) {
                uint age = 0u;
                if (!batch.loaded) age = uint(max(int(batch.tick - meta.enqueue_tick), 0));
                item.age_ticks = tr_saturating_add(item.age_ticks, age);
                fault = tr_run_fault(item);
                if (tr_cancelling != 0u && tr_cancelled(slot, meta.ticket)) fault = TASK_FAULT_CANCELLED;
                runs = true;
            }
            // Each lane of a wide task has looked for itself, and the host may just have changed what it looked at.
            if (batch.wide) fault = tr_uniform(fault);
            if (fault != 0u) {
                item = tr_faulted(item, fault);
                runs = false;
            }
            if (runs && !batch.ran) item.state = TASK_STATE_RUNNING;
            uvec4 running = subgroupBallot(mine && runs);
            if (batch.wide) tr_converge(); // every lane has loaded the task
            // What a recovery must know.
            if (batch.ran) {
                // It knows.
            } else if (mine && runs && batch.loaded) {
                tr_push.slots.slot[slot] = item;
                tr_push.metas.meta[slot] = meta; // after its task, as in tr_dispose
            } else if (mine && runs) {
                tr_push.slots.slot[slot].state = TASK_STATE_RUNNING;
            }
            uint began = 0u;
            if (tr_launch.trace_capacity > 0u) began = tr_reserve(TR_CONTROL_CLOCK, running);
            uint pc = item.continuation_pc;
            if (!batch.ran) tr_run(batch, runs, item);
            if (!tr_loops_turn() || tr_cuts) return false;
            if (batch.wide) tr_converge(); // what each lane wrote, before lane 0 publishes the task
            if (tr_launch.trace_capacity > 0u) {
                uint ended = tr_reserve(TR_CONTROL_CLOCK, running);
                uint at = tr_reserve(TR_CONTROL_TRACED, running);
                if (mine && runs && at < tr_launch.trace_capacity) {
                    uint enqueued = batch.loaded ? batch.tick : meta.enqueue_tick;
                    tr_push.trace.record[at] = TraceRecord(began, ended, gl_WorkGroupID.x, item.task_id, item.op_handle, batch.priority,
                                                           item.state, pc, enqueued, batch.tick, 0u, 0u);
                }
            }
            // The shortest way out for what is done at once.
            bool ended = runs && (item.state == TASK_STATE_DONE || item.state == TASK_STATE_FAULTED);
            if (!tr_any(mine && !ended)) {
                tr_finish(mine, slot, meta.ticket, item);
                return true;
            }
            if (batch.lined && runs) target_from = TR_TARGET_OPEN;
        } else if (mine && batch.lined) {
            uint fault = tr_placement_fault(item);
            if (fault != 0u) item = tr_faulted(item, fault);
        }
        bool homeless = tr_dispose(mine, slot, meta, item, target_from, rest);
        // A line whose task has ended in its first turn needs no mark.
        bool ended = batch.runs && (item.state == TASK_STATE_DONE || item.state == TASK_STATE_FAULTED);
        if (batch.lined) tr_mark(mine && !ended, position);

        // More lines that were taken with these, or the next waiters of the lists. Of what is left after so many the first ones go into a ring, for whoever claims
        // them to go on: nobody is kept from other work by a long list.
        bool goes_on = rest != TR_NIL && !homeless;
        tr_count_lists(subgroupBallot(homeless || goes_on), subgroupBallot(paused));
        bool stops = batch.lined || hop >= TR_FOLLOW_HOPS;
        if (tr_any(homeless || (stops && goes_on))) {
            tr_put(homeless || (stops && goes_on), homeless ? slot : rest, homeless ? item.priority : TASK_PRIORITY_CRITICAL,
                   homeless && tr_op_width(item.op_handle) == TR_WIDTH_SUBGROUP);
        }
        if (batch.lined && lines > 0u) {
            position += tr_most;
            mine = gl_SubgroupInvocationID < min(lines, tr_most);
            lines -= min(lines, tr_most);
            if (mine) tr_read_line(position, item, meta);
            slot = meta.ticket & tr_capacity_mask();
            continue;
        }
        if (stops || !tr_any(goes_on)) return true;
        batch.runs = false;
        batch.wide = false;
        loaded = false;
        mine = goes_on;
        slot = rest;
    }
    return true; // where a driver ended the loop
}

void main() {
    tr_read_launch();
    tr_home = gl_WorkGroupID.x & (tr_launch.shards - 1u);
    tr_heard = tr_look(tr_push.bell, TR_BELL_SIGNALS) - 1u; // every slice looks at every timeline
    tr_heard_recorded = tr_look(tr_push.bell, TR_BELL_RECORDED) - 1u;
    tr_heard_cancels = tr_look(tr_push.control, TR_CONTROL_CANCELS);
    tr_hold_nothing();
    tr_held_timeline = 0u;
    tr_holds = false;
    tr_watched = tr_heard;
    tr_watched_recorded = tr_heard_recorded;
    tr_timelines = tr_look(tr_push.bell, TR_BELL_TIMELINES);
    uint reason = tr_unfit();
    uint turns = 0u;
    uint now = tr_now(0u);
    uint began = tr_began(now);
    // When there was last anything to do. A slice that was queued behind one which found nothing does not linger anew.
    bool lingered = tr_launch.follows != 0u && tr_look(tr_push.control, TR_CONTROL_IDLED) != 0u;
    uint busy = lingered ? now - 1u - tr_launch.linger : now - 1u;
    TrNews news;
    bool dozes = false;
    bool late = false; // for a few lines, which another worker had
    uint turn = 0u;
    uint batches = 0u; // run in the turn before
    uint worked = now; // when it began with them
    uint naps = 0u;    // in a row
    tr_quick_batches = false;
    tr_batches = 0u;
    tr_passes = 0u;
    tr_tellings = 0u;
    tr_sharers = uint(findMSB(max(tr_launch.workers / tr_launch.shards, 1u)));
    for (; reason == TR_EXIT_NONE; ++turn) {
        now = tr_now(turn);
        if (batches > 0u) {
            tr_quick_batches = now - worked <= TR_CLAIM_QUICK * batches && tr_launch.timed != 0u && tr_launch.workers > tr_launch.shards;
        }
        batches = 0u;
        tr_cuts = tr_launch.cut_turn != 0u && turn + 1u >= tr_launch.cut_turn;
        bool looks_anew = turn % TR_LOOK_TURNS == TR_LOOK_TURNS - 1u;
        bool held = tr_holds;
        bool was_late = late;
        late = false;
        bool found = false;
        bool ran = false;
        bool claims = false;
        uint heard = TR_HEARD_NEWS;
        if (dozes) heard = tr_doze(news);
        else news = tr_listen();
        bool rung = heard == TR_HEARD_LINES;
        // If it is in a hurry, a turn before was not called off, and one of the next will be.
        if (!rung && heard != TR_HEARD_DUE) reason = tr_called_off(news, turn, now, began);
        bool leaves = reason != TR_EXIT_NONE;
        if (looks_anew && !leaves) {
            tr_heard = news.signals - 1u;
            tr_watched = tr_heard;
        }
        bool naps_on = heard == TR_HEARD_NOTHING && tr_holds && !was_late && !looks_anew;
        // Until something runs: waiters that it keeps, those that are due first; other waiters, lines, rings. If that was nothing for long enough, it leaves.
        for (uint source = leaves ? 5u : rung ? 3u : naps_on ? 6u : 0u; source < 6u && !ran && !late; ++source) {
            TrBatch batch = tr_no_batch(news.tick);
            if (source == 0u) {
                if (!tr_any(news.due)) continue;
                batch = tr_run_due(news);
            } else if (source < 3u) {
                bool watched = source == 1u;
                bool woke = watched ? tr_hears(news.signals, news.recorded) : tr_wake(news);
                if (!woke) continue;
                batch = tr_woken(news, watched);
            } else if (source == 3u) {
                batch = tr_admit(news);
                // A few lines, and another worker has them: nothing else has come.
                late = rung && !batch.lined && int(news.tail - news.admitted) <= 0;
            } else if (source == 4u) {
                // Slices begin with another one each, since some have fewer turns than there are shards.
                tr_away = (tr_home + tr_launch.slice + turn) & (tr_launch.shards - 1u);
                batch = tr_claim();
                claims = batch.claimed > 0u;
            } else if (!found && !news.busy && tr_is_over(now, busy, tr_launch.linger)) {
                leaves = true;
            }
            found = found || (batch.found && !late);
            ran = batch.runs;
            if (tr_holds && (batch.count > 0u || leaves)) tr_let_go();
            uint ready = news.pushed - news.tick + (news.tail - news.admitted) + batch.lines;
            tr_idles = tr_launch.linger > 0u && ready <= batch.claimed && batch.claimed <= batch.count;
            if (batch.count > 0u) worked = tr_now(turn);
            for (uint done = 0u; batch.count > 0u && reason == TR_EXIT_NONE; ++batches) {
                if (!tr_work(batch)) reason = TR_EXIT_CUT;
                tr_next_claimed(batch, ++done);
            }
            // All that there was it keeps.
            ran = ran || (tr_holds && !held && tr_idles);
        }
        if (leaves && !tr_loops_turn()) reason = TR_EXIT_CUT;
        if (leaves && reason == TR_EXIT_NONE) reason = TR_EXIT_IDLE;
        if (reason != TR_EXIT_NONE) break;
        turns += found ? 1u : 0u;
        if (found || late || news.busy) busy = now;
        // Once the rings were looked at with nothing on its way, only the host can bring something, and the doorbell tells. Who came too late for it goes on
        // dozing, so that it hears the next lines soon, but looks at the rings now and then.
        if (tr_holds && !held) naps = 0u;
        // It has seen all timelines that there was news of, and the rings are as it knows.
        bool knows = tr_idles && !claims && news.signals == tr_heard && news.recorded == tr_heard_recorded;
        bool quiet = tr_holds ? knows : !found && !news.busy;
        dozes = quiet && (!dozes || ((late || tr_holds) && naps < TR_DOZE_NAPS));
        naps = dozes ? naps + 1u : 0u;
    }
    tr_leave(reason, turns, tr_since(tr_now(turn), began));
}
