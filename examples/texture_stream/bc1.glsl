// bc1: compresses one tile of a picture to BC1, a row of blocks a turn. Subgroup-wide: the lanes stride over the row.
//
// input    words 0..3: width and height in texels (multiples of 4), tile edge in texels (a multiple of 4), tiles a row
//          words 4..:  RGBA8 texels, row by row, red in the lowest byte
// output   two words a block, row by row over the whole picture
// param    index of the tile, row by row
// pc       0: first turn; 1: continuation_data is the row of blocks inside the tile
//
// A turn writes words of its own only and may run twice (restartable). The encoder is the twin of `bc1.rs`, function
// for function, in integers that cannot overflow; the reasons and the bounds are written there, once.

const uint bc1_fault_geometry = 1; // the header contradicts itself, the tile index or a buffer's length
const uint bc1_fault_pc = 2;       // no such continuation

const int bc1_rounds = 4;
const int bc1_nudges = 12;
const int bc1_axis_steps = 6;
const ivec3 bc1_levels = ivec3(31, 63, 31);

struct bc1_Fit {
    ivec3 ends[2];
    uint indices;
    int error;
};

ivec3 bc1_colour(uint texel) {
    return ivec3(texel & 255u, texel >> 8 & 255u, texel >> 16 & 255u);
}

int bc1_dot(ivec3 a, ivec3 b) {
    return a.x * b.x + a.y * b.y + a.z * b.z;
}

int bc1_largest(ivec3 v) {
    return max(v.x, max(v.y, v.z));
}

int bc1_excess_bits(int value, int bits) {
    return max(findMSB(value) + 1 - bits, 0);
}

ivec3 bc1_shortened(ivec3 v) {
    return v >> bc1_excess_bits(bc1_largest(abs(v)), 13);
}

ivec3 bc1_principal_axis(uint texels[16]) {
    ivec3 sum = ivec3(0), squares = ivec3(0), products = ivec3(0);
    for (int texel = 0; texel < 16; ++texel) {
        ivec3 here = bc1_colour(texels[texel]);
        sum += here;
        squares += here * here;
        products += here.xxy * here.yzz;
    }
    ivec3 spread = 16 * squares - sum * sum;
    ivec3 mixed = 16 * products - sum.xxy * sum.yzz;
    int shift = bc1_excess_bits(bc1_largest(spread), 15);
    ivec3 red = ivec3(spread.x, mixed.x, mixed.y) >> shift;
    ivec3 green = ivec3(mixed.x, spread.y, mixed.z) >> shift;
    ivec3 blue = ivec3(mixed.y, mixed.z, spread.z) >> shift;

    ivec3 axis = spread.x >= spread.y && spread.x >= spread.z ? red : spread.y >= spread.z ? green : blue;
    for (int i = 0; i < bc1_axis_steps; ++i) {
        ivec3 short_axis = bc1_shortened(axis);
        axis = ivec3(bc1_dot(red, short_axis), bc1_dot(green, short_axis), bc1_dot(blue, short_axis));
    }
    return bc1_shortened(axis);
}

ivec3[2] bc1_extremes(uint texels[16], ivec3 axis) {
    ivec3 low = bc1_colour(texels[0]), high = low;
    for (int texel = 1; texel < 16; ++texel) {
        ivec3 here = bc1_colour(texels[texel]);
        if (bc1_dot(here, axis) < bc1_dot(low, axis)) {
            low = here;
        }
        if (bc1_dot(here, axis) > bc1_dot(high, axis)) {
            high = here;
        }
    }
    return ivec3[2]((high * bc1_levels + 127) / 255, (low * bc1_levels + 127) / 255);
}

ivec3 bc1_expanded(ivec3 end) {
    return end << ivec3(3, 2, 3) | end >> ivec3(2, 4, 2);
}

bc1_Fit bc1_fit(uint texels[16], ivec3 ends[2]) {
    ivec3 a = bc1_expanded(ends[0]), b = bc1_expanded(ends[1]);
    ivec3 palette[4] = ivec3[4](a, b, (2 * a + b + 1) / 3, (a + 2 * b + 1) / 3);
    bc1_Fit fit = bc1_Fit(ends, 0u, 0);
    for (int texel = 0; texel < 16; ++texel) {
        ivec3 here = bc1_colour(texels[texel]);
        uint nearest = 0;
        int distance = 0x7fffffff;
        for (uint index = 0; index < 4; ++index) {
            ivec3 apart = here - palette[index];
            if (bc1_dot(apart, apart) < distance) {
                nearest = index;
                distance = bc1_dot(apart, apart);
            }
        }
        fit.indices |= nearest << (2 * texel);
        fit.error += distance;
    }
    return fit;
}

ivec3 bc1_level(ivec3 end, int full) {
    return (clamp(3 * end, 0, full) * bc1_levels + full / 2) / full;
}

