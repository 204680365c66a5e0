// Writes an app folder as a zip file, the same bytes for the same files: `node zip.mjs FOLDER FILE LEVEL`.
//
// Azure takes the handler's mode from the zip, so that every entry says "made by Unix" and carries its mode; times are
// fixed and names sorted. No zip tool is on every machine that can build the app, but Node is.
import { readFileSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";

const [folder, file, level] = process.argv.slice(2);
const NOT_PUBLISHED = ["local.settings.json"];
const UNIX = 3;
const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0xedb88320 : byte >>> 1;
  return byte;
});

const local = [];
const central = [];
let offset = 0;
const names = namesBelow("").filter((name) => !NOT_PUBLISHED.includes(name)).sort();
for (const name of names) {
  const bytes = readFileSync(join(folder, name));
  const packed = deflateRawSync(bytes, { level: Number(level) });
  const executable = statSync(join(folder, name)).mode & 0o111;
  const entry = describe(name, bytes, packed);
  const header = Buffer.concat([bytesOf([4, 0x04034b50]), entry, Buffer.from(name)]);
  local.push(header, packed);
  central.push(
    bytesOf([4, 0x02014b50], [2, (UNIX << 8) | 20]),
    entry,
    bytesOf([2, 0], [2, 0], [2, 0], [4, ((0o100000 | (executable ? 0o755 : 0o644)) << 16) >>> 0], [4, offset]),
    Buffer.from(name),
  );
  offset += header.length + packed.length;
}
const directory = Buffer.concat(central);
const end = bytesOf(
  [4, 0x06054b50], [2, 0], [2, 0], [2, names.length], [2, names.length], [4, directory.length], [4, offset], [2, 0],
);
writeFileSync(file, Buffer.concat([...local, directory, end]));

// The part that an entry's two headers have in common: deflated, at 1980-01-01 00:00, no extra field.
function describe(name, bytes, packed) {
  return bytesOf(
    [2, 20], [2, 0], [2, 8], [2, 0], [2, 0x21], [4, crc32(bytes)], [4, packed.length], [4, bytes.length],
    [2, Buffer.byteLength(name)], [2, 0],
  );
}

function namesBelow(prefix) {
  return readdirSync(join(folder, prefix), { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? namesBelow(`${prefix}${entry.name}/`) : [`${prefix}${entry.name}`],
  );
}

function bytesOf(...fields) {
  const bytes = Buffer.alloc(fields.reduce((length, [size]) => length + size, 0));
  let at = 0;
  for (const [size, value] of fields) {
    at = bytes.writeUIntLE(value, at, size);
  }
  return bytes;
}

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ byte) & 0xff];
  }
  return (crc ^ 0xffffffff) >>> 0;
}
