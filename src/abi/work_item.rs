//! What a task does, without where it stands.

use bytemuck::{Pod, Zeroable};

/// What a task does: words 1, 4, 5 and 6 of its slot.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct MegakernelWorkItem {
    /// Index of the operation in the program's op table.
    pub op_handle: u32,
    /// Handle of the input buffer, 0 for none.
    pub input_handle: u32,
    /// Handle of the output buffer, 0 for none.
    pub output_handle: u32,
    /// One parameter word.
    pub param: u32,
}

#[cfg(test)]
mod tests {
    use super::MegakernelWorkItem;

    #[test]
    fn a_work_item_is_its_four_words_in_order() {
        let item = MegakernelWorkItem { op_handle: 1, input_handle: 2, output_handle: 3, param: 4 };
        assert_eq!(bytemuck::bytes_of(&item), [1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0]);
    }
}
