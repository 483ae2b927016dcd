import t from 'tap';
import { OwnPauses } from '../../common/own-pauses.ts';

t.test('a tick that is 2.5 s late was held up by a pause of its own process', (t) => {
  const pauses = new OwnPauses();
  t.equal(pauses.tick(100), true, 'of the time before the first nothing is known');
  t.equal(pauses.tick(200), false);
  t.equal(pauses.tick(2700), false);
  t.equal(pauses.tick(5201), true);
  t.equal(pauses.tick(5300), false, 'once');
  t.end();
});
