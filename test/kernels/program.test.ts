// What native backends say of a program that does not fit together (kernels/host/program.cc,
// check_shapes.cc and check_dtypes.cc): every op with each of its sizes, dtypes, arguments and
// attributes wrong in turn, by the op table itself.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';
import { opNames, ops, shardRoom, type ArgSpec, type OpName } from '../../kernels/ops.ts';
import {
  flattenProgram,
  type ArgRef,
  type BufferSpec,
  type FlatProgram,
  type Program,
  type WeightSpec,
} from '../../kernels/program.ts';
import { findCxx } from './cuda/cxx.ts';

type Rules = 'cpu' | 'cuda';

const folder = mkdtempSync(join(tmpdir(), 'vt-program-'));
t.teardown(() => {
  rmSync(folder, { recursive: true });
});
const binary = join(folder, 'run');
const sources = ['program', 'check_shapes', 'check_dtypes'].map(
  (name) => `kernels/host/${name}.cc`,
);
(await findCxx()).compile([
  ...['-std=c++17', '-O1', `-I${packageRoot}`, 'test/kernels/program_run.cc', ...sources],
  ...['-o', binary],
]);

/** What the program says of each: "ok", or "[op] message". */
function judge(rules: Rules, programs: readonly (Program | (FlatProgram & Sizes))[]): string[] {
  const lines = programs.map((program) => {
    const flat = 'actDtype' in program ? flattenProgram(program) : program;
    const { vocabSize, arenaBytes, maxNumTokens, maxNumLogits } = program;
    const sizes = [vocabSize, arenaBytes, maxNumTokens, maxNumLogits];
    const lists = [flat.ops, flat.attrs, flat.buffers, flat.weights, flat.kvGroups, sizes];
    return [rules, ...lists.flatMap((list) => [list.length, ...list])].join(' ');
  });
  const run = spawnSync(binary, { input: lines.join('\n'), encoding: 'utf8' });
  if (run.status !== 0) throw new Error(`${run.signal}: ${run.stderr}`);
  return run.stdout.trimEnd().split('\n');
}
type Sizes = Pick<Program, 'vocabSize' | 'arenaBytes' | 'maxNumTokens' | 'maxNumLogits'>;

/** Sizes by the letters of the op table. */
const sizes: Readonly<Record<string, number>> = {
  ...{ H: 32, N: 32, K: 48, R: 100, V: 1000, P: 2048, E: shardRoom(2048), I: 32, '2I': 64 },
  ...{ D: 16, 'D/2': 8, 'Q*D': 96, '(Q+2G)*D': 192 },
};
const attrs: Readonly<Record<string, number>> = {
  ...{ firstId: 0, factor: 1, eps: 1e-5, scale: 0.25, window: 0 },
  ...{ layer: 1, numHeads: 6, numKvHeads: 3, headDim: 16 },
};

/** A program of one op that fits together. */
function programOf(op: OpName, rules: Rules): Program {
  const act = rules === 'cpu' ? 'f32' : 'bf16';
  const buffers: BufferSpec[] = [];
  const weights: WeightSpec[] = [];
  const args: Record<string, ArgRef> = {};
  let offset = 0;
  for (const [name, { role, dtype, shape }] of Object.entries<ArgSpec>(ops[op].args)) {
    const dtypeOf = dtype === 'f32' ? 'f32' : act;
    if (role === 'weight') {
      args[name] = { weight: weights.length };
      const known = { name, dtype: dtypeOf, sources: [], constant: null, interleave: 0 } as const;
      weights.push({ ...known, shape: shape.map((letter) => sizes[letter]!) });
      continue;
    }
    args[name] = { buffer: buffers.length };
    const rows = shape[0] === 'L' ? 'numLogits' : 'numTokens';
    const columns = sizes[shape[1]!]!;
    buffers.push({ name, dtype: dtypeOf, rows, columns, offset });
    offset += 64 * columns * 4;
  }
  return {
    ops: [
      { op, args, attrs: Object.fromEntries(ops[op].attrs.map((name) => [name, attrs[name]!])) },
    ],
    ...{ buffers, weights, vocabSize: 1000, actDtype: act, arenaBytes: offset },
    kvGroups: [{ numLayers: 2, numKvHeads: 3, headDim: 16, dtype: act, window: 0 }],
    ...{ maxNumTokens: 64, maxNumLogits: 8 },
  };
}

