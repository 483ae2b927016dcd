// The op table: every op's contract, declared once. kernels/op_table.h has the same names in the
// same order, and a test compares the two. An op is a contract, not a kernel: a backend lowers it
// as it likes, as long as every lowering gives the same bits for the same row.
//
// Letters: T = numTokens of the step, L = numLogits (rows gathered before the final norm),
// H = hidden size, V = vocabulary, N x K = weight rows x columns, Q = query heads, G = KV heads,
// D = head dim, I = intermediate size, R and P = a rank's part of V, E = room for what a rank tells
// the others. dtype 'act' is the compute dtype (cuda: the model's; cpu and reference: f32 unless
// told otherwise); 'w' is whatever the weight is stored in.
// Step inputs (token ids, positions, slots, block tables, sampling) are implicit: the backend
// builds them from its row table, see common/wire/step.ts.

export type ArgRole = 'in' | 'out' | 'inout' | 'weight';

export interface ArgSpec {
  readonly role: ArgRole;
  readonly dtype: 'act' | 'f32' | 'w';
  /** Symbolic shape; the same letter must mean the same size in all arguments of one op. */
  readonly shape: readonly string[];
  readonly optional?: true;
}

export interface OpSpec {
  /** What it computes, with its rounding points; accumulation is f32 (reference: f64). */
  readonly doc: string;
  readonly args: Readonly<Record<string, ArgSpec>>;
  /** Numbers fixed at load. */
  readonly attrs: readonly string[];
}

const arg = (role: ArgRole, dtype: ArgSpec['dtype'], ...shape: string[]): ArgSpec => ({
  role,
  dtype,
  shape,
});
const optional = (spec: ArgSpec): ArgSpec => ({ ...spec, optional: true });

