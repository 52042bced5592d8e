//! What must hold when a stream has ended, whatever device it ran on.

use std::collections::HashSet;

use taskring::Outcome;

use crate::checksum::checksum;
use crate::stream::Streamed;
use crate::tiling::Tiling;

/// Everything that is wrong with a stream's results, a sentence each; `reference` holds the blocks that it must have.
pub(crate) fn problems(streamed: &Streamed, tiling: Tiling, reference: &[[u32; 2]]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut expect = |what: &str, expected: u64, found: u64| {
        if found != expected {
            problems.push(format!("{what}: expected {expected}, found {found}"));
        }
    };

    let differ = streamed.blocks.iter().zip(reference).filter(|(device, host)| device != host).count();
    expect("blocks that differ from the CPU reference", 0, differ as u64);
    expect("blocks", reference.len() as u64, streamed.blocks.len() as u64);
    let sum = [checksum(reference), reference.len() as u32, tiling.groups()];
    for (what, expected, found) in [("checksum", 0), ("blocks in the checksum", 1), ("groups in the checksum", 2)]
        .map(|(what, word)| (what, sum[word], streamed.sum[word]))
    {
        expect(what, expected.into(), found.into());
    }

    let (tiles, tasks) = (tiling.tiles(), tiling.tiles() + tiling.groups());
    let mut yields = vec![None; tasks as usize];
    let mut submissions = HashSet::new();
    for completion in &streamed.completions {
        let again = !submissions.insert(completion.id);
        expect("completions of one submission past its first", 0, again.into());
        expect("tasks that faulted", 0, (completion.outcome != Outcome::Done).into());
        match yields.get_mut(completion.task_id as usize) {
            Some(known @ None) => *known = Some(completion.yield_count),
            _ => expect(&format!("completions of task {} past its first", completion.task_id), 0, 1),
        }
    }
    for (task, found) in (0..).zip(yields) {
        let expected = if task < tiles { tiling.turns(task) - 1 } else { 0 };
        match found {
            Some(found) => expect(&format!("yields of task {task}"), expected.into(), found.into()),
            None => expect(&format!("completions of task {task}"), 1, 0),
        }
    }

    let stats = &streamed.stats;
    expect("tasks done by the runtime's count", tasks.into(), stats.done);
    // A recovery starts the device's counts anew, and tasks that wait then begin to wait again.
    if stats.recoveries == 0 {
        expect("pauses", tasks.into(), stats.pauses);
        expect("resumes", tasks.into(), stats.resumes);
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use taskring::RuntimeStats;

    use crate::upload::UploadQueue;
    use taskring::device::QueueRole;

    #[test]
    fn a_wrong_block_a_wrong_sum_and_a_missing_end_are_told() {
        let tiling = Tiling { width: 4, height: 8, edge: 8, group: 1 };
        let reference = [[1, 2], [3, 4]];
        let sum = [checksum(&reference), 2, 1];
        let mut stats = RuntimeStats::default();
        (stats.done, stats.pauses, stats.resumes) = (2, 2, 2);
        let streamed = |blocks: [[u32; 2]; 2], sum| Streamed {
            blocks: blocks.into(),
            sum,
            queue: UploadQueue(QueueRole::Slices),
            completions: Vec::new(),
            stats,
            turns: Vec::new(),
            elapsed: Duration::ZERO,
        };
        let missing = ["completions of task 0: expected 1, found 0", "completions of task 1: expected 1, found 0"];
        assert_eq!(problems(&streamed(reference, sum), tiling, &reference), missing);
        let told = problems(&streamed([[1, 2], [3, 5]], [sum[0], 3, 1]), tiling, &reference);
        let wrong = [
            "blocks that differ from the CPU reference: expected 0, found 1",
            "blocks in the checksum: expected 2, found 3",
        ];
        assert_eq!(told, [wrong, missing].concat());
    }
}
