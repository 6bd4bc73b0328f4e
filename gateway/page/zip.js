// A zip of files, stored and not compressed. The zip is a Blob that refers to the files: none of them is ever in memory.

const LARGEST = 2 ** 32 - 1;
const MOST = 2 ** 16 - 2;
const VERSION = 20;
const UNIX = 3 << 8;
const UTF8 = 1 << 11;
const REGULAR_FILE = 0o100644 * 2 ** 16;

const TABLE = Int32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

async function crc32(file, read, signal) {
  let crc = -1;
  const reader = file.stream().getReader();
  for (;;) {
    const { done, value } = await reader.read();
    signal.throwIfAborted();
    if (done) return (crc ^ -1) >>> 0;
    for (let at = 0; at < value.length; at += 1) crc = TABLE[(crc ^ value[at]) & 0xff] ^ (crc >>> 8);
    read(value.length);
  }
}

// Little-endian fields: [bytes, value], ...
function record(...fields) {
  const view = new DataView(new ArrayBuffer(fields.reduce((sum, [size]) => sum + size, 0)));
  let at = 0;
  for (const [size, value] of fields) {
    if (size === 2) view.setUint16(at, value, true);
    else view.setUint32(at, value, true);
    at += size;
  }
  return view.buffer;
}

function dosTime(milliseconds) {
  const time = new Date(milliseconds);
  const year = Math.max(time.getFullYear(), 1980) - 1980;
  return {
    time: (time.getHours() << 11) | (time.getMinutes() << 5) | (time.getSeconds() >> 1),
    date: (year << 9) | ((time.getMonth() + 1) << 5) | time.getDate(),
  };
}

// `entries` are {name, file}; `read` hears how many bytes were read. Raises when it would need the 64-bit form of zips.
export async function zipOf(entries, { read, signal }) {
  const size = entries.reduce((sum, { file, name }) => sum + file.size + 2 * name.length * 3 + 76, 22);
  if (size > LARGEST || entries.length > MOST) {
    throw new Error(
      `This page zips at most 4 GB and ${MOST.toLocaleString("en")} files. Make a zip of them yourself, and choose that.`,
    );
  }
  const parts = [];
  const directory = [];
  let offset = 0;
  for (const { name, file } of entries) {
    const encoded = new TextEncoder().encode(name);
    const crc = await crc32(file, read, signal);
    const { time, date } = dosTime(file.lastModified);
    const common = [
      [2, VERSION],
      [2, UTF8],
      [2, 0],
      [2, time],
      [2, date],
      [4, crc],
      [4, file.size],
      [4, file.size],
      [2, encoded.length],
      [2, 0],
    ];
    parts.push(record([4, 0x04034b50], ...common), encoded, file);
    directory.push(
      record([4, 0x02014b50], [2, UNIX | VERSION], ...common, [2, 0], [2, 0], [2, 0], [4, REGULAR_FILE], [4, offset]),
      encoded,
    );
    offset += 30 + encoded.length + file.size;
  }
  const directorySize = directory.reduce((sum, part) => sum + part.byteLength, 0);
  const end = record(
    [4, 0x06054b50],
    [2, 0],
    [2, 0],
    [2, entries.length],
    [2, entries.length],
    [4, directorySize],
    [4, offset],
    [2, 0],
  );
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
