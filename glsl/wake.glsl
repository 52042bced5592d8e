// Whose epoch has come.

uint tr_heard;          // how often an epoch had changed when this worker last saw every timeline's waiters woken
uint tr_heard_recorded; // likewise, of the epochs that command buffers write
uint tr_heard_cancels;  // how often tasks had been cancelled when this worker last saw the wheel looked through for them

// Waiters that this worker has taken out of the wheel, a list for each lane.
uint tr_taken;           // the first of this lane's list
bool tr_has_taken;       // uniform: of any lane's
bool tr_has_handed_over; // uniform: others went to the rings in this turn

// Those that were taken go into a ring, each list by its first task, for whoever claims it to go on.
void tr_hand_over() {
    if (!tr_has_taken) return;
    tr_has_taken = false;
    tr_has_handed_over = true;
    tr_put(tr_taken != TR_NIL, tr_taken, TASK_PRIORITY_CRITICAL, false);
}

// Takes all waiters out of so many buckets of the wheel, from this one on. Uniform control flow, after a tr_converge_and_pass_on, which pairs with tr_acquire in
// tr_park: who sets a list's bit behind us sees the epoch that any lane of ours saw.
void tr_empty(uint bucket, uint buckets) {
    uint words = tr_launch.lists / 32u;
    uint first = (bucket & (TR_WHEEL_BUCKETS - 1u)) * words;
    bool passed_on = false;
    for (uint base = 0u; base < buckets * words; base += TR_WAKE_WORDS * gl_SubgroupSize) {
        uint bits[TR_WAKE_WORDS];
        uint groups = 0u;
        [[unroll]] for (uint k = 0u; k < TR_WAKE_WORDS; ++k) {
            uint i = base + k * gl_SubgroupSize + gl_SubgroupInvocationID;
            bits[k] = 0u;
            // Words of the wheel follow one another, and the first the last.
            uint word = TR_WHEEL_BUCKETS * tr_launch.lists + (first + i) % (TR_WHEEL_BUCKETS * words);
            if (i < buckets * words) bits[k] = ~tr_exchange(tr_push.wheel, word, ~0u);
        }
        [[unroll]] for (uint k = 0u; k < TR_WAKE_WORDS; ++k) groups |= tr_any(bits[k] != 0u) ? 1u << k : 0u;
        if (groups != 0u) tr_acquire(); // pairs with the tr_release before the bit was set
        for (; groups != 0u; groups &= groups - 1u) {
            // Selected, not indexed: an array that is indexed lies in memory.
            uint k = uint(findLSB(groups));
            uint own = 0u;
            [[unroll]] for (uint i = 0u; i < TR_WAKE_WORDS; ++i) own = i == k ? bits[i] : own;
            tr_lanes_told[gl_SubgroupInvocationID] = own;
            uvec4 lanes = subgroupBallot(own != 0u);
            tr_meet();
            // All lanes go through each word: a list for each of them.
            for (; lanes != uvec4(0u); lanes = subgroupBallot(own != 0u)) {
                uint lane = subgroupBallotFindLSB(lanes);
                if (gl_SubgroupInvocationID == lane) own = 0u;
                uint its = tr_lanes_told[lane];
                uint list = (first + base + k * gl_SubgroupSize + lane) % (TR_WHEEL_BUCKETS * words) * 32u;
                for (uint bit = gl_SubgroupInvocationID; bit - gl_SubgroupInvocationID < 32u; bit += gl_SubgroupSize) {
                    bool hangs = bit < 32u && (its >> bit & 1u) != 0u;
                    if (!tr_any(hangs)) continue;
                    tr_hand_over();
                    tr_taken = TR_NIL;
                    if (hangs) tr_taken = tr_exchange(tr_push.wheel, list + bit, TR_NIL);
                    uvec4 taken = subgroupBallot(tr_taken != TR_NIL);
                    tr_has_taken = taken != uvec4(0u);
                    tr_count_lists(taken, uvec4(0u));
                    // Pairs with tr_release in tr_hang; and what was done here, with the tr_acquire of the next worker that finds `turn` even.
                    tr_pass_on();
                    passed_on = true;
                }
            }
            tr_meet();
        }
    }
    if (!passed_on) tr_pass_on(); // as above
}

