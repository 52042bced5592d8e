//! What an op's author reads after a mistake.

use taskring::*;

/// The op and the message, with the line, of what must not compile.
fn mistake(ops: &[(&str, &str)]) -> (String, Option<u32>, String) {
    let built =
        ops.iter().fold(Program::builder(), |builder, (name, glsl)| builder.op(*name, *glsl, Width::Lane)).build();
    match built {
        Err(BackendError::OpCompile { op, line, message }) => (op, line, message),
        other => panic!("{ops:?} gave {other:?}"),
    }
}

fn at(op: &str, line: u32) -> (&str, Option<u32>) {
    (op, Some(line))
}

fn good(name: &str) -> String {
    format!("Turn {name}(TaskWorkItem task) {{ return task_complete(); }}")
}

fn bad_program(builder: ProgramBuilder) -> String {
    match builder.build() {
        Err(BackendError::BadProgram { reason }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_mistake_is_reported_with_the_op_and_its_own_line() {
    let cases = [
        ("syntax error", "Turn bad(TaskWorkItem task) { return task_complete() }", 1, "syntax error"),
        ("identifier", "Turn bad(TaskWorkItem task) { return task_fault(nobody); }", 1, "nobody"),
        ("type", "Turn bad(TaskWorkItem task) { uint x = vec2(0); return task_complete(); }", 1, "vec"),
        ("line 7", "\n\n// one\n/* two\nthree */\n\nTurn bad(TaskWorkItem task) { return nobody; }\n", 7, "nobody"),
        ("windows", "\r\n\r\nTurn bad(TaskWorkItem task) {\r\n  return nobody;\r\n}\r\n", 4, "nobody"),
        ("after a macro", "#define TWO \\\n  2u \\\n  + 0u\nTurn bad(TaskWorkItem task) {\n return TWO;\n}", 5, ""),
        ("after a condition", "#if 0\nnonsense\n#else\n#endif\nTurn bad(TaskWorkItem task) { return x; }", 5, "'x'"),
        ("directive", "\n#error not today\n", 2, "not today"),
        ("line end", "Turn bad(TaskWorkItem task) { return nobody; } // \\", 1, "nobody"),
        ("open condition", "Turn bad(TaskWorkItem task) { return task_complete(); }\n#if 1\n", 3, "#endif"),
    ];
    for (what, glsl, line, words) in cases {
        for ops in [vec![("bad", glsl)], vec![("one", &*good("one")), ("bad", glsl), ("three", &*good("three"))]] {
            let (op, found, message) = mistake(&ops);
            assert_eq!((&*op, found), at("bad", line), "{what}: {message}");
            assert!(message.contains(words), "{what}: {message}");
        }
    }
}

#[test]
fn the_message_reads_as_one_line_about_the_op() {
    let (one, two) = (good("one"), "\nTurn two(TaskWorkItem task) { return nobody; }");
    let error = Program::builder().op("one", one, Width::Lane).op("two", two, Width::Subgroup).build().unwrap_err();
    assert_eq!(error.to_string(), "op `two`, line 2: 'nobody' : undeclared identifier");
}

#[test]
fn an_op_that_is_not_finished_or_not_there_is_reported_by_name() {
    for glsl in [
        "Turn bad(TaskWorkItem task) { return task_complete();\n",
        "",
        &good("other"),
        "Turn bad(uint x) { return task_complete(); }",
    ] {
        let (op, _, message) = mistake(&[("one", &good("one")), ("bad", glsl), ("three", &good("three"))]);
        assert_eq!(op, "bad", "{message}");
        assert!(message.contains("`Turn bad(TaskWorkItem task)`") && message.contains("brace"), "{message}");
    }
    let (op, line, _) =
        mistake(&[("bad", &format!("{}\n/* open", good("bad"))), ("two", &format!("*/{}", good("two")))]);
    assert_eq!((&*op, line), at("bad", 2));
    let (op, line, message) = mistake(&[("bad", &format!("{}\0", good("bad")))]);
    assert_eq!((&*op, line), ("bad", None));
    assert!(message.contains("NUL"), "{message}");
}

#[test]
fn a_helper_that_is_declared_and_nowhere_defined_is_named() {
    let glsl = "uint missing(uint x);\nTurn bad(TaskWorkItem task) { return task_fault(missing(1u)); }";
    let (op, _, message) =
        mistake(&[("bad", glsl), ("two", &format!("uint missing(uint x) {{ return x; }}\n{}", good("two")))]);
    assert_eq!(op, "bad");
    assert!(message.contains("missing("), "{message}");
}

#[test]
fn a_name_that_two_ops_share_is_reported_at_the_second() {
    let with_helper = |name: &str| format!("// mine\nuint twice(uint x) {{ return 2u * x; }}\n{}", good(name));
    let (op, line, message) = mistake(&[("one", &with_helper("one")), ("two", &with_helper("two"))]);
    assert_eq!((&*op, line), at("two", 2));
    assert!(message.contains("twice"), "{message}");
}

#[test]
fn a_name_of_the_runtimes_is_refused_wherever_it_is() {
    for (glsl, name) in [
        ("struct TrBatch { uint x; };", "TrBatch"),
        ("uint tr_tenant;", "tr_tenant"),
        ("uint buffer_load(Buffer b, uint word) { return 0u; }", "buffer_load"),
        ("TaskWorkItem tr_resumed(TaskWorkItem item) { return item; }", "tr_resumed"),
        ("void main() {}", "main"),
    ] {
        let (op, _, message) = mistake(&[("bad", &format!("{glsl}\n{}", good("bad")))]);
        assert_eq!(op, "bad");
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn the_macros_of_one_op_do_not_reach_the_next() {
    let spellings =
        ["#define SIZE 4u", "  # define SIZE 4u", "#def\\\nine SIZE 4u", "/**/#define SIZE 4u", "#/**/define SIZE 4u"];
    for spelling in spellings {
        let one = format!("{spelling}\nTurn one(TaskWorkItem task) {{ return task_fault(SIZE); }}");
        let uses = "Turn two(TaskWorkItem task) { return task_fault(SIZE); }";
        let (op, line, message) = mistake(&[("one", &one), ("two", uses)]);
        assert_eq!((&*op, line), at("two", 1));
        assert!(message.contains("SIZE"), "{message}");
        let other = "#ifdef SIZE\n#error leaked\n#endif\n#define SIZE 5u\nTurn two(TaskWorkItem task) { return task_fault(SIZE); }";
        super::common::lane_program(&[("one", &one), ("two", other)]);
    }
}

#[test]
fn a_precision_statement_ends_with_its_op() {
    let relaxed =
        |program: &Program| program.spirv().windows(3).filter(|w| w[0] == (3 << 16 | 71) && w[2] == 0).count();
    let plain = super::common::lane_program(&[("one", &good("one"))]);
    // After the op's function, so it could only be others that it relaxes.
    let relaxing = super::common::lane_program(&[("one", &format!("{}\nprecision mediump int;", good("one")))]);
    assert_eq!(relaxed(&relaxing), relaxed(&plain));
    let body = "uint x = task.param; return task_fault(x * x);";
    let before = format!("precision mediump int;\nTurn one(TaskWorkItem task) {{ {body} }}");
    let before = super::common::lane_program(&[("one", &before)]);
    assert!(relaxed(&before) > relaxed(&plain), "the op's own arithmetic is relaxed");
}

#[test]
fn names_that_cannot_be_functions_or_look_like_the_runtimes_are_refused() {
    for name in ["", "1st", "a b", "a-b", "a(b", "ä", "_a", "a__b", "a\nb", "a\"b", "a\0"] {
        let reason = bad_program(Program::builder().op(name, good("x"), Width::Lane));
        assert!(reason.contains(&format!("`{name}`")), "{reason}");
    }
    for name in ["tr_x", "TR_X", "task_x", "buffer_x", "gl_x"] {
        let reason = bad_program(Program::builder().op(name, good(name), Width::Lane));
        assert!(reason.contains("runtime's"), "{reason}");
    }
    for name in ["main", "float"] {
        assert_eq!(mistake(&[(name, &good(name))]).0, name);
    }
}

#[test]
fn a_program_without_ops_or_with_two_of_one_name_is_refused() {
    assert!(bad_program(Program::builder()).contains("no ops"));
    let twice = Program::builder().op("one", good("one"), Width::Lane).op("one", good("one"), Width::Subgroup);
    assert!(bad_program(twice).contains("two ops are named `one`"));
}

#[test]
fn an_unknown_op_is_answered_with_the_known_ones() {
    let program = super::common::lane_program(&[("one", &good("one")), ("two", &good("two"))]);
    assert_eq!(program.op("two"), Ok(1));
    let error = program.op("nope").unwrap_err().to_string();
    assert_eq!(error, "bad program: it has no op `nope`; its ops are: one, two");
}
