// A program of somebody else's attaches to a running server: through frontend.json in the run
// directory, or over TCP with CURVE keys; and one server without HTTP serves it alone.
import { randomInt } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { defaultSamplingParams, defaultTextParams } from '../../common/sampling-params.ts';
import { EngineClient } from '../../frontend/engine-client.ts';
import { post } from './client.ts';
import { limitMs, runServer, startServer } from './server.ts';

t.setTimeout(10 * limitMs);

async function textOf(client: EngineClient): Promise<string> {
  let text = '';
  const request = {
    promptTokenIds: await client.tokenize('Once upon a time'),
    sampling: { ...defaultSamplingParams, temperature: 0, maxTokens: 12 },
    text: defaultTextParams,
    n: 1,
    priority: 0,
    cacheSalt: null,
  };
  for await (const output of client.generate(request)) text += output.text;
  return text;
}

t.test('a frontend attaches through the run directory, beside HTTP', async (t) => {
  const folder = join(mkdtempSync(join(tmpdir(), 'vt-')), 'run');
  t.teardown(() => rmSync(join(folder, '..'), { recursive: true }));
  const server = await startServer(t, ['--frontend-address', folder]);
  t.equal(statSync(folder).mode & 0o777, 0o700);
  t.equal(statSync(join(folder, 'frontend.json')).mode & 0o777, 0o600);
  const client = await EngineClient.connect(folder);
  const ask = { prompt: 'Once upon a time', max_tokens: 12, temperature: 0 };
  const [text, { body }] = await Promise.all([
    textOf(client),
    post(server, '/v1/completions', ask),
  ]);
  t.equal(text, (body as { choices: { text: string }[] }).choices[0]!.text);
  client.close();
});

/** At an address of loopback that nobody else uses: two free ports in a row cannot be asked for. */
async function startAtTcp(t: Test) {
  const host = `127.${randomInt(1, 255)}.${randomInt(256)}.${randomInt(1, 255)}`;
  const server = runServer(t, ['--headless', '--frontend-address', `tcp://${host}:29500`]);
  await server.waitReady();
  return { server, host };
}

t.test('a frontend attaches over TCP with keys, to a server without HTTP', async (t) => {
  const { server, host } = await startAtTcp(t);
  t.same([...server.children().keys()].sort(), ['detokenizer', 'engine', 'worker 0']);
  const file = /frontends attach through (\S+)/.exec(server.stderr)![1]!;
  const json = JSON.parse(readFileSync(file, 'utf8')) as { engine: string; detokenizer: string };
  t.match(json, {
    engine: `tcp://${host}:29500`,
    detokenizer: `tcp://${host}:29501`,
    engineKey: /^.{40}$/,
  });
  const client = await EngineClient.connect(file);
  t.not(await textOf(client), '');
  client.close();
  await t.rejects(
    EngineClient.connect({ ...json, token: '00', engineKey: null, timeoutMs: 1500 }),
    'without the key nobody gets in',
  );
});
