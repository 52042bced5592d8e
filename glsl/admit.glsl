// From the host's lines to tasks.

// The host may write these lines again. What was read from them was read before a tr_release; pairs with the host's acquire of the marks.
void tr_mark(bool mine, uint position) {
    if (mine) tr_store(tr_push.marks, position & tr_capacity_mask(), (position >> tr_push.capacity_log2) + 1u);
}

void tr_read_line(uint position, out TaskWorkItem item, inout SlotMeta meta) {
    uint line = position & tr_capacity_mask();
    meta.ticket = tr_push.tickets.word[2u * line];
    meta.target_hi = tr_push.tickets.word[2u * line + 1u];
    item = tr_push.lines.slot[line];
}

// Takes published lines. If all that is published fits into one batch and can run at once, side by side, and nothing is ready
// anywhere, then the batch runs without going round the rings: nobody is overtaken by it. `news` says what is left then, whoever took the rest.
TrBatch tr_admit(inout TrNews news) {
    uint head = news.admitted;
    TrBatch batch = tr_no_batch(news.tick);
    uint backlog = news.tail - head;
    if (int(backlog) <= 0) return batch; // below 0: others took what was published after we looked
    batch.found = true;
    uint count = min(backlog, backlog <= tr_most ? tr_most : tr_most * TR_ADMIT_ROUNDS);
    bool straight = backlog <= tr_most && news.pushed == news.tick;
    tr_acquire(); // pairs with the host's store fence between the lines and the tail

    // Read before they are claimed, which saves a round trip to memory: only who wins them uses what it read, and nobody writes a line
    // again before its winner has marked it.
    uint position = head + gl_SubgroupInvocationID;
    bool mine = gl_SubgroupInvocationID < min(count, tr_most);
    TaskWorkItem item;
    SlotMeta meta = SlotMeta(0u, 0u, TR_NIL, 0u);
    if (mine) tr_read_line(position, item, meta);
    uint found = ~head;
    if (tr_first()) found = tr_compare_exchange(tr_push.control, TR_CONTROL_ADMITTED, head, head + count);
    bool plain = straight && tr_all_plain(mine, item); // while the swap is on its way
    news.admitted = tr_uniform(found);
    if (news.admitted != head) return batch;
    news.admitted = head + count;

    batch.count = min(count, tr_most);
    batch.loaded = true;
    batch.lined = true;
    batch.lines = count - batch.count;
    batch.mine = mine;
    batch.slot = meta.ticket & tr_capacity_mask();
    batch.position = position;
    batch.meta = meta;
    batch.item = item;
    if (!straight) return batch;
    if (plain) {
        batch.runs = true;
        tr_quick(batch);
        return batch;
    }
    // Some may be to wait for an epoch. They are placed when the others have taken their turn, so these have to be quick.
    bool paused = mine && item.state == TASK_STATE_PAUSED;
    bool slow = tr_any(paused) && !tr_is_quick(item.op_handle);
    bool goes_round = mine && (tr_placement_fault(item) != 0u || (!paused && (slow || tr_op_width(item.op_handle) != TR_WIDTH_LANE)));
    batch.runs = !tr_any(goes_round) && tr_any(mine && !paused);
    return batch;
}
