import t from 'tap';
import { Timeline } from '../../engine/timeline.ts';

t.test('Timeline keeps the last entries, oldest first', (t) => {
  const timeline = new Timeline(4);
  for (let step = 1; step <= 6; step++)
    timeline.add('execute', step * 10, step * 10 + 7, step, 2, 3);
  timeline.add('ended', 99, 0, 5, 6);
  const events = timeline.traceEvents().filter(({ ph }) => ph !== 'M');
  t.match(events, [
    { name: 'execute', ph: 'X', ts: 40, dur: 7, args: { step: 4, numRows: 2, deviceIdleUs: 3 } },
    { ts: 50 },
    { ts: 60 },
    { name: 'ended', ph: 'i', ts: 99, args: { frontendId: 5, requestId: 6 } },
  ]);
  t.equal(events.length, 4);
  t.end();
});

t.test('Timeline of no capacity records nothing', (t) => {
  const timeline = new Timeline(0);
  timeline.add('update', 1, 2, 3, 4);
  t.ok(timeline.traceEvents().every(({ ph }) => ph === 'M'));
  t.end();
});
