// A model with a sliding window served whole: requests longer than the KV cache run in it, because
// they hold no more than the window and a step, and their tokens are those of a backend that keeps
// every block. That the window itself is right is shown against transformers (architectures.test.ts).
import { cpSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { LLM } from '../../frontend/index.ts';
import { CpuBackend } from '../../kernels/cpu-backend.ts';
import { loadFolder } from '../kernels/demo-backend.ts';
import { StepDriver } from '../kernels/step-driver.ts';
import { limitMs } from './server.ts';

t.setTimeout(10 * limitMs);

const slidingWindow = 100;
const numOutputs = 300;
const prompts = [0, 1, 2].map((k) =>
  Array.from({ length: 400 + 40 * k }, (_, i) => 300 + ((i * i * 7 + i * (31 + k)) % 7000)),
);

/** The demo model's weights under a config with a window. */
function makeFolder(folder: string): string {
  cpSync('models/demo', folder, { recursive: true });
  const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as object;
  const changes = { architectures: ['MistralForCausalLM'], sliding_window: slidingWindow };
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, ...changes }));
  return folder;
}

async function expectedTokens(folder: string): Promise<number[][]> {
  const backend = new CpuBackend();
  const outputs: number[][] = [];
  await loadFolder(backend, folder, { maxNumTokens: 64 });
  const driver = new StepDriver(backend, 16, 256);
  for (const [index, prompt] of prompts.entries()) {
    const row = driver.add(index, prompt);
    while (row.tokens.length < prompt.length + numOutputs)
      await driver.run([{ row, count: Math.min(64, row.tokens.length - row.numComputed) }]);
    driver.preempt(row);
    outputs.push(row.tokens.slice(prompt.length));
  }
  backend.close();
  return outputs;
}

t.test(
  'requests longer than the KV cache give the tokens of a backend that keeps all',
  async (t) => {
    const folder = makeFolder(t.testdir({}));
    const expected = await expectedTokens(folder);
    const llm = await LLM.create({
      model: folder,
      device: 'cpu',
      dtype: 'float32',
      maxModelLen: 1024,
      maxNumBatchedTokens: 64,
      maxNumSeqs: 16,
      // Of 8 layers, K and V, 2 heads of 64 in f32: 24 blocks of 16 tokens.
      kvCacheMemoryBytes: 24 * 8 * 2 * 2 * 64 * 16 * 4,
    });
    t.teardown(() => llm.close());
    const params = { temperature: 0, maxTokens: numOutputs, ignoreEos: true };
    for (const what of ['first', 'again']) {
      const outputs = await llm.generate(prompts, params);
      for (const [i, output] of outputs.entries())
        t.same(output.outputs[0]!.tokenIds, expected[i], `prompt ${i}, ${what}`);
    }
    // Alone, so that the blocks before its last token are still there.
    const short = prompts[0]!.slice(0, 200);
    await llm.generate(short, { temperature: 0, maxTokens: 1 });
    const [hit] = await llm.generate(short, { temperature: 0, maxTokens: 1 });
    t.equal(hit!.numCachedTokens, 192, 'a hit needs the blocks of the window only');
  },
);
