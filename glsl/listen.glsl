// What a worker looks at in each turn, loaded together, so that it waits for memory once.
struct TrNews {
    uint tail;     // lines published
    uint stop;     // slices called off
    uint signals;  // changes of epochs by the host
    uint recorded; // the last change by a command buffer
    uint cancels;   // how often tasks were cancelled
    uint turn;      // each lane: of the WakeState of the timeline with its number
    uint dirty;     // whether there is a waiter to look after
    uint admitted; // lines taken
    uint pushed;   // tasks put into rings
    uint tick;     // tasks claimed from them
    bool due;      // each lane: the epoch of the waiter that it keeps has come
    bool busy;     // a task is on its way: admitted, not ended, and not waiting for an epoch; or waiters are being woken
};

// Whether nothing waits for a worker, in rings or lines: what is woken runs at once only then, else others would wait for as long as signals come.
bool tr_nothing_waits(TrNews news) {
    return news.pushed == news.tick && news.tail == news.admitted;
}

uint tr_timelines; // timelines in use, when this worker last looked

// Whether a worker wakes the waiters of the timeline with this lane's number: loaded before a tr_acquire, so that who finds it unchanged after has seen
// what it stands for. 0, as it is before the first time, for a timeline that is newer than the last look.
uint tr_load_turn() {
    uint turn = 0u;
    if (gl_SubgroupInvocationID < tr_timelines) turn = tr_load(tr_push.control, tr_wake_word(gl_SubgroupInvocationID) + 2u);
    return turn;
}

// The words are loaded one after another while others change them. So they may disagree, and whatever is decided by them is checked where it
// is done, or costs no more than a look in vain.
TrNews tr_listen() {
    TrNews news;
    news.tail = tr_load(tr_push.bell, TR_BELL_TAIL);
    news.stop = tr_load(tr_push.bell, TR_BELL_STOP);
    news.signals = tr_load(tr_push.bell, TR_BELL_SIGNALS);
    news.recorded = tr_load(tr_push.bell, TR_BELL_RECORDED);
    news.cancels = tr_load(tr_push.bell, TR_BELL_CANCELS);
    news.turn = tr_load_turn();
    news.dirty = tr_load(tr_push.control, TR_CONTROL_DIRTY);
    news.admitted = tr_load(tr_push.control, TR_CONTROL_ADMITTED);
    news.pushed = tr_load(tr_push.control, TR_CONTROL_PUSHED);
    news.tick = tr_load(tr_push.control, TR_CONTROL_TICK);
    tr_open_tenants = tr_load(tr_push.bell, TR_BELL_OPEN_TENANTS);
    tr_cancelling = tr_load(tr_push.bell, TR_BELL_CANCELLING);
    uint completed = tr_load(tr_push.control, TR_CONTROL_COMPLETED);
    uint pauses = tr_load(tr_push.control, TR_CONTROL_PAUSES);
    uint resumes = tr_load(tr_push.control, TR_CONTROL_RESUMES);
    uint lists = tr_load(tr_push.control, TR_CONTROL_LISTS);
    news.due = tr_holds && tr_held_is_due(tr_held_epoch());
    news.tail = tr_uniform(news.tail);
    news.stop = tr_uniform(news.stop);
    news.signals = tr_uniform(news.signals);
    news.recorded = tr_uniform(news.recorded);
    news.cancels = tr_uniform(news.cancels);
    news.dirty = tr_uniform(news.dirty);
    news.admitted = tr_uniform(news.admitted);
    news.pushed = tr_uniform(news.pushed);
    news.tick = tr_uniform(news.tick);
    news.busy = tr_any((news.admitted - completed - (pauses - resumes)) != 0u || lists != 0u || (news.turn & 1u) != 0u);
    return news;
}

const uint TR_HEARD_NOTHING = 0u;
const uint TR_HEARD_LINES = 1u; // and nothing else
const uint TR_HEARD_DUE = 2u;   // a waiter's epoch, before anything else
const uint TR_HEARD_NEWS = 3u;

// Looks at the doorbell alone, a little while, or until it has something new; at the epochs of waiters that this worker keeps, too. Gives what that is.
uint tr_doze(inout TrNews news) {
    news.due = false;
    for (uint look = 0u; look < TR_DOZE_LOOKS; ++look) {
        uint tail = tr_load(tr_push.bell, TR_BELL_TAIL);
        uint stop = tr_load(tr_push.bell, TR_BELL_STOP);
        uint signals = tr_load(tr_push.bell, TR_BELL_SIGNALS);
        uint recorded = tr_load(tr_push.bell, TR_BELL_RECORDED);
        if (tr_holds) {
            news.due = tr_held_is_due(tr_held_epoch());
            if (tr_any(news.due)) return TR_HEARD_DUE;
        }
        if (!tr_any(tail != news.tail || stop != news.stop || signals != news.signals || recorded != news.recorded)) continue;
        tr_cancelling = tr_load(tr_push.bell, TR_BELL_CANCELLING);
        tr_open_tenants = tr_load(tr_push.bell, TR_BELL_OPEN_TENANTS);
        news.tail = tr_uniform(tail);
        if (!tr_any(stop != news.stop || signals != news.signals || recorded != news.recorded)) return TR_HEARD_LINES;
        news.stop = tr_uniform(stop);
        news.signals = tr_uniform(signals);
        news.recorded = tr_uniform(recorded);
        news.cancels = tr_look(tr_push.bell, TR_BELL_CANCELS);
        news.turn = tr_load_turn();
        return TR_HEARD_NEWS;
    }
    return TR_HEARD_NOTHING;
}
