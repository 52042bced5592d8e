#version 460
#pragma use_vulkan_memory_model
#extension GL_GOOGLE_include_directive : require
#include "probe.glsl"

// Counts the turns of a loop up to `bound`. The loop also ends when the generator reaches 0, which it never does and no compiler knows: so
// none can tell how often the loop turns, and put that number where the count should be.
void main() {
    uint state = push.count;
    uint turns = 0u;
    while (turns < push.bound && state != 0u) {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        turns += 1u;
    }
    if (gl_LocalInvocationIndex != 0u) return;
    push.result.word[1] = turns;
    push.result.word[2] = state;
    push.result.word[0] = REACHED_THE_END;
}
