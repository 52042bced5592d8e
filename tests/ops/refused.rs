//! The ways past the accessors. Each is refused with the op's name and what it does, and none is by the time that it could run.

use taskring::*;

type OpText<'a> = (&'a str, &'a str, Width);

fn source(&(name, glsl, width): &OpText) -> OpSource {
    OpSource::new(name, glsl, width)
}

fn build(ops: &[OpText]) -> Result<Program, BackendError> {
    ops.iter().map(source).fold(Program::builder(), ProgramBuilder::source).build()
}

fn accepted(ops: &[OpText]) {
    if let Err(error) = build(ops) {
        panic!("{ops:#?} gave {error}");
    }
}

/// All of them in one program, which takes as long as a program of one: texts of the op `sly`, each under a name of its own, as these words in it.
fn accepted_together(texts: &[String], width: Width, words: &[&str]) {
    let own = |(n, text): (usize, &String)| {
        let name = |word: &str| format!("{word}{n}");
        (
            name("sly"),
            words.iter().fold(text.replace("sly", &name("sly")), |text, word| text.replace(word, &name(word))),
        )
    };
    let ops: Vec<(String, String)> = texts.iter().enumerate().map(own).collect();
    let ops: Vec<OpText> = ops.iter().map(|(name, text)| (name.as_str(), text.as_str(), width)).collect();
    accepted(&ops);
}

fn rejected(ops: &[OpText], culprit: &str, words: &str) {
    match build(ops) {
        Err(BackendError::OpRejected { op, what }) => {
            assert_eq!(op, culprit, "{what}");
            assert!(what.contains(words), "`{what}` does not say `{words}`");
        }
        other => panic!("{ops:#?} gave {other:?}"),
    }
}

/// An op `sly` with these declarations and this body.
fn sly(declarations: &str, body: &str) -> String {
    format!("{declarations}\nTurn sly(TaskWorkItem task) {{\n    {body}\n    return task_complete();\n}}")
}

fn rejected_in_both_widths(declarations: &str, body: &str, words: &str) {
    for width in [Width::Lane, Width::Subgroup] {
        rejected(&[("sly", &sly(declarations, body), width)], "sly", words);
    }
}

const MINE: &str = "layout(buffer_reference, std430) buffer Mine { uint word[]; };";
const INT64: &str = "#extension GL_EXT_shader_explicit_arithmetic_types_int64 : require\n";
const HARMLESS: &str = "Turn sly(TaskWorkItem task) { return task_complete(); }";

#[test]
fn an_op_cannot_form_a_pointer() {
    let poke = "Mine(uvec2(task.param, 0u)).word[0] = 1u;";
    rejected_in_both_widths(MINE, poke, "forms its own pointer in `sly`");
    rejected_in_both_widths(
        "",
        "buffer_store(task_output(task), 0u, TrWords(uvec2(task.param, 0u)).word[0]);",
        "pointer",
    );
    rejected_in_both_widths("", "TrSlots(uvec2(task.param, 0u)).slot[1].tenant_id = 0u;", "pointer");
    rejected_in_both_widths(&format!("{INT64}{MINE}"), "Mine(uint64_t(task.param)).word[0] = 1u;", "Int64");
    let through_a_struct = format!("{MINE}\nstruct Box {{ Mine mine; }};");
    rejected_in_both_widths(
        &through_a_struct,
        "Box b = Box(Mine(uvec2(task.param, 0u))); b.mine.word[0] = 1u;",
        "pointer",
    );
    rejected_in_both_widths(&format!("{MINE}\nMine kept;"), "kept.word[0] = 1u;", "pointer");
    rejected_in_both_widths(MINE, "Mine never; atomicAdd(never.word[task.param], 1u);", "pointer");
    rejected_in_both_widths(MINE, "Mine some[2]; some[task.param].word[0] = 1u;", "pointer");
}

