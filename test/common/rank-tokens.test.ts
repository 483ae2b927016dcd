import t from 'tap';
import { rankTokens } from '../../common/rank-tokens.ts';

t.test('each rank expects what the other shows, and no token opens two connections', (t) => {
  const numRanks = 3;
  const ranks = [0, 1, 2].map((rank) => rankTokens('secret', rank, numRanks));
  const at = (tokens: Uint8Array, other: number, connection: number) =>
    Buffer.from(tokens).toString(
      'hex',
      other * 64 + connection * 32,
      other * 64 + (connection + 1) * 32,
    );
  const shown = new Set<string>();
  for (const a of [0, 1, 2])
    for (const b of [0, 1, 2])
      for (const connection of [0, 1]) {
        const token = at(ranks[a]!.shownTokens, b, connection);
        t.equal(token, at(ranks[b]!.expectedTokens, a, connection), `${a} to ${b}`);
        shown.add(token);
      }
  t.equal(shown.size, numRanks * numRanks * 2);
  const other = rankTokens('another', 0, numRanks);
  t.notOk(shown.has(at(other.shownTokens, 1, 0)), 'another secret');
  t.end();
});
