// Which ring a worker takes its next batch from, and the taking.

// How urgent the entry at a ring's head is, less is more: a step of priority weighs as much as `aging_ticks` of age, so that an entry is
// outranked for at most 4 * aging_ticks ticks by what was queued after it. ~0 if there is no entry.
uint tr_urgency(uint ring, uint head, uint tick) {
    uint word = tr_entry_word(ring, head);
    if (!tr_written(tr_load(tr_push.rings, word), head)) return ~0u;
    // The tick was written before the entry but is read without a fence: a stale one misjudges one selection and nothing else, since the
    // age that is accounted comes from the slot. Another worker may have enqueued at a later tick than ours: that is age 0.
    int age = clamp(int(tick - tr_load(tr_push.rings, word + 1u)), 0, int(TR_AGE_LIMIT));
    return ((ring * tr_launch.aging_ticks + (TR_AGE_LIMIT - uint(age))) << 3) | ring;
}

// One attempt to take a batch from the most urgent ring. Uniform control flow.
TrClaim tr_claim() {
    TrHeads heads = tr_heads();
    TrClaim claim = TrClaim(0u, false, false, 0u, tr_tick(heads), 0u);

    uint mine = ~0u;
    for (uint p = gl_SubgroupInvocationID; p < TASK_PRIORITIES && gl_SubgroupInvocationID < 4u; p += 4u) {
        mine = min(mine, tr_urgency(p, heads.head[p], claim.tick));
    }
    uint best = min(min(subgroupBroadcast(mine, 0u), subgroupBroadcast(mine, 1u)),
                    min(subgroupBroadcast(mine, 2u), subgroupBroadcast(mine, 3u)));
    if (best == ~0u) return claim;
    claim.ring = best & 7u;

    // The written prefix at the head. A wide task is a batch of its own, so that a worker never holds tasks that it has not started.
    uint head = heads.head[claim.ring];
    uint position = head + gl_SubgroupInvocationID;
    uint entry = tr_load(tr_push.rings, tr_entry_word(claim.ring, position));
    bool wide = (entry & TR_ENTRY_WIDE) != 0u;
    bool taken = tr_written(entry, position) && gl_SubgroupInvocationID < tr_launch.batch && (!wide || gl_SubgroupInvocationID == 0u);
    uvec4 others = subgroupBallot(!taken);
    uint count = subgroupBallotBitCount(others) == 0u ? gl_SubgroupSize : subgroupBallotFindLSB(others);
    claim.contended = true;
    if (count == 0u) return claim;
    claim.wide = subgroupBroadcastFirst(wide);
    if (claim.wide) count = 1u;

    // Relaxed: the head hands out entries; what they name is ordered by the fences of tr_enqueue's callers and tr_acquire below. The entries
    // were read before, so nobody reads them after the head has moved and the ring may overwrite them.
    bool won = false;
    if (subgroupElect()) {
        uint word = TR_CONTROL_HEAD + claim.ring * TR_CONTROL_LINE;
        won = tr_compare_exchange(tr_push.control, word, head, head + count) == head;
    }
    if (!subgroupBroadcastFirst(won)) return claim;
    tr_acquire();
    if (claim.wide) tr_converge(); // the other lanes read the task on lane 0's word
    claim.count = count;
    claim.slot = entry & TR_INDEX_MASK;
    return claim;
}
