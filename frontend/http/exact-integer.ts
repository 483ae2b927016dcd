// JSON.parse reads numbers as doubles, exact to 2^53 only; a seed has 64 bits. This reads one field of
// an object again, as it is written. The text is known to be valid JSON; it may be long.

const integer = /\s*(-?\d+)(?![\d.eE])/y;

/** The integer that field `name` of the object `json` is written as; null where it is another thing. */
export function exactInteger(json: string, name: string): bigint | null {
  let depth = 0;
  let key = '';
  let found: bigint | null = null;
  const structure = /["{}[\]:]/g;
  for (let match = structure.exec(json); match !== null; match = structure.exec(json)) {
    const character = match[0];
    if (character === '"') {
      const end = endOfString(json, match.index);
      if (depth === 1) key = json.slice(match.index, end);
      structure.lastIndex = end;
    } else if (character === '{' || character === '[') depth++;
    else if (character === '}' || character === ']') depth--;
    else if (character === ':' && depth === 1 && JSON.parse(key) === name) {
      integer.lastIndex = match.index + 1;
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
