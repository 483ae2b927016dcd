// Ranks of one host pack their weights when each is so far: what they count as free must not depend
// on which of them have.
import t from 'tap';
import type { WorkerSlice } from '../../common/config.ts';
import { memoryOfGenerations } from '../../common/host-memory.ts';
import { makeConfig } from '../../frontend/cli/config.ts';
import { parseCommandLine } from '../../frontend/cli/parse.ts';
import { makeSlice, type Network } from '../../frontend/cli/slices.ts';
import { Endpoints } from '../../frontend/supervisor/endpoints.ts';
import type { Nodes } from '../../frontend/supervisor/nodes.ts';
import { RunDir } from '../../frontend/supervisor/run-dir.ts';
import type { Backend, BackendLoad } from '../../kernels/backend.ts';
import { loadModel } from '../../worker/load-model.ts';

const mib = 2 ** 20;
const noCuda = { device: null, reason: 'there is no driver' };

/**
 * Slices as the supervisor cuts them for ranks of a host whose free memory is what `read` says: its
 * own, or of a node that says so.
 */
function slicer(
  t: { teardown(remove: () => void): unknown },
  read: () => number,
  network: Network | null = null,
) {
  const runDir = RunDir.fresh();
  t.teardown(() => runDir.remove());
  const argv = [
    'serve',
    '--device',
    'cpu',
    '--tensor-parallel-size',
    '2',
    '--max-num-seqs',
    '4096',
  ];
  const config = makeConfig(parseCommandLine(argv, '0.0.0')!, {}, noCuda);
  const endpoints = new Endpoints(runDir, null);
  const memory = memoryOfGenerations(() => {
    const availableBytes = read();
    return { totalBytes: 1000 * mib, availableBytes };
  });
  const notRead = () => {
    throw new Error('the memory of another host was taken');
  };
  const hostMemory = network === null ? [memory] : [notRead, memory];
  const generations = { of: () => 0 };
  return (index: number, generation: number) =>
    makeSlice(
      { role: 'worker', index, generation },
      { config, endpoints, runDir, generations, hostMemory, network },
    ) as WorkerSlice;
}

/** Blocks that loadModel asks of its backend. */
async function numBlocks(slice: WorkerSlice): Promise<number> {
  let asked = 0;
  const load = ({ numBlocks }: BackendLoad) => {
    asked = numBlocks!;
    return Promise.resolve({ device: 'none', memory: {}, numBlocks: asked, notes: [] });
  };
  await loadModel({ load } as unknown as Backend, slice, () => undefined);
  return asked;
}

const modelPath = makeConfig(parseCommandLine(['serve'], '0.0.0')!, {}, noCuda).model.path;
const join = { address: '10.0.0.2', modelPath, numThreads: 1 };
const network = {
  nodes: { nodeOf: () => 1, joinOf: () => join } as unknown as Nodes,
  host: '10.0.0.1',
  secret: 'aa55',
};

for (const [host, itsNetwork] of [
  ['this host', null],
  ['a node', network],
] as const)
  t.test(`a rank of ${host} whose sibling has packed already has as many blocks`, async (t) => {
    let free = 200 * mib;
    const slice = slicer(t, () => free, itsNetwork);
    const first = slice(0, 0);
    free -= 40 * mib;
    const second = slice(1, 0);
    const blocks = await numBlocks(first);
    t.equal(await numBlocks(second), blocks);
    // Another generation looks again: the one before has given its memory back, or others took it.
    free -= 40 * mib;
    t.ok((await numBlocks(slice(0, 1))) < blocks);
    t.same(slice(1, 1).hostMemory, { totalBytes: 1000 * mib, availableBytes: free });
  });
