// Doubles one word: number `param` of the input, into the output.
Turn double_it(TaskWorkItem task) {
    uint value = buffer_load(task_input(task), task.param);
    buffer_store(task_output(task), task.param, 2u * value);
    return task_complete();
}
