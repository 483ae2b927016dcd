// The two example frontends and HTTP on one server at the same time: the same request ids, nobody
// sees or ends another's request.
import { spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';
import { defaultSamplingParams, defaultTextParams } from '../../common/sampling-params.ts';
import { EngineClient } from '../../frontend/engine-client.ts';
import { limitMs, startServer, type Server } from './server.ts';

t.setTimeout(10 * limitMs);

async function overHttp(server: Server, prompt: string): Promise<string> {
  const response = await fetch(`${server.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt, max_tokens: 32, temperature: 0 }),
  });
  const body = (await response.json()) as { choices: { text: string }[] };
  return body.choices[0]!.text;
}

function run(program: string, args: readonly string[]): Promise<string> {
  return new Promise((resolve) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let out = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (out += text));
    child.on('close', (code) => resolve(code === 0 ? out : `exit ${code}: ${out}`));
  });
}

t.test('both examples run beside HTTP, each with its own requests', async (t) => {
  const folder = join(mkdtempSync(join(tmpdir(), 'vt-')), 'run');
  t.teardown(() => rmSync(join(folder, '..'), { recursive: true }));
  const server = await startServer(t, ['--frontend-address', folder]);
  const prompts = ['Once upon a time', 'The little dog', 'One day, Lily', 'A big tree'];
  const expected: string[] = [];
  for (const prompt of prompts) expected.push(await overHttp(server, prompt));

  // A third frontend uses the examples' ids for a long request, and aborts ids that are not its own.
  const client = await EngineClient.connect(folder);
  const ending = new AbortController();
  const long = (async () => {
    let last = 'none';
    const request = {
      promptTokenIds: await client.tokenize('Lily'),
      sampling: { ...defaultSamplingParams, maxTokens: null, ignoreEos: true },
      text: defaultTextParams,
      n: 4,
      priority: 0,
      cacheSalt: null,
    };
    for await (const { finishReason } of client.generate(request, { signal: ending.signal }))
      if (finishReason !== 'none') last = finishReason;
    return last;
  })();

  const hasPython = spawnSync('python3', ['-c', 'import zmq, msgpack']).status === 0;
  if (!hasPython) t.pass('skipped', { skip: 'python3 with pyzmq and msgpack is absent' });
  const typescript = fileURLToPath(new URL('../../examples/frontend.js', import.meta.url));
  const python = join(packageRoot, 'examples/frontend.py');
  const outputs = await Promise.all([
    hasPython ? run('python3', [python, folder, prompts[0]!]) : null,
    run(process.execPath, [typescript, folder, prompts[1]!]),
    overHttp(server, prompts[2]!),
    overHttp(server, prompts[3]!),
  ]);
  const asExample = (text: string) => `${text}\n[length]\n[abort]\n`;
  if (hasPython) t.equal(outputs[0], asExample(expected[0]!), 'Python');
  t.equal(outputs[1], asExample(expected[1]!), 'TypeScript');
  t.same(outputs.slice(2), expected.slice(2), 'HTTP');
  ending.abort();
  t.match(await long, /abort|length/);
  t.equal(client.numOpen, 0);
  client.close();
});
