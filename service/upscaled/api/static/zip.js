// A ZIP archive of files as they are: pictures are compressed already. PKWARE's APPNOTE, 4.3 and 4.4.

const MOST_BYTES = 2 ** 32 - 1; // sizes and offsets have 32 bits
const MOST_FILES = 65_534; // their number has 16 bits, of which all ones mean another format
const LOCAL = [0x04034b50, 4];
const CENTRAL = [0x02014b50, 4];
const END = [0x06054b50, 4];
const VERSION = [20, 2];
const UTF8_NAMES = [0x800, 2];
const NONE = [0, 2]; // no compression, comment, second disk ...

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let rest = byte;
  for (let bit = 0; bit < 8; bit++) rest = (rest >>> 1) ^ (rest & 1 && 0xedb88320);
  return rest;
});

// CRC-32, read piece by piece.
async function check(blob) {
  const reader = blob.stream().getReader();
  let crc = -1;
  for (let read = await reader.read(); !read.done; read = await reader.read()) {
    const { value } = read;
    for (let at = 0; at < value.length; at++) crc = TABLE[(crc ^ value[at]) & 255] ^ (crc >>> 8);
  }
  return ~crc >>> 0;
}

// Fields of [value, bytes], little-endian.
function pack(...fields) {
  const bytes = [];
  for (const [value, count] of fields) for (let at = 0; at < count; at++) bytes.push((value >>> (8 * at)) & 255);
  return Uint8Array.from(bytes);
}

function nameApart(name, taken) {
  let given = name;
  for (let next = 2; taken.has(given.toLowerCase()); next++) given = name.replace(/(\.[^./]*)?$/, ` (${next})$1`);
  taken.add(given.toLowerCase());
  return given;
}

/* The archive of [{ name, blob }], its files dated `now`; equal names get numbers. Throws a RangeError where
   it would not fit the format: 4 GiB, or 65,535 files, of which none is read. */
export async function makeZip(files, now = new Date()) {
  if (files.length > MOST_FILES) throw new RangeError("too many files for a ZIP archive");
  const time = [(now.getHours() << 11) | (now.getMinutes() << 5) | (now.getSeconds() >> 1), 2];
  const date = [((now.getFullYear() - 1980) << 9) | ((now.getMonth() + 1) << 5) | now.getDate(), 2];
  const [parts, directory, taken] = [[], [], new Set()];
  let offset = 0;
  for (const { name, blob } of files) {
    // Some programs take a backslash for a slash, and would unpack "..\" outside of their folder.
    const bytes = new TextEncoder().encode(nameApart(name.replaceAll("\\", "_"), taken));
    const sizes = [[blob.size, 4], [blob.size, 4], [bytes.length, 2], NONE];
    const common = [VERSION, UTF8_NAMES, NONE, time, date, [await check(blob), 4], ...sizes];
    directory.push(pack(CENTRAL, VERSION, ...common, NONE, NONE, NONE, NONE, NONE, [offset, 4]), bytes);
    const head = pack(LOCAL, ...common);
    parts.push(head, bytes, blob);
    offset += head.length + bytes.length + blob.size;
  }
  const size = directory.reduce((sum, { length }) => sum + length, 0);
  if (offset + size > MOST_BYTES) throw new RangeError("too large for a ZIP archive");
  const count = [files.length, 2];
  const end = pack(END, NONE, NONE, count, count, [size, 4], [offset, 4], NONE);
  return new Blob([...parts, ...directory, end], { type: "application/zip" });
}
