#version 460
#pragma use_vulkan_memory_model
#extension GL_GOOGLE_include_directive : require
#include "probe.glsl"

// Each workgroup counts itself and waits until `count` of them have. The first one that has waited long enough gives up for all, so the
// kernel ends after one such wait, however many workgroups start late.
const uint ARRIVED = 8u; // of the result, as is the next
const uint MET = 1u;
const uint GAVE_UP = 0x80000000u;

void main() {
    if (gl_LocalInvocationIndex != 0u) return;
    uint arrived = add(push.result, ARRIVED, 1u) + 1u;
    uint turns = 0u;
    while (arrived < push.count && turns < push.bound) {
        turns += 1u;
        arrived = load(push.result, ARRIVED);
    }
    // A word beyond `count` says that somebody gave up.
    if (arrived == push.count) {
        add(push.result, MET, 1u);
    } else if (arrived < push.count) {
        atomicOr(push.result.word[ARRIVED], GAVE_UP, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
    }
    atomicMax(push.result.word[2], turns, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
    store(push.result, 0u, REACHED_THE_END);
}
