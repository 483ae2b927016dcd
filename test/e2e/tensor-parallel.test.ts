// Several ranks, each a process: golden tokens, the same ones whatever runs beside, and ranks that
// die, stand still or disagree are found, named and replaced.
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { CompletionStream, get, post, servesAgain } from './client.ts';
import { faultUnderLoad, golden, isGolden, long, short, tokensOf } from './ranks.ts';
import { limitMs, runCommand, serveCommand, startServer, type Server } from './server.ts';

t.setTimeout(10 * limitMs);

/** Nobody is blamed who only waits for a processor. */
const patience = ['--collective-timeout', '60'];
const flags = (numRanks: number, ...more: string[]) => [
  ...['--device', 'cpu', '--tensor-parallel-size', String(numRanks), '--threads', '1'],
  ...patience,
  ...more,
];

async function counter(server: Server, name: string): Promise<number> {
  const { body } = await get(server, '/metrics');
  return Number(new RegExp(`^vllm:${name}\\{.*\\} (\\S+)$`, 'm').exec(String(body))?.[1]);
}

for (const numRanks of [2, 4])
  t.test(`${numRanks} ranks serve golden tokens and list their memory`, async (t) => {
    const server = await startServer(t, flags(numRanks));
    t.match(server.ready['device'], new RegExp(`^${numRanks} x cpu`));
    const body = { max_tokens: 64, temperature: 0 };
    await Promise.all(
      golden.slice(0, 6).map(async (row) => {
        const ids = await tokensOf(t, server, { ...body, prompt: row.prompt_ids });
        isGolden(t, row, ids);
      }),
    );
    const { body: memory } = await get(server, '/memory');
    const names = Array.from({ length: numRanks }, (_, rank) => `worker ${rank}`);
    t.same(Object.keys(memory as object), names);
    for (const name of names) t.ok(server.children().has(name), `a process of title ${name}`);
    server.kill('SIGTERM');
    t.same(await server.exited, { code: 0, signal: null });
    t.notMatch(server.stderr, / (WARN|ERROR|FATAL) /, 'an orderly end');
  });

/** What a rank tells the others differs with each: a candidate, several, logprobs, all logits. */
const kinds = [
  {},
  { top_k: 20, top_p: 0.9 },
  { top_p: 0.9, presence_penalty: 0.5 },
  { min_p: 0.05, logprobs: 3 },
  { repetition_penalty: 1.1, logprobs: 0 },
  { logit_bias: { 5: 2, 8000: -3 } },
];

t.test('the same tokens after prefix hits, preemption, in chunks and ahead', async (t) => {
  const bodies = golden.slice(0, 8).map((row, i) => ({
    prompt: [...golden[0]!.prompt_ids, ...row.prompt_ids],
    max_tokens: 120,
    ignore_eos: true,
    temperature: i % 4 === 0 ? 0 : 0.8,
    ...kinds[i % kinds.length],
    seed: i,
  }));
  for (const numRanks of [2, 4]) {
    const alone = await startServer(
      t,
      flags(numRanks, '--async-depth', '1', '--no-enable-prefix-caching'),
    );
    const expected: number[][] = [];
    for (const body of bodies) expected.push(await tokensOf(t, alone, body));
    alone.kill('SIGINT');
    await alone.exited;

    // About as many blocks as three of the requests need.
    const small = ['--max-model-len', '512', '--kv-cache-memory-bytes', String(36 * 65_536)];
    const chunks = ['--max-num-seqs', '16', '--max-num-batched-tokens', '48', '--async-depth', '3'];
    const server = await startServer(t, flags(numRanks, ...small, ...chunks));
    const together = await Promise.all(bodies.map((body) => tokensOf(t, server, body)));
    t.same(together, expected, `${numRanks} ranks: all at once`);
    t.ok((await counter(server, 'num_preemptions_total')) > 0, 'some were preempted');
    const again = await tokensOf(t, server, bodies[3]!);
    t.same(again, expected[3], `${numRanks} ranks: with a cached prefix`);
    t.ok((await counter(server, 'prefix_cache_hits_total')) > 0);
  }
});

t.test('a rank that is killed takes the others along, and counts as one death', async (t) => {
  const server = await startServer(t, flags(2));
  t.match(
    await faultUnderLoad(t, [server], 2, ([, rank1]) => process.kill(rank1!, 'SIGKILL')),
    /^worker 1 was lost: .*; it (had answered|was last heard of in op \d+ of) step \d+$/,
  );
  t.match(
    await faultUnderLoad(t, [server], 2, ([rank0]) => process.kill(rank0!, 'SIGKILL')),
    'worker 0',
  );
  t.equal((await get(server, '/health')).status, 200);
});

t.test('a rank that stands still is named, with step and op', async (t) => {
  // Sooner than the engine would miss its heartbeats.
  const server = await startServer(t, flags(4, '--collective-timeout', '2'));
  const message = await faultUnderLoad(t, [server], 4, (ranks) =>
    process.kill(ranks[2]!, 'SIGSTOP'),
  );
  t.match(message, /^worker 2 was lost: .*rank 2 did not come to .* \(op \d+ of step \d+\)/);
  t.match(server.stderr, /worker 2 is given up: .*rank 2 did not come to/);
});

/** A server whose processes load a module of this folder first. */
function serveWith(t: Test, module: string, numRanks: number): Server {
  const hook = fileURLToPath(new URL(module, import.meta.url));
  const env = ['env', `NODE_OPTIONS=--import=${hook}`];
  return runCommand(t, [...env, ...serveCommand, '--port', '0', ...flags(numRanks)]);
}

t.test('a rank that reads a wrong token is named by the others, at that step', async (t) => {
  const server = serveWith(t, 'wrong-token-rank.js', 4);
  await server.waitReady();
  let answer = await post(server, '/v1/completions', short);
  for (let i = 0; answer.status === 200 && i < 20; i++)
    answer = await post(server, '/v1/completions', short);
  t.equal(answer.status, 500);
  t.match(
    JSON.stringify(answer.body),
    /worker 1 was lost: .*rank 1 disagrees with the others at the step's first op \(op 0 of step \d+\): the tokens that it has read or sampled are others/,
  );
  await servesAgain(t, server, short);
});

t.test('a rank that disagrees is named', async (t) => {
  const server = serveWith(t, 'disagreeing-rank.js', 2);
  await server.waitReady();
  const stream = await CompletionStream.open(server, long);
  await stream.ended;
  t.match(stream.error?.message, /^worker 1 was lost: disagrees with the others after step \d+/);
  await servesAgain(t, server, short);
  t.equal((await tokensOf(t, server, { ...short, max_tokens: 40, ignore_eos: true })).length, 40);
});

t.test('numbers of ranks that cannot be are start errors with both numbers', async (t) => {
  const fail = async (...argv: string[]) => {
    const server = runCommand(t, [...serveCommand, '--port', '0', ...argv]);
    t.equal((await server.exited).code, 64);
    return server.stderr;
  };
  t.match(
    await fail(...flags(3)),
    /--tensor-parallel-size 3: the model's 4 attention heads do not/,
  );
  t.match(
    await fail('-tp=8', '--device', 'cpu'),
    /--tensor-parallel-size 8: the model's 4 attention/,
  );
  t.match(
    await fail('--device', 'reference', '-tp', '2'),
    /2 is not built on reference; supported: cpu/,
  );
});
