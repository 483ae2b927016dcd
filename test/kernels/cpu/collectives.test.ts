// Ops over several ranks in this process, one by one: their bits.
import t from 'tap';
import type { Op, Program } from '../../../kernels/program.ts';
import { meetingPath, rankGroup } from '../rank-group.ts';
import { defaultLoad, Harness } from './harness.ts';
import { arg, makePart, makeProgram, randomValues } from './one-op.ts';

t.setTimeout(600_000);

/** Ops over ranks in this process: x of each rank in buffer 1; buffers 0 and 2 of each rank. */
async function runCollective(
  ops: readonly Op[],
  n: number,
  inputs: readonly Float32Array[],
  more: { bias?: Float32Array; residual?: Float32Array; norm?: Float32Array } = {},
): Promise<[Float32Array, Float32Array][]> {
  const path = meetingPath();
  const { bias, residual, norm } = more;
  const numRows = inputs[0]!.length / n;
  const weights = [bias, norm].flatMap((values) => (values ? [{ shape: [n], values }] : []));
  const buffers = [{ columns: n }, { columns: n }, { columns: n }];
  const program: Program = makeProgram({ ops, buffers, weights, rows: [] }, numRows);
  const harnesses = await Promise.all(
    inputs.map((_, rank) =>
      Harness.load({
        ...defaultLoad,
        numThreads: 1 + rank,
        program,
        weights: weights.map((weight) => [makePart(weight)]),
        ...rankGroup(path, rank, inputs.length),
      }),
    ),
  );
  try {
    const tokens = Array.from({ length: numRows }, (_, i) => i);
    await Promise.all(
      harnesses.map((harness, rank) => {
        harness.backend.writeBuffer(1, inputs[rank]!);
        if (residual) harness.backend.writeBuffer(2, residual);
        const rows = tokens.map((row) => ({ row, tokens: [1], blocks: [1 + row] }));
        return harness.step(
          rows,
          tokens.map((row) => ({ row, start: 0, count: 1, flags: 0 })),
        );
      }),
    );
    const read = ({ backend }: Harness, index: number) =>
      new Float32Array(backend.readBuffer(index));
    return harnesses.map((harness) => [read(harness, 0), read(harness, 2)]);
  } finally {
    await Promise.all(harnesses.map((harness) => harness.close()));
  }
}

t.test('allReduce adds in rank order in f32, then bias and residual, on every rank', async (t) => {
  const [numRows, n] = [5, 300];
  for (const numRanks of [2, 3, 4]) {
    // Of different sizes, so that the order of additions shows.
    const inputs = Array.from({ length: numRanks }, (_, rank) =>
      randomValues(numRows * n, rank).map((x) => x * 10 ** (3 - 2 * rank)),
    );
    const bias = randomValues(n, 90);
    const residual = randomValues(numRows * n, 91);
    const sum = (extra: readonly ((i: number) => number)[]) =>
      Float32Array.from({ length: numRows * n }, (_, i) => {
        let value = inputs[0]![i]!;
        for (const input of inputs.slice(1)) value = Math.fround(value + input[i]!);
        for (const add of extra) value = Math.fround(value + add(i));
        return value;
      });
    const args = { out: arg.buffer(0), x: arg.buffer(1) };
    const plain = await runCollective([{ op: 'allReduce', args, attrs: {} }], n, inputs);
    for (const [out] of plain) t.same(out, sum([]));
    const more = { ...args, bias: arg.weight(0), residual: arg.buffer(2) };
    const full = await runCollective([{ op: 'allReduce', args: more, attrs: {} }], n, inputs, {
      bias,
      residual,
    });
    for (const [out] of full) t.same(out, sum([(i) => bias[i % n]!, (i) => residual[i]!]));
  }
});

t.test('allReduceResidualNorm has the bits of allReduce, then rmsNorm', async (t) => {
  const n = 300;
  // Fewer rows than threads, and more.
  for (const numRows of [1, 5]) {
    const inputs = [0, 1, 2].map((rank) => randomValues(numRows * n, rank));
    const [bias, residual, weight] = [90, 91, 92].map((seed) => randomValues(n * numRows, seed));
    const more = { bias: bias!.subarray(0, n), residual: residual!, norm: weight!.subarray(0, n) };
    const one = await runCollective(
      [
        {
          op: 'allReduceResidualNorm',
          args: {
            out: arg.buffer(0),
            sum: arg.buffer(2),
            x: arg.buffer(1),
            weight: arg.weight(1),
            bias: arg.weight(0),
            residual: arg.buffer(2),
          },
          attrs: { eps: 1e-5 },
        },
      ],
      n,
      inputs,
      more,
    );
    const two = await runCollective(
      [
        {
          op: 'allReduce',
          args: {
            out: arg.buffer(2),
            x: arg.buffer(1),
            bias: arg.weight(0),
            residual: arg.buffer(2),
          },
          attrs: {},
        },
        {
          op: 'rmsNorm',
          args: { out: arg.buffer(0), x: arg.buffer(2), weight: arg.weight(1) },
          attrs: { eps: 1e-5 },
        },
      ],
      n,
      inputs,
      more,
    );
    t.same(one, two);
    t.ok(one.every((buffers) => buffers.every((buffer) => buffer.some((x) => x !== 0))));
  }
});
