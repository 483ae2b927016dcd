// A program for server.test.ts: serves on the socket that it inherits as fd 3, says its port, and
// ends when its stdin does.
import { pino } from 'pino';
import { createHttpServer } from '../../../frontend/http/server.ts';
import { baseConfig } from './fakes.ts';

const server = createHttpServer({
  config: { ...baseConfig, listenFd: 3 },
  log: pino({ level: 'silent' }),
  backend: () => null,
});
await server.listen();
process.stdout.write(`${server.port ?? 'none'}\n`);
process.stdin.on('end', () => void server.close()).resume();
