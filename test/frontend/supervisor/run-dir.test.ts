import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { closeListening, listenUnix } from '../../../common/os/index.ts';
import { Endpoints, parseTcpAddress } from '../../../frontend/supervisor/endpoints.ts';
import { RunDir } from '../../../frontend/supervisor/run-dir.ts';

function folder(t: Test): string {
  const path = mkdtempSync(join(tmpdir(), 'vt-run-'));
  t.teardown(() => {
    rmSync(path, { recursive: true, force: true });
  });
  return path;
}

t.test('RunDir.fresh makes a private folder and removes it', (t) => {
  const parent = folder(t);
  const runDir = RunDir.fresh({ XDG_RUNTIME_DIR: parent });
  t.ok(runDir.path.startsWith(parent));
  t.equal(statSync(runDir.path).mode & 0o777, 0o700);
  const file = runDir.write('frontend.json', '{}');
  t.equal(statSync(file).mode & 0o777, 0o600);
  runDir.remove();
  t.same(readdirSync(parent), []);
  t.end();
});

t.test('RunDir.named says where no folder, or no socket in it, can be made', (t) => {
  // For /proc Node's recursive mkdir would try for ever.
  for (const path of ['/proc/x', '/proc/x/y', '/proc/self/fd'])
    t.throws(() => RunDir.named(path), { message: `no run directory can be made in ${path} (` });
  t.end();
});

t.test('RunDir.named makes the folders above its own', (t) => {
  const parent = folder(t);
  symlinkSync(parent, join(parent, 'link'));
  const path = join(parent, 'link', 'above', 'own');
  const runDir = RunDir.named(path);
  t.equal(statSync(path).mode & 0o777, 0o700);
  runDir.remove();
  t.equal(existsSync(path), false);
  t.end();
});

t.test('RunDir.fresh removes what killed servers left, and nothing else', (t) => {
  const parent = folder(t);
  const age = (path: string) => utimesSync(join(path, 'lock'), 0, 0);
  const abandon = (name: string) => {
    const path = join(parent, name);
    mkdirSync(path);
    closeListening(listenUnix(join(path, 'lock')));
    return path;
  };
  age(abandon('vllm-ts-killed'));
  age(abandon('other-program'));
  abandon('vllm-ts-just-made');
  mkdirSync(join(parent, 'vllm-ts-without-lock'));
  const alive = RunDir.fresh({ XDG_RUNTIME_DIR: parent });
  age(alive.path);
  const runDir = RunDir.fresh({ XDG_RUNTIME_DIR: parent });
  const left = ['other-program', 'vllm-ts-just-made', 'vllm-ts-without-lock'];
  const expected = [...left.map((name) => join(parent, name)), alive.path, runDir.path].sort();
  t.same(
    readdirSync(parent)
      .map((name) => join(parent, name))
      .sort(),
    expected,
  );
  alive.remove();
  runDir.remove();
  t.end();
});

t.test('RunDir.named is one server at a time, and leaves what is not its own', (t) => {
  const path = join(folder(t), 'a/b');
  const runDir = RunDir.named(path);
  t.throws(() => RunDir.named(path), { exitCode: 1, message: /in use by another server/ });
  runDir.remove();
  t.notOk(existsSync(path));
  mkdirSync(join(path, 'theirs'), { recursive: true });
  chmodSync(path, 0o700);
  const again = RunDir.named(path);
  again.write('frontend.json', '{}');
  again.remove();
  t.same(readdirSync(path), ['theirs']);
  t.end();
});

t.test('RunDir refuses a folder that others can read, and long paths', (t) => {
  const path = folder(t);
  chmodSync(path, 0o755);
  t.throws(() => RunDir.named(path), { message: /must belong to this user with mode 0700/ });
  const long = join(path, 'x'.repeat(100));
  t.throws(() => RunDir.named(long), { message: /at most 100/ });
  t.throws(() => RunDir.fresh({ XDG_RUNTIME_DIR: path }).socket('y'.repeat(90)), {
    message: /y{90} has \d+ bytes/,
  });
  t.end();
});

t.test('a folder in which nothing can be made is named', (t) => {
  const file = join(folder(t), 'file');
  writeFileSync(file, '');
  const named = { name: 'StartError', message: /^no run directory can be made in .*file.* \(E/ };
  t.throws(() => RunDir.named(join(file, 'x')), named);
  const { TMPDIR } = process.env;
  process.env['TMPDIR'] = file;
  t.teardown(() => {
    if (TMPDIR === undefined) delete process.env['TMPDIR'];
    else process.env['TMPDIR'] = TMPDIR;
  });
  t.throws(() => RunDir.fresh({}), named);
  t.end();
});

t.test('Endpoints are unix sockets per generation, or two ports with keys', (t) => {
  const runDir = RunDir.fresh({ XDG_RUNTIME_DIR: folder(t) });
  const ipc = new Endpoints(runDir, null);
  t.not(ipc.detokenizerFrontend(0).address, ipc.detokenizerFrontend(1).address);
  t.equal(ipc.engineFrontend(0).curve, null);
  const tcp = new Endpoints(runDir, parseTcpAddress('tcp://127.0.0.1:5000'));
  const json = tcp.frontendJson('token', 'model', 0, 0);
  t.match(json, { engine: 'tcp://127.0.0.1:5000', detokenizer: 'tcp://127.0.0.1:5001' });
  t.equal(json.engineKey?.length, 40);
  t.not(json.engineKey, json.detokenizerKey);
  t.notMatch(JSON.stringify(json), tcp.engineFrontend(0).curve!.secretKey);
  t.match(tcp.engineWorker(0).address, /^ipc:/, 'workers stay local');
  runDir.remove();
  t.end();
});

t.test('parseTcpAddress wants one named address', (t) => {
  t.equal(parseTcpAddress('/some/folder'), null);
  t.same(parseTcpAddress('tcp://[::1]:80'), { host: '[::1]', port: 80 });
  for (const text of [
    'tcp://*:80',
    'tcp://0.0.0.0:80',
    'tcp://[::]:80',
    'tcp://h',
    'tcp://h:65535',
  ])
    t.throws(() => parseTcpAddress(text), { message: /--frontend-address/, exitCode: 64 }, text);
  t.end();
});