const withBuffer = (program: Program, index: number, change: Partial<BufferSpec>): Program => ({
  ...program,
  buffers: program.buffers.map((buffer, i) => (i === index ? { ...buffer, ...change } : buffer)),
  arenaBytes: program.arenaBytes * 4,
});
const withWeight = (program: Program, index: number, change: Partial<WeightSpec>): Program => ({
  ...program,
  weights: program.weights.map((weight, i) => (i === index ? { ...weight, ...change } : weight)),
});
const withOp = (program: Program, change: Partial<Program['ops'][number]>): Program => ({
  ...program,
  ops: program.ops.map((op) => ({ ...op, ...change })),
});

t.test('each op, if all fits', (t) => {
  for (const rules of ['cpu', 'cuda'] as const) {
    const programs = opNames.map((op) => programOf(op, rules));
    t.same(
      judge(rules, programs),
      programs.map(() => 'ok'),
      rules,
    );
    const required = programs.map((program, i) => {
      const specs = ops[opNames[i]!].args as Readonly<Record<string, ArgSpec>>;
      const { args } = program.ops[0]!;
      const left = Object.entries(args).filter(([name]) => !specs[name]!.optional);
      return withOp(program, { args: Object.fromEntries(left) });
    });
    t.same(
      judge(rules, required),
      programs.map(() => 'ok'),
      `${rules}, without what is optional`,
    );
    const heads = programOf('headRmsNorm', rules);
    const few = { ...attrs, numHeads: 1, numKvHeads: 1, headDim: 2 };
    const least = {
      ...withOp(withBuffer(heads, 0, { columns: 6 }), { attrs: few }),
      weights: heads.weights.map((weight) => ({ ...weight, shape: [2] })),
    };
    const first = withOp(programOf('attention', rules), { attrs: { ...attrs, layer: 0 } });
    t.same(judge(rules, [least, first]), ['ok', 'ok'], 'one head, the first layer');
  }
  t.end();
});