// Whether a timeline's epoch is another than that up to which its waiters were woken. `certain` is false if one of them was just being written.
bool tr_behind(uint timeline, out uvec2 woken, out uvec2 epoch, out bool certain) {
    uint wake = tr_wake_word(timeline);
    uint word = TR_BELL_WORDS + timeline * 4u;
    uint carried_word = TR_BELL_CARRIED + timeline * 4u;
    woken = uvec2(tr_load(tr_push.control, wake), tr_load(tr_push.control, wake + 1u));
    bool whole = tr_load(tr_push.control, wake + 3u) == tr_woken_check(woken);
    epoch = uvec2(tr_load(tr_push.bell, word), tr_load(tr_push.bell, word + 1u));
    uvec2 carried = uvec2(tr_load(tr_push.bell, carried_word), tr_load(tr_push.bell, carried_word + 1u));
    bool agree = tr_load(tr_push.bell, word + 2u) == epoch.y && tr_load(tr_push.bell, carried_word + 2u) == carried.y;
    if (tr_reached(carried, epoch)) epoch = carried;
    // These loads are not fenced from one another, so the halves may be of different epochs. With the high half of `woken`, which this worker has acquired,
    // the low half is of that epoch or a later one, and together they are no more than what the timeline has reached. Else it is read with fences.
    certain = agree && epoch.y == woken.y && epoch.x >= woken.x;
    if (!certain) certain = tr_epoch(timeline, epoch);
    certain = certain && whole;
    return !certain || epoch != woken;
}

// Has the wait lists looked through if tasks were cancelled since that was last done: who hangs where, nobody knows. True if this worker is to do it.
bool tr_take_cancels(uint cancels) {
    bool won = false;
    uint seen = tr_load(tr_push.control, TR_CONTROL_CANCELS);
    if (tr_first() && int(cancels - seen) > 0) {
        won = tr_compare_exchange(tr_push.control, TR_CONTROL_CANCELS, seen, cancels) == seen;
    }
    tr_heard_cancels = cancels;
    return tr_uniform(won);
}

// Runs the waiters that this worker keeps and that are due, if they are plain and nothing else is to be done. If they are not, tr_woken is to look at them.
TrBatch tr_run_due(TrNews news) {
    TrBatch batch = tr_no_batch(news.tick);
    // Pairs with the host's store fence before the words of an epoch, and with the barrier before a fill of them.
    tr_catch_up();
    batch.mine = news.due;
    batch.slot = tr_held;
    if (batch.mine) {
        batch.meta = SlotMeta(tr_push.metas.meta[tr_held].ticket, news.tick, TR_NIL, 0u);
        batch.item = tr_resumed(tr_push.slots.slot[tr_held]);
    }
    uvec4 mask = subgroupBallot(batch.mine);
    batch.count = subgroupBallotBitCount(mask);
    if (!tr_all_plain(batch.mine, batch.item) || !tr_nothing_waits(news) || batch.count > tr_most) {
        tr_watched = news.signals - 1u;
        return tr_no_batch(news.tick);
    }
    batch.found = true;
    batch.loaded = true;
    batch.runs = true;
    tr_quick(batch);
    tr_count(TR_CONTROL_RESUMES, mask);
    if (batch.mine) tr_hold_nothing();
    tr_holds = tr_any(tr_held != TR_NIL);
    return batch;
}

// What was taken, as a batch, if it is not more than a list for each lane; of the waiters that this worker keeps (`watched`) those that need wait no longer. If
// nothing else is to be done anywhere, and all of it is due and may run side by side, then it runs at once: nobody is overtaken, and a way through the
// rings is saved.
TrBatch tr_woken(TrNews news, bool watched) {
    TrBatch batch = tr_no_batch(news.tick);
    batch.found = !watched;
    if (watched) {
        tr_taken = tr_held;
        tr_has_taken = true;
        tr_has_handed_over = false;
    }
    if (tr_has_handed_over) tr_hand_over(); // behind the others
    if (!tr_has_taken) return batch;
    bool mine = tr_taken != TR_NIL;
    bool cancelled = false;
    if (mine) {
        batch.meta = tr_push.metas.meta[tr_taken];
        batch.item = tr_push.slots.slot[tr_taken];
        cancelled = tr_cancelled(tr_taken, batch.meta.ticket);
    }
    // Loaded beside the task: it should be that timeline's.
    uint status;
    if (watched) status = tr_watch(news.signals, news.recorded);
    else status = tr_status(tr_known_timeline & (TR_TIMELINES - 1u));
    bool waits = false;
    if (mine) {
        bool due = tr_timeline(batch.item) == tr_known_timeline &&
                   tr_reached(tr_known_epoch, uvec2(batch.item.resume_epoch, batch.meta.target_hi));
        bool faulty = tr_wait_fault(batch.item, status, cancelled) != 0u;
        waits = batch.meta.next != TR_NIL || !due || faulty || tr_op_width(batch.item.op_handle) != TR_WIDTH_LANE;
        if (watched) mine = due || faulty;
    }
    uvec4 mask = subgroupBallot(mine);
    if (watched) {
        if (mine) tr_hold_nothing();
        tr_holds = tr_any(tr_held != TR_NIL);
        batch.found = mask != uvec4(0u);
        if (!batch.found) return batch;
    }
    batch.count = subgroupBallotBitCount(mask);
    batch.loaded = true;
    batch.mine = mine;
    batch.slot = tr_taken;
    batch.runs = tr_nothing_waits(news) && batch.count <= tr_most && !tr_any(mine && waits);
    // Who is to be placed counts as the first of a list (tr_work); those that were taken out of lists do already.
    if (watched && !batch.runs) tr_count_lists(mask, uvec4(0u));
    if (!watched && batch.runs) tr_count_lists(uvec4(0u), mask);
    if (batch.runs) {
        tr_count(TR_CONTROL_RESUMES, mask);
        batch.item = tr_resumed(batch.item);
        batch.meta = SlotMeta(batch.meta.ticket, news.tick, TR_NIL, 0u);
    }
    return batch;
}

