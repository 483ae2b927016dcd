// Writes safetensors files for tests, good or bad.
import type { TensorFile } from '../../worker/weights/tensor-file.ts';

/** Header, and `dataBytes` zeros after it. */
export function safetensors(header: unknown, dataBytes: number): Uint8Array<ArrayBuffer> {
  const json = new TextEncoder().encode(JSON.stringify(header));
  const bytes = new Uint8Array(8 + json.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(json.length), true);
  bytes.set(json, 8);
  return bytes;
}

/** A file of F32 tensors [rows, columns] by name. */
export function f32File(tensors: Readonly<Record<string, readonly number[]>>): Uint8Array {
  const header: Record<string, unknown> = {};
  let end = 0;
  for (const [name, shape] of Object.entries(tensors)) {
    const begin = end;
    end += shape.reduce((product, n) => product * n, 4);
    header[name] = { dtype: 'F32', shape, data_offsets: [begin, end] };
  }
  return safetensors(header, end);
}

export function inMemory(path: string, bytes: Uint8Array): TensorFile {
  return {
    path,
    numBytes: bytes.length,
    slice: (begin, end) => bytes.subarray(begin, end),
  };
}