/** Programs of one op with one thing wrong each, and what is said of it. */
function wrongPrograms(op: OpName, rules: Rules): (readonly [string, Program, RegExp])[] {
  const good = programOf(op, rules);
  const wrong: (readonly [string, Program, RegExp])[] = [];
  const specs = Object.entries<ArgSpec>(ops[op].args);
  const letters = specs.flatMap(([, { shape }]) => shape);
  /** Sizes that another argument, or an attribute, or the program has too. */
  const isHeld = (letter: string) =>
    letter === 'V' || /[QGEP]/.test(letter) || letters.filter((l) => l[0] === letter[0]).length > 1 || /2I/.test(letter); // prettier-ignore
  for (const [name, { role, dtype, shape, optional }] of specs) {
    const ref = good.ops[0]!.args[name]!;
    const add = (what: string, program: Program, message: RegExp) =>
      wrong.push([`${op}.${name}: ${what}`, program, message]);
    const others = Object.fromEntries(
      Object.entries(good.ops[0]!.args).filter(([arg]) => arg !== name),
    );
    if (!optional) add('missing', withOp(good, { args: others }), new RegExp(`lacks ${name}$`));
    const other = 'weight' in ref ? { buffer: 0 } : { weight: 0 };
    const kind = role === 'weight' ? 'weight' : 'buffer';
    const taken = (to: ArgRef) => withOp(good, { args: { ...others, [name]: to } });
    add('of the other kind', taken(other), new RegExp(`${op}\\.${name} must be a ${kind}$`));
    const count = role === 'weight' ? good.weights.length : good.buffers.length;
    add('none', taken({ [kind]: count } as unknown as ArgRef), /refers to nothing$/);
    if ('weight' in ref) {
      const { shape: sizesOf } = good.weights[ref.weight]!;
      sizesOf.forEach((size, i) => {
        if (!isHeld(shape[i]!)) return;
        for (const by of [-1, 1]) {
          const changed = sizesOf.map((other, at) => (at === i ? size + by : other));
          const message = new RegExp(`${op}\\.\\w+ has \\d+ \\w+, expected \\d+$`);
          add(changed.join(' x '), withWeight(good, ref.weight, { shape: changed }), message);
        }
      });
      const turned = sizesOf.length === 1 ? [sizesOf[0]!, 1] : [sizesOf[0]!];
      add(
        `${turned.length} dimensions`,
        withWeight(good, ref.weight, { shape: turned }),
        /expected/,
      );
      if (dtype === 'f32')
        add('f16', withWeight(good, ref.weight, { dtype: 'f16' }), /is f16, not f32$/);
      else if (rules === 'cuda')
        add(
          'f16',
          withWeight(good, ref.weight, { dtype: 'f16' }),
          /f16.*computes in .*16 on cuda$/,
        );
      continue;
    }
    const { columns, rows } = good.buffers[ref.buffer]!;
    if (isHeld(shape[1]!))
      for (const by of [-1, 1])
        add(`${by}`, withBuffer(good, ref.buffer, { columns: columns + by }), /expected|no whole/);
    // Some ops run on rows of either kind, all of one.
    if (good.buffers.length > 1 || shape[0] === 'L' || op === 'embedding' || op === 'ropeCosSin') {
      const turned = rows === 'numTokens' ? 'numLogits' : 'numTokens';
      const message = /has the wrong kind of rows$/;
      add(turned, withBuffer(good, ref.buffer, { rows: turned }), message);
    }
    if (rules === 'cpu') continue;
    const isF32 = dtype === 'f32';
    if (isF32) add('bf16', withBuffer(good, ref.buffer, { dtype: 'bf16' }), /is bf16, not f32$/);
    else {
      if (specs.length > 1 && (specs[1]![1].dtype !== 'f32' || specs.length > 2))
        add('f16', withBuffer(good, ref.buffer, { dtype: 'f16' }), /computes in (b?f16) on cuda$/);
      const takesF32 = (op === 'linear' || op === 'embedding') && name === 'out';
      if (!takesF32)
        add(
          'f32',
          withBuffer(good, ref.buffer, { dtype: 'f32' }),
          /cuda backend does not compute in f32/,
        );
    }
  }
  const names: readonly string[] = ops[op].attrs;
  const change = (name: string, value: number) =>
    withOp(good, { attrs: { ...good.ops[0]!.attrs, [name]: value } });
  for (const name of names) {
    wrong.push([`${name} NaN`, change(name, NaN), new RegExp(`${op}\\.${name} is not finite$`)]);
    if (name === 'firstId') wrong.push([`${op}: id -1`, change(name, -1), /its first id is -1/]);
    if (name === 'layer')
      for (const layer of [-1, 2])
        wrong.push([`${op}: layer`, change(name, layer), /layer -?\d of 2$/]);
  }
  if (names.includes('numHeads')) {
    wrong.push([`${op}: 0 heads`, change('numHeads', 0), /0 heads over 3 KV heads$/]);
    wrong.push([`${op}: 4 heads`, change('numHeads', 4), /4 heads over 3 KV heads$/]);
    wrong.push([`${op}: 0 KV heads`, change('numKvHeads', 0), /6 heads over 0 KV heads$/]);
    wrong.push([`${op}: head dim 15`, change('headDim', 15), /head dim 15$/]);
    wrong.push([`${op}: head dim 0`, change('headDim', 0), /head dim 0$/]);
  }
  if (names.includes('layer')) {
    const [group] = good.kvGroups;
    const other = { ...good, kvGroups: [{ ...group!, numKvHeads: 6 }] };
    const dim = { ...good, kvGroups: [{ ...group!, headDim: 32 }] };
    wrong.push([`${op}: KV heads`, other, /its KV heads are not the KV group's$/]);
    wrong.push([`${op}: head dim of the group`, dim, /its KV heads are not the KV group's$/]);
    wrong.push([`${op}: no group`, { ...good, kvGroups: [] }, /without a KV group$/]);
    if (rules === 'cuda') {
      const f16 = { ...good, kvGroups: [{ ...group!, dtype: 'f16' as const }] };
      wrong.push([`${op}: KV cache in f16`, f16, /the KV cache is f16, the op computes in bf16/]);
    }
  }
  return wrong;
}

for (const rules of ['cpu', 'cuda'] as const)
  t.test(`each op with one thing wrong: ${rules}`, (t) => {
    for (const op of opNames) {
      const wrong = wrongPrograms(op, rules);
      const said = judge(
        rules,
        wrong.map(([, program]) => program),
      );
      wrong.forEach(([what, , message], i) => t.match(said[i], message, what));
    }
    t.end();
  });

/** A flat program with one of its numbers changed, or more of them, or fewer. */
type List = 'ops' | 'attrs' | 'buffers' | 'weights' | 'kvGroups';
function flatWith(rules: Rules, op: OpName, list: List, change: (numbers: number[]) => unknown) {
  const program = programOf(op, rules);
  const flat = flattenProgram(program);
  const numbers = [...flat[list]];
  change(numbers);
  const { vocabSize, arenaBytes, maxNumTokens, maxNumLogits } = program;
  const Type = flat[list].constructor as Float64ArrayConstructor;
  return {
    ...{ ...flat, [list]: Type.from(numbers) },
    ...{ vocabSize, arenaBytes, maxNumTokens, maxNumLogits },
  };
}

t.test('numbers that no program has', (t) => {
  const set = (at: number, value: number) => (numbers: number[]) => (numbers[at] = value);
  const drop = (numbers: number[]) => numbers.pop();
  const cases: readonly (readonly [RegExp | 'ok', List, (numbers: number[]) => unknown])[] = [
    [/a dtype is -1, not a whole number within 0\.\.4/, 'buffers', set(0, -1)],
    [/a dtype is 5, not a whole/, 'buffers', set(0, 5)],
    [/a dtype is 0\.5, not a whole/, 'weights', set(0, 0.5)],
    [/a buffer's symbol is 2, not a whole/, 'buffers', set(1, 2)],
    [/a buffer's columns is 32\.5, not a whole/, 'buffers', set(2, 32.5)],
    [/a buffer's columns is 1e\+10, not a whole/, 'buffers', set(2, 1e10)],
    [/a buffer's arena offset is nan, not a whole/, 'buffers', set(3, NaN)],
    [/offset is not a multiple of 64/, 'buffers', set(3, 32)],
    [/buffer 2 ends outside the arena/, 'buffers', set(13, 64 * 80 * 4 + 64 * 32 * 4)],
    [/a buffer's rows at once is -1/, 'buffers', set(4, -1)],
    [/a weight's rows is 3e\+09/, 'weights', set(1, 3e9)],
    [/weight 1 has no rows/, 'weights', set(5, 0)],
    [/a weight's columns is -1/, 'weights', set(2, -1)],
    [/a KV group's layers is -1/, 'kvGroups', set(0, -1)],
    [/a KV group without heads/, 'kvGroups', set(1, 0)],
    [/head dim 0 is not supported on c\w+: it must be a multiple of 16/, 'kvGroups', set(2, 0)],
    [/head dim 24 is not supported/, 'kvGroups', set(2, 24)],
    [/a KV group's head dim is 528/, 'kvGroups', set(2, 528)],
    [/a KV cache in i32 is not supported on c\w+ yet/, 'kvGroups', set(3, 3)],
    [/a KV group's window is -1/, 'kvGroups', set(4, -1)],
    [/several KV groups are not supported/, 'kvGroups', (all) => all.push(...all)],
    [/unknown op -1/, 'ops', set(0, -1)],
    [/unknown op 13/, 'ops', set(0, opNames.length)],
    [/linear is cut short/, 'ops', drop],
    ['ok', 'ops', (words) => words.push(...words)],
    ['ok', 'weights', set(0, 2)],
  ];
  for (const rules of ['cpu', 'cuda'] as const) {
    const said = judge(
      rules,
      cases.map(([, list, change]) => flatWith(rules, 'linear', list, change)),
    );
    cases.forEach(([message, list], i) => t.match(said[i], message, `${rules} ${list} ${i}`));
    const [lacks] = judge(rules, [flatWith(rules, 'attention', 'attrs', drop)]);
    t.equal(lacks, '[] program: attention lacks attributes');
  }
  const linear = (rules: Rules, list: List, at: number, value: number) =>
    judge(rules, [flatWith(rules, 'linear', list, set(at, value))])[0];
  t.equal(linear('cpu', 'buffers', 0, 2), '[] buffers in bf16 are not supported on cpu');
  t.equal(linear('cpu', 'buffers', 4, 8), "[] buffers for some of a step's rows are not supported on cpu"); // prettier-ignore
  t.equal(linear('cuda', 'buffers', 4, 8), 'ok');
  t.equal(linear('cpu', 'weights', 3, 16), '[] interleaved weights are not supported on cpu');
  t.equal(linear('cuda', 'weights', 3, 16), 'ok');
  t.equal(linear('cuda', 'weights', 3, 12), '[] program: 32 rows do not interleave by 12');
  t.equal(linear('cuda', 'weights', 0, 4), '[] weights in u8 are not supported on cuda yet');
  const good = programOf('linear', 'cpu');
  const [none, short] = judge('cpu', [
    { ...good, maxNumTokens: 0 },
    { ...good, arenaBytes: good.arenaBytes - 1 },
  ]);
  t.equal(none, '[] program: maxNumTokens is 0');
  t.equal(short, '[] program: buffer 2 ends outside the arena');
  t.end();
});
