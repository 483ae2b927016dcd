// What a head knows of a node's memory: as it was when the node joined, and when a rank ended.
import t from 'tap';
import { createLogger } from '../../../common/log.ts';
import type { ExitStatus, Running } from '../../../frontend/supervisor/child.ts';
import { NodeAgent } from '../../../frontend/supervisor/node-agent.ts';
import { makeNodeKeys } from '../../../frontend/supervisor/node-keys.ts';
import { Nodes } from '../../../frontend/supervisor/nodes.ts';
import { RunDir } from '../../../frontend/supervisor/run-dir.ts';

let available = 900;
const memory = () => ({ totalBytes: 1000, availableBytes: available });

const host = {
  kind: 'nodeJoin',
  nodeRank: 1,
  numNodes: 2,
  numRanks: 4,
  arch: process.arch,
  address: '127.0.0.1',
  modelPath: '/model',
  configHash: '00',
  weightsHash: '00',
  numThreads: 0,
} as const;

t.test('a node tells its memory when it joins and when a rank ends', async (t) => {
  const runDir = RunDir.fresh();
  t.teardown(() => runDir.remove());
  const address = `ipc://${runDir.file('nodes')}`;
  const keys = makeNodeKeys('a secret of the nodes');
  const common = { address, keys, timeoutMs: 60_000 };
  const log = createLogger({ process: 'nodes', level: 'error', format: 'text' });
  const nodes = new Nodes({
    ...common,
    log,
    numNodes: 2,
    numRanks: 4,
    token: 'aa55',
    refusal: () => null,
  });
  await new Promise<void>((complete, reject) => {
    nodes
      .open({ message: () => undefined, complete, overdue: reject, changed: () => undefined })
      .catch(reject);
    const agent = new NodeAgent({
      ...common,
      log,
      nodeRank: 1,
      // A rank that says nothing, until it is killed.
      workerCommand: ['-e', 'setInterval(() => undefined, 1000)'],
      join: () => Promise.resolve({ ...host, hostMemory: memory() }),
      hostMemory: memory,
    });
    t.teardown(async () => {
      nodes.end(0, 'the test is over');
      await agent.outcome;
      nodes.close();
    });
  });
  t.same(nodes.hostMemory(1), { totalBytes: 1000, availableBytes: 900 });

  const start = (index: number) => {
    const running: Running[] = [];
    const exited = new Promise<ExitStatus>((resolve) => {
      running.push(nodes.launch({ role: 'worker', index, generation: 0 }, resolve));
    });
    return { kill: () => running[0]!.kill(), exited };
  };
  const [first, second] = [start(2), start(3)];
  available = 700;
  first.kill();
  t.match(await first.exited, { signal: 'SIGKILL' });
  t.equal(nodes.hostMemory(1).availableBytes, 700);
  available = 800;
  second.kill();
  t.match(await second.exited, { signal: 'SIGKILL' });
  t.equal(nodes.hostMemory(1).availableBytes, 800);
});
