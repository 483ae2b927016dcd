// An engine on virtual time for a test, its invariants checked after every run of its loop.
import { checkIntegrity } from '../../engine/check-integrity.ts';
import { VirtualServer, type VirtualServerOptions } from '../../scripts/virtual-server.ts';

export function makeServer(options: VirtualServerOptions = {}): VirtualServer {
  const server = new VirtualServer({ eosTokenIds: [], ...options });
  server.onRun = () => checkIntegrity(server.core.scheduler);
  return server;
}

export const prompt = (length: number, first = 3) =>
  Array.from({ length }, (_, i) => first + (i % 90));

/** Time goes by, and the engine's clock ticks. */
export function pass(server: VirtualServer, ms: number): void {
  for (let passed = 0; passed < ms; passed += 100) {
    server.nowUs += 100_000;
    server.core.tick();
  }
}
