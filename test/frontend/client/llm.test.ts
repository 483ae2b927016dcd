import { Worker } from 'node:worker_threads';
import t from 'tap';
import { LLM } from '../../../frontend/llm.ts';
import { makeRequest } from '../../../frontend/llm-params.ts';
import { flagArguments } from '../../../frontend/llm-server.ts';

t.test('flagArguments turns camelCase options into flags', (t) => {
  t.same(
    flagArguments({
      maxModelLen: 512,
      enablePrefixCaching: false,
      strictApi: true,
      apiKey: ['a', 'b'],
      overrideGenerationConfig: { top_k: 5 },
      chatTemplate: null,
    }),
    [
      ...['--max-model-len', '512', '--no-enable-prefix-caching', '--strict-api'],
      ...['--api-key', 'a', '--api-key', 'b', '--override-generation-config', '{"top_k":5}'],
    ],
  );
  t.end();
});

t.test('makeRequest lays parameters over the defaults of the model', (t) => {
  const ids = Int32Array.of(1);
  const request = makeRequest(ids, { topP: 0.5, stop: ['x'], n: 2 }, { topP: 0.9, topK: 7 });
  t.match(request, { n: 2, sampling: { topP: 0.5, topK: 7, temperature: 1 } });
  t.match(request.text, { stop: ['x'], finalOnly: true, returnTokenIds: true });
  const open = { topP: undefined, stop: undefined, n: undefined } as never;
  t.same(makeRequest(ids, open, { topP: 0.9 }), makeRequest(ids, {}, { topP: 0.9 }));
  t.same(makeRequest(ids, { stop: 'x' }, {}).text.stop, ['x']);
  t.throws(() => makeRequest(ids, { top_p: 1 } as never, {}), {
    code: 'bad_request',
    param: 'top_p',
    message: 'top_p is not a parameter: here it is topP',
  });
  t.throws(() => makeRequest(ids, { guided_json: 1 } as never, {}), {
    message: /^guided_json is not a parameter$/,
  });
  t.end();
});

t.test(
  'LLM.create tells the words and the exit code of a server that does not start',
  async (t) => {
    await t.rejects(LLM.create({ noSuchFlag: 1 }), { name: 'StartError', exitCode: 64 });
    await t.rejects(LLM.create({ model: '/nonexistent' }), {
      name: 'StartError',
      message: /nonexistent/,
    });
  },
);

t.test('LLM.create is refused in a worker thread', async (t) => {
  const url = new URL('../../../frontend/llm.js', import.meta.url).href;
  const worker = new Worker(
    `import('${url}').then(({ LLM }) => LLM.create()).catch((error) =>
       require('node:worker_threads').parentPort.postMessage(error.message));`,
    { eval: true },
  );
  const message = await new Promise((resolve) => worker.once('message', resolve));
  t.match(message, /main thread/);
  await worker.terminate();
});
