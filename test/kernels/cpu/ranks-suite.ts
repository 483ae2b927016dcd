// What holds for ranks in this process however they meet, in shared memory or over TCP: those that are
// late, silent, of another mind or gone are found and named.
import t, { type Test } from 'tap';
import type { Backend } from '../../../kernels/backend.ts';
import { CpuBackend } from '../../../kernels/cpu-backend.ts';
import type { Op } from '../../../kernels/program.ts';
import { demoFolder } from '../demo-backend.ts';
import { readGolden } from '../golden.ts';
import { loadRanks, type RankOptions } from '../rank-group.ts';
import { StepDriver, type TestRow } from '../step-driver.ts';
import { defaultLoad } from './harness.ts';
import { arg, makeProgram } from './one-op.ts';

export const golden = readGolden('test/fixtures/demo/golden.json');
export const prompt = golden[0]!.prompt_ids;

/** The demo model over ranks. */
export async function startRanks(t: Test, numRanks: number, options: RankOptions = {}) {
  const { backend } = await loadRanks(demoFolder, numRanks, options);
  t.teardown(() => backend.close());
  return { backend, driver: new StepDriver(backend, 16, 256) };
}

/** Prefill in chunks, then one token a step. */
export async function generate(driver: StepDriver, row: TestRow, count: number, chunk = 512) {
  while (row.tokens.length < row.numPromptTokens + count) {
    const pending = row.tokens.length - row.numComputed;
    await driver.run([{ row, count: Math.min(chunk, pending) }]);
  }
  return row.tokens.slice(row.numPromptTokens);
}

/** The errors of some ranks, in their order. */
export function errorsOf(ranks: readonly Backend[]): Promise<readonly Error[]> {
  return Promise.all(
    ranks.map((rank) => new Promise<Error>((resolve) => (rank.onError = resolve))),
  );
}

/** A rank of one allReduce of `columns` columns; `group` says how it meets the others. */
export function loadAllReduce(
  t: Test,
  group: Pick<Parameters<Backend['load']>[0], 'group'>,
  columns = 64,
  variant?: ConstructorParameters<typeof CpuBackend>[0],
) {
  const op: Op = { op: 'allReduce', args: { out: arg.buffer(0), x: arg.buffer(1) }, attrs: {} };
  const program = makeProgram({ ops: [op], buffers: [{ columns }, { columns }], rows: [] }, 4);
  const backend = new CpuBackend(variant);
  t.teardown(() => backend.close());
  return backend.load({ ...defaultLoad, program, weights: [], ...group });
}

/** `late` is what is said of rank 2 that did not come to step 1. */
export function testFaults(meet: RankOptions, late: RegExp): void {
  t.test('a rank that does not come is named, with step and op, and nobody waits on', async (t) => {
    // Far above what a busy machine takes from a rank that goes on.
    const { backend, driver } = await startRanks(t, 4, { ...meet, timeoutMs: 5000 });
    const row = driver.add(0, prompt);
    await driver.run([{ row, count: prompt.length }]);
    // Rank 2 never gets the next step.
    backend.ranks[2]!.submit = () => undefined;
    const errors = errorsOf(backend.ranks.filter((_, rank) => rank !== 2));
    void driver.run([{ row, count: 1 }]).catch(() => undefined);
    for (const error of await errors) {
      t.match(error, { name: 'KernelError', rank: 2, step: 1 });
      t.match(error.message, late);
    }
  });

  t.test('a rank that samples other tokens is named at the next step', async (t) => {
    for (const [numRanks, odd] of [
      [2, 1],
      [4, 0],
    ] as const) {
      const { backend } = await startRanks(t, numRanks, meet);
      const drivers = backend.ranks.map((rank) => new StepDriver(rank, 16, 256));
      const rows = drivers.map((driver, rank) =>
        driver.add(0, prompt, { temperature: 5, topK: 50, seed: rank === odd ? 1n : 0n }),
      );
      await Promise.all(
        drivers.map((driver, i) => driver.run([{ row: rows[i]!, count: prompt.length }])),
      );
      t.not(rows[0]!.tokens.at(-1), rows[1]!.tokens.at(-1), 'another seed, another token');
      const errors = errorsOf(backend.ranks);
      for (const [i, driver] of drivers.entries())
        void driver.run([{ row: rows[i]!, count: 1 }]).catch(() => undefined);
      for (const error of await errors)
        t.match(error, { rank: odd, message: /disagrees with the others at .* of step 1/ });
    }
  });

  t.test('a rank that ends lets the others go at once', async (t) => {
    const { backend, driver } = await startRanks(t, 4, { ...meet, timeoutMs: 600_000 });
    const row = driver.add(0, prompt);
    await driver.run([{ row, count: prompt.length }]);
    backend.ranks[3]!.submit = () => undefined;
    const errors = errorsOf(backend.ranks.slice(0, 3));
    void driver.run([{ row, count: 1 }]).catch(() => undefined);
    await backend.ranks[3]!.close();
    for (const error of await errors) t.match(error, { rank: 3, message: 'rank 3 has ended' });
  });
}
