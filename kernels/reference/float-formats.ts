// f16 and bf16 as bits, to and from numbers. Widening is exact; narrowing rounds to nearest, ties
// to even, and keeps NaN.
import type { Dtype } from '../program.ts';

const word = new Uint32Array(1);
const float = new Float32Array(word.buffer);

export function bf16ToNumber(bits: number): number {
  word[0] = bits << 16;
  return float[0]!;
}

export function numberToBf16(value: number): number {
  float[0] = value;
  const bits = word[0]!;
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

export function f16ToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >>> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

export function numberToF16(value: number): number {
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  if (Number.isNaN(value)) return 0x7e00;
  const size = Math.abs(value);
  if (size >= 65520) return sign | 0x7c00;
  // The spacing of the numbers around `size`; below 2^-14 it stays that of the smallest normals.
  const exponent = Math.max(-14, Math.floor(Math.log2(size)));
  const steps = roundToEven(size / 2 ** (exponent - 10));
  // 2048 steps carry into the next exponent, and subnormals have no leading one: both add up.
  return sign | (((exponent + 14) << 10) + steps);
}

function roundToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return floor + (rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? 1 : 0);
}

/** Stored elements to numbers; `bytes` may lie at any alignment. */
export function widen(dtype: Dtype, bytes: Uint8Array): Float32Array {
  const aligned = bytes.slice();
  if (dtype === 'f32') return new Float32Array(aligned.buffer, 0, aligned.length / 4);
  const bits = new Uint16Array(aligned.buffer, 0, aligned.length / 2);
  const result = new Float32Array(bits.length);
  const convert = dtype === 'bf16' ? bf16ToNumber : f16ToNumber;
  for (let i = 0; i < bits.length; i++) result[i] = convert(bits[i]!);
  return result;
}

/** Numbers to stored elements. */
export function narrow(dtype: Dtype, values: Float32Array): Float32Array | Uint16Array {
  if (dtype === 'f32') return values;
  const convert = dtype === 'bf16' ? numberToBf16 : numberToF16;
  const bits = new Uint16Array(values.length);
  for (let i = 0; i < bits.length; i++) bits[i] = convert(values[i]!);
  return bits;
}

/** Rounds in place to what `dtype` can hold. */
export function roundTo(dtype: Dtype, values: Float32Array): void {
  if (dtype === 'f32') return;
  const round =
    dtype === 'bf16'
      ? (value: number) => bf16ToNumber(numberToBf16(value))
      : (value: number) => f16ToNumber(numberToF16(value));
  for (let i = 0; i < values.length; i++) values[i] = round(values[i]!);
}
