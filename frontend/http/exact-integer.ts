// JSON.parse reads numbers as doubles, exact to 2^53 only; a seed has 64 bits. This reads one field of
// an object again, as it is written. The text is known to be valid JSON; it may be long.

const integer = /\s*(-?\d+)(?![\d.eE])/y;

/** The integer that field `name` of the object `json` is written as; null where it is another thing. */
export function exactInteger(json: string, name: string): bigint | null {
  let depth = 0;
  let key = '';
  let found: bigint | null = null;
  for (let i = 0; i < json.length; i++) {
    const character = json[i];
    if (character === '"') {
      const end = endOfString(json, i);
      if (depth === 1) key = json.slice(i, end);
      i = end - 1;
    } else if (character === '{' || character === '[') depth++;
    else if (character === '}' || character === ']') depth--;
    else if (character === ':' && depth === 1 && JSON.parse(key) === name) {
      integer.lastIndex = i + 1;
      const digits = integer.exec(json)?.[1];
      // The last of several wins, as with JSON.parse.
      found = digits === undefined ? null : BigInt(digits);
    }
  }
  return found;
}

/** Where the text after the string that begins at `start` begins. */
function endOfString(json: string, start: number): number {
  for (let end = json.indexOf('"', start + 1); ; end = json.indexOf('"', end + 1)) {
    let numBackslashes = 0;
    while (json[end - 1 - numBackslashes] === '\\') numBackslashes++;
    if (numBackslashes % 2 === 0) return end + 1;
  }
}
