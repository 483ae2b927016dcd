// EngineClient: all that a frontend needs to know of the server. It submits requests to the engine,
// receives their text from the detokenizer, and sees to it that every one of them ends once. It
// knows no HTTP and no tokenizer.
import { EventEmitter } from 'node:events';
import { RequestError, StartError } from '../common/errors.ts';
import type {
  ApplyChatTemplate,
  DetokenizerToFrontend,
  EngineStatus,
  EngineToFrontend,
  EngineWelcome,
  PeerLost,
  UtilityReply,
} from '../common/wire/messages.ts';
import { Calls } from './engine-client-calls.ts';
import { Connection, type LostRole } from './engine-client-connection.ts';
import {
  resolveOptions,
  type ConnectOptions,
  type ResolvedOptions,
} from './engine-client-options.ts';
import { EngineSilence } from './engine-client-silence.ts';
import { OpenRequests, type OpenRequestHandle } from './engine-client-requests.ts';
import { streamOutputs } from './engine-client-stream.ts';
import { TextCalls, type TemplateOptions } from './engine-client-text.ts';
import type { GenerateRequest, RequestOutput } from './engine-client-types.ts';

export interface EngineClientEvents {
  /** A process of the server is gone; requests that needed it have got their terminal output. */
  peerLost: [peer: Pick<PeerLost, 'role' | 'index' | 'generation'>];
  /** Both links are up again after a loss. */
  ready: [info: EngineWelcome];
  status: [status: EngineStatus];
  /** The server will not have us any more: the client is closed. */
  refused: [error: StartError];
}

export class EngineClient {
  private readonly connection: Connection;
  private readonly requests: OpenRequests;
  private readonly utilities = new Calls<UtilityReply>();
  private readonly text: TextCalls;
  private readonly silence: EngineSilence;
  private readonly emitter = new EventEmitter<EngineClientEvents>();
  private welcome: EngineWelcome | null = null;
  private lastStatus: EngineStatus | null = null;
  private closed = false;

  private constructor(
    options: ResolvedOptions,
    firstUp: () => void,
    refused: (error: StartError) => void,
  ) {
    this.connection = new Connection(options, {
      up: (info) => {
        this.welcome = info;
        firstUp();
        this.emitter.emit('ready', info);
      },
      lost: (role, generation) => this.onLost(role, generation),
      refused,
      engineMessage: (message) => this.onEngine(message),
      detokenizerMessage: (message) => this.onDetokenizer(message),
    });
    this.requests = new OpenRequests(this.connection, options.creditBytes);
    this.text = new TextCalls((message) => this.connection.toDetokenizer(message));
    this.silence = new EngineSilence(options.role === 'frontend', this.requests);
  }

  /**
   * `where`: addresses and token, or the path of a frontend.json or its folder. Resolves when both
   * the engine and the detokenizer have welcomed us. Throws StartError when refused (protocol or
   * build mismatch, wrong token), RequestError not_ready when one does not answer in time.
   */
  static async connect(where: ConnectOptions | string): Promise<EngineClient> {
    const options = resolveOptions(where);
    return new Promise<EngineClient>((resolve, reject) => {
      const fail = (error: Error) => {
        clearTimeout(timer);
        client.close();
        reject(error);
      };
      let isUp = false;
      const up = () => {
        isUp = true;
        clearTimeout(timer);
        resolve(client);
      };
      const refused = (error: StartError) => {
        fail(error);
        if (isUp) client.emitter.emit('refused', error);
      };
      const client = new EngineClient(options, up, refused);
      const timer = setTimeout(() => {
        const role = client.connection.missing ?? 'engine';
        const message = `${role} at ${options[role]} did not answer within ${options.timeoutMs} ms`;
        fail(new RequestError('not_ready', message));
      }, options.timeoutMs);
    });
  }

  /** What the engine said of itself: limits, EOS ids, model, defaults. */
  get info(): EngineWelcome {
    return this.welcome!;
  }

  /** The engine's last word on its load; null before the first. */
  get status(): EngineStatus | null {
    return this.lastStatus;
  }

  /** Requests can be submitted. */
  get ready(): boolean {
    return !this.closed && this.connection.missing === null;
  }

  /** Engine or detokenizer is gone for now. */
  get lost(): boolean {
    return !this.ready;
  }

  /**
   * How long open work has stood still: by the engine's own word, or by its silence (it speaks
   * every 250 ms while it has work). 0 when idle.
   */
  get stalledMs(): number {
    return Math.max(this.lastStatus?.stalledMs ?? 0, this.silence.openMs);
  }

  /** For how long the engine has owed us a word; 0 when it owes none. */
  get engineSilentMs(): number {
    return this.silence.owedMs;
  }

  /** Choices that have not ended. */
  get numOpen(): number {
    return this.requests.numOpen;
  }

