import t from 'tap';
import { StopStrings } from '../../detokenizer/stop-strings.ts';
import { randomInts } from './support.ts';

t.test('StopStrings agrees with indexOf on strings that nearly repeat themselves', (t) => {
  let numFound = 0;
  for (let seed = 0; seed < 2000; seed++) {
    const random = randomInts(seed);
    const word = (length: number) =>
      Array.from({ length }, () => (random(4) === 0 ? 'b' : 'a')).join('');
    const stops = [0, 1].map(() => word(4 + random(6)));
    const text = word(120);
    const scanner = new StopStrings(stops);
    // min_tokens: what ends before does not stop the text.
    const least = random(2) * random(60);
    const ends = stops.map((stop) => {
      const start = text.indexOf(stop, Math.max(0, least - stop.length + 1));
      return start < 0 ? Infinity : start + stop.length;
    });
    const end = Math.min(...ends);
    const bytes = Buffer.from(text);
    for (let to = 1; to <= text.length; to++) {
      const found = scanner.scan(bytes, to - 1, to, to > least);
      if (found !== (to === end ? end : -1)) t.fail(`seed ${seed}: ${found}, not ${end}`);
      if (found >= 0) {
        numFound++;
        t.equal(scanner.foundIndex, ends.indexOf(end));
        break;
      }
      // The longest end of the text that a stop string begins with.
      const begun = stops.map((stop) => {
        let length = Math.min(to, stop.length - 1);
        while (!text.slice(0, to).endsWith(stop.slice(0, length))) length--;
        return length;
      });
      if (scanner.heldBack !== Math.max(...begun))
        t.fail(`seed ${seed}: ${scanner.heldBack} bytes of ${text.slice(0, to)} are held back`);
    }
    if (!t.passing()) break;
  }
  t.ok(numFound > 1000, `${numFound} found`);
  t.end();
});
