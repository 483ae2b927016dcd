import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import t, { type Test } from 'tap';
import { defaultTextLimits } from '../../../common/limits.ts';
import { createTextService } from '../../../common/text/text-service.ts';

const root = fileURLToPath(new URL('../../../../', import.meta.url));
const demo = join(root, 'models/demo');
const extra = process.env['VLLM_TS_TEST_MODELS'];
const smol = extra === undefined ? null : join(extra, 'smollm2-135m-instruct');

interface Golden {
  readonly rows: readonly {
    user: string;
    prompt: string;
    prompt_ids: number[];
    greedy_ids: number[];
    text: string;
  }[];
}

async function checkGolden(t: Test, model: string, goldenPath: string): Promise<void> {
  const golden = JSON.parse(readFileSync(goldenPath, 'utf8')) as Golden;
  const service = createTextService({
    tokenizerPath: model,
    chatTemplatePath: null,
    maxModelLen: 2048,
    textLimits: defaultTextLimits,
  });
  for (const row of golden.rows) {
    const { text, tokenIds } = await service.applyChatTemplate(
      [{ role: 'user', content: row.user }],
      { addGenerationPrompt: true, continueFinalMessage: false },
    );
    t.equal(text, row.prompt);
    t.same([...tokenIds], row.prompt_ids);
    t.same(
      [...(await service.encode(row.prompt, { addSpecialTokens: true, allowSpecial: true }))],
      row.prompt_ids,
    );
    t.equal(
      await service.decode(Int32Array.from(row.greedy_ids), { skipSpecialTokens: false }),
      row.text,
    );
  }
  await service.close();
}

t.test('text services give the golden prompts, ids and texts of the demo model', (t) =>
  checkGolden(t, demo, join(root, 'test/fixtures/demo/golden.json')),
);

t.test('many short texts in a row leave the event loop its turns', async (t) => {
  const service = createTextService({
    tokenizerPath: demo,
    chatTemplatePath: null,
    maxModelLen: 2048,
    textLimits: defaultTextLimits,
  });
  let turns = 0;
  const turn = () => {
    turns++;
    immediate = setImmediate(turn);
  };
  let immediate = setImmediate(turn);
  const text = 'Once upon a time, '.repeat(200);
  const expected = await service.encode(text, { addSpecialTokens: false });
  const before = turns;
  for (let i = 0; i < 40; i++)
    t.same(await service.encode(text, { addSpecialTokens: false }), expected);
  t.ok(turns - before >= 8, `${turns - before} turns for 40 texts, of which 4 fit one`);
  clearImmediate(immediate);
  await service.close();
});

t.test(
  'text services give the golden prompts, ids and texts of SmolLM2',
  smol !== null && existsSync(smol) ? {} : { skip: 'VLLM_TS_TEST_MODELS has no SmolLM2 folder' },
  (t) => checkGolden(t, smol!, join(smol!, 'golden-f32-of-bf16.json')),
);