  /**
   * Resolves once the engine has taken all n choices; rejects with RequestError if it has taken none.
   * Then `onOutput` is called with what is new, and exactly once per choice with a finishReason
   * other than 'none'.
   */
  async submit(
    request: GenerateRequest,
    onOutput: (output: RequestOutput) => void,
  ): Promise<OpenRequestHandle> {
    this.checkReady();
    this.silence.asked();
    return this.requests.add(request, onOutput);
  }

  /** The outputs of all choices as they come; credit is granted as they are taken. Leaving the loop aborts. */
  generate(
    request: GenerateRequest,
    options: { readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<RequestOutput, void, undefined> {
    return streamOutputs((onOutput) => this.submit(request, onOutput), request.n, options.signal);
  }

  /** Calls the engine: stats, memory, timeline, resetPrefixCache. */
  async utility(method: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    if (this.connection.missing === 'engine') throw lostError('engine');
    const reply = await this.utilities.call((callId) =>
      this.connection.toEngine({ kind: 'utility', callId, method, args }),
    );
    return reply.result;
  }

  /** Special tokens that are written out in the text stay text, unless allowSpecialTokens. */
  async tokenize(
    text: string,
    addSpecialTokens = true,
    allowSpecialTokens = false,
  ): Promise<Int32Array> {
    this.checkReady();
    return this.text.tokenize(text, addSpecialTokens, allowSpecialTokens);
  }

  async applyChatTemplate(
    messages: ApplyChatTemplate['messages'],
    options: TemplateOptions = {},
  ): Promise<{ text: string; tokenIds: Int32Array }> {
    this.checkReady();
    return this.text.applyChatTemplate(messages, options);
  }

  async detokenize(tokenIds: Int32Array, skipSpecialTokens = true): Promise<string> {
    this.checkReady();
    return this.text.detokenize(tokenIds, skipSpecialTokens);
  }

  on<K extends keyof EngineClientEvents>(
    event: K,
    listener: (...args: EngineClientEvents[K]) => void,
  ): this {
    this.emitter.on(event, listener as never);
    return this;
  }

  /** The supervisor says that a process is gone; a loss that was seen already changes nothing. */
  peerLost({ role, generation }: Pick<PeerLost, 'role' | 'generation'>): void {
    if (role === 'engine' || role === 'detokenizer') this.connection.peerLost(role, generation);
  }

  /** A replaced detokenizer serves at `addresses.frontend` (from peerReady). */
  reattach(addresses: Readonly<Record<string, string>>, generation: number): void {
    const address = addresses['frontend'];
    if (address !== undefined && !this.closed) this.connection.reattach(address, generation);
  }

  /** Ends what is open with shutting_down and closes both links. */
  close(): void {
    if (this.closed) return;
    this.closed = true;
    this.connection.close();
    this.endAll(new RequestError('shutting_down', 'the client was closed'));
  }

  private onEngine(message: EngineToFrontend): void {
    this.silence.heard();
    switch (message.kind) {
      case 'accepted':
        this.silence.accepted();
        this.requests.accepted(message);
        return;
      case 'rejected':
        this.requests.rejected(message);
        return;
      case 'utilityReply':
        this.utilities.settle(message);
        return;
      case 'status':
        this.lastStatus = message;
        this.silence.status(message);
        this.emitter.emit('status', message);
        return;
      case 'peerLost':
        this.onPeerLost(message);
        return;
      case 'peerReady':
        if (message.role === 'detokenizer') this.reattach(message.addresses, message.generation);
        return;
      case 'welcome':
      case 'refused':
        return;
    }
  }

  private onDetokenizer(message: DetokenizerToFrontend): void {
    if (message.kind === 'textOutputs') this.requests.textOutputs(message);
    else if (message.kind === 'textReply') this.text.settle(message);
    else if (message.kind === 'peerLost') this.onPeerLost(message);
  }

  private onPeerLost(message: PeerLost): void {
    const { role } = message;
    if (role === 'engine' || role === 'detokenizer') this.peerLost(message);
    else this.emitter.emit('peerLost', message);
  }

  private onLost(role: LostRole, generation: number): void {
    const error = lostError(role);
    if (role === 'engine') {
      this.silence.lost();
      this.utilities.failAll(error);
    }
    this.text.failAll(error);
    this.requests.endAll(error);
    if (!this.closed) this.emitter.emit('peerLost', { role, index: 0, generation });
  }

  private endAll(error: RequestError): void {
    this.utilities.failAll(error);
    this.text.failAll(error);
    this.requests.endAll(error);
  }

  private checkReady(): void {
    if (this.closed) throw new RequestError('shutting_down', 'the client was closed');
    const { missing } = this.connection;
    if (missing) throw lostError(missing);
  }
}

function lostError(role: LostRole): RequestError {
  return new RequestError(`${role}_lost`, `the ${role} is gone`);
}