ivec3[2] bc1_least_squares(uint texels[16], bc1_Fit old) {
    const uint weights = 0x63; // thirds of the first end in each index's colour: 3, 0, 2, 1, two bits each
    int aa = 0, ab = 0, bb = 0;
    ivec3 at = ivec3(0), bt = ivec3(0);
    for (int texel = 0; texel < 16; ++texel) {
        ivec3 here = bc1_colour(texels[texel]);
        int a = int(weights >> (2u * (old.indices >> (2 * texel) & 3u)) & 3u);
        int b = 3 - a;
        aa += a * a;
        ab += a * b;
        bb += b * b;
        at += a * here;
        bt += b * here;
    }
    int determinant = aa * bb - ab * ab;
    if (determinant == 0) {
        return old.ends;
    }
    int full = 255 * determinant;
    return ivec3[2](bc1_level(bb * at - ab * bt, full), bc1_level(aa * bt - ab * at, full));
}

uint bc1_packed(ivec3 end) {
    return uint(end.r << 11 | end.g << 5 | end.b);
}

ivec3[2] bc1_nudged(ivec3 ends[2], int nudge) {
    ivec3 channel = ivec3(equal(ivec3(nudge / 2 % 3), ivec3(0, 1, 2)));
    int end = nudge / 6;
    ends[end] = clamp(ends[end] + (2 * (nudge % 2) - 1) * channel, ivec3(0), bc1_levels);
    return ends;
}

uvec2 bc1_encode_block(uint texels[16]) {
    ivec3 ends[2] = bc1_extremes(texels, bc1_principal_axis(texels));
    bc1_Fit best = bc1_Fit(ends, 0u, 0x7fffffff);
    for (int attempt = 0; attempt <= bc1_rounds + bc1_nudges; ++attempt) {
        if (attempt > bc1_rounds) {
            ends = bc1_nudged(best.ends, attempt - bc1_rounds - 1);
        } else if (attempt > 0) {
            ends = bc1_least_squares(texels, best);
        }
        bc1_Fit next = bc1_fit(texels, ends);
        if (next.error < best.error) {
            best = next;
        }
    }
    uint first = bc1_packed(best.ends[0]), second = bc1_packed(best.ends[1]);
    return first >= second ? uvec2(first | second << 16, best.indices)
                           : uvec2(second | first << 16, best.indices ^ 0x55555555u);
}

// Whether the buffers hold what the header says, and `tile` is one of its tiles. Nothing here can wrap: the divisions
// come before the products that they bound.
bool bc1_geometry_holds(Buffer image, Buffer blocks, uint tile) {
    if (buffer_words(image) < 4) {
        return false;
    }
    uint width = buffer_load(image, 0), height = buffer_load(image, 1);
    uint edge = buffer_load(image, 2), across = buffer_load(image, 3);
    if (width == 0 || height == 0 || edge == 0 || ((width | height | edge) & 3u) != 0) {
        return false;
    }
    return width <= (buffer_words(image) - 4) / height && width * height / 8 <= buffer_words(blocks)
        && across == (width - 1) / edge + 1 && tile / across <= (height - 1) / edge;
}

void bc1_encode_row(Buffer image, Buffer blocks, uint tile, uint row) {
    uint width = buffer_load(image, 0), edge = buffer_load(image, 2), across = buffer_load(image, 3);
    uint top = tile / across * edge + 4 * row;
    uint left = tile % across * edge;
    uint end = min(left + edge, width);
    for (uint x = left + 4 * task_lane(); x < end; x += 4 * task_lanes()) {
        uint texels[16];
        for (uint texel = 0; texel < 16; ++texel) {
            texels[texel] = buffer_load(image, 4 + (top + texel / 4) * width + x + texel % 4);
        }
        uvec2 block = bc1_encode_block(texels);
        uint word = 2 * (top / 4 * (width / 4) + x / 4);
        buffer_store(blocks, word, block.x);
        buffer_store(blocks, word + 1, block.y);
    }
}

Turn bc1(TaskWorkItem task) {
    uint row = 0;
    switch (task.continuation_pc) {
    case 0:
        break;
    case 1:
        row = task.continuation_data;
        break;
    default:
        return task_fault(bc1_fault_pc);
    }
    Buffer image = task_input(task), blocks = task_output(task);
    if (!bc1_geometry_holds(image, blocks, task.param)) {
        return task_fault(bc1_fault_geometry);
    }
    uint height = buffer_load(image, 1), edge = buffer_load(image, 2), across = buffer_load(image, 3);
    uint rows = min(edge, height - task.param / across * edge) / 4;
    if (row >= rows) {
        return task_fault(bc1_fault_geometry);
    }
    bc1_encode_row(image, blocks, task.param, row);
    return row + 1 < rows ? task_yield(1, row + 1) : task_complete();
}
