// The frontend process: an HTTP server that answers 503 from its first moment, and everything else
// once the engine and the detokenizer have welcomed us.
import { setTimeout as sleep } from 'node:timers/promises';
import type { FrontendSlice } from '../common/config.ts';
import { runProcess, type ProcessContext, type RunningProcess } from '../common/process.ts';
import { createTextService } from '../common/text/text-service.ts';
import { EngineClient } from './engine-client.ts';
import type { HttpBackend } from './http/backend.ts';
import { createHttpServer } from './http/server.ts';
import { EngineWatch } from './engine-watch.ts';

/** A model may take its time to load; the supervisor ends us if the engine never comes. */
const connectTimeoutMs = 2 ** 31 - 1;
const watchMs = 250;

async function start(context: ProcessContext<FrontendSlice>): Promise<RunningProcess> {
  const { slice, index, generation, token, log } = context;
  let backend: HttpBackend | null = null;
  const server = createHttpServer({ config: slice.http, log, backend: () => backend });
  await server.listen();
  const connecting = EngineClient.connect({
    engine: slice.engineAddress,
    detokenizer: slice.detokenizerAddress,
    engineKey: slice.engineKey,
    detokenizerKey: slice.detokenizerKey,
    token,
    role: 'frontend',
    index,
    generation,
    timeoutMs: connectTimeoutMs,
  });
  const text = createTextService({
    tokenizerPath: slice.tokenizerPath,
    chatTemplatePath: slice.chatTemplatePath,
    maxModelLen: slice.http.maxModelLen,
    textLimits: slice.textLimits,
  });
  const client = await connecting;
  // Another frontend takes the place of one that nobody will have.
  client.on('refused', (error) => context.fatal(error));
  const { generation: engine } = client.info;
  backend = { client, text };
  const watch = new EngineWatch(client, (reason) => {
    log.error(`engine: ${reason}`);
    context.tell({ kind: 'replacePeer', role: 'engine', index: 0, generation: engine, reason });
  });
  const watching = setInterval(() => watch.tick(performance.now()), watchMs);
  return {
    info: { port: server.port },
    async drain(timeoutMs) {
      server.drain();
      const controller = new AbortController();
      const { signal } = controller;
      await Promise.race([server.idle(), sleep(timeoutMs, null, { signal }).catch(() => null)]);
      controller.abort();
    },
    peerLost: (message) => client.peerLost(message),
    peerReady: ({ role, addresses, generation }) => {
      if (role === 'detokenizer') client.reattach(addresses, generation);
    },
    async stop() {
      clearInterval(watching);
      await server.close();
      client.close();
      await text.close();
    },
  };
}

runProcess('frontend', start);
