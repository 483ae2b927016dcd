// A frontend of one's own in TypeScript: zeromq and msgpackr, nothing of vllm-ts.
//
//   vllm-ts serve --frontend-address /tmp/vllm        # in one shell
//   node dist/examples/frontend.js /tmp/vllm "Once upon a time"
//
// Adds a request from text, streams its text, then begins a long one and aborts it.
// docs/protocol.md is what it follows. (Within Node, vllm-ts/client does all this for you.)
import { readFileSync } from 'node:fs';
import { Packr } from 'msgpackr';
import { curveKeyPair, Dealer } from 'zeromq';

type Message = Readonly<Record<string, unknown>>;
type ColumnEntry = [name: string, type: keyof typeof arrays, offset: number, count: number];

const arrays = {
  u8: Uint8Array,
  i32: Int32Array,
  u32: Uint32Array,
  f32: Float32Array,
  f64: Float64Array,
  u64: BigUint64Array,
};
const finishReasons = ['none', 'stop', 'length', 'abort', 'error', 'repetition'];
const creditBytes = 1 << 20;
const packr = new Packr({ useRecords: false, moreTypes: false, variableMapSize: true });

/** One frame, or two with columns. */
function encode(message: Message, columns: Record<string, Int32Array | Uint32Array> = {}) {
  if (Object.keys(columns).length === 0) return [Buffer.from(packr.pack(message))];
  const table: ColumnEntry[] = [];
  const parts: Buffer[] = [];
  let size = 0;
  for (const [name, column] of Object.entries(columns)) {
    table.push([name, column instanceof Int32Array ? 'i32' : 'u32', size, column.length]);
    const padding = -column.byteLength & 7;
    parts.push(Buffer.from(column.buffer, column.byteOffset, column.byteLength));
    parts.push(Buffer.alloc(padding));
    size += column.byteLength + padding;
  }
  return [Buffer.from(packr.pack({ ...message, columns: table })), Buffer.concat(parts)];
}

/** The header's fields, and each column under its name. */
function decode([header, body]: Buffer[]): Message {
  const unpacked = packr.unpack(header!) as Message & { columns?: ColumnEntry[] };
  const { columns, ...fields } = unpacked;
  if (!columns) return fields;
  const { buffer } = Uint8Array.from(body!); // a copy is aligned
  const views = columns.map(([name, type, offset, count]) => [
    name,
    new arrays[type](buffer, offset, count),
  ]);
  return { ...fields, ...(Object.fromEntries(views) as Message) };
}

const [folder = '.', prompt = 'Once upon a time'] = process.argv.slice(2);
const server = JSON.parse(readFileSync(`${folder}/frontend.json`, 'utf8')) as Record<
  'engine' | 'detokenizer' | 'token' | 'engineKey' | 'detokenizerKey',
  string
>;
/** Rows of textOutputs that nobody has asked for yet. */
const rows: { requestId: number; text: Buffer; finishReason: string }[] = [];

async function connect(name: 'engine' | 'detokenizer'): Promise<Dealer> {
  const socket = new Dealer({ linger: 0, sendHighWaterMark: 0, receiveHighWaterMark: 0 });
  const serverKey = server[`${name}Key`] as string | null;
  if (serverKey !== null) {
    const { publicKey, secretKey } = curveKeyPair();
    Object.assign(socket, { curveServerKey: serverKey });
    Object.assign(socket, { curvePublicKey: publicKey, curveSecretKey: secretKey });
  }
  socket.connect(server[name]);
  const who = { role: 'client', index: 0, generation: 0, build: null, pid: process.pid };
  await socket.send(encode({ kind: 'hello', protocol: 3, token: server.token, ...who }));
  return socket;
}