export const ops = {
  embedding: {
    doc:
      'out[t] = weight[tokenId[t] - firstId], widened or rounded to act; zeros for ids that the ' +
      'weight has no row for (they are those of other ranks). out may be f32.',
    args: { out: arg('out', 'act', 'T', 'H'), weight: arg('weight', 'w', 'R', 'H') },
    attrs: ['firstId'],
  },
  ropeCosSin: {
    doc:
      'angle = f32(position[t]) * invFreq[i], rounded to f32; out[t][i] = cos(angle) * factor, ' +
      'out[t][D/2 + i] = sin(angle) * factor. Once a step, shared by all layers.',
    args: { out: arg('out', 'f32', 'T', 'D'), invFreq: arg('weight', 'f32', 'D/2') },
    attrs: ['factor'],
  },
  rmsNorm: {
    doc:
      'out = x / sqrt(mean(x^2) + eps) * weight, in f32, rounded once to act. The sum of squares ' +
      'has one fixed tree per H.',
    args: {
      out: arg('out', 'act', 'M', 'H'),
      x: arg('in', 'act', 'M', 'H'),
      weight: arg('weight', 'w', 'H'),
    },
    attrs: ['eps'],
  },
  linear: {
    doc:
      'out = x @ weight^T (+ bias) (+ residual): products summed over K in one f32 chain order, ' +
      'bias and residual added in f32, rounded once. out is act, or f32 for the logits. ' +
      'residual may be the same buffer as out.',
    args: {
      out: arg('out', 'act', 'M', 'N'),
      x: arg('in', 'act', 'M', 'K'),
      weight: arg('weight', 'w', 'N', 'K'),
      bias: optional(arg('weight', 'w', 'N')),
      residual: optional(arg('in', 'act', 'M', 'N')),
    },
    attrs: [],
  },
  headRmsNorm: {
    doc:
      'rmsNorm over D of every query head with qWeight and every KV head of K with kWeight, in ' +
      'place; V is untouched. Each head rounded once to act.',
    args: {
      qkv: arg('inout', 'act', 'T', '(Q+2G)*D'),
      qWeight: arg('weight', 'w', 'D'),
      kWeight: arg('weight', 'w', 'D'),
    },
    attrs: ['numHeads', 'numKvHeads', 'headDim', 'eps'],
  },
  ropeAndCache: {
    doc:
      'Rotates q and k of each token by cosSin (half-split: element i pairs with i + D/2), in f32, ' +
      'rounded once to act; q stays in qkv, k and v go to their slot of the KV cache of `layer`, ' +
      'rounded to the KV dtype. Tokens whose slot is -1 write nothing.',
    args: { qkv: arg('inout', 'act', 'T', '(Q+2G)*D'), cosSin: arg('in', 'f32', 'T', 'D') },
    attrs: ['layer', 'numHeads', 'numKvHeads', 'headDim'],
  },
  attention: {
    doc:
      'Paged causal attention over the blocks of each row, after ropeAndCache of the same layer: ' +
      'out[t][h] = softmax(scale * q[t][h] . K[0..position[t]]) V, f32 inside, rounded once. ' +
      'window > 0 keeps the last `window` positions only. Keys go in tiles of 64 at absolute ' +
      'borders, chunks of 256 positions (2,048 beyond position 8,192) are merged ascending.',
    args: { out: arg('out', 'act', 'T', 'Q*D'), qkv: arg('in', 'act', 'T', '(Q+2G)*D') },
    attrs: ['layer', 'numHeads', 'numKvHeads', 'headDim', 'scale', 'window'],
  },
  siluAndMul: {
    doc:
      'out = silu(gateUp[:, :I]) * gateUp[:, I:], in f32, rounded once. Where the weight that made ' +
      'gateUp is interleaved (layout attribute), so are its columns.',
    args: { out: arg('out', 'act', 'T', 'I'), gateUp: arg('in', 'act', 'T', '2I') },
    attrs: [],
  },
  gatherLogitRows: {
    doc: 'out[l] = x[logitRow[l]]: the rows whose logits the step needs.',
    args: { out: arg('out', 'act', 'L', 'H'), x: arg('in', 'act', 'T', 'H') },
    attrs: [],
  },
  sample: {
    doc:
      'Logits to token ids, logprobs and flags, by the parameters of each row (docs/sampling.md). ' +
      'Appends the sampled ids to the row table, so that the next step finds them there.',
    args: { logits: arg('in', 'f32', 'L', 'V') },
    attrs: [],
  },
  // Collectives: every rank of the model runs the same program and comes to them in the same order.
  // Each waits until all ranks have; what they read of x (of sampleSharded also of out) must stay as
  // it is until the rank comes to its next collective (the arena planner sees to that).
  allReduce: {
    doc:
      'out = x of rank 0 + x of rank 1 + ... (+ bias) (+ residual), added in this order in f32, ' +
      'rounded once: the same bits on every rank. residual may be the same buffer as out.',
    args: {
      out: arg('out', 'act', 'M', 'N'),
      x: arg('in', 'f32', 'M', 'N'),
      bias: optional(arg('weight', 'w', 'N')),
      residual: optional(arg('in', 'act', 'M', 'N')),
    },
    attrs: [],
  },
  allReduceResidualNorm: {
    doc:
      'sum = allReduce(x, bias, residual), rounded once to act; out = rmsNorm(sum, weight, eps) of ' +
      'the rounded sum: the bits of the one op after the other. sum may be the same buffer as ' +
      'residual; out never is.',
    args: {
      out: arg('out', 'act', 'M', 'N'),
      sum: arg('out', 'act', 'M', 'N'),
      x: arg('in', 'f32', 'M', 'N'),
      weight: arg('weight', 'w', 'N'),
      bias: optional(arg('weight', 'w', 'N')),
      residual: optional(arg('in', 'act', 'M', 'N')),
    },
    attrs: ['eps'],
  },
  sampleSharded: {
    doc:
      'sample, where each rank has the logits of some ids: x those of firstId .. firstId + P - 1, ' +
      'and firstId is rank * P. P is a multiple of 1,024, so that no tile of docs/sampling.md lies ' +
      "on two ranks; columns from the vocabulary's end on hold nothing, the last ranks may have no " +
      'others. Every rank gets what sample would make of the columns of all ranks side by side, ' +
      "bit by bit, and appends it to its row table. How ranks tell each other is the backend's: " +
      "candidates where a row's parameters allow it, all logits where not; a row's result never " +
      'depends on which, nor on other rows. out is room for it (shardRoom(P) columns, in a layout ' +
      "of the backend's); others read x and out.",
    args: { out: arg('out', 'f32', 'L', 'E'), x: arg('in', 'f32', 'L', 'P') },
    attrs: ['firstId'],
  },
} as const satisfies Record<string, OpSpec>;

export type OpName = keyof typeof ops;

/** Ids of one tile of docs/sampling.md; a rank's part of the vocabulary is a multiple of it. */
export const tileIds = 1024;

/**
 * Columns of sampleSharded's out: of each row, what a rank tells the others of `numIds` ids. Up to 64
 * candidates, 20 best ids, what a request asked for by id, and one f64 sum for each tile.
 */
export function shardRoom(numIds: number): number {
  return 512 + 2 * Math.ceil(numIds / tileIds);
}

/** Op names in table order; an op's index here is its id below. */
export const opNames = Object.keys(ops) as OpName[];
