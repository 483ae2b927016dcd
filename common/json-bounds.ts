// Says of JSON, before it is parsed, whether parsing it could take memory or time out of proportion
// to its size: by how deep its arrays and objects are nested, and by how many of them there are.

export interface JsonBounds {
  readonly depth: number;
  /** Arrays and objects in all. */
  readonly containers: number;
}

/** Of the files of a model folder: a million tensors, or as many merges four times over. */
const modelFileBounds: JsonBounds = { depth: 64, containers: 4 * 2 ** 20 };

const quote = 0x22;
const backslash = 0x5c;

/** What is wrong with it ("is nested deeper than ..."), null if nothing is. It need not be JSON. */
export function boundsFault(bytes: Uint8Array, { depth, containers }: JsonBounds): string | null {
  let level = 0;
  let count = 0;
  let inString = false;
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    if (inString) {
      if (byte === backslash) i++;
      else if (byte === quote) inString = false;
    } else if (byte === quote) inString = true;
    else if (byte === 0x7b || byte === 0x5b) {
      if (++level > depth) return `is nested deeper than ${depth} levels`;
      if (++count > containers) return `has more than ${containers} arrays and objects`;
    } else if (byte === 0x7d || byte === 0x5d) level--;
  }
  return null;
}

/** A model file's JSON. Throws Error that says what is wrong, without a name of the file. */
export function parseModelJson(bytes: Uint8Array): unknown {
  const fault = boundsFault(bytes, modelFileBounds);
  if (fault !== null) throw new Error(`it ${fault}`);
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw new Error('it is not UTF-8');
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`it is not JSON (${error instanceof Error ? error.message : String(error)})`, {
      cause: error,
    });
  }
}