// Takes the waiters of every timeline whose epoch has advanced. Whether there were any to look for.
bool tr_wake(TrNews news) {
    tr_has_taken = false;
    tr_has_handed_over = false;
    tr_known_timeline = TR_NIL;
    bool looks = news.signals != tr_heard || news.recorded != tr_heard_recorded;
    if (!looks && news.dirty == 0u) return false;
    // Pairs with the host's store fence between the epochs, or the words of cancelled tasks, and the number of signals; with the barrier between the fills of
    // both; and with the tr_pass_on of whoever made `turn` even.
    tr_catch_up();
    bool found = false;
    bool all = true;
    bool whole = news.dirty != 0u && tr_take_dirty();
    if (news.cancels != tr_heard_cancels) whole = tr_take_cancels(news.cancels) || whole;
    uint turn = news.turn;
    // The lanes look at all that they could, beside the word that says how many there are.
    uint timelines = tr_load(tr_push.bell, TR_BELL_TIMELINES);
    for (uint base = 0u; base == 0u || base < tr_timelines; base += gl_SubgroupSize) {
        uint own = min(base + gl_SubgroupInvocationID, TR_TIMELINES - 1u);
        uint wake = tr_wake_word(own);
        if (base > 0u) {
            turn = tr_load(tr_push.control, wake + 2u);
            tr_acquire(); // pairs as above
        }
        uvec2 woken;
        uvec2 epoch;
        bool certain;
        bool behind = tr_behind(own, woken, epoch, certain);
        tr_timelines = tr_uniform(timelines);
        behind = behind && base + gl_SubgroupInvocationID < tr_timelines;
        bool last = base + gl_SubgroupSize >= tr_timelines;
        if (!tr_any(behind) && !(whole && last)) continue;
        found = true;
        // One worker wakes a timeline, others pass by.
        bool won = behind && certain && (turn & 1u) == 0u;
        if (won) won = tr_compare_exchange(tr_push.control, wake + 2u, turn, turn + 1u) == turn;
        all = all && !tr_any(behind && !won);
        uint distance = epoch.x - woken.x;
        bool lapped = won && (epoch.y - woken.y > (epoch.x < woken.x ? 1u : 0u) || distance > TR_WHEEL_BUCKETS);
        if (won) {
            tr_store(tr_push.control, wake, epoch.x);
            tr_store(tr_push.control, wake + 1u, epoch.y);
            tr_store(tr_push.control, wake + 3u, tr_woken_check(epoch));
        }
        whole = whole || tr_any(lapped);
        uvec4 left = subgroupBallot(won);
        if (whole) left = uvec4(0u);
        while (whole || left != uvec4(0u)) {
            uint lane = subgroupBallotFindLSB(left);
            bool it = !whole && gl_SubgroupInvocationID == lane;
            left = subgroupBallot(subgroupInverseBallot(left) && !it);
            ++tr_tellings;
            if (it) tr_told[tr_tellings & 1u] = uvec4(woken.x, distance, epoch);
            tr_converge_and_pass_on();
            uvec4 its = tr_told[tr_tellings & 1u];
            tr_known_timeline = whole ? TR_NIL : base + lane;
            tr_known_epoch = its.zw;
            uint bucket = whole ? 0u : tr_bucket(base + lane, its.x + 1u);
            tr_empty(bucket, whole ? TR_WHEEL_BUCKETS : its.y);
            whole = false;
        }
        if (won) tr_store(tr_push.control, wake + 2u, turn + 2u); // after the tr_pass_on in tr_empty
    }
    if (all && looks) {
        tr_heard = news.signals;
        tr_heard_recorded = news.recorded;
    }
    return found;
}
