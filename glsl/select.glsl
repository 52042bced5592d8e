// Which ring a worker takes its next batch from, and the taking.

bool tr_quick_batches; // whether the last batches of this worker were quick, and others are in the way of its claims
uint tr_passes;        // turns in a row in which it left something for a Critical task that was not there yet
uint tr_sharers;       // log2 of how many workers share a shard's rings

// How urgent the entry at a ring's head is, less is more: a step of priority weighs as much as `aging_ticks` of age, so that an entry is
// outranked for at most 4 * aging_ticks ticks by what was queued after it. ~0 if there is no entry.
uint tr_urgency(uint shard, uint priority, uint head, uint tick) {
    uint word = tr_entry_word(tr_ring(shard, priority), head);
    uint entry = tr_load(tr_push.rings, word);
    // The tick was written before the entry but is read beside it: a stale one misjudges one selection and nothing else, since the
    // age that is accounted comes from the slot. Another worker may have enqueued at a later tick than ours: that is age 0.
    uint enqueued = tr_load(tr_push.rings, word + 1u);
    if (!tr_written(entry, head)) return ~0u;
    int age = clamp(int(tick - enqueued), 0, int(TR_AGE_LIMIT));
    return priority * tr_launch.aging_ticks + (TR_AGE_LIMIT - uint(age));
}

// How many of the lanes' entries, from the first one on and at most `most`, are written and of this width. Uniform control flow.
uint tr_prefix(uint entry, uint position, bool wide, uint most) {
    bool taken = tr_written(entry, position) && ((entry & TR_ENTRY_WIDE) != 0u) == wide && gl_SubgroupInvocationID < most;
    uvec4 others = subgroupBallot(!taken);
    return others == uvec4(0u) ? gl_SubgroupSize : subgroupBallotFindLSB(others);
}

// Reads the batches behind the one whose position each lane has, up to so many tasks with it, into tr_claimed. How many tasks of lanes there are, written
// one behind another. Uniform control flow.
uint tr_batches_behind(uint ring, uint position, uint share) {
    uint next[TR_CLAIM_BATCHES]; // loaded together
    [[unroll]] for (uint i = 1u; i < TR_CLAIM_BATCHES; ++i) {
        next[i] = 0u;
        if (i * tr_most < share) next[i] = tr_load(tr_push.rings, tr_entry_word(ring, position + i * tr_most));
    }
    [[unroll]] for (uint i = 1u; i < TR_CLAIM_BATCHES; ++i) {
        if (gl_SubgroupInvocationID < tr_most) tr_claimed[i * tr_most + gl_SubgroupInvocationID] = next[i];
    }
    uint count = 0u;
    uint those = tr_most;
    for (uint i = tr_most; those == tr_most && i < min(share, TR_CLAIM_BATCHES * tr_most); i += tr_most) {
        uint own = gl_SubgroupInvocationID < tr_most ? tr_claimed[i + gl_SubgroupInvocationID] : 0u;
        those = tr_prefix(own, position + i, false, tr_most);
        count += those;
    }
    return count;
}

// The entries of `claim` behind those of `batches` batches, or wide tasks, as a batch of their own. Uniform control flow.
void tr_next_claimed(inout TrBatch claim, uint batches) {
    uint most = claim.wide ? 1u : tr_most;
    uint first = batches * most;
    claim.count = first < claim.claimed ? min(claim.claimed - first, most) : 0u;
    claim.mine = gl_SubgroupInvocationID < claim.count;
    if (claim.mine || claim.wide) claim.slot = tr_claimed[first + (claim.wide ? 0u : gl_SubgroupInvocationID)] & TR_INDEX_MASK;
}

// A shard with something in its Critical ring, the next one after this worker's if there are several; its own if there is none. Uniform control flow.
uint tr_critical_shard() {
    for (uint base = 1u; base < tr_launch.shards; base += gl_SubgroupSize) {
        uint shard = (tr_home + base + gl_SubgroupInvocationID) & (tr_launch.shards - 1u);
        uint ring = tr_ring(shard, TASK_PRIORITY_CRITICAL);
        bool ready = base + gl_SubgroupInvocationID < tr_launch.shards;
        if (ready) ready = tr_load(tr_push.control, tr_control_head(ring)) != tr_load(tr_push.control, tr_control_tail(ring));
        uvec4 lanes = subgroupBallot(ready);
        if (lanes != uvec4(0u)) return (tr_home + base + subgroupBallotFindLSB(lanes)) & (tr_launch.shards - 1u);
    }
    return tr_home;
}

// What each ring of both shards looks like: its urgency, and below that which of them it is, or ~0 for none; its head; how much is behind the head, written or not.
// Written between two tr_meets.
shared uvec3 tr_looks[2u * TASK_PRIORITIES];

// Looks at the rings of the worker's two shards, as many of them side by side as there are lanes: two round trips to memory. Gives the least key. Uniform control flow.
uint tr_look_round(uint tick) {
    uint rings = tr_home == tr_away ? TASK_PRIORITIES : 2u * TASK_PRIORITIES;
    tr_meet(); // what the look before has found was read
    for (uint i = gl_SubgroupInvocationID; i < rings; i += gl_SubgroupSize) {
        uint shard = i < TASK_PRIORITIES ? tr_home : tr_away;
        uint priority = i < TASK_PRIORITIES ? i : i - TASK_PRIORITIES;
        uint head = tr_load(tr_push.control, tr_control_head(tr_ring(shard, priority)));
        uint tail = tr_load(tr_push.control, tr_control_tail(tr_ring(shard, priority)));
        uint urgency = tr_urgency(shard, priority, head, tick);
        tr_looks[i] = uvec3(urgency == ~0u ? ~0u : urgency << 4u | i, head, tail - head);
    }
    tr_meet();
    uint best = ~0u;
    [[unroll]] for (uint i = 0u; i < 2u * TASK_PRIORITIES; ++i) {
        if (i < rings) best = min(best, tr_looks[i].x);
    }
    return best;
}

