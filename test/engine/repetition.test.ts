// The detector against its plain meaning, on outputs that repeat themselves, nearly or wholly, and on
// the engine: where a request ends, and what comes first on the same token.
import t from 'tap';
import type { RepetitionDetection } from '../../common/sampling-params.ts';
import { RepetitionDetector } from '../../engine/repetition.ts';
import { endsInPattern } from './naive-repetition.ts';
import { Random } from './random.ts';

/** Index of each token with which the output ends in a pattern, by the detector. */
function detected(
  output: readonly number[],
  params: RepetitionDetection,
  prompt: readonly number[],
) {
  const detector = new RepetitionDetector(params);
  const ids = Int32Array.from([...prompt, ...output]);
  return output.flatMap((_, i) =>
    detector.add(ids, prompt.length, prompt.length + i + 1) ? [i] : [],
  );
}

function expected(output: readonly number[], params: RepetitionDetection): number[] {
  return output.flatMap((_, i) => (endsInPattern(output.slice(0, i + 1), params) ? [i] : []));
}

/** Runs of patterns, some of them spoilt, over few ids, so that sizes and counts meet by chance too. */
function randomOutput(random: Random): number[] {
  const output: number[] = [];
  const numIds = random.int(1, 4);
  while (output.length < 120) {
    const pattern = Array.from({ length: random.int(1, 9) }, () => random.int(1, numIds));
    const count = random.int(1, 6);
    for (let i = 0; i < count; i++) output.push(...pattern);
    if (random.chance(0.5)) output.push(random.int(1, numIds + 1));
  }
  return output;
}

t.test('finds what a plain search finds, token by token', (t) => {
  const random = new Random(7);
  let numFound = 0;
  for (let round = 0; round < 400; round++) {
    const output = randomOutput(random);
    const maxPatternSize = random.int(1, 12);
    const minPatternSize = random.int(1, maxPatternSize);
    const params = { minPatternSize, maxPatternSize, minCount: random.int(2, 5) };
    const wanted = expected(output, params);
    // A prompt that the output goes on repeating is no part of it.
    const prompt = random.chance(0.5) ? output.slice(0, 20) : [1];
    const found = detected(output, params, prompt);
    numFound += found.length;
    if (found.join() === wanted.join()) continue;
    t.fail(`round ${round}: ${JSON.stringify({ output, params, found, wanted })}`);
    break;
  }
  t.ok(numFound > 1000, `${numFound} found`);
  t.end();
});

t.test('patterns by hand', (t) => {
  const params = { minPatternSize: 1, maxPatternSize: 3, minCount: 3 };
  t.same(detected([5, 5, 5, 6], params, [5, 5]), [2], 'three in a row, of the output alone');
  t.same(detected([1, 2, 1, 2, 1, 2, 3], params, [9]), [5]);
  t.same(detected([1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4], params, [9]), [], 'longer than asked for');
  t.same(detected([7, 7, 7], { ...params, minPatternSize: 2 }, [9]), [], 'shorter than asked for');
  t.same(
    detected([7, 7, 7, 7, 7, 7], { ...params, minPatternSize: 2 }, [9]),
    [5],
    'two sevens are a pattern of two',
  );
  t.end();
});

t.test('a token costs one comparison for each size, whatever the output', (t) => {
  const params = { minPatternSize: 1, maxPatternSize: 1024, minCount: 1 << 30 };
  const ids = new Int32Array(20_000).fill(3);
  let reads = 0;
  const counted = new Proxy(ids, {
    get: (target, key) => {
      if (typeof key === 'string' && /^\d+$/.test(key)) reads++;
      return Reflect.get(target, key) as unknown;
    },
  });
  const detector = new RepetitionDetector(params);
  for (let n = 1; n <= 3000; n++) detector.add(counted, 0, n);
  t.ok(reads <= 3000 * 1025, `${reads} reads`);
  t.end();
});
