// `vllm-ts serve`: binds the port, makes the run directory, starts the supervisor with a plan made
// of the configuration, prints the ready line, and ends with the supervisor's outcome.
import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { performance } from 'node:perf_hooks';
import { findCudaDevice } from '../../common/cuda-device.ts';
import { memoryOfGenerations } from '../../common/host-memory.ts';
import { createLogger, type Logger } from '../../common/log.ts';
import { isSignalIgnored, type Listening } from '../../common/os/index.ts';
import { Nodes } from '../supervisor/nodes.ts';
import { Endpoints, parseTcpAddress } from '../supervisor/endpoints.ts';
import { RunDir } from '../supervisor/run-dir.ts';
import type { Outcome, Plan } from '../supervisor/plan.ts';
import type { StopSignal } from '../supervisor/signals.ts';
import { Supervisor } from '../supervisor/supervisor.ts';
import { entryPoint } from './entry-point.ts';
import { makeRefusal, nodesAddress, readNodeKeys, resolveHost, workersAddress } from './nodes.ts';
import { serveNode } from './serve-node.ts';
import { asksForCuda, makeConfig, report, type Config } from './config.ts';
import { baseUrl, bindHttp, curlLine } from './listen.ts';
import { fitOpenFiles } from './open-files.ts';
import type { ServeCommand } from './parse.ts';
import { makeSlice, type Network } from './slices.ts';
import { watchStarter } from './starter.ts';

/**
 * Runs a server to its end and returns the exit code. Throws StartError before anything runs.
 * `buildMs` of this process's time were not its start.
 */
export async function serve(command: ServeCommand, buildMs: number): Promise<number> {
  const { flags } = command;
  const cuda = asksForCuda(flags) ? await findCudaDevice() : null;
  const asked = makeConfig(command, process.env, cuda);
  const isHead = flags.nodeRank === 0;
  const log = createLogger({
    process: isHead ? 'supervisor' : `node ${flags.nodeRank}`,
    level: asked.logLevel,
    format: flags.logFormat,
  });
  for (const remark of command.remarks) log.info(remark);
  if (!isHead) return await serveNode(asked, log);
  const config = fitOpenFiles(asked, log);
  const tcp = parseTcpAddress(flags.frontendAddress ?? '');
  const token = randomBytes(32).toString('hex');
  const network = await makeNetwork(config, token, log);
  const listening = flags.headless ? null : bindHttp(config);
  const runDir =
    flags.frontendAddress === null || tcp !== null
      ? RunDir.fresh()
      : RunDir.named(flags.frontendAddress);
  let outcome: Outcome;
  try {
    const workers = network && workersAddress(network.host, flags);
    const endpoints = new Endpoints(runDir, tcp, workers);
    const plan = makePlan(config, token, endpoints, runDir, network, listening);
    const publish = () => {
      const json = endpoints.frontendJson(plan.token, config.names[0]!, 0, generation);
      return runDir.writeFrontendJson(json);
    };
    let generation = 0;
    // Before any child is there: whoever sees one may send a signal.
    let started: Supervisor | null = null;
    const early: StopSignal[] = [];
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const)
      if (signal !== 'SIGHUP' || !isSignalIgnored(1))
        process.on(signal, () => (started ? started.signal(signal) : early.push(signal)));
    const supervisor = await Supervisor.start(
      plan,
      {
        ready: (info) => {
          const file = publish();
          if (flags.frontendAddress !== null) log.info(`frontends attach through ${file}`);
          printReady(config, listening, info, performance.now() - buildMs);
        },
        replaced: (id) => {
          if (id.role === 'detokenizer') generation = id.generation;
          publish();
        },
      },
      log,
    );
    started = supervisor;
    for (const signal of early) supervisor.signal(signal);
    process.on('uncaughtException', (error) => {
      log.error({ err: error.stack }, error.message);
      supervisor.fail('supervisor', error.message, 1);
    });
    // Whoever waited for the ready line may have gone.
    process.stdout.on('error', () => undefined);
    watchStarter((signal) => {
      supervisor.signal(signal);
    });
    report(config, log);
    outcome = await supervisor.outcome;
  } finally {
    runDir.remove();
    if (listening && flags.uds !== null) rmSync(flags.uds, { force: true });
  }
  const { cause, exitCode } = outcome;
  if (cause) log.fatal({ cause: cause.message, in: cause.process, exitCode }, 'server ended');
  else log.info({ exitCode }, 'server ended');
  return exitCode;
}

