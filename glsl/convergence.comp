// Takes an array of words to its fixpoint. `tr_step` and `tr_commit`, which are written around the caller's transfer body, stand before this.
//
// Two kernels. One workgroup that strides over all words makes many iterations in one dispatch; its invocations meet in barriers. Where there
// are too many words for one workgroup, each iteration is a dispatch of its own, and none of its invocations waits for another.
//
// It stands apart from the runtime's kernel, so its few atomics and its barrier are here and not in memory.glsl; the rules are the same.

layout(set = 0, binding = 2, std430) nonprivate buffer TrReport {
    uint tr_changes; // iterations that changed something
    uint tr_cut;     // 1 if the driver ended a loop
};

// Three words for each pass, as vkCmdDispatchIndirect reads them: no workgroups, until the pass before it has changed something.
layout(set = 0, binding = 3, std430) nonprivate buffer TrArguments { uint tr_groups[3u * (TR_PASSES + 1u)]; };

layout(push_constant, std430) uniform TrPush {
    uint words;
    uint before; // iterations before this dispatch, all of which changed something
    uint count;  // one workgroup: iterations of this dispatch, at most
    uint pass;   // passes: which one of this submission
    uint groups; // passes: workgroups of each
    uint two;    // a loop bound that no compiler knows
} tr_push;

// Some drivers end every loop of an invocation after so many turns, and the program goes on as if nothing had happened.
void tr_look_for_cuts() {
    uint bits = 0u;
    for (uint i = 0u; i < tr_push.two; ++i) bits = bits << 1u | 1u;
    if (bits != 3u) atomicStore(tr_cut, 1u, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
}

#ifdef TR_ONE_WORKGROUP

// Whether anything changed, in this iteration and in the one before or after it. Only tr_moved_* touch it.
shared uint tr_moved[2];

void tr_moved_store(uint iteration, uint moved) {
    atomicStore(tr_moved[iteration & 1u], moved, gl_ScopeWorkgroup, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
}

bool tr_moved_load(uint iteration) {
    return atomicLoad(tr_moved[iteration & 1u], gl_ScopeWorkgroup, gl_StorageSemanticsNone, gl_SemanticsRelaxed) != 0u;
}

// What each invocation wrote before, all of the workgroup see after.
void tr_meet() {
    controlBarrier(gl_ScopeWorkgroup, gl_ScopeWorkgroup, gl_StorageSemanticsBuffer | gl_StorageSemanticsShared,
                   gl_SemanticsAcquireRelease | gl_SemanticsMakeAvailable | gl_SemanticsMakeVisible);
}

void main() {
    uint lane = gl_LocalInvocationIndex;
    if (lane == 0u) tr_moved_store(0u, 0u);
    tr_meet();
    uint iteration = 0u;
    bool moves = true; // the same for all: each reads it from the word that all have written before they met
    for (; moves && iteration < tr_push.count; ++iteration) {
        bool moved = false;
        for (uint i = lane; i < tr_push.words; i += gl_WorkGroupSize.x) moved = tr_step(i) || moved;
        if (moved) tr_moved_store(iteration, 1u);
        tr_meet(); // `next` is whole, and nobody reads `current`
        moves = tr_moved_load(iteration);
        for (uint i = lane; moves && i < tr_push.words; i += gl_WorkGroupSize.x) tr_commit(i);
        if (lane == 0u) tr_moved_store(iteration + 1u, 0u); // all have read it, an iteration ago
        tr_meet(); // `current` is whole
    }
    tr_look_for_cuts();
    if (lane == 0u) tr_changes = tr_push.before + iteration - (moves ? 0u : 1u);
}

#else

void main() {
    bool moved = false;
    uint stride = gl_NumWorkGroups.x * gl_WorkGroupSize.x;
    for (uint i = gl_GlobalInvocationID.x; i < tr_push.words; i += stride) moved = tr_step(i) || moved;
    tr_look_for_cuts();
    // The first ones of this pass to find a change say so, and let the next pass run. Relaxed: who reads it comes after a pipeline barrier.
    uint changes = tr_push.before + tr_push.pass + 1u;
    if (!moved || atomicLoad(tr_changes, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed) == changes) return;
    atomicStore(tr_changes, changes, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
    atomicStore(tr_groups[3u * (tr_push.pass + 1u)], tr_push.groups, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
}

#endif
