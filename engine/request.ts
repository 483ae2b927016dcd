// One request (one choice of a prompt): what it is, how far it has come, what it holds. The
// scheduler moves it; nothing here decides anything.
import { hashWords, type ExtraKeys } from './block-hash.ts';
import type { SamplingParams, TextParams } from '../common/sampling-params.ts';
import type { FinishReason } from '../common/wire/messages.ts';
import { RepetitionDetector } from './repetition.ts';

/** waitingForRemoteKv is reserved for KV connectors: no request enters it yet. */
export type RequestState = 'waiting' | 'waitingForRemoteKv' | 'running' | 'ended';

export interface RequestOptions {
  readonly frontendId: number;
  readonly requestId: number;
  /** Position among all requests ever taken: who came first. */
  readonly arrival: number;
  readonly promptTokenIds: Int32Array;
  readonly sampling: SamplingParams;
  readonly text: TextParams;
  readonly priority: number;
  readonly cacheSalt: string | null;
  readonly seed: bigint;
  /** What ends it, not before minTokens (stop-ids.ts). */
  readonly stopIds: readonly number[];
  /** Tokens, prompt included, with which it is at its end by length. */
  readonly maxNumTokens: number;
  /** First child of the same AddRequest, null for the first child itself. */
  readonly leader: Request | null;
}

export class Request {
  readonly frontendId: number;
  readonly requestId: number;
  readonly arrival: number;
  readonly sampling: SamplingParams;
  readonly text: TextParams;
  readonly priority: number;
  readonly extraKeys: ExtraKeys | null;
  readonly seed: bigint;
  readonly stopIds: readonly number[];
  readonly numPromptTokens: number;
  readonly maxNumTokens: number;
  readonly leader: Request | null;

  state: RequestState = 'waiting';
  /** Set when it ends by its tokens or with an error. */
  finishReason: FinishReason = 'none';
  /** Prompt and output tokens known so far, in tokenIds[0 .. numTokens). */
  tokenIds: Int32Array;
  numTokens: number;
  /** Tokens that steps in flight will sample. */
  numPlaceholders = 0;
  /** Tokens whose K and V the steps sent so far have put, or will put, into the cache. */
  numComputedTokens = 0;
  /** Prompt tokens found in the prefix cache when it first ran; -1 before. */
  numCachedTokens = -1;
  /** Row on the worker, -1 while not running. */
  row = -1;
  /** Last step that scheduled it; 0 = none. */
  lastStep = 0;
  /** Step that completes the prompt, 0 before: siblings may look its blocks up in a later one. */
  promptStep = 0;
  /** When it came, first ran, and gave its first and last token (CLOCK_MONOTONIC). */
  arrivedUs = 0;
  firstRunUs = 0;
  firstTokenUs = 0;
  lastTokenUs = 0;
  /** The detokenizer has been told of it. */
  announced = false;
  /** Of a request that asks for it. */
  readonly repetition: RepetitionDetector | null;
  /** Next prompt position whose logprobs are to be sent; numPromptTokens = none (any more). */
  nextPromptLogprob: number;

  blockTable = new Int32Array(0);
  numBlocks = 0;
  /** Leading entries of blockTable that are given back, because no step reads them any more. */
  numReleased = 0;
  /** Blocks of blockTable that are in the prefix cache or need not enter it. */
  numRegistered = 0;
  /** [numHashed * hashWords] hashes of full blocks, made when first needed. */
  hashes = new Int32Array(0);
  numHashed = 0;

  /** Links of the waiting queue. */
  nextWaiting: Request | null = null;
  prevWaiting: Request | null = null;

  constructor(options: RequestOptions) {
    const { promptTokenIds, sampling, cacheSalt } = options;
    this.frontendId = options.frontendId;
    this.requestId = options.requestId;
    this.arrival = options.arrival;
    this.sampling = sampling;
    this.text = options.text;
    this.priority = options.priority;
    this.extraKeys = cacheSalt === null ? null : [cacheSalt];
    this.seed = options.seed;
    this.stopIds = options.stopIds;
    this.numPromptTokens = promptTokenIds.length;
    this.maxNumTokens = options.maxNumTokens;
    this.leader = options.leader;
    const { repetitionDetection } = sampling;
    this.repetition = repetitionDetection && new RepetitionDetector(repetitionDetection);
    this.tokenIds = new Int32Array(Math.min(options.maxNumTokens, promptTokenIds.length + 64));
    this.tokenIds.set(promptTokenIds);
    this.numTokens = promptTokenIds.length;
    // Position 0 has nothing before it, hence no logprob; siblings share the first child's.
    const wanted = sampling.promptLogprobs !== null && options.leader === null;
    this.nextPromptLogprob = wanted ? 1 : this.numPromptTokens;
  }

  get numOutputTokens(): number {
    return this.numTokens - this.numPromptTokens;
  }

  get wantsPromptLogprobs(): boolean {
    return this.nextPromptLogprob < this.numPromptTokens;
  }

  /** Tokens that a step could run now; 0 once the end by length is in flight. */
  get numSchedulable(): number {
    const numTokens = this.numTokens + this.numPlaceholders;
    return numTokens >= this.maxNumTokens ? 0 : numTokens - this.numComputedTokens;
  }

  append(tokenId: number): void {
    if (this.numTokens === this.tokenIds.length)
      this.tokenIds = grown(this.tokenIds, Math.min(this.numTokens * 2, this.maxNumTokens));
    this.tokenIds[this.numTokens++] = tokenId;
  }

  addBlock(block: number): void {
    if (this.numBlocks === this.blockTable.length)
      this.blockTable = grown(this.blockTable, Math.max(8, this.numBlocks * 2));
    this.blockTable[this.numBlocks++] = block;
  }

  reserveHashes(numBlocks: number): void {
    if (numBlocks * hashWords > this.hashes.length)
      this.hashes = grown(this.hashes, Math.max(numBlocks, this.numHashed * 2) * hashWords);
  }
}

function grown(array: Int32Array, length: number): Int32Array<ArrayBuffer> {
  const larger = new Int32Array(length);
  larger.set(array);
  return larger;
}
