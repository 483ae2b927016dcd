// The engine process: two ROUTERs (frontends, workers), a DEALER to the detokenizer, EngineCore
// between them, and the two clocks that drive it: run() when something came in, tick() by time.
import type { EngineSlice, SchedulerConfig } from '../common/config.ts';
import { RequestError } from '../common/errors.ts';
import { longestHeld } from '../common/kv-window.ts';
import { runProcess, type ProcessContext, type RunningProcess } from '../common/process.ts';
import { protocolVersion, type WorkerReady } from '../common/wire/messages.ts';
import { maxUnreadByFrontend, RouterLink } from '../common/wire/transport.ts';
import { DetokenizerLink } from './detokenizer-link.ts';
import { EngineCore } from './engine-core.ts';
import { FrontendLinks } from './frontend-links.ts';
import { StatsLine } from './stats-line.ts';
import { WorkerGroup } from './worker-group.ts';
import { WorkerLinks } from './worker-links.ts';

/** Divides the interval of status; each tick is most of what an idle server costs. */
const tickMs = 125;
/** How often the end of a drain is looked for. */
const drainLookMs = 20;
/** What the supervisor may take to see that a process has died. */
const deathNewsMs = 500;
/** What the detokenizer may take for the last outputs of a drain. */
const lastAckMs = 1000;

const nowUs = () => Number(process.hrtime.bigint() / 1000n);