#[test]
fn a_helper_behind_a_helper_hides_nothing() {
    let helpers = format!(
        "{MINE}\nvoid deep(uint x) {{ Mine(uvec2(x, 0u)).word[0] = x; }}\nvoid mid(uint x) {{ deep(x + 1u); }}\n\
         void top(uint x) {{ if (x > 3u) mid(x); }}"
    );
    rejected_in_both_widths(&helpers, "top(task.param);", "forms its own pointer in `deep`");
    let forward = format!("uint later(uint x);\n{}\n{MINE}", sly("", "later(task.param);"));
    let forward = format!("{forward}\nuint later(uint x) {{ return Mine(uvec2(x)).word[0]; }}");
    rejected(&[("sly", &forward, Width::Lane)], "sly", "`later`");
    let macros = format!("{MINE}\n#define PEEK(T, x) T(uvec2(x, 0u)).wo##rd[0]");
    rejected_in_both_widths(&macros, "PEEK(Mine, task.param) = 1u;", "forms its own pointer in `sly`");
}

#[test]
fn an_op_cannot_use_what_is_the_runtimes() {
    for (body, words) in [
        ("buffer_store(task_output(task), 0u, tr_push.capacity_log2);", "`tr_push`"),
        ("tr_push.buffers.entry[0].words = ~0u;", "`tr_push`"),
        ("tr_launch.buffers = ~0u;", "`tr_launch`"),
        ("tr_tenant = 1u;", "`tr_tenant`"),
        ("if (tr_fault != 0u) tr_fault = 0u;", "`tr_fault`"),
        ("tr_input_view.words = ~0u;", "`tr_input_view`"),
        ("tr_output_view = TrView(0u, uvec2(task.param), ~0u, false);", "`tr_output_view`"),
        ("TrView view; tr_resolve(task.param, view);", "calls the runtime's `tr_resolve`"),
        ("TrView view = tr_view(task_output(task));", "calls the runtime's `tr_view`"),
        ("tr_acquire();", "calls the runtime's `tr_acquire`"),
        ("tr_load(tr_push.control, 0u);", "tr_"),
        ("tr_reserve(0u, uvec4(1u));", "calls the runtime's `tr_reserve`"),
        ("buffer_store(task_output(task), 0u, clockRealtime2x32EXT().x);", "reads the device's clock"),
    ] {
        rejected_in_both_widths("", body, words);
        rejected_in_both_widths(&format!("void helper(TaskWorkItem task) {{ {body} }}"), "helper(task);", words);
    }
    rejected_in_both_widths("void change(inout uint x) { x = 1u; }", "change(tr_tenant);", "`tr_tenant`");
    rejected_in_both_widths("bool tr_loops_turn();", "tr_loops_turn();", "calls the runtime's `tr_loops_turn`");
    rejected_in_both_widths("uint tr_unfit();", "tr_unfit();", "calls the runtime's `tr_unfit`");
}

#[test]
fn an_op_has_no_descriptors_constants_or_environment_of_its_own() {
    for (declaration, words) in [
        ("layout(binding = 0, std430) buffer Block { uint x[]; } storage;", "storage"),
        ("layout(binding = 0, std430) buffer Block { uint x[]; };", "unnamed block"),
        ("layout(binding = 0) uniform Block { uint x; } block;", "block"),
        ("layout(binding = 0, r32ui) uniform uimage2D picture;", "picture"),
        ("layout(binding = 0) uniform sampler2D picture;", "picture"),
        ("layout(constant_id = 3) const uint chosen = 1u;", "specialization constant"),
        ("layout(constant_id = 0) const uint chosen = 1u;", "specialization constant"),
        ("layout(local_size_x = 8) in;", "LocalSize 8 1 1"),
        ("layout(local_size_y = 2) in;", "LocalSize 1 2 1"),
        ("#extension GL_EXT_spirv_intrinsics : require", "instructions of its own"),
        ("/* */ # extension GL_EXT_spirv_intrinsics \\\n : enable", "instructions of its own"),
        ("#extension all : warn", "all extensions"),
    ] {
        rejected_in_both_widths(declaration, "", words);
    }
    // glslang allows one block of push constants in a module.
    let own = "layout(push_constant) uniform Mine { uint x; } mine;";
    assert!(build(&[("sly", &sly(own, "buffer_store(task_output(task), 0u, mine.x);"), Width::Lane)]).is_err());
    rejected_in_both_widths(INT64, "uint64_t x = uint64_t(task.param) << 3; buffer_words(Buffer(uint(x)));", "Int64");
    rejected_in_both_widths("", "double x = double(task.param); buffer_words(Buffer(uint(x)));", "Float64");
}

