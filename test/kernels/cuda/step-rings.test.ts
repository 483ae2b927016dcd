// The row table, the rings of a step's inputs and results, and the reports made of them, as
// kernels/cuda/host keeps them, without a GPU: step_rings_device.h finds and leaves in a slot what a
// device would. What the kernels make of a slot is held by emulated.test.ts.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../../common/package-root.ts';
import { findCxx } from './cxx.ts';

const sources = [
  'test/kernels/cuda/step_rings_run.cc',
  'test/kernels/cuda/step_rings_room.cc',
  ...['rows', 'step_buffers', 'step_report', 'pinned_heap'].map(
    (name) => `kernels/cuda/host/${name}.cc`,
  ),
  ...['row_table', 'batch', 'step_view', 'step_output'].map((name) => `kernels/host/${name}.cc`),
];

t.test('rows, slots and reports of requests that come and go', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'vt-rings-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const program = join(folder, 'run');
  (await findCxx()).compile(['-std=c++17', '-O1', `-I${packageRoot}`, ...sources, '-o', program]);
  for (let seed = 1; seed <= 4; seed++) {
    const { status, stdout, stderr } = spawnSync(program, [String(seed)], { encoding: 'utf8' });
    t.equal(status, 0, `seed ${seed}: ${stdout}${stderr}`);
    const [wrong, ...counts] = [...stdout.matchAll(/\d+/g)].map(Number);
    t.equal(wrong, 0);
    t.ok(counts.length === 7 && counts.every((count) => count > 5), stdout);
  }
});
