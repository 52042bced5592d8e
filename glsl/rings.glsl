// Five rings of ready tasks, one for each priority. A ring has room for every slot, so a push never fails; an entry carries the lap that
// it was written in, so a position that was reserved but not yet written is never mistaken for a task, and nobody waits for it.

uint tr_capacity_mask() {
    return (1u << tr_push.capacity_log2) - 1u;
}

// Index of the first of a ring entry's two words: the entry, and the tick of its enqueue.
uint tr_entry_word(uint ring, uint position) {
    return ((ring << tr_push.capacity_log2) + (position & tr_capacity_mask())) * 2u;
}

// The lap tag of a position; zeroed memory matches no position of the first lap.
uint tr_lap(uint position) {
    return ((position >> tr_push.capacity_log2) + 1u) & TR_ENTRY_LAP_MASK;
}

bool tr_written(uint entry, uint position) {
    return entry >> TR_ENTRY_LAP_SHIFT == tr_lap(position);
}

// The heads of all rings. Their wrapping sum is the tick: it counts claims.
struct TrHeads {
    uint head[TASK_PRIORITIES];
};

// One load for the subgroup: lanes 0 to 3 stride over the partitions (every device has four lanes; broadcasts want constant lanes).
TrHeads tr_heads() {
    uint first = 0u;
    uint second = 0u;
    if (gl_SubgroupInvocationID < 4u) first = tr_load(tr_push.control, TR_CONTROL_HEAD + gl_SubgroupInvocationID * TR_CONTROL_LINE);
    if (gl_SubgroupInvocationID == 0u) second = tr_load(tr_push.control, TR_CONTROL_HEAD + 4u * TR_CONTROL_LINE);
    return TrHeads(uint[TASK_PRIORITIES](subgroupBroadcast(first, 0u), subgroupBroadcast(first, 1u), subgroupBroadcast(first, 2u),
                                         subgroupBroadcast(first, 3u), subgroupBroadcast(second, 0u)));
}

uint tr_tick(TrHeads heads) {
    return heads.head[0] + heads.head[1] + heads.head[2] + heads.head[3] + heads.head[4];
}

// Reserves ring positions for the lanes that push; the entries are written by tr_enqueue after tr_release. Uniform control flow.
uint tr_reserve_entries(bool pushes, uint ring) {
    uint position = 0u;
    for (uint p = 0u; p < TASK_PRIORITIES; ++p) {
        uvec4 mask = subgroupBallot(pushes && ring == p);
        if (subgroupBallotBitCount(mask) == 0u) continue;
        uint reserved = tr_reserve(TR_CONTROL_TAIL + p * TR_CONTROL_LINE, mask);
        if (pushes && ring == p) position = reserved;
    }
    return position;
}

// Publishes a slot in its ring. The slot's words were written before a tr_release; pairs with the tr_acquire in tr_claim.
void tr_enqueue(uint ring, uint position, uint slot, bool wide) {
    uint entry = slot | (wide ? TR_ENTRY_WIDE : 0u) | (tr_lap(position) << TR_ENTRY_LAP_SHIFT);
    tr_store(tr_push.rings, tr_entry_word(ring, position), entry);
}

// A batch that this worker, and no other, took from one ring. Uniform but for `slot`.
struct TrClaim {
    uint count;     // tasks; lanes below it have one each, or lane 0 has the only, wide one
    bool contended; // there was something, and another worker was faster
    bool wide;
    uint ring;
    uint tick;      // at the claim
    uint slot;
};