#[test]
fn a_lane_wide_op_cannot_wait_for_other_lanes() {
    let extension = "#extension GL_KHR_shader_subgroup_basic : require";
    let mut texts = Vec::new();
    for wait in ["barrier();", "task_barrier();", "subgroupBarrier();", "if (task.param > 1u) barrier();"] {
        let hidden = format!("{extension}\nvoid deep() {{ {wait} }}\nvoid top() {{ deep(); }}")
            .replace("task.param", "gl_SubgroupSize");
        for text in [sly(extension, wait), sly(&hidden, "top();")] {
            rejected(&[("sly", &text, Width::Lane)], "sly", "waits for other lanes");
            texts.push(text);
        }
    }
    accepted_together(&texts, Width::Subgroup, &["deep", "top"]);
}

#[test]
fn code_outside_of_the_ops_turns_is_refused() {
    for declaration in [
        "uint stolen = tr_push.buffers.entry[0].address_lo;",
        "uint one() { return 1u; }\nuint stolen = tr_add(TrWords(uvec2(4096u, 0u)), 0u, one());",
        "uint count = 5u;",
    ] {
        rejected_in_both_widths(declaration, "", "changes the runtime's `main`");
    }
    let hidden = "uvec4 subgroupBallot(bool here) { return uvec4(0u); }";
    rejected_in_both_widths(hidden, "", "changes the runtime's `tr_");
}

#[test]
fn the_runtimes_text_is_no_ops_to_change_by_macros() {
    // As spelled here each would turn `tr_resolve` in the scheduler into a view of anything, or switch its checks off.
    let mut plain = build(&[("sly", HARMLESS, Width::Lane)]).unwrap().spirv().to_vec();
    for spelling in ["#define", "#def\\\nine", "/**/#define", "#/**/define", "# define"] {
        let changes =
            ["tr_resolve(handle, view) true", "tr_load(words, index) 1u", "tr_faulted(item, code) item", "if while"];
        let glsl = changes.map(|change| format!("{spelling} {change}\n")).concat() + HARMLESS;
        assert_eq!(build(&[("sly", &glsl, Width::Lane)]).unwrap().spirv(), plain, "{glsl}");
    }
    plain.clear();
    let two = "#ifdef SWITCH\nTurn two(TaskWorkItem task) { TrWords(uvec2(task.param)).word[0] = 1u; return task_complete(); }\n\
               #else\nTurn two(TaskWorkItem task) { return task_complete(); }\n#endif";
    let harmless = "Turn two(TaskWorkItem task) { return task_complete(); }";
    let switched =
        build(&[("sly", &format!("/**/#define SWITCH\n{HARMLESS}"), Width::Lane), ("two", two, Width::Lane)]);
    let reference = build(&[("sly", HARMLESS, Width::Lane), ("two", harmless, Width::Lane)]);
    assert_eq!(switched, reference);
}

