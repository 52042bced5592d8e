#version 460
#pragma use_vulkan_memory_model
#extension GL_GOOGLE_include_directive : require
#include "probe.glsl"

// One invocation polls the mailbox for the numbers 1 to `count`, one after the other, and answers each with the payload that came with it.
// Meanwhile it shows that it is alive. The words are those of `mailbox` in probe.rs.
const uint NUMBER = 0u;   // of the mailbox
const uint PAYLOAD = 64u; // on a line of its own: the acquire has to bring it
const uint BEAT = 0u;     // of the report
const uint ANSWERED = 64u;
const uint ANSWER = 65u;

void main() {
    if (gl_LocalInvocationIndex != 0u) return;
    store(push.report, BEAT, 1u);
    uint turns = 0u;
    uint number = 1u;
    while (number <= push.count && turns < push.bound) {
        turns += 1u;
        if ((turns & 255u) == 0u) store(push.report, BEAT, turns);
        if (load(push.mailbox, NUMBER) == number) {
            // Pairs with the host's store fence between the payload and its number.
            memoryBarrier(gl_ScopeDevice, gl_StorageSemanticsBuffer, gl_SemanticsAcquire | gl_SemanticsMakeVisible);
            push.report.word[ANSWER] = push.mailbox.word[PAYLOAD];
            // Pairs with the host's acquire of the number that was answered.
            memoryBarrier(gl_ScopeDevice, gl_StorageSemanticsBuffer, gl_SemanticsRelease | gl_SemanticsMakeAvailable);
            store(push.report, ANSWERED, number);
            number += 1u;
        }
    }
    push.result.word[1] = turns;
    push.result.word[2] = number - 1u;
    push.result.word[0] = REACHED_THE_END;
}
