// What the self-test's kernels share. They stand apart from the runtime's kernel, so their few atomics are here and not in memory.glsl; the
// rules are the same: relaxed accesses, fences around them, device scope. Every loop has a bound that the host gives.
//
// Committed compiled (probe_*.spv). After a change: TASKRING_BLESS=1 cargo test --features shaderc --test selftest kernels

#extension GL_KHR_memory_scope_semantics : require
#extension GL_EXT_buffer_reference : require
layout(local_size_x_id = 0) in;

layout(buffer_reference, std430, buffer_reference_align = 4) buffer Words { nonprivate uint word[]; };

layout(push_constant, std430) uniform Push {
    Words result;  // device memory, cleared before the kernel starts and copied to the host after its end
    Words mailbox; // the host writes it while the kernel runs
    Words report;  // the host reads it while the kernel runs
    uint count;    // rounds or workgroups
    uint bound;    // the most turns that any loop takes
} push;

// Stored in result[0] by code that stands after every loop.
const uint REACHED_THE_END = 0x600du;

uint load(Words words, uint index) {
    return atomicLoad(words.word[index], gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
}

void store(Words words, uint index, uint value) {
    atomicStore(words.word[index], value, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
}

uint add(Words words, uint index, uint value) {
    return atomicAdd(words.word[index], value, gl_ScopeDevice, gl_StorageSemanticsNone, gl_SemanticsRelaxed);
}