#[test]
fn a_helper_that_nobody_calls_is_refused_when_another_op_reaches_it() {
    let keeps = format!("{MINE}\nuint evil(int x) {{ return Mine(uvec2(x)).word[0]; }}\n{HARMLESS}");
    accepted(&[("sly", &keeps, Width::Lane)]);
    // Alone this calls its own `evil`; next to the other op there is a better match.
    let calls =
        "uint evil(uint x) { return x; }\nTurn two(TaskWorkItem task) { return task_fault(evil(int(task.param))); }";
    accepted(&[("two", calls, Width::Lane)]);
    rejected(&[("sly", &keeps, Width::Lane), ("two", calls, Width::Lane)], "two", "forms its own pointer in `evil`");
    let waits = format!("uint evil(int x) {{ barrier(); return 1u; }}\n{}", sly("", "evil(1);"));
    accepted(&[("sly", &waits, Width::Subgroup)]);
    rejected(
        &[("sly", &waits, Width::Subgroup), ("two", calls, Width::Lane)],
        "two",
        "waits for other lanes in `evil`",
    );
}

#[test]
fn an_op_that_is_declared_unsafe_may_and_the_others_still_may_not() {
    let free = format!(
        "{MINE}\nvoid free_poke(uint x) {{ Mine(uvec2(x, 0u)).word[0] = 1u; }}\n\
                        Turn free(TaskWorkItem task) {{ free_poke(task.param); return task_complete(); }}"
    );
    // SAFETY: nothing runs; the program is only built.
    let trusted = || unsafe { OpSource::new("free", free.clone(), Width::Lane).trusted() };
    let program = Program::builder().source(trusted()).op("sly", HARMLESS, Width::Lane).build().unwrap();
    assert_eq!(program.ops().iter().map(Op::trusted).collect::<Vec<_>>(), [true, false]);
    let borrows = format!("void free_poke(uint x);\n{}", sly("", "free_poke(task.param);"));
    for (prototype, refused) in [(true, "No function definition"), (false, "no matching")] {
        let text = if prototype { borrows.clone() } else { sly("", "free_poke(task.param);") };
        let built = Program::builder().source(trusted()).op("sly", text, Width::Lane).build();
        assert!(built.as_ref().is_err_and(|error| error.to_string().contains(refused)), "{built:?}");
    }
    let converts =
        "void free_poke(float x) {}\nTurn sly(TaskWorkItem task) { free_poke(task.param); return task_complete(); }";
    let built = Program::builder().source(trusted()).op("sly", converts, Width::Lane).build();
    assert!(matches!(&built, Err(BackendError::OpRejected { op, .. }) if op == "sly"), "{built:?}");
}

#[test]
fn what_an_op_may_do_is_accepted() {
    let texts = [
        ("const uint table[3] = uint[](5u, 6u, 7u);", "buffer_store(task_output(task), 0u, table[task.param % 3u]);"),
        ("uint scratch[4];", "scratch[task.param & 3u] = 1u;"),
        ("shared uint box[64];", "box[task.param & 63u] = 1u;"),
        ("struct Pair { uint a, b; };\nPair swap(Pair p) { return Pair(p.b, p.a); }", "swap(Pair(task.param, 1u));"),
        ("void fill(inout uint x[8]) { x[0] = 1u; }", "uint x[8]; fill(x);"),
        ("#define TWICE(x) ((x) + \\\n (x))", "buffer_store(task_output(task), TWICE(1u), TWICE(task.param));"),
        (
            "uint e(uint x) { return x; }\nTurn sly(uint x) { return task_fault(x); }",
            "if (e(1u) == 2u) return sly(3u);",
        ),
        (
            "",
            "for (uint i = 0u; i < task.param; ++i) { if (i == 3u) continue; buffer_store(task_output(task), i, i); }",
        ),
        ("", "buffer_store(task_output(task), 0u, gl_SubgroupInvocationID + gl_WorkGroupID.x + gl_WorkGroupSize.x);"),
        ("", "float x = sqrt(float(task.param)); buffer_store(task_output(task), 0u, floatBitsToUint(x));"),
        (
            "#extension GL_KHR_shader_subgroup_arithmetic : require",
            "buffer_store(task_output(task), 0u, subgroupAdd(1u));",
        ),
    ]
    .map(|(declarations, body)| sly(declarations, body));
    for width in [Width::Lane, Width::Subgroup] {
        accepted_together(&texts, width, &[]);
    }
}
