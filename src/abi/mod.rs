//! The wire format that the host and the GPU share.
//!
//! A task is one [`TaskWorkItem`]: 16 little-endian words, which the host publishes and a device slot holds. Word 0 is
//! a [`TaskState`], word 3 a [`TaskPriority`]; words 1, 4, 5 and 6 are a [`MegakernelWorkItem`].
//!
//! Of the flags word (15), bits 0 to 3 are the `TASK_FLAG_*` bits and bits 8 to 23 name the timeline that
//! `resume_epoch` belongs to ([`TaskWorkItem::timeline`]). Nothing uses the other bits; completion clears them with the
//! rest.
//!
//! Every number and structure is written once, in `layout.rs`. The two macros below make Rust of it; `build.rs` has its
//! own two, which make [`ABI_GLSL`] of it.

#[cfg(target_endian = "big")]
compile_error!("task slots are little-endian words that are copied as they are; big-endian hosts are not supported");

/// `pub NAME = literal;` becomes a `u32` constant; a type may be named where Rust code wants another.
macro_rules! shared_consts {
    (@type) => { u32 };
    (@type $ty:ty) => { $ty };
    ($($(#[$doc:meta])* pub $name:ident $(: $ty:ty)? = $value:literal;)*) => {
        $($(#[$doc])* pub const $name: shared_consts!(@type $($ty)?) = $value;)*
    };
}

/// `pub struct Name { pub field, ... }` becomes a `repr(C)` struct of `u32` words and a line of [`STRUCTS`].
macro_rules! shared_structs {
    ($($(#[$doc:meta])* pub struct $name:ident { $($(#[$field_doc:meta])* pub $field:ident,)* })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, ::bytemuck::Pod, ::bytemuck::Zeroable)]
            pub struct $name { $($(#[$field_doc])* pub $field: u32,)* }
        )*

        /// The layout of every shared structure, as Rust has it.
        pub const STRUCTS: &[super::StructLayout] = &[$(super::StructLayout {
            name: stringify!($name),
            size: size_of::<$name>(),
            fields: &[$((stringify!($field), ::core::mem::offset_of!($name, $field))),*],
        }),*];
    };
}

mod layout;
mod priority;
mod slot;
mod state;
mod timeline;
mod work_item;

pub use layout::*;
pub use priority::TaskPriority;
pub use state::TaskState;
pub use timeline::TimelineId;
pub use work_item::MegakernelWorkItem;

/// `layout.rs` as GLSL: a `const uint` for each constant, a `struct` for each structure.
pub const ABI_GLSL: &str = include_str!(concat!(env!("OUT_DIR"), "/abi.glsl"));

/// How Rust lays out one structure of `layout.rs`, to compare with what a GLSL compiler makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StructLayout {
    /// The structure's name, in Rust and in GLSL.
    pub name: &'static str,
    /// Its size in bytes, which is also its stride in an array.
    pub size: usize,
    /// Name and byte offset of each field, in order.
    pub fields: &'static [(&'static str, usize)],
}

/// Lists of a bucket of the wait wheel in a runtime of this capacity: enough for many lanes to go along them where all tasks wait for one epoch, and few
/// where few can.
#[must_use]
pub const fn wheel_lists(capacity: u32) -> u32 {
    let wanted = capacity / TR_WHEEL_BUCKETS;
    if wanted < TR_WHEEL_FEWEST {
        TR_WHEEL_FEWEST
    } else if wanted > TR_WHEEL_MOST {
        TR_WHEEL_MOST
    } else {
        wanted
    }
}

/// The value, or a panic with the error's words: what the twins under `legacy-infallible` do.
#[cfg(feature = "legacy-infallible")]
#[track_caller]
pub(crate) fn or_panic<T>(result: Result<T, crate::BackendError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers that other programs were built with, written a second time on purpose.
    const PUBLISHED: [(&str, u32, u32); 17] = [
        ("TASK_FLAG_PAUSED", TASK_FLAG_PAUSED, 1),
        ("TASK_FLAG_YIELDED", TASK_FLAG_YIELDED, 2),
        ("TASK_FLAG_REQUEUE_REQUESTED", TASK_FLAG_REQUEUE_REQUESTED, 4),
        ("TASK_FLAG_RESUME_READY", TASK_FLAG_RESUME_READY, 8),
        ("TASK_STATE_EMPTY", TASK_STATE_EMPTY, 0),
        ("TASK_STATE_READY", TASK_STATE_READY, 1),
        ("TASK_STATE_RUNNING", TASK_STATE_RUNNING, 2),
        ("TASK_STATE_DONE", TASK_STATE_DONE, 3),
        ("TASK_STATE_PAUSED", TASK_STATE_PAUSED, 4),
        ("TASK_STATE_YIELDED", TASK_STATE_YIELDED, 5),
        ("TASK_STATE_REQUEUED", TASK_STATE_REQUEUED, 6),
        ("TASK_STATE_FAULTED", TASK_STATE_FAULTED, 7),
        ("TASK_PRIORITY_CRITICAL", TASK_PRIORITY_CRITICAL, 0),
        ("TASK_PRIORITY_HIGH", TASK_PRIORITY_HIGH, 1),
        ("TASK_PRIORITY_NORMAL", TASK_PRIORITY_NORMAL, 2),
        ("TASK_PRIORITY_LOW", TASK_PRIORITY_LOW, 3),
        ("TASK_PRIORITY_IDLE", TASK_PRIORITY_IDLE, 4),
    ];

    #[test]
    fn rust_and_glsl_have_the_published_numbers() {
        for (name, rust, published) in PUBLISHED {
            assert_eq!(rust, published, "{name}");
            let line = format!("\nconst uint {name} = {published}u;\n");
            assert!(ABI_GLSL.contains(&line), "{line}");
        }
        assert!(ABI_GLSL.contains("\nconst uint TASK_SLOT_WORDS = 16u;\nconst uint TASK_SLOT_BYTES = 64u;\n"));
    }

    #[test]
    fn no_two_runtime_faults_share_a_code() {
        let mut codes: Vec<&str> = ABI_GLSL
            .lines()
            .filter_map(|line| line.strip_prefix("const uint TASK_FAULT_")?.split(" = ").nth(1))
            .collect();
        let named = codes.len();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), named);
        assert!(named > 1);
    }

    #[test]
    fn glsl_names_its_source_and_has_each_struct_once() {
        assert!(ABI_GLSL.starts_with("// Generated from src/abi/layout.rs by build.rs. Do not edit.\n"));
        for layout in STRUCTS {
            assert_eq!(ABI_GLSL.matches(&format!("\nstruct {} {{\n", layout.name)).count(), 1, "{}", layout.name);
        }
    }

    #[test]
    fn every_struct_fills_whole_16_byte_rows_so_that_the_device_can_copy_it_as_vectors() {
        for layout in STRUCTS {
            assert_eq!(layout.size % 16, 0, "{}", layout.name);
            assert_eq!(layout.size, 4 * layout.fields.len(), "{}", layout.name);
        }
    }
}
