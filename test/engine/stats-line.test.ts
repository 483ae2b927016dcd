// The stats line: every ten seconds while there is work, and none about an idle server.
import t from 'tap';
import type { Logger } from '../../common/log.ts';
import type { EngineStatus } from '../../common/wire/messages.ts';
import { StatsLine } from '../../engine/stats-line.ts';
import { VirtualServer } from '../../scripts/virtual-server.ts';

t.test('StatsLine has rates since the last line', (t) => {
  const lines: object[] = [];
  const warnings: object[] = [];
  const log = {
    info: (fields: object) => lines.push(fields),
    warn: (fields: object) => warnings.push(fields),
  } as unknown as Logger;
  const line = new StatsLine(log);
  const idle = new VirtualServer({}).core.status.status(0);
  const tick = (ms: number, change: Partial<EngineStatus> = {}) =>
    line.tick(() => ({ ...idle, ...change }), ms);
  tick(1000);
  tick(12_000);
  t.same(lines, [], 'idle');
  const busy = {
    step: 7,
    promptTokens: 1000,
    generationTokens: 505,
    numRunning: 3,
    numWaiting: 2,
    kvCacheUsage: 0.125,
    prefixCacheQueries: 200,
    prefixCacheHits: 50,
    numPreemptions: 4,
  };
  tick(21_999, busy);
  t.same(lines, [], 'not yet');
  tick(22_000, busy);
  t.same(lines.splice(0), [
    {
      promptTokensPerSecond: 100,
      generationTokensPerSecond: 50.5,
      running: 3,
      waiting: 2,
      kvCacheUsage: '12.5%',
      prefixCacheHitRate: '25.0%',
      preemptions: 4,
    },
  ]);
  tick(32_000, busy);
  const still = { generationTokensPerSecond: 0, running: 3, prefixCacheHitRate: '0.0%' };
  t.match(lines.splice(0), [still], 'work that stands still is said too');
  const done = { ...busy, numRunning: 0, numWaiting: 0, step: 9, generationTokens: 605 };
  tick(42_000, done);
  t.match(lines.splice(0), [{ generationTokensPerSecond: 10, running: 0 }], 'what has ended since');
  tick(52_000, done);
  t.same(lines, []);
  t.same(warnings, []);
  tick(62_000, { ...done, step: 10, numInvalidLogits: 2 });
  tick(72_000, { ...done, step: 11, numInvalidLogits: 2 });
  t.same(warnings, [{ requests: 2 }], 'weights that are not numbers are found by whoever looks');
  t.end();
});
