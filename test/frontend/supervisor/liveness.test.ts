import t from 'tap';
import { Liveness, type Watched } from '../../../frontend/supervisor/liveness.ts';

const limitMs = 30_000;

/** Processes that speak every second until they stand still, watched every second. */
class Watch {
  readonly liveness: Liveness<Watched>;
  readonly found: string[] = [];
  nowMs = 1_000_000;
  private readonly speaking = new Map<string, Watched>();

  constructor(names: readonly string[], limit = limitMs) {
    this.liveness = new Liveness(limit);
    for (const name of names) this.speaking.set(name, { name, state: 'ready' });
    this.pass(1000);
  }

  standStill(name: string): void {
    this.speaking.delete(name);
  }

  /** Seconds go by with everybody at work. */
  pass(ms: number): void {
    for (const end = this.nowMs + ms; this.nowMs < end; this.nowMs += 1000) {
      for (const process of this.speaking.values()) this.liveness.heard(process, this.nowMs);
      this.look();
    }
  }

  look(): void {
    for (const { process, silentMs } of this.liveness.tick(this.nowMs)) {
      this.found.push(process.name);
      if (silentMs <= limitMs) throw new Error(`found after ${silentMs} ms`);
    }
  }
}

t.test('Liveness finds the one that stands still, once, and not before its time', (t) => {
  const watch = new Watch(['engine', 'frontend 0']);
  watch.standStill('frontend 0');
  watch.pass(limitMs);
  t.same(watch.found, []);
  watch.pass(2000);
  t.same(watch.found, ['frontend 0']);
  watch.pass(10 * limitMs);
  t.same(watch.found, ['frontend 0']);
  t.end();
});

t.test('Liveness has more patience with a process that is starting', (t) => {
  const watch = new Watch(['engine']);
  watch.liveness.heard({ name: 'worker 0', state: 'starting' }, watch.nowMs);
  watch.pass(2 * limitMs);
  t.same(watch.found, []);
  watch.pass(2000);
  t.same(watch.found, ['worker 0']);
  t.end();
});

t.test('Liveness blames nobody for what it was not there to hear', (t) => {
  const watch = new Watch(['engine', 'frontend 0']);
  watch.nowMs += 10 * limitMs;
  watch.look();
  t.same(watch.found, [], 'its own timer comes before their messages are read');
  watch.pass(10_000);
  t.same(watch.found, []);
  watch.standStill('engine');
  watch.nowMs += 10 * limitMs;
  watch.pass(limitMs);
  t.same(watch.found, [], 'the time to speak begins anew');
  watch.pass(2000);
  t.same(watch.found, ['engine']);
  t.end();
});

t.test(
  'Liveness forgives silence that ends in time, and all of it where it is switched off',
  (t) => {
    const watch = new Watch(['engine']);
    const late = { name: 'late', state: 'ready' } as const;
    for (let i = 0; i < 10; i++) {
      watch.liveness.heard(late, watch.nowMs);
      watch.pass(limitMs - 1000);
    }
    t.same(watch.found, []);
    const off = new Watch(['engine'], 0);
    off.standStill('engine');
    off.pass(100 * limitMs);
    t.same(off.found, []);
    t.end();
  },
);

t.test('Liveness forgets whoever has ended', (t) => {
  const watch = new Watch([]);
  const process = { name: 'worker 0', state: 'ready' } as const;
  watch.liveness.heard(process, watch.nowMs);
  watch.liveness.forget(process);
  watch.pass(10 * limitMs);
  t.same(watch.found, []);
  t.end();
});

t.test('a supervisor that was stopped before it ever looked blames nobody', (t) => {
  const liveness = new Liveness<Watched>(limitMs);
  const engine = { name: 'engine', state: 'ready' } as const;
  liveness.heard(engine, 0);
  t.same(liveness.tick(2 * limitMs), []);
  t.same(liveness.tick(3 * limitMs), [], 'that was a pause too');
  for (let ms = 3 * limitMs; ms <= 4 * limitMs; ms += 1000) t.same(liveness.tick(ms), []);
  t.same(
    liveness.tick(4 * limitMs + 1000).map(({ process }) => process),
    [engine],
  );
  t.end();
});
