import t from 'tap';
import { silenceLimitMs } from '../../common/own-pauses.ts';
import { EngineWatch } from '../../frontend/engine-watch.ts';

function start() {
  const client = { engineSilentMs: 0 };
  const found: string[] = [];
  const watch = new EngineWatch(client, (reason) => found.push(reason));
  let nowMs = 1e6;
  watch.tick(nowMs);
  /** Time goes by with an engine that says nothing. */
  const silence = (ms: number, stepMs = 250) => {
    for (let passed = 0; passed < ms; passed += stepMs) {
      nowMs += stepMs;
      client.engineSilentMs += stepMs;
      watch.tick(nowMs);
    }
  };
  return { client, found, silence };
}

t.test('an engine that owes a word for too long is found once', (t) => {
  const { found, silence } = start();
  silence(silenceLimitMs);
  t.same(found, []);
  silence(250);
  t.match(found, [/^no sign of life for 5250 ms$/]);
  silence(20_000);
  t.equal(found.length, 1);
  t.end();
});

t.test('an engine that speaks, or owes nothing, is left alone', (t) => {
  const { client, found, silence } = start();
  for (let i = 0; i < 20; i++) {
    silence(4000);
    client.engineSilentMs = 0;
  }
  t.same(found, []);
  t.end();
});

t.test('who was stopped itself listens anew', (t) => {
  const { found, silence } = start();
  silence(1000);
  silence(60_000, 60_000);
  silence(silenceLimitMs);
  t.same(found, []);
  silence(250);
  t.equal(found.length, 1);
  t.end();
});