/** The other hosts, if there are any. */
async function makeNetwork(config: Config, token: string, log: Logger): Promise<Network | null> {
  const { flags } = config;
  if (flags.nnodes === 1) return null;
  const host = await resolveHost(flags.masterAddr!);
  const nodes = new Nodes({
    address: nodesAddress(host, flags),
    keys: readNodeKeys(flags, process.env),
    numNodes: flags.nnodes,
    numRanks: flags.tensorParallelSize,
    token,
    timeoutMs: Math.round(flags.nodeTimeout * 1000),
    log,
    refusal: makeRefusal(config),
  });
  return { nodes, host, secret: randomBytes(32).toString('hex') };
}

function makePlan(
  config: Config,
  token: string,
  endpoints: Endpoints,
  runDir: RunDir,
  network: Network | null,
  listening: Listening | null,
): Plan {
  const hostMemory = Array.from({ length: config.flags.nnodes }, (_, node) =>
    memoryOfGenerations(node === 0 ? undefined : () => network!.nodes.hostMemory(node)),
  );
  return {
    token,
    controlAddress: endpoints.control,
    // The one that takes longest to load comes first.
    processes: [
      ...(listening ? [{ role: 'frontend', index: 0 } as const] : []),
      ...Array.from(
        { length: config.flags.tensorParallelSize },
        (_, index) => ({ role: 'worker', index }) as const,
      ),
      { role: 'detokenizer', index: 0 },
      { role: 'engine', index: 0 },
    ],
    nodes: network?.nodes ?? null,
    shutdownTimeoutMs: Math.round(config.flags.shutdownTimeout * 1000),
    livenessTimeoutMs: Math.round(config.flags.livenessTimeout * 1000),
    command: (role) => [entryPoint(role)],
    fds: (role) => (role === 'frontend' && listening ? [listening.fd] : []),
    slice: (id, generations) => ({
      ...makeSlice(id, { config, endpoints, runDir, generations, hostMemory, network }),
    }),
    addresses: ({ role, generation }) =>
      role === 'detokenizer'
        ? {
            engine: endpoints.detokenizerEngine(generation).address,
            frontend: endpoints.detokenizerFrontend(generation).address,
          }
        : {},
  };
}

function toText(value: unknown): string {
  const text = String(value);
  return text.includes(' ') ? JSON.stringify(text) : text;
}

type Info = ReadonlyMap<string, Readonly<Record<string, unknown>>>;

/** One line for the operator (or a script that waits), and one to try, on stdout. */
function printReady(
  config: Config,
  listening: Listening | null,
  info: Info,
  readyMs: number,
): void {
  const engine = info.get('engine') ?? {};
  const port = listening?.port ?? 0;
  const { uds } = config.flags;
  const fields = {
    url: listening ? baseUrl(config, port) : 'none',
    ...(uds !== null && { uds }),
    model: config.names[0],
    dtype: engine['dtype'],
    device: engine['device'],
    kv_capacity_tokens: engine['numKvTokens'],
    ready_ms: Math.round(readyMs),
  };
  const text = Object.entries(fields).map(([key, value]) => `${key}=${toText(value)}`);
  process.stdout.write(`vllm-ts ready ${text.join(' ')}\n`);
  if (listening) process.stdout.write(`try: ${curlLine(config, port)}\n`);
}
