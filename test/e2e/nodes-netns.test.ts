// Two hosts that are two network namespaces with a cable between them, which can be pulled: nobody
// is told, the other end is only silent. The test runs itself in a namespace of its own.
import { spawn, spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import t from 'tap';
import { limitMs } from './server.ts';
import { servesAgain } from './client.ts';
import { short, tokensOf } from './ranks.ts';
import { startBoth, testNodes, type Hosts } from './nodes-suite.ts';

t.setTimeout(30 * limitMs);

const inside = 'VLLM_TS_IN_NETWORK_NAMESPACE';
const unshares = [
  ['unshare', '--user', '--map-root-user', '--net'],
  ['unshare', '--net'],
];
const addresses = ['10.77.0.1', '10.77.0.2'] as const;

function canMake(command: readonly string[]): boolean {
  const script =
    'ip link set lo up && ip link add vt0 type veth peer name vt1 && nsenter --version';
  return spawnSync(command[0]!, [...command.slice(1), 'sh', '-c', script]).status === 0;
}

if (process.env[inside] === undefined) {
  const unshare = unshares.find(canMake);
  const skip = unshare ? false : 'unshare may not make a network namespace here';
  t.test('two network namespaces', { skip }, async (t) => {
    const [program = '', ...args] = unshare!;
    const child = spawn(program, [...args, process.execPath, fileURLToPath(import.meta.url)], {
      env: { ...process.env, [inside]: '1' },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (output += text));
    const code = await new Promise((resolve) => child.on('close', resolve));
    t.equal(code, 0, output);
  });
} else {
  let hosts!: Hosts;

  const run = (command: string) => {
    const done = spawnSync('sh', ['-c', command], { encoding: 'utf8' });
    if (done.status !== 0) throw new Error(`${command}: ${done.stderr}`);
  };

  t.before(async () => {
    const other = spawn('unshare', ['--net', 'sh', '-c', 'echo; exec sleep infinity'], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    t.teardown(() => other.kill('SIGKILL'));
    // It is in its namespace when it speaks.
    await new Promise((resolve) => other.stdout.once('data', resolve));
    const enter = ['nsenter', `--net=/proc/${other.pid}/ns/net`];
    run('ip link set lo up');
    run(`ip link add vt0 type veth peer name vt1 netns ${other.pid}`);
    run(`ip addr add ${addresses[0]}/24 dev vt0 && ip link set vt0 up`);
    run(`${enter.join(' ')} ip link set lo up`);
    run(`${enter.join(' ')} ip addr add ${addresses[1]}/24 dev vt1`);
    run(`${enter.join(' ')} ip link set vt1 up`);
    hosts = { addresses, run: [[], enter] };
  });

  testNodes(() => hosts);

  t.test('a node whose cable is pulled is named, and joins again', async (t) => {
    const [head, node] = await startBoth(t, hosts);
    const before = await tokensOf(t, head, short);
    run('ip link set vt0 down');
    await head.waitFor(() => head.stderr.includes(`node 1 (${addresses[1]}) is lost: `));
    await node.waitFor(() =>
      node.stderr.includes(`the head at tcp://${addresses[0]}:29501 is lost`),
    );
    run('ip link set vt0 up');
    await servesAgain(t, head, short);
    t.same(await tokensOf(t, head, short), before);
  });
}
