import t from 'tap';
import { SeedSource } from '../../engine/seed-source.ts';
import { makeServer, prompt } from './virtual.ts';

t.test('SeedSource is SplitMix64', (t) => {
  const seeds = new SeedSource(1234567);
  // The generator's published first values for this seed.
  for (const value of [6457827717110365317n, 3203168211198807973n, 9817491932198370423n])
    t.equal(seeds.draw(), value);
  t.end();
});

t.test('requests without a seed have one each, the same in every run of a server', (t) => {
  const run = () => {
    const server = makeServer();
    for (const requestId of [1, 2])
      server.add({ requestId, prompt: prompt(5), sampling: { maxTokens: 8 } });
    server.run(1000);
    return [1, 2].map((requestId) => server.outcome(requestId)!.tokenIds);
  };
  const first = run();
  t.notSame(first[0], first[1]);
  t.same(run(), first);
  t.end();
});
