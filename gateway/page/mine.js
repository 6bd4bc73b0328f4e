// The tasks that were sent from this browser. Only it knows of them.

const KEY = "tasks";
const MOST = 30;

function stored() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? [];
  } catch {
    return []; // storage is off
  }
}

function store(tasks) {
  try {
    localStorage.setItem(KEY, JSON.stringify(tasks.slice(0, MOST)));
  } catch {
    // then this browser remembers nothing
  }
}

export const mine = stored;

export const remember = (task) => store([task, ...stored().filter(({ uid }) => uid !== task.uid)]);

export const forget = (uid) => store(stored().filter((task) => task.uid !== uid));

export const note = (uid, state) => store(stored().map((task) => (task.uid === uid ? { ...task, state } : task)));
