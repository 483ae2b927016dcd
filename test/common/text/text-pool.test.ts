import t from 'tap';
import type { TextCall } from '../../../common/text/text-calls.ts';
import { defaultTextPoolLimits, TextPool } from '../../../common/text/text-pool.ts';
import { defaultTextLimits } from '../../../common/limits.ts';
import { createTextService, type TextServiceOptions } from '../../../common/text/text-service.ts';
import { Tokenizer } from '../../../common/text/tokenizer.ts';
import { demoPath } from './support.ts';

const maxModelLen = 1_000_000;
const options: TextServiceOptions = {
  tokenizerPath: demoPath,
  chatTemplatePath: null,
  maxModelLen,
  textLimits: defaultTextLimits,
};
const encode = (text: string): TextCall => ({
  kind: 'encode',
  text,
  options: { addSpecialTokens: true },
});

t.test('long text gives the same from a thread as inline', async (t) => {
  const service = createTextService(options);
  const inline = Tokenizer.load(demoPath, maxModelLen);
  const text = 'Once upon a time, <|im_end|> é 😀. '.repeat(400);
  const ids = await service.encode(text, { addSpecialTokens: true });
  t.same([...ids], [...inline.encode(text, { addSpecialTokens: true })]);
  t.equal(await service.decode(ids, { skipSpecialTokens: true }), text);
  const flags = { addGenerationPrompt: true, continueFinalMessage: false };
  const chat = await service.applyChatTemplate([{ role: 'user', content: text }], flags);
  t.equal(inline.decode(chat.tokenIds, { skipSpecialTokens: false }), chat.text);
  await t.rejects(
    service.applyChatTemplate([{ role: 'user', content: text }], {
      ...flags,
      continueFinalMessage: true,
    }),
    { name: 'RequestError', code: 'bad_request', param: 'messages' },
    'errors keep their code and field',
  );
  await t.rejects(service.decode(new Int32Array(2_000_000), { skipSpecialTokens: true }), {
    code: 'bad_request',
    param: 'tokens',
  });
  await service.close();
});

t.test('a giant call leaves a thread for the others', async (t) => {
  const pool = new TextPool(options, { ...defaultTextPoolLimits, giantSize: 5000 });
  const done: string[] = [];
  const run = (name: string, length: number) =>
    pool.run(encode('word '.repeat(length / 5)), length).then(() => done.push(name));
  await Promise.all([
    run('giant 1', 1_000_000),
    run('giant 2', 1_000_000),
    run('small 1', 100),
    run('small 2', 100),
  ]);
  t.same(done.slice(0, 2), ['small 1', 'small 2']);
  t.equal(done.length, 4);
  await pool.close();
});

t.test('a call that takes too long fails alone', async (t) => {
  const textLimits = { ...defaultTextLimits, callMs: 100 };
  const pool = new TextPool(
    { ...options, textLimits },
    { ...defaultTextPoolLimits, numThreads: 1 },
  );
  const stuck = pool.run(encode('a'.repeat(5_000_000)), 5_000_000);
  textLimits.callMs = 600_000;
  const next = pool.run(encode('hello'), 5);
  await t.rejects(stuck, { code: 'bad_request', message: /too long/ });
  t.ok(((await next) as Int32Array).length > 0, 'the next call has a new thread');
  await pool.close();
});

t.test('what waits is bounded, and ends with close', async (t) => {
  const pool = new TextPool(options, {
    ...defaultTextPoolLimits,
    numThreads: 1,
    maxQueuedSize: 20,
  });
  const first = pool.run(encode('a'.repeat(100_000)), 15);
  const second = pool.run(encode('hello'), 15);
  await t.rejects(pool.run(encode('hello'), 15), { code: 'queue_full' });
  const ends = [
    t.rejects(first, { code: 'shutting_down' }),
    t.rejects(second, { code: 'shutting_down' }),
  ];
  await pool.close();
  await Promise.all(ends);
  await t.rejects(pool.run(encode('x'), 1), { code: 'shutting_down' });
});