async function start(context: ProcessContext<EngineSlice>): Promise<RunningProcess> {
  const { slice, token, log } = context;
  const group = new WorkerGroup(slice.numWorkers, slice.stepTimeoutMs);
  let core: EngineCore | null = null;
  let detokenizerGeneration = 0;
  let workersReady!: (ready: WorkerReady) => void;
  let detokenizerReady!: () => void;
  const whenReady = Promise.all([
    new Promise<WorkerReady>((resolve) => (workersReady = resolve)),
    new Promise<void>((resolve) => (detokenizerReady = resolve)),
  ]);

  const frontends = new FrontendLinks({
    token,
    log,
    welcome: () => ({
      protocol: protocolVersion,
      generation: slice.generation,
      model: slice.model.name,
      device: ready.device,
      vocabSize: slice.model.vocabSize,
      maxModelLen: scheduler.maxModelLen,
      maxLogprobs: slice.maxLogprobs,
      maxNumSeqs: slice.scheduler.maxNumSeqs,
      blockSize: slice.scheduler.blockSize,
      numBlocks: core!.scheduler.kv.pool.numBlocks,
      eosTokenIds: slice.model.eosTokenIds,
      priorityScheduling: slice.scheduler.schedulingPolicy === 'priority',
      limits: slice.limits,
      defaultSampling: slice.defaultSampling,
    }),
    status: () => core!.status.status(nowUs() / 1000),
    joined: (frontendId, attachKey) =>
      detokenizer.send({ kind: 'frontendJoined', frontendId, attachKey }),
    left: (frontendId) => detokenizer.send({ kind: 'frontendLeft', frontendId }),
    utility: (method) => utility(method),
  });

  const workers = new WorkerLinks({
    token,
    log,
    generation: slice.generation,
    numWorkers: slice.numWorkers,
    joined: (rank, generation) =>
      core ? core.workerJoined(rank, generation) : group.join(rank, generation, nowUs() / 1000),
    message: (rank, message) => {
      if (core) core.workerMessage(rank, message);
      else if (message.kind === 'workerReady') {
        group.setReady(rank, message);
        if (group.ready) workersReady(group.ready);
      }
    },
    left: (rank, reason) => {
      const lost = { role: 'worker', index: rank, generation: group.generationOf(rank) } as const;
      core?.workerLeft(rank, reason);
      // One that is alone may connect again and go on. Of several, the others have gone on without:
      // all are replaced, as they are already if its process died.
      if (slice.numWorkers > 1)
        setTimeout(() => context.tell({ kind: 'replacePeer', ...lost, reason }), deathNewsMs);
    },
  });

  const detokenizer = new DetokenizerLink({
    token,
    generation: slice.generation,
    welcomed: () => {
      detokenizerReady();
      for (const { frontendId, attachKey } of frontends.all)
        detokenizer.send({ kind: 'frontendJoined', frontendId, attachKey });
      core?.detokenizerJoined();
    },
    message: (message) => core?.detokenizerMessage(message),
    failed: (error) => context.fatal(error),
  });

  function utility(method: string): unknown {
    switch (method) {
      case 'stats':
        return core!.status.status(nowUs() / 1000);
      case 'memory':
        return group.memory;
      case 'resetPrefixCache':
        core!.scheduler.kv.pool.resetPrefixCache();
        return true;
      case 'timeline':
        if (!slice.enableDebugTimeline)
          throw new RequestError('unsupported', 'start with --enable-debug-timeline');
        return { traceEvents: core!.timeline.traceEvents() };
      default:
        throw new RequestError('unsupported', `unknown method ${method}`, 'method');
    }
  }

  detokenizer.connect(slice.detokenizerAddress);
  workers.link = await RouterLink.bind(slice.workerListen.address, workers, {
    curve: slice.workerListen.curve,
  });
  frontends.link = await RouterLink.bind(slice.frontendListen.address, frontends, {
    curve: slice.frontendListen.curve,
    maxUnread: maxUnreadByFrontend,
  });
  const [ready] = await whenReady;
  const scheduler = fitModelLen(slice, ready.numBlocks);
  if (slice.fitModelLen) log.info(`requests have up to ${scheduler.maxModelLen} tokens`);

  const engine = new EngineCore({ ...slice, scheduler }, group, ready, {
    toFrontend: (frontendId, message) => frontends.send(frontendId, message),
    toAllFrontends: (message) => frontends.sendAll(message),
    statusToFrontends: (message) => frontends.sendStatus(message),
    toWorkers: (message) => workers.sendAll(message),
    toDetokenizer: (message) => detokenizer.send(message),
    forgetWorkers: () => workers.forgetAll(),
    replaceWorker: (rank, generation, reason) => {
      log.error({ rank, generation }, reason);
      context.tell({ kind: 'replacePeer', role: 'worker', index: rank, generation, reason });
    },
    replaceDetokenizer: (reason) => {
      const generation = detokenizerGeneration;
      log.error({ generation }, `detokenizer: ${reason}`);
      context.tell({ kind: 'replacePeer', role: 'detokenizer', index: 0, generation, reason });
    },
    wake: () => setImmediate(() => engine.run()),
    nowUs,
  });
  core = engine;
  frontends.open(engine);
  const statsLine = new StatsLine(log);
  const ticker = setInterval(() => {
    engine.tick();
    if (slice.disableLogStats) return;
    const nowMs = nowUs() / 1000;
    statsLine.tick(() => engine.status.status(nowMs), nowMs);
  }, tickMs);

  async function drain(timeoutMs: number): Promise<void> {
    engine.close();
    if (!(await until(() => engine.requests.size === 0, timeoutMs)))
      engine.endAll({ code: 'shutting_down', message: 'the server is shutting down' });
    engine.run();
    await until(() => engine.isAcknowledged, lastAckMs);
  }

  return {
    info: {
      address: frontends.link.address,
      numBlocks: ready.numBlocks,
      blockSize: slice.scheduler.blockSize,
      numKvTokens: (ready.numBlocks - 1) * slice.scheduler.blockSize,
      device: slice.numWorkers > 1 ? `${slice.numWorkers} x ${ready.device}` : ready.device,
      dtype: ready.dtype,
      kvCacheDtype: ready.kvCacheDtype,
    },
    drain,
    peerLost: ({ role, index, generation }) => {
      if (role === 'detokenizer') {
        detokenizer.close();
        engine.detokenizerGone(index, generation);
      } else if (role === 'worker' && group.isCurrent(index, generation)) {
        engine.workerLeft(index, 'its process died');
      }
    },
    peerReady: (message) => {
      if (message.role !== 'detokenizer') return;
      detokenizerGeneration = message.generation;
      detokenizer.connect(message.addresses['engine']!);
      frontends.sendAll(message);
    },
    stop: () => {
      clearInterval(ticker);
      detokenizer.close();
      frontends.link?.close();
      workers.link?.close();
      return Promise.resolve();
    },
  };

  /** Looks at `done` again and again; false if it took too long. */
  async function until(done: () => boolean, timeoutMs: number): Promise<boolean> {
    const endMs = nowUs() / 1000 + timeoutMs;
    while (!done()) {
      if (nowUs() / 1000 >= endMs) return false;
      await new Promise((resolve) => setTimeout(resolve, drainLookMs));
    }
    return true;
  }
}

/** Block 0 is nobody's. */
function fitModelLen(slice: EngineSlice, numBlocks: number): SchedulerConfig {
  const { scheduler } = slice;
  if (!slice.fitModelLen) return scheduler;
  const { maxModelLen, slidingWindow } = scheduler;
  return {
    ...scheduler,
    maxModelLen: longestHeld(maxModelLen, numBlocks - 1, slidingWindow, scheduler),
  };
}

runProcess<EngineSlice>('engine', start);