// Whether the last look has seen a Critical task.
bool tr_has_seen_critical() {
    if (tr_looks[TASK_PRIORITY_CRITICAL].x != ~0u) return true;
    return tr_home != tr_away && tr_looks[TASK_PRIORITIES + TASK_PRIORITY_CRITICAL].x != ~0u;
}

// Attempts to take a batch from the most urgent ring of two shards, or several where there are more than enough. Uniform control flow.
TrBatch tr_claim() {
    TrBatch claim = tr_no_batch(0u);
    // Anew, since the worker may have been after lines before; a Critical task that came and went meanwhile is not one that it passed by.
    uint tick = tr_load(tr_push.control, TR_CONTROL_TICK);
    // Loaded behind it: what was pushed before it moved on is seen.
    uint critical = tr_load(tr_push.control, TR_CONTROL_CRITICAL_PUSHED) - tr_load(tr_push.control, TR_CONTROL_CRITICAL_TAKEN);
    bool waits = false;
    bool sparse = false; // and perhaps in none of these rings, which have nothing so old that no Critical task has waited for as long
    uint best = ~0u;
    // Rather than something less urgent than a Critical task that is ready somewhere, the worker takes that; and if it is not written yet, it looks again next turn,
    // a few times. Where there are few of them, what is older than a young one is weighed against theirs.
    for (uint round = 0u; round < 2u; ++round) {
        best = tr_look_round(tick);
        uint ready = tr_uniform(critical); // not before: it comes along with the look
        waits = ready != 0u && tr_passes < TR_CLAIM_PASSES;
        sparse = waits && ready < tr_launch.shards && (best >> 4u) + (TASK_PRIORITIES - 1u) * tr_launch.aging_ticks > TR_AGE_LIMIT;
        if (!waits || tr_has_seen_critical() || (best >> 4u <= TR_AGE_LIMIT && !sparse)) break;
        claim.found = true;
        if (round > 0u) {
            ++tr_passes;
            return claim;
        }
        tr_away = tr_critical_shard();
    }
    if (best == ~0u) {
        tr_passes = 0u;
        return claim;
    }
    uint chosen = best & 15u;
    uint head = tr_looks[chosen].y;
    // A head gives out what one worker takes at once in the time from reading it to swapping it. So where there is much, and batches are quick, a worker
    // takes its share of what is left (guided self-scheduling; Polychronopoulos and Kuck, 1987), and one batch at least.
    uint share = 0u;
    if (tr_quick_batches) share = tr_looks[chosen].z >> tr_sharers;
    claim.priority = chosen < TASK_PRIORITIES ? chosen : chosen - TASK_PRIORITIES;
    uint ring = tr_ring(chosen < TASK_PRIORITIES ? tr_home : tr_away, claim.priority);

    claim.found = true;
    claim.tick = tr_uniform(tick);
    uint entry = 0u;
    uint count = 0u;
    bool held = false;
    bool won = false;
    // Who lost to another worker knows where the head is now: to try there costs a fifth of a turn. What lies there is younger, and so may be less urgent than a
    // Critical task that waits.
    uint attempts = sparse && claim.priority != TASK_PRIORITY_CRITICAL ? 1u : TR_CLAIM_ATTEMPTS;
    for (uint attempt = 0u; attempt < attempts && !won; ++attempt) {
        // The written prefix at the head, of one width. A wide task is a batch of its own.
        uint position = head + gl_SubgroupInvocationID;
        entry = tr_load(tr_push.rings, tr_entry_word(ring, position));
        claim.wide = tr_uniform((entry & TR_ENTRY_WIDE) != 0u);
        count = tr_prefix(entry, position, claim.wide, claim.wide ? clamp(share, 1u, min(TR_CLAIM_BATCHES, tr_most)) : tr_most);
        if (count == 0u) break;
        held = claim.wide ? count > 1u : count == tr_most && share > tr_most;
        if (held) {
            tr_meet(); // the entries of the claim before have been read
            if (gl_SubgroupInvocationID < count) tr_claimed[gl_SubgroupInvocationID] = entry;
            if (!claim.wide) count += tr_batches_behind(ring, position, share);
        }

        // Relaxed: the head hands out entries; what they name is ordered by the fences of tr_enqueue's callers and tr_acquire below. The entries
        // were read before, so nobody reads them after the head has moved and the ring may overwrite them.
        uint found = head;
        if (tr_first()) {
            found = tr_compare_exchange(tr_push.control, tr_control_head(ring), head, head + count);
            if (found == head) {
                tr_add(tr_push.control, TR_CONTROL_TICK, count);
                if (claim.priority == TASK_PRIORITY_CRITICAL) tr_add(tr_push.control, TR_CONTROL_CRITICAL_TAKEN, count);
            }
        }
        found = tr_uniform(found);
        won = found == head;
        head = found;
    }
    // Another worker was faster. If it was for a Critical task, there may be one more; but not everybody goes after each of them again and again.
    tr_passes = won || !waits ? 0u : tr_passes + TR_CLAIM_PASSES / 2u;
    if (!won) return claim;
    tr_acquire();
    if (claim.wide) tr_converge(); // the other lanes read the task on lane 0's word
    claim.claimed = count;
    claim.runs = true;
    if (held) {
        tr_meet();
        tr_next_claimed(claim, 0u);
    } else {
        claim.count = count;
        claim.mine = gl_SubgroupInvocationID < count;
        claim.slot = entry & TR_INDEX_MASK;
    }
    return claim;
}
