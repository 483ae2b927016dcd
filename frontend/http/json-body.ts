// Reads a JSON body: bounded in bytes, in chunks and in depth before anything is parsed. Objects
// come from JSON.parse, so that "__proto__" is a key like any other, and no key is looked up on a
// prototype later (schemas read own properties only).
import type { IncomingMessage } from 'node:http';
import { RequestError } from '../../common/errors.ts';
import { boundsFault } from '../../common/json-bounds.ts';
import { isObject } from '../../common/json-object.ts';
import type { HttpLimits } from '../../common/limits.ts';
import { exactInteger } from './exact-integer.ts';
import { ClientGone } from './http-errors.ts';

/** On average, in a body of the full size; a client that sends smaller ones is not one. */
const minChunkBytes = 64;

export type BodyLimits = Pick<HttpLimits, 'bodyBytes' | 'jsonDepth'>;

const utf8 = new TextDecoder('utf-8', { fatal: true });

export async function readJsonBody(
  request: IncomingMessage,
  { bodyBytes, jsonDepth }: BodyLimits,
): Promise<unknown> {
  return parseJson(await readBody(request, bodyBytes), jsonDepth);
}

function readBody(request: IncomingMessage, maxBytes: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let numBytes = 0;
    const finish = () => {
      request.off('data', onData).off('end', onEnd).off('close', onClose);
    };
    const onData = (chunk: Buffer) => {
      numBytes += chunk.length;
      if (numBytes > maxBytes || chunks.length * minChunkBytes >= maxBytes) refuse();
      else chunks.push(chunk);
    };
    const onEnd = () => {
      finish();
      resolve(Buffer.concat(chunks));
    };
    const onClose = () => {
      finish();
      reject(new ClientGone());
    };
    const refuse = () => {
      finish();
      const message = `the request body is larger than ${maxBytes} bytes (--max-body-bytes)`;
      reject(new RequestError('payload_too_large', message));
      // What still comes is dropped; the answer closes the connection.
      request.resume();
    };
    if (Number(request.headers['content-length'] ?? 0) > maxBytes) refuse();
    else request.on('data', onData).on('end', onEnd).on('close', onClose);
  });
}

export function parseJson(body: Uint8Array, maxDepth: number): unknown {
  const fault = boundsFault(body, { depth: maxDepth, containers: Infinity });
  if (fault !== null) throw new RequestError('bad_request', `the JSON ${fault}`);
  let text: string;
  try {
    text = utf8.decode(body);
  } catch {
    throw new RequestError('bad_request', 'the request body is not valid UTF-8');
  }
  try {
    return withExactSeed(JSON.parse(text), text);
  } catch (error) {
    const { message } = error as Error;
    throw new RequestError('bad_request', `the request body is not valid JSON (${message})`);
  }
}

/** The one field that may need more than the 53 bits of a number: then it is a bigint. */
function withExactSeed(body: unknown, text: string): unknown {
  if (!isObject(body) || typeof body['seed'] !== 'number' || Number.isSafeInteger(body['seed']))
    return body;
  const seed = exactInteger(text, 'seed');
  return seed === null ? body : { ...body, seed };
}
