// The rows that are measured through the whole engine: which shape each wants, how it is measured,
// and what it stands beside. Limits are bytes at the read bandwidth and a roofline a GEMM; vLLM is
// 0.26.0 on an H100 80GB.
import { readFileSync } from 'node:fs';
import { LLM, type SamplingParams } from '../../frontend/index.ts';
import { median, Random, runWork, type Outcome } from './load.ts';
import type { ShapeName } from './shapes.ts';

export interface Measured {
  /** In the row's unit. */
  readonly value: number;
  /** Every run, idle share and what else a reader should know. */
  readonly note: string;
}

export interface Row {
  readonly id: string;
  readonly what: string;
  readonly unit: 'ms' | 'tok/s' | '%' | 's';
  readonly limit: string;
  readonly vllm: string;
  /** To be at most (ms, %, s) or at least (tok/s). */
  readonly target: number;
  /** The same over several GPUs, by their number. */
  readonly targetOfRanks?: Readonly<Record<number, number>>;
  /** It does not fit on fewer GPUs, or is for no fewer unless it is asked for. */
  readonly minRanks?: number;
  /** The engine it runs on; null starts its own. */
  readonly shape: ShapeName | 'smollm2' | null;
  readonly measure: (context: RowContext) => Promise<Measured>;
}

export interface RowContext {
  readonly llm: LLM;
  /** JSON lines with `prompt`, of --prompts. */
  readonly promptsFile: string | null;
  readonly repeats: number;
  /** Seconds from the start of a server to the first token, with weights from a file or made up. */
  readonly startToFirstToken: (
    shape: ShapeName,
    weights: 'files' | 'dummy',
  ) => Promise<readonly number[]>;
}

const percent = (share: number) => `${(share * 100).toFixed(2)} %`;
const list = (values: readonly number[], digits: number) =>
  values.map((value) => value.toFixed(digits)).join(', ');

/** (T(288) - T(32)) / 256 with 128 tokens in. */
async function decodeSteps(
  { llm, repeats }: RowContext,
  batch: number,
  sampling: Partial<SamplingParams>,
) {
  const random = new Random(batch);
  const times: number[] = [];
  let last: Outcome | null = null;
  for (let i = 0; i < repeats; i++) {
    const work = (maxTokens: number) =>
      runWork(llm, { prompts: random.prompts(batch, 128), maxTokens, sampling });
    const short = await work(32);
    last = await work(288);
    times.push(((last.seconds - short.seconds) / 256) * 1000);
  }
  return { times, idleShare: last!.idleShare };
}

const decode =
  (batch: number, sampling: Partial<SamplingParams> = {}) =>
  async (context: RowContext) => {
    const { times, idleShare } = await decodeSteps(context, batch, sampling);
    const note = `${list(times, 3)}; idle ${percent(idleShare)}`;
    return { value: median(times), note };
  };

const idle = async ({ llm }: RowContext) => {
  const prompts = new Random(7).prompts(256, 128);
  const { idleShare, seconds } = await runWork(llm, { prompts, maxTokens: 288 });
  return { value: idleShare * 100, note: `${seconds.toFixed(2)} s` };
};

const prefill = async ({ llm, repeats }: RowContext) => {
  const random = new Random(11);
  const rates: number[] = [];
  for (let i = 0; i < repeats; i++) {
    const prompts = random.prompts(8, 2048);
    rates.push((8 * 2048) / (await runWork(llm, { prompts, maxTokens: 1 })).seconds);
  }
  return { value: median(rates), note: list(rates, 0) };
};

async function mixedLengths({ llm }: RowContext): Promise<Measured> {
  const random = new Random(0);
  const prompts = random.prompts(256, [100, 1024]);
  const maxTokens = prompts.map(() => random.between(100, 1024));
  return rate(await runWork(llm, { prompts, maxTokens, sampling: { temperature: 0.6 } }));
}

async function thousandEach({ llm }: RowContext): Promise<Measured> {
  return rate(await runWork(llm, { prompts: new Random(1).prompts(256, 1000), maxTokens: 1000 }));
}

async function chatText({ llm, promptsFile }: RowContext): Promise<Measured> {
  if (promptsFile === null) throw new Error('needs --prompts FILE');
  const lines = readFileSync(promptsFile, 'utf8').split('\n').filter(Boolean);
  const prompts: Int32Array[] = [];
  for (let i = 0; i < lines.length; i += 64)
    prompts.push(...(await Promise.all(lines.slice(i, i + 64).map((line) => chatIds(llm, line)))));
  const work = { maxTokens: 300, sampling: { temperature: 0.8, minP: 0.04 }, text: true };
  await runWork(llm, { ...work, prompts: prompts.slice(0, 64) });
  const outcome = await runWork(llm, { ...work, prompts });
  const { value, note } = rate(outcome);
  const mean = (outcome.numOutputTokens / prompts.length).toFixed(0);
  return { value, note: `${prompts.length} prompts, ${mean} tokens each; ${note}` };
}

