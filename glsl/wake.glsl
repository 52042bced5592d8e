// Whose epoch has come.

// Resumes the waiters of one timeline up to its epoch. False if another worker is at it, or the host just writes the epoch.
bool tr_wake_timeline(uint timeline) {
    uint word = tr_wake_word(timeline);
    bool won = false;
    bool dirty = false;
    uvec2 woken = uvec2(0u);
    uvec2 epoch = uvec2(0u);
    if (subgroupElect()) {
        won = tr_compare_exchange(tr_push.control, word + 2u, 0u, 1u) == 0u;
        if (won) {
            tr_acquire(); // pairs with the tr_release before `busy` is cleared below
            woken = uvec2(tr_load(tr_push.control, word), tr_load(tr_push.control, word + 1u));
            dirty = tr_take_dirty(timeline);
            if (!tr_epoch(timeline, epoch)) {
                if (dirty) tr_set_dirty(timeline);
                won = false;
                tr_store(tr_push.control, word + 2u, 0u);
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
        while (tr_any(node != TR_NIL)) {
            bool mine = node != TR_NIL;
            TaskWorkItem item;
            uint slot = node;
            SlotMeta meta;
            if (mine) {
                meta = tr_push.metas.meta[slot];
                item = tr_push.slots.slot[slot];
                node = meta.next;
            }
            tr_dispose(mine, slot, meta, item, TR_TARGET_KEPT);
        }
    }

    if (subgroupElect()) {
        tr_store(tr_push.control, word, epoch.x);
        tr_release(); // pairs with the tr_acquire between the loads in tr_woken
        tr_store(tr_push.control, word + 1u, epoch.y);
        tr_release(); // pairs with the tr_acquire of the next worker that finds `busy` at 0
        tr_store(tr_push.control, word + 2u, 0u);
    }
    return true;
}

// Up to which epoch a timeline's waiters have been woken. It may be torn if a worker is just at it: the high half is then no newer than the
// low one, and since epochs only grow, a pair that equals the epoch is whole.
uvec2 tr_woken(uint timeline) {
    uint word = tr_wake_word(timeline);
    uvec2 woken;
    woken.y = tr_load(tr_push.control, word + 1u);
    tr_acquire(); // pairs with the tr_release between the stores in tr_wake_timeline
    woken.x = tr_load(tr_push.control, word);
    return woken;
}

uint tr_heard; // how often an epoch had changed when this worker last saw every timeline's waiters woken
uint tr_heard_recorded; // likewise, of the epochs that command buffers write

// Has the wait lists looked through if tasks were cancelled since that was last done: who hangs where, nobody knows.
void tr_take_cancels() {
    uint cancels = tr_load(tr_push.bell, TR_BELL_CANCELS);
    tr_acquire(); // pairs with the host's store fence between the slots' words and this number: who takes `dirty` from us sees them
    uint seen = tr_load(tr_push.control, TR_CONTROL_CANCELS);
    if (subgroupElect() && int(cancels - seen) > 0) {
        if (tr_compare_exchange(tr_push.control, TR_CONTROL_CANCELS, seen, cancels) == seen) tr_set_dirty(0u);
    }
}

// Resumes the waiters of every timeline whose epoch has advanced. True if there were any to look for.
bool tr_wake(TrNews news) {
    if (news.signals == tr_heard && news.recorded == tr_heard_recorded && news.dirty == 0u) return false;
    // Pairs with the host's store fence between the epochs and the number of signals, and with the barrier between the fills of both.
    tr_acquire();
    tr_take_cancels();
    bool found = false;
    bool all = true;
    uint timelines = tr_look(tr_push.bell, TR_BELL_TIMELINES);
    for (uint base = 0u; base < timelines; base += gl_SubgroupSize) {
        uint own = base + gl_SubgroupInvocationID;
        bool behind = false;
        if (own < timelines) {
            uvec2 epoch;
            behind = !tr_epoch(own, epoch) || epoch != tr_woken(own) || tr_load(tr_push.control, tr_wake_word(own) + 3u) != 0u;
        }
        for (;;) {
            uvec4 candidates = subgroupBallot(behind);
            if (subgroupBallotBitCount(candidates) == 0u) break;
            uint timeline = base + subgroupBallotFindLSB(candidates);
            all = tr_wake_timeline(timeline) && all;
            found = true;
            behind = behind && own != timeline;
        }
    }
    if (all) {
        tr_heard = news.signals;
        tr_heard_recorded = news.recorded;
    }
    return found;
}
