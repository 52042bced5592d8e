// Rings of ready tasks: in each shard five, one for each priority. A ring has room for every slot, so a push never fails; an entry carries
// the lap that it was written in, so a position that was reserved but not yet written is never mistaken for a task, and nobody waits for it.
//
// A head moves by one compare-and-swap over a batch, so a ring gives out at most a batch in the time from reading the head to swapping it.
// Shards multiply that: a worker pushes to its home shard, and claims from its home or from one other, another each turn.

uint tr_home; // this worker's shard
uint tr_away; // the other shard of this turn; the home if there is only one

bool tr_idles; // uniform: whether nothing is known to be ready but what this worker has in hand, and it stays a while if so

uint tr_ring(uint shard, uint priority) {
    return shard * TASK_PRIORITIES + priority;
}

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

// Counts claims.
uint tr_tick() {
    return tr_uniform(tr_load(tr_push.control, TR_CONTROL_TICK));
}

// Reserves positions in the home shard for the lanes that push; the entries are written by tr_enqueue after tr_release. Uniform control flow.
uint tr_reserve_entries(bool pushes, uint priority) {
    uint position = 0u;
    tr_idles = tr_idles && !tr_any(pushes);
    tr_count(TR_CONTROL_PUSHED, subgroupBallot(pushes));
    for (uint p = 0u; p < TASK_PRIORITIES; ++p) {
        uvec4 mask = subgroupBallot(pushes && priority == p);
        if (subgroupBallotBitCount(mask) == 0u) continue;
        if (p == TASK_PRIORITY_CRITICAL) tr_count(TR_CONTROL_CRITICAL_PUSHED, mask);
        uint reserved = tr_reserve(tr_control_tail(tr_ring(tr_home, p)), mask);
        if (pushes && priority == p) position = reserved;
    }
    return position;
}

// The tick of an enqueue, for selection; before the entry itself.
void tr_stamp(uint priority, uint position, uint tick) {
    tr_store(tr_push.rings, tr_entry_word(tr_ring(tr_home, priority), position) + 1u, tick);
}

// Publishes a slot in its ring. The slot's words were written before a tr_release; pairs with the tr_acquire in tr_claim.
void tr_enqueue(uint priority, uint position, uint slot, bool wide) {
    uint entry = slot | (wide ? TR_ENTRY_WIDE : 0u) | (tr_lap(position) << TR_ENTRY_LAP_SHIFT);
    tr_store(tr_push.rings, tr_entry_word(tr_ring(tr_home, priority), position), entry);
}

// Puts tasks of these lanes into rings of the home shard, those that were not put there when they were placed. Uniform control flow.
void tr_put(bool mine, uint slot, uint priority, bool wide) {
    uint position = tr_reserve_entries(mine, priority);
    uint tick = tr_tick();
    if (mine) tr_stamp(priority, position, tick);
    tr_release(); // pairs with tr_acquire in tr_claim
    if (mine) tr_enqueue(priority, position, slot, wide);
}

// Counts the waiters that are in rings or in workers' hands, each the first of a list: nobody leaves while there are any.
void tr_count_lists(uvec4 more, uvec4 fewer) {
    uint change = subgroupBallotBitCount(more) - subgroupBallotBitCount(fewer);
    if (change != 0u && tr_first()) tr_add(tr_push.control, TR_CONTROL_LISTS, change);
}

// Tasks that this worker, and no other, took. Uniform but for what says otherwise.
struct TrBatch {
    uint count;        // its tasks, 0 for none
    uint claimed;      // likewise, with those of the batches that were claimed behind it and lie in tr_claimed
    bool found;        // there was something, even if another worker was faster
    bool wide;         // it is one task, lane 0's, and all lanes run it
    bool runs;         // its tasks take a turn, or have taken it; else they are only put where they belong
    bool ran;          // they have taken it already
    bool loaded;       // its tasks are in registers: they were in no ring, and have no age
    bool lined;        // it comes from the host's lines
    uint lines;        // that were taken behind those of this batch, and are to be placed after it
    uint priority;     // of the ring
    uint tick;         // when it was looked for
    bool mine;         // each lane: whether it has a task
    uint slot;         // each lane
    uint position;     // each lane, if lined: of the line
    SlotMeta meta;     // each lane, if loaded
    TaskWorkItem item; // each lane, if loaded
};

TrBatch tr_no_batch(uint tick) {
    TrBatch batch;
    batch.count = 0u;
    batch.claimed = 0u;
    batch.found = false;
    batch.wide = false;
    batch.runs = false;
    batch.ran = false;
    batch.loaded = false;
    batch.lined = false;
    batch.lines = 0u;
    batch.priority = 0u;
    batch.tick = tick;
    batch.mine = false;
    return batch;
}
