// The detokenizer without sockets or a clock of its own: tokens of all requests in, text rows for
// their frontends and stop requests for the engine out. Every accepted request gets exactly one
// terminal row, here and nowhere else; rows of requests that have ended are dropped.
import { GrowableColumn } from '../common/growable-column.ts';
import type { ReaderLimits } from '../common/limits.ts';
import type { TokenBytes } from '../common/text/token-bytes.ts';
import type { StopRequest, TextOutputs, TokenOutputs } from '../common/wire/messages.ts';
import type { PeerId } from '../common/wire/transport.ts';
import { FrontendOutbox } from './frontend-outbox.ts';
import { finishIndex, RequestText } from './request-text.ts';
import { TextOutputsBuilder } from './text-outputs-builder.ts';

export interface DetokenizerOptions {
  readonly table: TokenBytes;
  readonly generation: number;
  readonly readers: ReaderLimits;
  /** Milliseconds, monotonic. */
  now(): number;
}

export interface DetokenizerEvents {
  textOutputs(peer: PeerId, message: TextOutputs): void;
  stopRequest(message: StopRequest): void;
  /** The frontend reads nothing at all and was forgotten. */
  dropFrontend(peer: PeerId | null, frontendId: number): void;
}

type Columns = TokenOutputs['columns'];

export class Detokenizer {
  private readonly table: TokenBytes;
  private readonly events: DetokenizerEvents;
  private readonly generation: number;
  private readonly readers: ReaderLimits;
  private readonly now: () => number;
  private readonly frontends = new Map<number, FrontendOutbox>();
  private readonly byPeer = new Map<PeerId, FrontendOutbox>();
  private readonly builder: TextOutputsBuilder;
  /** Requests that a step has touched, per frontend; emptied when their rows are sent. */
  private readonly touched = new Map<FrontendOutbox, RequestText[]>();
  private readonly stops = {
    frontendId: new GrowableColumn(Uint32Array),
    requestId: new GrowableColumn(Uint32Array),
    numOutputTokens: new GrowableColumn(Uint32Array),
  };
  private step = 0;

  constructor(options: DetokenizerOptions, events: DetokenizerEvents) {
    this.table = options.table;
    this.generation = options.generation;
    this.readers = options.readers;
    this.events = events;
    this.now = () => options.now();
    this.builder = new TextOutputsBuilder(this.table);
  }

  frontendJoined(frontendId: number, attachKey: string): void {
    this.frontends.set(frontendId, new FrontendOutbox(frontendId, attachKey, this.readers));
  }

  /** Its requests are forgotten; the engine has aborted them itself. */
  frontendLeft(frontendId: number): void {
    const frontend = this.frontends.get(frontendId);
    if (!frontend) return;
    this.frontends.delete(frontendId);
    if (frontend.peer !== null) this.byPeer.delete(frontend.peer);
  }

  /** null = nobody of this id has joined (yet). */
  attachKeyOf(frontendId: number): string | null {
    return this.frontends.get(frontendId)?.attachKey ?? null;
  }

  /** The key was checked. What waits for the frontend goes out now, as far as credit allows. */
  attach(frontendId: number, peer: PeerId, creditBytes: number): void {
    const frontend = this.frontends.get(frontendId)!;
    if (frontend.peer !== null) this.byPeer.delete(frontend.peer);
    frontend.attach(peer, creditBytes);
    this.byPeer.set(peer, frontend);
    this.flushFrontend(frontend);
  }

  peerGone(peer: PeerId): void {
    this.byPeer.get(peer)?.detach();
    this.byPeer.delete(peer);
  }

  isAttached(peer: PeerId): boolean {
    return this.byPeer.has(peer);
  }

  credit(peer: PeerId, bytes: number, requestIds: Uint32Array, requestBytes: Uint32Array): void {
    const frontend = this.byPeer.get(peer);
    if (!frontend) return;
    frontend.grant(bytes);
    for (let i = 0; i < requestIds.length; i++)
      frontend.grantRequest(requestIds[i]!, requestBytes[i]!);
    this.flushFrontend(frontend);
  }

  /** Sends what waits, and ends what has waited too long. Call it about once a second. */
  tick(): void {
    for (const frontend of this.frontends.values()) this.flushFrontend(frontend);
  }

  /** Rows of one step, as the wire's door has let them in. */
  tokenOutputs(message: TokenOutputs): void {
    const { columns } = message;
    this.step = message.step;
    for (const info of message.newRequests) {
      const frontend = this.frontends.get(info.frontendId);
      if (!frontend || frontend.requests.has(info.requestId)) continue;
      frontend.requests.set(info.requestId, new RequestText(info, this.table));
    }
    this.addPromptLogprobs(columns);
    this.addTokens(columns, message.errors);
    for (const [frontend, requests] of this.touched) this.send(frontend, requests);
    this.touched.clear();
    this.sendStops();
  }

  /** Open requests of all frontends. */
  get numOpen(): number {
    let count = 0;
    for (const frontend of this.frontends.values()) count += frontend.requests.size;
    return count;
  }

  /** The engine is gone, and every request with it; EngineClient ends its own. */
  reset(): void {
    this.frontends.clear();
    this.byPeer.clear();
  }

