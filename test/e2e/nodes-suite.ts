// A server on two hosts, whatever the hosts are (loopback addresses, network namespaces): golden
// tokens, the same ones as on one host, and nodes and ranks that die, stand still, or do not fit.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { packageRoot } from '../../common/package-root.ts';
import { get, servesAgain } from './client.ts';
import { faultUnderLoad, golden, isGolden, ranksOf, short, tokensOf } from './ranks.ts';
import { limitMs, runCommand, serveCommand, startServer, waitGone, type Server } from './server.ts';

export interface Hosts {
  /** Of the head and of node 1. */
  readonly addresses: readonly [string, string];
  /** What runs a command on each. */
  readonly run: readonly [readonly string[], readonly string[]];
}

/** Nobody is blamed who only waits for a processor. */
const patience = ['--collective-timeout', '60'];
const key = 'a key that both nodes have';

interface Options {
  readonly numRanks?: number;
  readonly key?: string;
  readonly model?: string;
  readonly flags?: readonly string[];
  /** In place of our own. */
  readonly command?: readonly string[];
}

export function startNode(t: Test, hosts: Hosts, nodeRank: 0 | 1, options: Options = {}): Server {
  const { numRanks = 2, flags = [], model, command = serveCommand } = options;
  return runCommand(t, [
    ...hosts.run[nodeRank],
    ...['env', `VLLM_TS_NODE_KEY=${options.key ?? key}`],
    ...command,
    ...(model === undefined ? [] : [model]),
    ...['--device', 'cpu', '--threads', '1', '--tensor-parallel-size', String(numRanks)],
    ...['--nnodes', '2', '--node-rank', String(nodeRank), '--master-addr', hosts.addresses[0]],
    ...(nodeRank === 0 ? ['--port', '0'] : ['--headless']),
    ...patience,
    ...flags,
  ]);
}

/** Head and node, ready. */
export async function startBoth(
  t: Test,
  hosts: Hosts,
  options: Options = {},
): Promise<[Server, Server]> {
  const head = startNode(t, hosts, 0, options);
  const node = startNode(t, hosts, 1, options);
  await becomesReady(head, node);
  return [head, node];
}

/** Two servers start here, with up to four ranks. */
const readyMs = 5 * limitMs;

async function becomesReady(head: Server, node?: Server): Promise<void> {
  await head.waitReady(readyMs).catch((error: unknown) => {
    throw new Error(`${String(error)}\nnode:\n${node?.stderr ?? ''}`);
  });
}

const says = (server: Server, text: string) => server.waitFor(() => server.stderr.includes(text));

/** How often a server has said it. */
const count = (server: Server, text: string) => server.stderr.split(text).length - 1;

const sampled = { prompt: golden[1]!.prompt_ids, max_tokens: 60, temperature: 0.8, seed: 3 };

