// checksum: adds one group of finished tiles to a running sum over the compressed blocks. Subgroup-wide.
//
// input    the blocks that `bc1` wrote, two words each
// output   word 0: the sum; word 1: blocks added; word 2: groups added
//          word 3: tiles a group; words 4..7: the picture's header, as in `bc1`'s input
// param    index of the group: tiles param * word 3 and on; the last group may be smaller
//
// The sum wraps and is of hash(word index, word), so the order of the groups does not matter, but a missing, doubled or
// moved word does. A turn adds to what is there: it must not run twice (not restartable).

const uint checksum_fault_geometry = 1; // the header contradicts itself, the group index or a buffer's length
const uint checksum_fault_pc = 2;       // no such continuation

// MurmurHash3's 32-bit finalizer (Austin Appleby, public domain).
uint checksum_mixed(uint h) {
    h = (h ^ h >> 16) * 0x85ebca6bu;
    h = (h ^ h >> 13) * 0xc2b2ae35u;
    return h ^ h >> 16;
}

uint checksum_hash(uint word, uint value) {
    return checksum_mixed(checksum_mixed(word + 1) ^ value);
}

// This lane's part of one tile: its columns of blocks are `left` to `right`, its rows `top` to `bottom`, ends excluded.
uint checksum_tile(Buffer blocks, uint pitch, uint left, uint right, uint top, uint bottom) {
    uint columns = right - left, sum = 0;
    for (uint i = task_lane(); i < columns * (bottom - top); i += task_lanes()) {
        uint word = 2 * ((top + i / columns) * pitch + left + i % columns);
        sum += checksum_hash(word, buffer_load(blocks, word));
        sum += checksum_hash(word + 1, buffer_load(blocks, word + 1));
    }
    return sum;
}

Turn checksum(TaskWorkItem task) {
    if (task.continuation_pc != 0) {
        return task_fault(checksum_fault_pc);
    }
    Buffer blocks = task_input(task), result = task_output(task);
    if (buffer_words(result) < 8) {
        return task_fault(checksum_fault_geometry);
    }
    uint group = buffer_load(result, 3);
    uint width = buffer_load(result, 4) / 4, height = buffer_load(result, 5) / 4; // from here on in blocks
    uint edge = buffer_load(result, 6) / 4, across = buffer_load(result, 7);
    if (group == 0 || width == 0 || height == 0 || edge == 0 || across != (width - 1) / edge + 1
        || width > buffer_words(blocks) / 2 / height) {
        return task_fault(checksum_fault_geometry);
    }
    uint tiles = across * ((height - 1) / edge + 1);
    if (task.param > (tiles - 1) / group) {
        return task_fault(checksum_fault_geometry);
    }

    uint sum = 0, count = 0;
    uint end = min(task.param * group + group, tiles);
    for (uint tile = task.param * group; tile < end; ++tile) {
        uint left = tile % across * edge, top = tile / across * edge;
        uint right = min(left + edge, width), bottom = min(top + edge, height);
        sum += checksum_tile(blocks, width, left, right, top, bottom);
        count += (right - left) * (bottom - top);
    }
    buffer_atomic_add(result, 0, sum); // a lane's part each
    if (task_lane() == 0) {
        buffer_atomic_add(result, 1, count);
        buffer_atomic_add(result, 2, 1);
    }
    return task_complete();
}