  /** Throws when an invariant does not hold; for tests. */
  checkIntegrity(): void {
    for (const [peer, frontend] of this.byPeer)
      if (frontend.peer !== peer || this.frontends.get(frontend.frontendId) !== frontend)
        throw new Error(`peer ${peer} is not its frontend's`);
    for (const frontend of this.frontends.values()) {
      if (frontend.peer !== null && this.byPeer.get(frontend.peer) !== frontend)
        throw new Error(`frontend ${frontend.frontendId} has a peer that does not know it`);
      for (const [id, request] of frontend.requests) {
        if (request.info.requestId !== id) throw new Error(`request ${id} has another id`);
        if (request.finish !== 0 && request.stalledSince === null)
          throw new Error(`request ${id} has ended and waits for nothing`);
      }
    }
    if (this.touched.size > 0 || this.builder.numRows > 0 || this.stops.requestId.length > 0)
      throw new Error('something of the last step was not sent');
  }

  private addPromptLogprobs(c: Columns): void {
    let entry = 0;
    for (let i = 0; i < c.promptLogprobRow.length; i++) {
      const row = c.promptLogprobRow[i]!;
      const end = entry + c.promptLogprobCount[i]!;
      const request = this.frontends.get(c.frontendId[row]!)?.requests.get(c.requestId[row]!);
      if (request?.finish === finishIndex.none) {
        request.promptPositions.push(c.promptLogprobPosition[i]!);
        request.promptLogprobs.add(
          c.promptLogprobIds,
          c.promptLogprobs,
          c.promptLogprobRanks,
          entry,
          end,
        );
      }
      entry = end;
    }
  }

  private addTokens(c: Columns, errors: TokenOutputs['errors']): void {
    let entry = 0;
    for (let row = 0; row < c.requestId.length; row++) {
      const frontend = this.frontends.get(c.frontendId[row]!);
      let request = frontend?.requests.get(c.requestId[row]!);
      // Ended here already: the rest of its tokens is nobody's.
      if (request !== undefined && request.finish !== finishIndex.none) request = undefined;
      const finish = c.finishReason[row]!;
      const start = c.tokenStart[row]!;
      const end = c.tokenStart[row + 1]!;
      let stopped = false;
      for (let i = start; i < end; i++) {
        const entryEnd = entry + c.logprobCount[i]!;
        if (request && !stopped) {
          if (request.info.logprobs !== null)
            request.logprobs.add(c.logprobIds, c.logprobs, c.logprobRanks, entry, entryEnd);
          const isStopToken = finish === finishIndex.stop && i === end - 1;
          stopped = request.addToken(c.tokenIds[i]!, isStopToken);
        }
        entry = entryEnd;
      }
      if (!frontend || !request) continue;
      request.numCachedTokens = c.numCachedTokens[row]!;
      if (stopped && finish === finishIndex.none) this.addStop(frontend, request);
      if (!stopped && finish !== finishIndex.none)
        request.end(
          finish,
          c.stopTokenId[row]!,
          errors.find((entry) => entry.row === row)?.error ?? null,
        );
      const list = this.touched.get(frontend);
      if (list) list.push(request);
      else this.touched.set(frontend, [request]);
    }
  }

  private flushFrontend(frontend: FrontendOutbox): void {
    this.send(frontend, frontend.requests.values());
    this.sendStops();
  }

  private send(frontend: FrontendOutbox, requests: Iterable<RequestText>): void {
    const now = this.now();
    for (const request of requests) {
      const wasOpen = request.finish === finishIndex.none;
      const slow = frontend.flush(request, this.builder, now);
      if (slow && wasOpen) this.addStop(frontend, request);
      if (this.builder.isFull) this.emit(frontend);
    }
    this.emit(frontend);
    if (frontend.isHopeless) this.drop(frontend);
  }

  private emit(frontend: FrontendOutbox): void {
    if (this.builder.numRows === 0) return;
    // Rows come out only for a frontend that has attached.
    this.events.textOutputs(frontend.peer!, this.builder.build(this.step, this.generation));
    this.builder.reset();
  }

  private drop(frontend: FrontendOutbox): void {
    for (const request of frontend.requests.values())
      if (request.finish === finishIndex.none) this.addStop(frontend, request);
    this.frontendLeft(frontend.frontendId);
    this.events.dropFrontend(frontend.peer, frontend.frontendId);
  }

  private addStop(frontend: FrontendOutbox, request: RequestText): void {
    this.stops.frontendId.push(frontend.frontendId);
    this.stops.requestId.push(request.info.requestId);
    this.stops.numOutputTokens.push(request.numOutputTokens);
  }

  private sendStops(): void {
    const { frontendId, requestId, numOutputTokens } = this.stops;
    if (requestId.length === 0) return;
    this.events.stopRequest({
      kind: 'stopRequest',
      columns: {
        frontendId: frontendId.view(),
        requestId: requestId.view(),
        numOutputTokens: numOutputTokens.view(),
      },
    });
    frontendId.clear();
    requestId.clear();
    numOutputTokens.clear();
  }
}
