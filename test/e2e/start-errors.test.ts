// What is wrong before anything runs: one line that names it, and the exit code that says what kind.
import {
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';
import { limitMs, runCommand, runServer, serveCommand } from './server.ts';

t.setTimeout(10 * limitMs);

const cases: readonly (readonly [argv: string[], code: number, line: RegExp])[] = [
  [['--prot', '1'], 64, /^vllm-ts: unknown flag --prot. Did you mean --port\?\n$/],
  [['--port', 'eighty'], 64, /^vllm-ts: --port: 'eighty' is not a whole number.*\n$/],
  [['-pp', '2'], 64, /^vllm-ts: --pipeline-parallel-size: '2' is not built, only 1 is\.\n$/],
  [['no/such/model'], 65, /^vllm-ts: no\/such\/model is not a folder.*\n$/],
  [['--host', '203.0.113.1'], 1, /^vllm-ts: cannot listen on 203.0.113.1 port 8000.*\n$/],
];
for (const [argv, code, line] of cases)
  t.test(`vllm-ts serve ${argv.join(' ')} ends with ${code}`, async (t) => {
    const server = runServer(t, argv);
    t.same(await server.exited, { code, signal: null });
    t.match(server.stderr, line);
    t.equal(server.stdout, '');
    t.same(readdirSync(server.runParent), []);
  });

t.test('vllm-ts serve ends with 1 when the port is in use, and names it', async (t) => {
  const other = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => other.once('listening', resolve));
  const { port } = other.address() as AddressInfo;
  const server = runServer(t, ['--port', String(port)]);
  t.same(await server.exited, { code: 1, signal: null });
  t.match(server.stderr, `vllm-ts: 127.0.0.1 port ${port} is in use by another process`);
  t.equal(server.stderr.split('\n').length, 2, 'one line');
  other.close();
});

t.test('vllm-ts serve says how many open files it needs', async (t) => {
  const shell = ['sh', '-c', 'ulimit -n 100 && exec "$0" "$@"'];
  const server = runCommand(t, [...shell, ...serveCommand, '--port', '0']);
  t.same(await server.exited, { code: 1, signal: null });
  t.match(
    server.stderr,
    /^vllm-ts: this system allows 100 open files, a server needs 144: raise .*\n$/,
  );
});

t.test('vllm-ts serve refuses a run directory whose path is too long', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'vt-'));
  const server = runServer(t, ['--port', '0', '--frontend-address', join(folder, 'x'.repeat(90))]);
  t.equal((await server.exited).code, 1);
  t.match(server.stderr, /socket path .* has \d+ bytes, at most 100 work/);
  rmSync(folder, { recursive: true });
});

/** A copy of the demo model, and what was done to it. */
const damages: readonly (readonly [
  name: string,
  line: RegExp,
  damage: (folder: string) => void,
])[] = [
  [
    'whose weights are cut short',
    /model\.safetensors/,
    (folder) => truncateSync(join(folder, 'model.safetensors'), 1_000_000),
  ],
  [
    'whose weights are another shape',
    /model\.embed_tokens\.weight/,
    (folder) => edit(join(folder, 'config.json'), '"vocab_size": 8192', '"vocab_size": 8191'),
  ],
  [
    'without weights',
    /no .*\.safetensors|model\.safetensors/,
    (folder) => rmSync(join(folder, 'model.safetensors')),
  ],
  [
    'of an architecture that is not built',
    /architectures GPT2LMHeadModel is not supported; supported: .*LlamaForCausalLM/,
    (folder) => edit(join(folder, 'config.json'), 'LlamaForCausalLM', 'GPT2LMHeadModel'),
  ],
  [
    'whose tokenizer is not JSON',
    /tokenizer\.json/,
    (folder) => writeFileSync(join(folder, 'tokenizer.json'), '{"model": '),
  ],
];

function edit(file: string, from: string, to: string): void {
  const text = readFileSync(file, 'utf8');
  if (!text.includes(from)) throw new Error(`${file} has no ${from}`);
  writeFileSync(file, text.replace(from, to));
}

for (const [name, line, damage] of damages)
  t.test(`a model ${name} ends the start with 65`, async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'vt-model-'));
    t.teardown(() => rmSync(folder, { recursive: true }));
    cpSync(join(packageRoot, 'models/demo'), folder, { recursive: true });
    damage(folder);
    const server = runServer(t, ['--port', '0', folder]);
    t.same(await server.exited, { code: 65, signal: null });
    t.match(server.stderr.trim().split('\n').at(-1), line, 'the last line names it');
    t.same(readdirSync(server.runParent), []);
  });
