import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { KernelError } from '../../../common/errors.ts';
import { stepInputColumns, stepOutputColumns } from '../../../common/wire/step.ts';
import { loadAddon } from '../../../kernels/addon.ts';
import { ops, opNames, type ArgSpec } from '../../../kernels/ops.ts';

const addon = loadAddon();

t.test('op_table.h has the ops, arguments and attributes of ops.ts in its order', (t) => {
  const wanted = opNames.map((name) => ({
    name,
    args: Object.entries(ops[name].args as Record<string, ArgSpec>).map(([arg, spec]) => ({
      name: arg,
      role: spec.role,
      dtype: spec.dtype,
      shape: spec.shape.join(','),
      optional: spec.optional ?? false,
    })),
    attrs: [...ops[name].attrs],
  }));
  t.same(addon.opTable(), wanted);
  t.end();
});

t.test('step.h has the columns of step.ts in their order', (t) => {
  const { input, output } = addon.stepColumns();
  t.same(Object.entries(input), Object.entries(stepInputColumns));
  t.same(Object.entries(output), Object.entries(stepOutputColumns));
  t.end();
});

t.test('a mapped file that becomes shorter is named before it ends the process', (t) => {
  const path = join(t.testdir({}), 'weights');
  writeFileSync(path, Buffer.alloc(1 << 20, 7));
  const program = `
    import { truncateSync } from 'node:fs';
    import { loadAddon } from ${JSON.stringify(new URL('../../../kernels/addon.js', import.meta.url))};
    const bytes = new Uint8Array(loadAddon().mapFile(${JSON.stringify(path)}).slice(0, 1 << 20));
    truncateSync(${JSON.stringify(path)}, 10);
    console.log(bytes[1 << 19]);`;
  const { signal, stdout, stderr } = spawnSync(
    process.execPath,
    ['--input-type=module', '-e', program],
    { encoding: 'utf8' },
  );
  t.equal(signal, 'SIGBUS');
  t.equal(stderr, `vllm-ts: ${path} became shorter while it was read\n`);
  t.equal(stdout, '');
  t.end();
});

t.test('mapFile maps the bytes of a file and names one that it cannot', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'map-file-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'bytes');
  writeFileSync(path, Buffer.from([1, 2, 250]));
  const mapped = addon.mapFile(path);
  const bytes = (begin: number, end: number) => [...new Uint8Array(mapped.slice(begin, end))];
  t.equal(mapped.numBytes, 3);
  t.same(bytes(0, 3), [1, 2, 250]);
  t.same(bytes(0, 3), [1, 2, 250], 'and again');
  t.same(bytes(1, 2), [2]);
  t.same(bytes(3, 3), []);
  for (const [begin, end] of [
    [0, 4],
    [-1, 2],
    [2, 1],
    [NaN, 2],
    [0, Infinity],
  ] as const)
    t.throws(() => mapped.slice(begin, end), {
      name: 'KernelError',
      message: 'of a file that has 3',
    });
  writeFileSync(join(folder, 'empty'), '');
  const empty = addon.mapFile(join(folder, 'empty'));
  t.equal(empty.numBytes, 0);
  t.equal(empty.slice(0, 0).byteLength, 0);
  const missing = join(folder, 'missing');
  t.throws(() => addon.mapFile(missing), { name: 'KernelError', message: `${missing}: No such` });
  t.throws(() => addon.mapFile(folder), { name: 'KernelError', message: 'not a regular file' });
  try {
    addon.mapFile(missing);
  } catch (error) {
    t.ok(error instanceof KernelError);
  }
  t.end();
});
