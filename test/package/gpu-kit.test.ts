// The kit for a machine without Node and npm: unpacked in an empty folder, with nothing but sh on
// the PATH, it serves; and what was added in parts is whole again once all have come.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'; // prettier-ignore
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';
import { complete, serve } from './serve.ts';

const skip =
  process.env['VLLM_TS_PACKAGE_TESTS'] === undefined
    ? 'slow: set VLLM_TS_PACKAGE_TESTS=1'
    : process.platform === 'linux'
      ? false
      : 'GPUs are on Linux';

t.test('gpu-kit', { skip, timeout: 900_000 }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'vt-kit-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const kit = join(folder, 'kit');
  const library = join(folder, 'libvt_cuda.so');
  writeFileSync(library, 'never opened: there is no driver');
  const model = join(folder, 'weights');
  mkdirSync(model);
  const bytes = Buffer.alloc(2_500_000, 'vllm-ts ');
  writeFileSync(join(model, 'numbers'), bytes);
  const pack = spawnSync(
    process.execPath,
    [
      join(packageRoot, 'scripts/gpu-kit.mjs'),
      ...[kit, '--library', library, '--level', '0', '--add', model, '--part-mib', '1'],
    ],
    { encoding: 'utf8' },
  );
  t.equal(pack.status, 0, pack.stderr);

  // The parts come one by one, as a carrier with a limit would bring them.
  const dest = join(folder, 'dest');
  const away = join(folder, 'away');
  mkdirSync(away);
  const parts = [0, 1, 2].map((i) => `part-weights-${i}`);
  for (const part of parts) renameSync(join(kit, part), join(away, part));
  for (const part of parts) {
    renameSync(join(away, part), join(kit, part));
    execFileSync('/bin/sh', [join(kit, 'setup.sh'), dest], { stdio: 'inherit' });
    renameSync(join(kit, part), join(away, part));
  }
  t.ok(readFileSync(join(dest, 'weights/numbers')).equals(bytes), 'joined from three parts');

  const bin = join(folder, 'bin');
  mkdirSync(bin);
  symlinkSync('/bin/sh', join(bin, 'sh'));
  const env = { PATH: bin, HOME: folder };
  const server = await serve(
    join(dest, 'bin/vllm-ts'),
    ['serve', '--device', 'cpu', '--port', '0'],
    { cwd: folder, env },
  );
  t.ok((await complete(server.url)).length > 0);
  t.equal(await server.stop(), 0);
});
