import t from 'tap';
import { DeathCount, deathLimit, deathWindowMs } from '../../../frontend/supervisor/death-count.ts';

t.test('three deaths within ten minutes are too many, whoever died', (t) => {
  t.equal(deathLimit, 3);
  t.equal(deathWindowMs, 600_000);
  const deaths = new DeathCount();
  t.equal(deaths.add(0), false);
  t.equal(deaths.add(1000), false);
  t.equal(deaths.add(599_999), true);
  t.end();
});

t.test('deaths that lie further apart are mended for ever', (t) => {
  const deaths = new DeathCount();
  for (let i = 0; i < 100; i++) t.equal(deaths.add(i * 300_001), false);
  const later = new DeathCount();
  t.equal(later.add(0), false);
  t.equal(later.add(1), false);
  t.equal(later.add(600_000), false, 'the first is forgotten');
  t.equal(later.add(600_000), true);
  t.end();
});
