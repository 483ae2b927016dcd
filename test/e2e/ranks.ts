// What tests of several ranks have in common, on one host or on several: golden tokens, and a fault
// of a rank under load.
import { readFileSync } from 'node:fs';
import type { Test } from 'tap';
import { CompletionStream, servesAgain } from './client.ts';
import { waitGone, type Server } from './server.ts';

export interface GoldenRow {
  readonly prompt_ids: readonly number[];
  readonly greedy_ids: readonly number[];
  readonly gaps: readonly number[];
}

export const golden = (
  JSON.parse(
    readFileSync(new URL('../../../test/fixtures/demo/golden.json', import.meta.url), 'utf8'),
  ) as { rows: readonly GoldenRow[] }
).rows;
/** A smaller gap may be decided otherwise by another order of summation. */
const nearTie = 0.02;

export const short = { prompt: 'Once', max_tokens: 8, temperature: 0 };
export const long = { prompt: 'Once upon a time', max_tokens: 1500, ignore_eos: true };

export async function tokensOf(t: Test, server: Server, body: object): Promise<number[]> {
  const stream = await CompletionStream.open(server, { return_token_ids: true, ...body });
  await stream.ended;
  t.ok(stream.isDone, JSON.stringify(stream.error));
  return stream.tokenIds;
}

/** That these are the row's tokens, up to a near tie. */
export function isGolden(t: Test, row: GoldenRow, ids: readonly number[]): void {
  const at = ids.findIndex((id, i) => id !== row.greedy_ids[i]);
  if (at >= 0 && row.gaps[at]! < nearTie) t.comment(`near tie at step ${at}`);
  else t.equal(at, -1, `differs at step ${at} of ${ids.length}`);
}

/** Process ids by rank, wherever they run. */
export async function ranksOf(
  servers: readonly [Server, ...Server[]],
  numRanks: number,
): Promise<number[]> {
  const find = (rank: number) =>
    servers.map((server) => server.children().get(`worker ${rank}`)).find((pid) => pid);
  const ranks = Array.from({ length: numRanks }, (_, rank) => rank);
  await servers[0].waitFor(() => ranks.every((rank) => find(rank) !== undefined));
  return ranks.map((rank) => find(rank)!);
}

/** Under load, does something to a rank; what clients are told of it, and that all ranks are new. */
export async function faultUnderLoad(
  t: Test,
  servers: readonly [Server, ...Server[]],
  numRanks: number,
  fault: (ranks: readonly number[]) => void,
): Promise<string> {
  const [server] = servers;
  const before = await tokensOf(t, server, short);
  const ranks = await ranksOf(servers, numRanks);
  const streams = await Promise.all([1, 2, 3].map(() => CompletionStream.open(server, long)));
  await Promise.all(streams.map((stream) => stream.started()));
  fault(ranks);
  await Promise.all(streams.map((stream) => stream.ended));
  for (const stream of streams) t.equal(stream.error?.code, 500);
  await servesAgain(t, server, short);
  t.same(await waitGone(ranks), [], 'no rank goes on without the others');
  t.equal(new Set([...ranks, ...(await ranksOf(servers, numRanks))]).size, 2 * numRanks);
  t.same(await tokensOf(t, server, short), before, 'the same tokens as before');
  return streams[0]!.error!.message;
}
