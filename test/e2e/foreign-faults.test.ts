// What foreign frontends can do to a real server, and a server to them: damaged frames cost their
// sender alone, and a detokenizer that dies is found again under its new address.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Dealer } from 'zeromq';
import type { FrontendJson } from '../../common/config.ts';
import { defaultSamplingParams, defaultTextParams } from '../../common/sampling-params.ts';
import { encodeMessage } from '../../common/wire/codec.ts';
import { makeHello } from '../../common/wire/handshake.ts';
import { EngineClient } from '../../frontend/engine-client.ts';
import type { GenerateRequest, RequestOutput } from '../../frontend/engine-client-types.ts';
import { sampleMessages } from '../fixtures/wire/samples.ts';
import { limitMs, startServer } from './server.ts';

t.setTimeout(10 * limitMs);

async function attached(t: Test) {
  const folder = join(mkdtempSync(join(tmpdir(), 'vt-')), 'run');
  t.teardown(() => rmSync(join(folder, '..'), { recursive: true }));
  const server = await startServer(t, ['--frontend-address', folder]);
  const client = await EngineClient.connect(folder);
  t.teardown(() => client.close());
  const json = JSON.parse(readFileSync(join(folder, 'frontend.json'), 'utf8')) as FrontendJson;
  return { server, client, json, folder };
}

async function request(client: EngineClient, maxTokens: number | null): Promise<GenerateRequest> {
  return {
    promptTokenIds: await client.tokenize('Once upon a time'),
    sampling: { ...defaultSamplingParams, temperature: 0, maxTokens, ignoreEos: true },
    text: defaultTextParams,
    n: 1,
    priority: 0,
    cacheSalt: null,
  };
}

async function textOf(client: EngineClient): Promise<string> {
  let text = '';
  for await (const output of client.generate(await request(client, 12))) text += output.text;
  return text;
}

t.test('damaged frames cost their sender its connection and nobody else anything', async (t) => {
  const { client, json } = await attached(t);
  const expected = await textOf(client);
  const hello = encodeMessage(makeHello('client', 0, 0, json.token));
  const wrong = encodeMessage(makeHello('client', 0, 0, 'wrong'));
  const kinds = {
    engine: sampleMessages['frontendToEngine']!,
    detokenizer: sampleMessages['frontendToDetokenizer']!,
  };
  for (const role of ['engine', 'detokenizer'] as const) {
    const sockets: Dealer[] = [];
    for (const message of Object.values(kinds[role])) {
      const frames = encodeMessage(message);
      const header = frames[0]!;
      const variants: Uint8Array[][] = [
        [Uint8Array.of(0xc1)],
        [header.subarray(0, header.length - 1)],
        [header, new Uint8Array(3)],
        [Uint8Array.of(0xdf, 0xff, 0xff, 0xff, 0xff)],
        [Uint8Array.of(0xc6, 0xff, 0xff, 0xff, 0xff)],
        [...frames, ...frames],
      ];
      for (const variant of variants)
        for (const first of [hello, wrong, null]) {
          const socket = new Dealer({ linger: 0 });
          socket.connect(json[role]);
          if (first) await socket.send(first);
          await socket.send(variant);
          sockets.push(socket);
        }
    }
    t.equal(await textOf(client), expected, `the next request succeeds (${role})`);
    for (const socket of sockets) socket.close();
  }
  t.equal(await textOf(client), expected);
});

t.test('a foreign frontend outlives the detokenizer', async (t) => {
  const { server, client, folder } = await attached(t);
  const expected = await textOf(client);
  let begun!: () => void;
  const first = new Promise<void>((resolve) => (begun = resolve));
  let ended!: (output: RequestOutput) => void;
  const last = new Promise<RequestOutput>((resolve) => (ended = resolve));
  await client.submit(await request(client, null), (output) => {
    begun();
    if (output.finishReason !== 'none') ended(output);
  });
  await first;
  const ready = new Promise((resolve) => client.on('ready', resolve));
  process.kill(await server.child('detokenizer'), 'SIGKILL');
  t.match(await last, { finishReason: 'error', error: { code: 'detokenizer_lost' } });
  await ready;
  t.equal(await textOf(client), expected, 'the engine told its new address');
  const other = await EngineClient.connect(folder);
  t.equal(await textOf(other), expected, 'frontend.json has it too');
  other.close();
});
