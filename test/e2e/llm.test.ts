// The LLM class as a user has it: a server of its own, gone with the program.
import { spawn } from 'node:child_process';
import t from 'tap';
import { LLM } from '../../frontend/index.ts';
import { descendants, isAlive, limitMs, waitGone } from './server.ts';

t.setTimeout(10 * limitMs);

const device = process.env['VLLM_TS_E2E_DEVICE'];
const options = device === undefined ? {} : { device };

t.test('LLM generates for lists of prompts, chats, and leaves nothing behind', async (t) => {
  const llm = await LLM.create({ ...options, maxModelLen: 256 });
  const pids = descendants(process.pid).filter(isAlive);
  const params = { temperature: 0, maxTokens: 12 };
  const prompt = 'Once upon a time';
  const [one] = await llm.generate(prompt, params);
  t.equal(one!.outputs[0]!.tokenIds.length, 12);
  t.equal(one!.outputs[0]!.finishReason, 'length');
  const many = await llm.generate([prompt, 'The dog', one!.promptTokenIds], params);
  t.equal(many[0]!.outputs[0]!.text, one!.outputs[0]!.text, 'whatever runs beside it');
  t.equal(many[2]!.outputs[0]!.text, one!.outputs[0]!.text, 'from ids');
  t.not(many[1]!.outputs[0]!.text, one!.outputs[0]!.text);
  const [two] = await llm.generate(prompt, { n: 2, seed: 1, maxTokens: 12, logprobs: 1 });
  t.equal(two!.outputs.length, 2);
  t.not(two!.outputs[0]!.text, two!.outputs[1]!.text);
  t.equal(two!.outputs[1]!.logprobs!.length, 12);
  const stop = one!.outputs[0]!.text.slice(3, 9);
  t.same(
    await llm.generate(prompt, { ...params, stop }),
    await llm.generate(prompt, { ...params, stop: [stop] }),
  );
  const stopped = await llm.generate(prompt, { ...params, stop: [stop] });
  t.match(stopped[0]!.outputs[0], {
    finishReason: 'stop',
    text: one!.outputs[0]!.text.slice(0, 3),
  });
  await t.rejects(llm.generate([prompt, prompt], { temperature: 3 }), {
    code: 'bad_request',
    param: 'temperature',
  });
  for (const wrong of [
    [[1, 1.5]],
    [[1n]],
    [1n],
    [[2 ** 32 + 1]],
    [[1, '2']],
    [null],
    [prompt, {}],
    undefined,
    7,
  ])
    await t.rejects(llm.generate(wrong as never), { code: 'bad_request', param: /^prompts?$/ });
  await t.rejects(llm.chat(undefined as never), { code: 'bad_request', param: 'conversations' });
  await t.rejects(llm.generate(new Array<number>(300).fill(5)), {
    code: 'context_length_exceeded',
  });
  t.equal((await llm.generate(prompt, params))[0]!.outputs[0]!.text, one!.outputs[0]!.text);
  t.equal(llm.engine.numOpen, 0);
  await llm.close();
  t.same(await waitGone(pids), []);
  await t.rejects(llm.generate(prompt), { code: 'shutting_down' });
});

t.test('more prompts than the detokenizer takes at once, without a warning', async (t) => {
  const warnings: Error[] = [];
  const warned = (warning: Error) => warnings.push(warning);
  process.on('warning', warned);
  t.teardown(() => process.off('warning', warned));
  const llm = await LLM.create({ ...options, maxModelLen: 256 });
  const prompts = Array.from({ length: 150 }, (_, i) => `Story ${i}`);
  const outputs = await llm.generate(prompts, { temperature: 0, maxTokens: 1 });
  const asked = await Promise.all(prompts.map((prompt) => llm.engine.tokenize(prompt)));
  t.same(
    outputs.map(({ promptTokenIds }) => promptTokenIds),
    asked.map((ids) => [...ids]),
  );
  const chats = prompts.map((content) => [{ role: 'user', content }]);
  t.equal((await llm.chat(chats, { maxTokens: 1 })).length, prompts.length);
  await llm.close();
  t.same(warnings, []);
});

t.test('await using closes it', async (t) => {
  const before = descendants(process.pid);
  let pids: readonly number[];
  {
    await using llm = await LLM.create({ ...options, maxModelLen: 256 });
    pids = descendants(process.pid).filter((pid) => !before.includes(pid));
    t.ok(pids.length >= 4, `${pids.length} processes`);
    t.equal(llm.engine.numOpen, 0);
  }
  t.same(await waitGone(pids), []);
});

t.test('a program that is killed takes its server with it', async (t) => {
  const index = new URL('../../frontend/index.js', import.meta.url).href;
  const script = `
    import { LLM } from '${index}';
    await LLM.create(${JSON.stringify(options)});
    console.log('ready');`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await new Promise((resolve) => child.stdout.once('data', resolve));
  const pids = descendants(child.pid!);
  t.ok(pids.length >= 4, `${pids.length} processes`);
  child.kill('SIGKILL');
  t.same(await waitGone(pids), []);
});