/** The next message that is one of `kinds`; text that comes before it is kept. */
async function next(socket: Dealer, ...kinds: string[]): Promise<Message> {
  for (;;) {
    const message = decode(await socket.receive());
    const kind = message['kind'] as string;
    if (kind === 'refused' || kind === 'peerLost') throw new Error(JSON.stringify(message));
    if (kind === 'textOutputs') keepRows(message);
    if (kinds.includes(kind)) return message;
  }
}

function keepRows(message: Message): void {
  const text = message['text'] as Uint8Array;
  const textStart = message['textStart'] as Uint32Array;
  const finishReason = message['finishReason'] as Uint8Array;
  (message['requestId'] as Uint32Array).forEach((requestId, i) =>
    rows.push({
      requestId,
      text: Buffer.from(text.slice(textStart[i], textStart[i + 1])),
      finishReason: finishReasons[finishReason[i]!]!,
    }),
  );
}

async function tokenize(text: string): Promise<Int32Array> {
  await detokenizer.send(encode({ kind: 'tokenize', callId: 1, text, addSpecialTokens: true }));
  return (await next(detokenizer, 'textReply'))['tokenIds'] as Int32Array;
}

async function add(requestId: number, promptTokenIds: Int32Array, change: Message = {}) {
  const sampling = {
    temperature: 0,
    topP: 1,
    topK: 0,
    minP: 0,
    presencePenalty: 0,
    frequencyPenalty: 0,
    repetitionPenalty: 1,
    seed: null,
    maxTokens: 32,
    minTokens: 0,
    stopTokenIds: [],
    ignoreEos: false,
    logprobs: null,
    promptLogprobs: null,
    logitBias: null,
    allowedTokenIds: null,
    logprobTokenIds: null,
    badWords: [],
    repetitionDetection: null,
    ...change,
  };
  const text = {
    detokenize: true,
    stop: [],
    includeStopStrInOutput: false,
    skipSpecialTokens: true,
    spacesBetweenSpecialTokens: true,
    returnTokenIds: false,
    streamInterval: 1,
    finalOnly: false,
    creditBytes: 64 * 1024,
  };
  const request = { kind: 'addRequest', requestId, n: 1, priority: 0, cacheSalt: null };
  await engine.send(encode({ ...request, sampling, text }, { promptTokenIds }));
  const answer = await next(engine, 'accepted', 'rejected');
  if (answer['kind'] === 'rejected') throw new Error(JSON.stringify(answer['error']));
}

/** Text and finish reason of each row; what was taken is granted again. */
async function* stream(requestId: number) {
  for (;;) {
    while (rows.length === 0) await next(detokenizer, 'textOutputs');
    const row = rows.shift()!;
    if (row.requestId !== requestId) continue;
    const bytes = row.text.length;
    const grant = { requestId: Uint32Array.of(requestId), bytes: Uint32Array.of(bytes) };
    await detokenizer.send(encode({ kind: 'credit', bytes }, grant));
    yield { text: row.text.toString(), finishReason: row.finishReason };
    if (row.finishReason !== 'none') return;
  }
}

const engine = await connect('engine');
const { frontendId, attachKey } = await next(engine, 'welcome');
const detokenizer = await connect('detokenizer');
await next(detokenizer, 'welcome');
await detokenizer.send(encode({ kind: 'attach', frontendId, attachKey, creditBytes }));
await next(detokenizer, 'attached');

const tokenIds = await tokenize(prompt);
await add(1, tokenIds);
for await (const { text, finishReason } of stream(1)) {
  process.stdout.write(text);
  if (finishReason !== 'none') console.log(`\n[${finishReason}]`);
}

await add(2, tokenIds, { maxTokens: null, ignoreEos: true });
let isAborted = false;
for await (const { finishReason } of stream(2)) {
  if (!isAborted) await engine.send(encode({ kind: 'abort' }, { requestId: Uint32Array.of(2) }));
  isAborted = true;
  if (finishReason !== 'none') console.log(`[${finishReason}]`);
}
engine.close();
detokenizer.close();
