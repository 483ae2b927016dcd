import { mock } from 'node:test';
import t from 'tap';
import { Acknowledger } from '../../detokenizer/acknowledger.ts';

t.beforeEach(() => mock.timers.enable({ apis: ['setTimeout'] }));
t.afterEach(() => mock.timers.reset());

function setUp() {
  const sent: number[] = [];
  const acknowledger = new Acknowledger((step) => sent.push(step));
  return { sent, acknowledger };
}

t.test('every 16 steps are acknowledged at once, what is left after 100 ms', (t) => {
  const { sent, acknowledger } = setUp();
  for (let step = 1; step <= 40; step++) acknowledger.handled(step);
  t.same(sent, [16, 32]);
  mock.timers.tick(100);
  t.same(sent, [16, 32, 40]);
  mock.timers.tick(1000);
  t.same(sent, [16, 32, 40], 'once');
  acknowledger.handled(41);
  mock.timers.tick(99);
  t.same(sent, [16, 32, 40]);
  mock.timers.tick(1);
  t.same(sent, [16, 32, 40, 41]);
  t.end();
});

t.test('an engine that is gone is told nothing, and the next only of its own steps', (t) => {
  const { sent, acknowledger } = setUp();
  acknowledger.handled(70);
  acknowledger.forget();
  mock.timers.tick(1000);
  t.same(sent, []);
  for (let step = 1; step <= 16; step++) acknowledger.handled(step);
  t.same(sent, [16]);
  t.end();
});
