// What a person chose or dropped, as {name, file} with paths as names.

export const fromInput = (input) =>
  [...input.files].map((file) => ({ name: file.webkitRelativePath || file.name, file }));

// The entries must be taken from the event before anything is awaited.
export function fromDrop(transfer) {
  const dropped = [...transfer.items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
  return Promise.all(dropped.map(within)).then((found) => found.flat());
}

async function within(entry) {
  const name = entry.fullPath.replace(/^\//, "");
  if (entry.isFile) return [{ name, file: await new Promise((resolve, reject) => entry.file(resolve, reject)) }];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // a hundred or so at a time
    if (!some.length) return found;
    for (const inner of some) found.push(...(await within(inner)));
  }
}

// A single folder stands for its content: /input is to have what is in it.
export function withoutTop(entries) {
  const [top] = entries[0].name.split("/", 1);
  if (!entries.every(({ name }) => name.startsWith(`${top}/`))) return { name: null, entries };
  return { name: top, entries: entries.map(({ name, file }) => ({ name: name.slice(top.length + 1), file })) };
}

export const isZip = (entries) => entries.length === 1 && /\.zip$/i.test(entries[0].name);