export function testNodes(hosts: () => Hosts): void {
  for (const numRanks of [2, 4])
    t.test(`${numRanks} ranks on two hosts serve the tokens of one host`, async (t) => {
      const node = startNode(t, hosts(), 1, { numRanks });
      await says(node, `waiting for the head at tcp://${hosts().addresses[0]}:29501`);
      const head = startNode(t, hosts(), 0, { numRanks });
      await becomesReady(head, node);
      t.match(head.ready['device'], new RegExp(`^${numRanks} x cpu`));
      await Promise.all(
        golden.slice(0, 4).map(async (row) => {
          const body = { prompt: row.prompt_ids, max_tokens: 64, temperature: 0 };
          isGolden(t, row, await tokensOf(t, head, body));
        }),
      );
      const tokens = await tokensOf(t, head, sampled);
      const { body: memory } = await get(head, '/memory');
      t.equal(Object.keys(memory as object).length, numRanks);
      const local = Array.from({ length: numRanks / 2 }, (_, i) => `worker ${i}`);
      const names = (server: Server) =>
        [...server.children().keys()].filter((name) => name.startsWith('worker')).sort();
      t.same(names(head), local);
      t.same(
        names(node),
        local.map((_, i) => `worker ${i + numRanks / 2}`),
      );
      head.kill('SIGTERM');
      t.same(await head.exited, { code: 0, signal: null });
      t.same(await node.exited, { code: 0, signal: null });
      t.notMatch(head.stderr + node.stderr, / (WARN|ERROR|FATAL) /, 'an orderly end');

      const flags = ['--device', 'cpu', '--threads', '1', '-tp', String(numRanks)];
      const one = await startServer(t, flags);
      t.same(await tokensOf(t, one, sampled), tokens, 'the bits of one host');
    });

  t.test('a rank on the other node that is killed or stands still is named', async (t) => {
    const both = await startBoth(t, hosts(), {
      numRanks: 4,
      flags: ['--collective-timeout', '2'],
    });
    const killed = await faultUnderLoad(t, both, 4, (ranks) => process.kill(ranks[3]!, 'SIGKILL'));
    t.match(killed, /^worker 3 was lost: /);
    const stopped = await faultUnderLoad(t, both, 4, (ranks) => process.kill(ranks[2]!, 'SIGSTOP'));
    t.match(stopped, /^worker 2 was lost: .*rank 2 did not come to .* \(op \d+ of step \d+\)/);
    t.notMatch(both[0].stderr, /node 1 .* is lost/, 'the node is well');
  });

  t.test('a node whose supervisor is killed is named, and its successor joins', async (t) => {
    const [head, node] = await startBoth(t, hosts());
    const before = await tokensOf(t, head, short);
    const ranks = await ranksOf([head, node], 2);
    node.kill('SIGKILL');
    await says(head, `node 1 (${hosts().addresses[1]}) is lost: its connection has ended`);
    t.same(await waitGone(ranks), [], 'all ranks end');
    await says(head, 'waiting for node 1 to join');
    startNode(t, hosts(), 1);
    await servesAgain(t, head, short);
    t.same(await tokensOf(t, head, short), before);
  });

  t.test('a node that stands still is lost, and joins again when it goes on', async (t) => {
    const [head, node] = await startBoth(t, hosts());
    const ranks = await ranksOf([head, node], 2);
    node.kill('SIGSTOP');
    await says(head, `node 1 (${hosts().addresses[1]}) is lost`);
    node.kill('SIGCONT');
    await servesAgain(t, head, short);
    t.same(await waitGone(ranks), []);
    await says(node, `the head at tcp://${hosts().addresses[0]}:29501 is lost`);
    t.equal(count(node, 'joined the head'), 2);
  });

  t.test('a node outlives its head, and joins the next one', async (t) => {
    const [head, node] = await startBoth(t, hosts());
    const ranks = await ranksOf([head, node], 2);
    head.kill('SIGKILL');
    await says(node, `the head at tcp://${hosts().addresses[0]}:29501 is lost`);
    t.same(await waitGone(ranks), [], 'no rank goes on without the head');
    const next = startNode(t, hosts(), 0);
    await becomesReady(next, node);
    await tokensOf(t, next, short);
    node.kill('SIGINT');
    t.same(await node.exited, { code: 130, signal: null });
    await says(next, 'is lost: its connection has ended');
  });

  t.test('nodes that do not fit are refused by name, and the right one is served', async (t) => {
    const head = startNode(t, hosts(), 0);
    await says(head, 'waiting for node 1 to join');
    const refused = async (code: number, why: RegExp, options: Options) => {
      const node = startNode(t, hosts(), 1, options);
      t.same(await node.exited, { code, signal: null }, why.source);
      t.match(node.stderr, why);
      t.notMatch(node.stderr, /worker/, 'it ran no rank');
    };
    const wrongKey =
      /turns this node away: its key \(VLLM_TS_NODE_KEY, --node-key-file\) is another/;
    await refused(77, wrongKey, { key: 'a key that only one has' });
    t.match(head.stderr, /WARN .* a peer with another key, or none, was turned away/);
    await refused(65, /config.json differs between .* of node 1 and .*demo of the head/, {
      model: otherModel(t, 'config.json', (text) =>
        text.replace(/"rms_norm_eps": [^,]+/, '"rms_norm_eps": 0.5'),
      ),
    });
    await refused(65, /the weights differ between/, {
      model: otherModel(t, 'model.safetensors', (bytes) => `${bytes.slice(0, -1)}x`),
    });
    await refused(64, /it has --nnodes 2 --tensor-parallel-size 4, the head 2 and 2/, {
      numRanks: 4,
    });
    const right = startNode(t, hosts(), 1);
    await becomesReady(head, right);
    await tokensOf(t, head, short);
  });

  t.test('whoever waits too long ends, and says for whom', async (t) => {
    const flags = ['--node-timeout', '1'];
    const head = startNode(t, hosts(), 0, { flags });
    t.same(await head.exited, { code: 1, signal: null });
    t.match(head.stderr, /cause="did not join at tcp:.* within 1 s" in="node 1"/);
    const node = startNode(t, hosts(), 1, { flags });
    t.same(await node.exited, { code: 1, signal: null });
    t.match(node.stderr, /no head was there at tcp:.* within 1 s/);
  });
}

/** The demo model with a file changed. */
function otherModel(t: Test, file: string, change: (text: string) => string): string {
  const folder = mkdtempSync(join(tmpdir(), 'vt-model-'));
  t.teardown(() => rmSync(folder, { recursive: true }));
  cpSync(join(packageRoot, 'models/demo'), folder, { recursive: true });
  const path = join(folder, file);
  writeFileSync(path, change(readFileSync(path, 'latin1')), 'latin1');
  return folder;
}

t.setTimeout(20 * limitMs);
