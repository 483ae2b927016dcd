// Measures a whole server over HTTP: tokens a second, time to the first token (TTFT) and for each
// further one (TPOT), at several numbers of concurrent streams. Needs nothing but Node.
//
//   any OpenAI-compatible server:
//     node scripts/bench-serving.mjs --url http://127.0.0.1:8000 --concurrency 1,8,32
//   vllm-ts beside llama.cpp, round by round, on the same model:
//     node scripts/bench-serving.mjs --serve MODEL_DIR --llama-server PROGRAM --gguf FILE --vocab N
//
// Prompts are random: token ids below --vocab, else single letters. Exit code 1 if a request failed.
import { parseArgs } from 'node:util';
import { heading, line, medianLine, medians, summarize } from './bench/figures.mjs';
import { runLoad } from './bench/load.mjs';
import { startLlamaCpp, startVllmTs } from './bench/servers.mjs';

const text = (value) => ({ type: 'string', default: value });
const options = {
  url: { type: 'string' },
  serve: { type: 'string' },
  'llama-server': { type: 'string' },
  gguf: { type: 'string' },
  model: { type: 'string' },
  'api-key': { type: 'string' },
  concurrency: text('1,8,32'),
  'requests-per-stream': text('2'),
  'prompt-tokens': text('128'),
  'output-tokens': text('128'),
  vocab: { type: 'string' },
  rounds: text('3'),
  threads: text('2'),
  seed: text('1'),
  json: { type: 'boolean', default: false },
  help: { type: 'boolean', default: false },
};

function showHelp() {
  const shown = Object.entries(options).map(([name, { type, default: value }]) =>
    type === 'boolean' ? `[--${name}]` : `[--${name} ${value ?? '...'}]`,
  );
  console.log(`node scripts/bench-serving.mjs ${shown.join(' ')}`);
  process.exit(0);
}

function fail(message) {
  console.error(`bench-serving: ${message}`);
  process.exit(64);
}

function parseFlags() {
  let flags;
  try {
    flags = parseArgs({ options }).values;
  } catch (error) {
    fail(error.message);
  }
  if (flags.help) showHelp();
  const whole = (name, value) => {
    if (!/^[1-9]\d{0,8}$/.test(value)) fail(`--${name}: ${value} is not a positive whole number`);
    return Number(value);
  };
  if ((flags.url === undefined) === (flags.serve === undefined)) fail('give --url, or --serve');
  if ((flags.gguf === undefined) !== (flags['llama-server'] === undefined))
    fail('--llama-server and --gguf go together');
  return {
    url: flags.url,
    serve: flags.serve,
    llamaServer: flags['llama-server'],
    gguf: flags.gguf,
    model: flags.model,
    headers: flags['api-key'] ? { authorization: `Bearer ${flags['api-key']}` } : {},
    concurrencies: flags.concurrency.split(',').map((value) => whole('concurrency', value)),
    vocab: flags.vocab === undefined ? null : whole('vocab', flags.vocab),
    requestsPerStream: whole('requests-per-stream', flags['requests-per-stream']),
    promptTokens: whole('prompt-tokens', flags['prompt-tokens']),
    outputTokens: whole('output-tokens', flags['output-tokens']),
    rounds: whole('rounds', flags.rounds),
    threads: whole('threads', flags.threads),
    seed: whole('seed', flags.seed),
    json: flags.json,
  };
}

/** xorshift32: the same prompts for the same seed, whichever server they are for. */
function randomFrom(seed) {
  let state = (seed * 2654435761) >>> 0 || 1;
  return (below) => {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state = (state ^ (state << 5)) >>> 0;
    return state % below;
  };
}

function makePrompt({ vocab, promptTokens }, random) {
  const letters = 'abcdefghijklmnopqrstuvwxyz';
  if (vocab === null)
    return Array.from({ length: promptTokens }, () => letters[random(letters.length)]).join(' ');
  // The first ids of a vocabulary are its special tokens and bytes.
  const first = Math.min(256, vocab >> 1);
  return Array.from({ length: promptTokens }, () => first + random(vocab - first));
}

/** One measurement. Every round has prompts of its own, so that no cache knows them. */
async function measure(flags, server, concurrency, round) {
  const random = randomFrom(flags.seed + 1_000_000 * round + concurrency);
  const requests = concurrency * flags.requestsPerStream;
  const bodies = Array.from({ length: requests }, () => ({
    ...(flags.model !== undefined && { model: flags.model }),
    prompt: makePrompt(flags, random),
    max_tokens: flags.outputTokens,
    temperature: 0,
    ignore_eos: true,
  }));
  const run = await runLoad({ url: server.url, headers: flags.headers, concurrency, bodies });
  return { server: server.name, concurrency, round, ...summarize(run) };
}

async function startServers(flags) {
  if (flags.url !== undefined) {
    if (!URL.canParse(flags.url)) fail(`--url: ${flags.url} is not a URL`);
    return [{ name: new URL(flags.url).host, url: flags.url, stop: async () => {} }];
  }
  const common = {
    threads: flags.threads,
    streams: Math.max(...flags.concurrencies),
    contextTokens: flags.promptTokens + flags.outputTokens + 16,
  };
  const servers = [await startVllmTs({ ...common, model: flags.serve })];
  if (flags.gguf !== undefined)
    servers.push(await startLlamaCpp({ ...common, program: flags.llamaServer, gguf: flags.gguf }));
  return servers;
}

const flags = parseFlags();
const servers = await startServers(flags).catch((error) => {
  console.error(`bench-serving: ${error.message.trim()}`);
  process.exit(1);
});
const rows = [];
try {
  // Once for each, unmeasured: pages, caches and compiled code.
  for (const server of servers) await measure(flags, server, 1, 0);
  if (!flags.json) console.log(heading());
  for (const concurrency of flags.concurrencies)
    for (let round = 1; round <= flags.rounds; round++)
      for (const server of servers) {
        rows.push(await measure(flags, server, concurrency, round));
        if (!flags.json) console.log(line(rows.at(-1)));
      }
} finally {
  await Promise.all(servers.map((server) => server.stop()));
}
const names = servers.map(({ name }) => name);
const summary = medians(rows, names, flags.concurrencies);
if (flags.json) console.log(JSON.stringify({ rows, medians: summary }));
else for (const each of summary) console.log(medianLine(each));
const failures = rows.filter(({ failed }) => failed > 0);
for (const { server, failed, firstError } of failures)
  console.error(`bench-serving: ${server}: ${failed} requests failed: ${firstError}`);
process.exit(failures.length > 0 ? 1 : 0);
