// The control link: who says hello is checked, and what the server's own processes say is noted on
// their Child, whichever socket it comes on. What follows from it is the supervisor's business.
import { performance } from 'node:perf_hooks';
import type { Logger } from '../../common/log.ts';
import { exitCodes } from '../../common/errors.ts';
import { checkHello } from '../../common/wire/handshake.ts';
import type { ReplacePeer } from '../../common/wire/messages.ts';
import { receive } from '../../common/wire/receive.ts';
import { RouterLink, type AnyMessage } from '../../common/wire/transport.ts';
import type { Child, ChildId, Connection } from './child.ts';
import type { Children } from './children.ts';

export interface ControlEvents {
  /** It is there, and can be told its slice. */
  connected(child: Child): void;
  /** It has given a sign of life. */
  heard(child: Child): void;
  ready(child: Child): void;
  replacePeer(message: ReplacePeer): void;
  /** Something that may be waited for has been noted. */
  changed(): void;
}

export class ControlLink {
  private readonly children: Children;
  /** The per-boot token. */
  private readonly token: string;
  private readonly log: Logger;
  private events!: ControlEvents;
  private link!: RouterLink;

  constructor(children: Children, token: string, log: Logger) {
    this.children = children;
    this.token = token;
    this.log = log;
  }

  async open(address: string, events: ControlEvents): Promise<void> {
    this.events = events;
    const link = await RouterLink.bind(address, {
      message: (peer, message) => this.receive({ link, peer }, message),
      disconnected: () => undefined,
      rejected: (_, error) => this.log.warn(`control link: ${error.message}`),
    });
    this.link = link;
  }

  close(): void {
    this.link.close();
  }

  /** Ranks on other nodes speak as those of this host do, on the nodes' link. */
  receive(connection: Connection, raw: AnyMessage): void {
    if (raw.kind === 'hello') {
      this.welcome(connection, raw);
      return;
    }
    const message = receive('processToSupervisor', raw);
    const child = this.children.byConnection(connection);
    if (!child) return;
    switch (message.kind) {
      case 'hello':
        break;
      case 'alive':
        this.events.heard(child);
        return;
      case 'ready':
        child.info = message.info;
        child.state = 'ready';
        this.events.heard(child);
        this.log.debug({ atMs: Math.round(performance.now()) }, `${child.name} is ready`);
        this.events.ready(child);
        break;
      case 'drained':
        child.isDrained = true;
        break;
      case 'fatal':
        child.fatal ??= message;
        break;
      case 'replacePeer':
        this.events.replacePeer(message);
        break;
    }
    this.events.changed();
  }

  private welcome(connection: Connection, raw: AnyMessage): void {
    const { link, peer } = connection;
    const roles = ['engine', 'worker', 'detokenizer', 'frontend'] as const;
    const hello = checkHello(raw, { token: this.token, roles });
    if (hello.kind === 'refused') {
      this.log.error(`control link: ${hello.message}`);
      // A child of another build ends, and cannot say why: nothing that it says is read any more.
      const { versionMismatch: exitCode } = exitCodes;
      const own = this.children.byPid(raw['pid']);
      if (own && raw['token'] === this.token)
        own.fatal ??= { kind: 'fatal', exitCode, message: hello.message };
      link.refuse(peer, hello);
      return;
    }
    const child = this.children.find(hello as ChildId);
    if (!child || (child.pid !== null && child.pid !== hello.pid)) return;
    child.connection = connection;
    this.events.heard(child);
    this.log.debug({ atMs: Math.round(performance.now()) }, `${child.name} says hello`);
    this.events.connected(child);
  }
}
