//! Tasks in async functions: one thread awaits many tasks, in an order that only their results decide, and takes the rest as a stream.
//!
//! Any executor will do; this one is `pollster`, on the main thread. There is no thread for a wait.

use std::error::Error;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use futures_core::Stream;
use taskring::{
    Buffer, BufferDesc, BufferHandle, Device, DeviceOptions, MemoryKind, Outcome, Program, Runtime, RuntimeOptions,
    Task, Width,
};

/// One step of the Collatz sequence a turn. It leaves how many steps there were.
const COLLATZ: &str = "Turn collatz(TaskWorkItem task) {
    uint n = task.continuation_pc == 0u ? task.param : task.continuation_data;
    if (n == 1u) {
        buffer_store(task_output(task), task.task_id, task.continuation_pc);
        return task_complete();
    }
    return task_yield(task.continuation_pc + 1u, n % 2u == 0u ? n / 2u : 3u * n + 1u);
}";

struct Collatz {
    runtime: Runtime,
    op: u32,
    steps: Arc<Buffer>,
    output: BufferHandle,
}

impl Collatz {
    /// How many steps it takes from `n` to 1.
    async fn steps_from(&self, n: u32) -> Result<u32, Box<dyn Error>> {
        let task = Task::new(self.op).output(self.output).id(n).param(n);
        let completion = self.runtime.submit(task)?.await?;
        match completion.outcome {
            Outcome::Done => Ok(self.steps.mapped().ok_or("a report is mapped")?.load(u64::from(n) * 4, Relaxed)?),
            Outcome::Faulted(code) => Err(format!("the task faulted with {code:#x}").into()),
        }
    }

    /// Follows the number of steps from one sequence to the next: each task needs the result of the one before.
    async fn chain(&self, mut n: u32) -> Result<Vec<u32>, Box<dyn Error>> {
        let mut chain = vec![n];
        while n > 1 {
            n = self.steps_from(n).await?;
            chain.push(n);
        }
        Ok(chain)
    }

    /// The number below `limit` that takes the most steps: all tasks at once, and their ends as a stream.
    async fn longest_below(&self, limit: u32) -> Result<(u32, u32), Box<dyn Error>> {
        let task = Task::new(self.op).output(self.output);
        let tasks: Vec<_> = (1..limit).map(|n| task.id(n).param(n).item()).collect();
        let mut left = self.runtime.submit_batch(&tasks)?.count();
        let (mut stream, mut longest) = (self.runtime.completion_stream(), (0, 0));
        while left > 0 {
            let Some(completion) = poll_fn(|context| Pin::new(&mut stream).poll_next(context)).await else { break };
            let n = completion?.task_id;
            let steps = self.steps.mapped().ok_or("a report is mapped")?.load(u64::from(n) * 4, Relaxed)?;
            longest = longest.max((steps, n));
            left -= 1;
        }
        Ok(longest)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    const LIMIT: u32 = 10_000;
    let device = Device::new(DeviceOptions::default())?;
    let program = Program::builder().op("collatz", COLLATZ, Width::Lane).build()?;
    let runtime = Runtime::new(&device, &program, RuntimeOptions::default())?;
    let bytes = u64::from(LIMIT) * 4;
    let steps = Arc::new(device.allocate(BufferDesc::new("steps", bytes, MemoryKind::Report))?);
    let output = runtime.register_buffer(0, &steps, 0..bytes)?;
    let collatz = Collatz { op: program.op("collatz")?, runtime, steps, output };

    println!("{}", device.description());
    pollster::block_on(async {
        let chain = collatz.chain(27).await?;
        println!("from 27, each the number of steps of the one before: {chain:?}");
        assert_eq!(chain[..2], [27, 111]);
        let (steps, n) = collatz.longest_below(LIMIT).await?;
        println!("below {LIMIT}, {n} takes the most steps: {steps}");
        assert_eq!((steps, n), (261, 6171));
        Ok(())
    })
}
