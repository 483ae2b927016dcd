// `vllm-ts serve --node-rank N` above 0: this host's share of the ranks of a server whose head is
// elsewhere. Everything else (HTTP, scheduling, flags of sampling and memory) is the head's.
import { hostMemory } from '../../common/host-memory.ts';
import type { Logger } from '../../common/log.ts';
import { processTitle } from '../../common/process.ts';
import { NodeAgent } from '../supervisor/node-agent.ts';
import { SignalPolicy, signalExitCodes } from '../supervisor/signals.ts';
import type { Config } from './config.ts';
import { entryPoint } from './entry-point.ts';
import { makeJoin, nodesAddress, readNodeKeys } from './nodes.ts';
import { raiseOpenFiles } from './open-files.ts';

/** What the head may take beyond its --shutdown-timeout, where both get the same SIGTERM. */
const headSlackMs = 10_000;

/** Runs until the head ends it, or a signal; returns the exit code. */
export async function serveNode(config: Config, log: Logger): Promise<number> {
  const { flags } = config;
  raiseOpenFiles();
  const agent = new NodeAgent({
    address: nodesAddress(flags.masterAddr!, flags),
    nodeRank: flags.nodeRank,
    keys: readNodeKeys(flags, process.env),
    timeoutMs: Math.round(flags.nodeTimeout * 1000),
    workerCommand: [entryPoint('worker')],
    log,
    join: () => makeJoin(config, process.env),
    hostMemory: () => hostMemory(),
  });
  process.title = processTitle('node', flags.nodeRank);
  const signals = new SignalPolicy();
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const)
    process.on(signal, () => {
      const action = signals.next(signal, performance.now());
      if (action === 'ignore') return;
      if (action !== 'drain' || !agent.isJoined) {
        void agent.end(action === 'drain' ? 0 : signalExitCodes[signal]);
        return;
      }
      // Cluster managers signal all nodes at once: the head's requests need these ranks to end.
      log.info(`${signal}: waiting for the head to end`);
      const mostMs = Math.round(flags.shutdownTimeout * 1000) + headSlackMs;
      setTimeout(() => void agent.end(signalExitCodes[signal]), mostMs).unref();
    });
  process.on('uncaughtException', (error) => {
    log.error({ err: error.stack }, error.message);
    void agent.end(1, error.message);
  });
  const exitCode = await agent.outcome;
  log.info({ exitCode }, 'node ended');
  return exitCode;
}
