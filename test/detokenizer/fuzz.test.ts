import t from 'tap';
import type { TokenBytes } from '../../common/text/token-bytes.ts';
import type { FinishReason, NewTextRequest } from '../../common/wire/messages.ts';
import { Harness, type TextRow } from './harness.ts';
import { expectedText, newRequest, randomInts, smallTable, type Row } from './support.ts';

/** What the test knows of a request. */
interface Known {
  readonly info: NewTextRequest;
  readonly ids: number[];
  ended: FinishReason;
  readonly rows: TextRow[];
}

const stops = ['ab', 'ba', 'aab', 'é', ' a', 'abab', '�'];

/** Random traffic of three frontends, then an end for all of it. Returns counts of what was met. */
function play(table: TokenBytes, seed: number): Record<string, number> {
  const random = randomInts(seed);
  const h = new Harness(table);
  const known = new Map<string, Known>();
  const open = new Set<string>();
  const credits = [40, 4000, 1 << 20];
  let nextId = 1;
  for (const id of [0, 1, 2]) h.join(id, credits[random(3)]);
  const newToken = () => (random(3) > 0 ? 256 + random(8) : random(table.vocabSize));

  const step = (ending: boolean) => {
    const news: NewTextRequest[] = [];
    for (let i = ending ? 0 : random(3); i > 0; i--) {
      const info = newRequest(
        random(3),
        nextId++,
        {
          stop: Array.from({ length: random(3) }, () => stops[random(stops.length)]!),
          includeStopStrInOutput: random(2) === 0,
          skipSpecialTokens: random(2) === 0,
          returnTokenIds: random(3) === 0,
          streamInterval: 1 + random(3),
          finalOnly: random(5) === 0,
          detokenize: random(8) > 0,
          creditBytes: [10, 300, 1 << 16][random(3)]!,
        },
        { minTokens: random(4), logprobs: random(4) === 0 ? 1 : null },
      );
      const checked = info.text.detokenize ? info : { ...info, text: { ...info.text, stop: [] } };
      news.push(checked);
      const key = `${info.frontendId}/${info.requestId}`;
      known.set(key, { info: checked, ids: [], ended: 'none', rows: [] });
      open.add(key);
    }
    const rows: Row[] = [];
    for (const key of open) {
      if (!ending && random(2) === 0) continue;
      const request = known.get(key)!;
      const tokenIds = Array.from({ length: random(4) }, newToken);
      let finish: FinishReason = 'none';
      if (ending || random(12) === 0) {
        const reasons = ['stop', 'length', 'abort', 'error'] as const;
        finish = reasons[random(4)]!;
        if (finish === 'stop' && tokenIds.length === 0) finish = 'length';
        open.delete(key);
        request.ended = finish;
      }
      request.ids.push(...tokenIds);
      const { frontendId, requestId } = request.info;
      rows.push({
        frontendId,
        requestId,
        tokenIds,
        finish,
        ...(request.info.logprobs !== null && { logprobs: tokenIds.map((id) => [id, 7]) }),
        ...(finish === 'error' && { error: { code: 'internal', message: 'x' } as const }),
      });
    }
    h.tokens(news, rows);
  };

  const hear = () => {
    for (const row of h.take()) {
      const request = known.get(`${row.peer.slice('peer '.length)}/${row.requestId}`);
      if (!request) throw new Error(`row for nobody: ${row.peer} ${row.requestId}`);
      if (request.rows.some(({ finish }) => finish !== 'none'))
        throw new Error(`seed ${seed}: a row after the terminal one`);
      if (request.info.text.finalOnly && row.finish === 'none') throw new Error('a delta');
      request.rows.push(row);
    }
  };

  for (let i = 0; i < 60; i++) {
    step(false);
    if (random(3) === 0) {
      const grants = Object.fromEntries([...open].map((key) => [key.split('/')[1]!, random(200)]));
      h.credit(random(3), random(500), grants);
    }
    if (random(20) === 0) h.wait(31_000);
    if (random(25) === 0) h.detokenizer.peerGone(`peer ${random(3)}`);
    if (random(12) === 0) h.attach(random(3), credits[random(3)]!);
    hear();
  }
  step(true);
  for (const id of [0, 1, 2]) h.attach(id, 1 << 20);
  hear();
  h.wait(31_000);
  hear();

  const met: Record<string, number> = {};
  if (h.detokenizer.numOpen > 0) throw new Error(`seed ${seed}: requests are left`);
  for (const [key, request] of known) met[check(table, key, request, h)] ??= 1;
  return met;
}

/** Exactly one terminal row, and the right text with it. Returns how the request ended. */
function check(
  table: TokenBytes,
  key: string,
  { info, ids, ended, rows }: Known,
  h: Harness,
): string {
  const last = rows.at(-1);
  if (!last || last.finish === 'none') throw new Error(`${key} has no terminal row`);
  const text = rows.map((row) => row.text).join('');
  const heardIds = rows.flatMap((row) => row.tokenIds);
  const expected = info.text.detokenize
    ? expectedText(table, info, ids, ended === 'stop')
    : { text: '', numTokens: ids.length, stopStringIndex: -1 };
  const fail = (what: string): never => {
    throw new Error(
      `${key}: ${what}: ${JSON.stringify({ info, ids, ended, text, heardIds, last: { ...last, columns: null }, expected })}`,
    );
  };
  const told = h.stops.filter((s) => key === `${s.frontendId}/${s.requestId}`);
  const keepsIds = info.text.returnTokenIds || !info.text.detokenize || info.logprobs !== null;
  if (last.error?.code === 'slow_reader' || last.finish === 'abort' || last.finish === 'error') {
    // Cut short: what came is a beginning of what it would have been.
    if (!expected.text.startsWith(text)) fail('not a prefix');
    if (told.length > 1 || (told[0] && last.error?.code !== 'slow_reader')) fail('stop requests');
    return last.error?.code ?? last.finish;
  }
  if (text !== expected.text) fail('text');
  if (last.numOutputTokens !== expected.numTokens) fail('numOutputTokens');
  if (last.stopStringIndex !== expected.stopStringIndex) fail('stopStringIndex');
  const all = ids.slice(0, expected.numTokens);
  if (JSON.stringify(heardIds) !== JSON.stringify(keepsIds ? all : [])) fail('ids');
  if (expected.stopStringIndex < 0) {
    if (last.finish !== ended || told.length > 0) fail('finish');
    return ended;
  }
  if (last.finish !== 'stop' || told.length > 1) fail('finish of a stop string');
  if (told[0] && told[0].numOutputTokens !== expected.numTokens) fail('StopRequest');
  return told[0] ? 'stopString' : 'stopStringAtEnd';
}

t.test(
  'Detokenizer gives every request one terminal row and the text of one-shot decoding',
  (t) => {
    const table = smallTable();
    const met: Record<string, number> = {};
    for (let seed = 0; seed < 300; seed++) Object.assign(met, play(table, seed));
    t.match(
      Object.keys(met).sort(),
      ['abort', 'internal', 'length', 'slow_reader', 'stop', 'stopString', 'stopStringAtEnd'],
      'every way to end was met',
    );
    t.end();
  },
);
