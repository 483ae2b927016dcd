// JSON of answers that may be very long (logprobs of a long prompt): its lists are made and written
// a piece at a time, and whatever else the process has to do is done between the pieces.
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isObject } from '../../common/json-object.ts';

/** About the bytes that are made in one turn; an element is never split. */
const pieceBytes = 64 * 1024;

/** A list whose elements are made when they are written. */
export class Sliced<T> {
  readonly length: number;
  readonly at: (index: number) => T;

  constructor(length: number, at: (index: number) => T) {
    this.length = length;
    this.at = at;
  }

  toJSON(): T[] {
    return Array.from({ length: this.length }, (_, i) => this.at(i));
  }
}

/** The bytes of JSON.stringify(value). */
export async function* inPieces(value: object): AsyncGenerator<string, void, undefined> {
  let piece = '';
  for (const part of parts(value)) {
    piece += part;
    if (piece.length < pieceBytes) continue;
    yield piece;
    piece = '';
    await nextTurn();
  }
  yield piece;
}

function* parts(value: unknown): Generator<string> {
  if (value instanceof Sliced) {
    yield '[';
    for (let i = 0; i < value.length; i++)
      yield `${i === 0 ? '' : ','}${JSON.stringify(value.at(i))}`;
    yield ']';
  } else if (Array.isArray(value) && typeof value[0] === 'object') {
    yield '[';
    for (const [i, element] of value.entries()) {
      if (i > 0) yield ',';
      yield* parts(element);
    }
    yield ']';
  } else if (isObject(value)) {
    let before = '{';
    for (const [key, member] of Object.entries(value)) {
      if (member === undefined) continue;
      yield `${before}${JSON.stringify(key)}:`;
      yield* parts(member);
      before = ',';
    }
    yield before === '{' ? '{}' : '}';
  } else yield JSON.stringify(value);
}