/** Ids of a line of chat-prompts.py, whose text has the turns of a conversation marked. */
async function chatIds(llm: LLM, line: string): Promise<Int32Array> {
  const { prompt } = JSON.parse(line) as { prompt: string };
  // Marks within text are not special tokens to our tokenizer; the chat template makes them so.
  const turns = [...prompt.matchAll(/<\|im_start\|>(\w+)\n(.*?)<\|im_end\|>/gs)];
  const messages = turns.map(([, role, content]) => ({ role: role!, content: content! }));
  return (await llm.engine.applyChatTemplate(messages)).tokenIds;
}

function rate({ numOutputTokens, seconds, idleShare }: Outcome): Measured {
  const note = `${numOutputTokens} tokens in ${seconds.toFixed(2)} s; idle ${percent(idleShare)}`;
  return { value: numOutputTokens / seconds, note };
}

const firstToken =
  (shape: ShapeName, weights: 'files' | 'dummy') =>
  async ({ startToFirstToken }: RowContext): Promise<Measured> => {
    const seconds = await startToFirstToken(shape, weights);
    return { value: median(seconds), note: list(seconds, 2) };
  };

type Beside = readonly [limit: string, vllm: string, target: number];

const row = (
  id: string,
  shape: Row['shape'],
  what: string,
  unit: Row['unit'],
  [limit, vllm, target]: Beside,
  measure: Row['measure'],
): Row => ({ id, what, unit, limit, vllm, target, shape, measure });

const startOf8b = (id: string, what: string, weights: 'files' | 'dummy'): Row => ({
  ...row(id, null, what, 's', ['', '', NaN], firstToken('llama-8b', weights)),
  targetOfRanks: { 2: 5 },
  minRanks: 2,
});

/** Rows of one shape stand together: they share an engine. */
export const rows: readonly Row[] = [
  row('1b-1', 'llama-1b', 'batch 1, 1B', 'ms', ['0.80', '1.62', 0.95], decode(1)),
  row('1b-256', 'llama-1b', 'step at batch 256, 1B', 'ms', ['1.73', '7.10', 2.8], decode(256)),
  row(
    '1b-prefill',
    'llama-1b',
    'prefill 8 x 2048, 1B',
    'tok/s',
    ['380 k', '233650', 257_000],
    prefill,
  ),
  row(
    'start',
    null,
    'start to first token, 1B',
    's',
    ['', '51', 3],
    firstToken('llama-1b', 'files'),
  ),
  row(
    '0.6b-256',
    'qwen3-0.6b',
    'step at batch 256, Qwen3-0.6B',
    'ms',
    ['3.27', '5.59', 4.4],
    decode(256),
  ),
  row('0.6b-idle', 'qwen3-0.6b', 'idle at batch 256, 0.6B', '%', ['0', '', 5], idle),
  row(
    '0.6b-mixed',
    'qwen3-0.6b',
    '256 x 100-1024 in and out, 0.6B',
    'tok/s',
    ['26.9 k', '19082', 21_500],
    mixedLengths,
  ),
  row(
    'smollm2',
    'smollm2',
    'SmolLM2 chat text, 1,024 at once',
    'tok/s',
    ['host', '17500', 60_000],
    chatText,
  ),
  {
    ...row('8b-1', 'llama-8b', 'batch 1, 8B', 'ms', ['4.83', '6.54', 5.5], decode(1)),
    targetOfRanks: { 2: 2.25, 4: 1.36 },
  },
  row('8b-256', 'llama-8b', 'step at batch 256, 8B', 'ms', ['8.36', '12.53', 11], decode(256)),
  {
    ...row(
      '8b-256-top-k',
      'llama-8b',
      'the same, temperature 0.6, top-k 20, top-p 0.95',
      'ms',
      ['', '', NaN],
      decode(256, { temperature: 0.6, topK: 20, topP: 0.95 }),
    ),
    minRanks: 2,
  },
  {
    ...row(
      '8b-256-top-p',
      'llama-8b',
      'the same, temperature 0.6, top-p 0.9',
      'ms',
      ['', '', NaN],
      decode(256, { temperature: 0.6, topP: 0.9 }),
    ),
    minRanks: 2,
  },
  row('8b-idle', 'llama-8b', 'idle at batch 256, 8B', '%', ['0', '', 2], idle),
  row(
    '8b-prefill',
    'llama-8b',
    'prefill 8 x 2048, 8B',
    'tok/s',
    ['54.5 k', '41734', 41_734],
    prefill,
  ),
  startOf8b('start-8b', 'start to first token, 8B from the page cache', 'files'),
  startOf8b('start-8b-dummy', 'start to first token, 8B, weights made up', 'dummy'),
  { ...row('70b-1', 'llama-70b', 'batch 1, 70B', 'ms', ['', '', NaN], decode(1)), minRanks: 4 },
  {
    ...row('70b-64', 'llama-70b', 'step at batch 64, 70B', 'ms', ['', '', NaN], decode(64)),
    minRanks: 4,
  },
  row(
    '8b-1000',
    'llama-8b',
    '256 x 1000 in, 1000 out, 8B',
    'tok/s',
    ['9.1 k', '7401', 7800],
    thousandEach,
  ),
];
