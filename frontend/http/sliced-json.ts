// JSON that may be very long (logprobs of a long prompt): its lists are made and written a piece at
// a time, and whatever else the process has to do is done between the pieces.
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isObject } from '../../common/json-object.ts';

/** About the characters that are made in one turn; an element is never split. */
export const pieceLength = 64 * 1024;

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

/** The bytes of JSON.stringify(value), a piece a turn. */
export async function* inPieces(value: object): AsyncGenerator<string, void, undefined> {
  for (const piece of joinParts(jsonParts(value))) {
    yield piece;
    if (piece.length >= pieceLength) await nextTurn();
  }
}

/** The same text in pieces of at least pieceLength, but for the last. */
export function* joinParts(parts: Iterable<string>): Generator<string, void, undefined> {
  let piece = '';
  for (const part of parts) {
    piece += part;
    if (piece.length < pieceLength) continue;
    yield piece;
    piece = '';
  }
  yield piece;
}

/** The text of JSON.stringify(value), with each element of a Sliced in a part of its own. */
export function* jsonParts(value: unknown): Generator<string, void, undefined> {
  if (value instanceof Sliced) {
    yield '[';
    for (let i = 0; i < value.length; i++)
      yield `${i === 0 ? '' : ','}${JSON.stringify(value.at(i))}`;
    yield ']';
  } else if (Array.isArray(value) && typeof value[0] === 'object') {
    yield '[';
    for (const [i, element] of value.entries()) {
      if (i > 0) yield ',';
      yield* jsonParts(element);
    }
    yield ']';
  } else if (isObject(value)) {
    let before = '{';
    for (const [key, member] of Object.entries(value)) {
      if (member === undefined) continue;
      yield `${before}${JSON.stringify(key)}:`;
      yield* jsonParts(member);
      before = ',';
    }
    yield before === '{' ? '{}' : '}';
  } else yield JSON.stringify(value);
}
