// A client on a bare socket: it reads only when told, and leaves when told.
import { connect, type Socket } from 'node:net';

export class RawClient {
  readonly socket: Socket;
  private received = '';
  private readonly waiting = new Set<() => void>();

  private constructor(socket: Socket) {
    this.socket = socket;
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      this.received += chunk;
      this.wake();
    });
    socket.on('close', () => this.wake());
    socket.on('error', () => undefined);
  }

  static open(port: number): Promise<RawClient> {
    return new Promise((resolve, reject) => {
      const socket = connect({ host: '127.0.0.1', port });
      socket.once('error', reject);
      socket.once('connect', () => resolve(new RawClient(socket)));
    });
  }

  /** A POST with its whole body. */
  post(path: string, body: unknown, version = '1.1'): void {
    const text = JSON.stringify(body);
    this.socket.write(
      `POST ${path} HTTP/${version}\r\nhost: localhost\r\ncontent-type: application/json\r\n` +
        `content-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
    );
  }

  get text(): string {
    return this.received;
  }

  async until(wanted: (text: string) => boolean): Promise<string> {
    while (!wanted(this.received)) {
      if (this.socket.closed) throw new Error(`closed after: ${this.received.slice(-200)}`);
      await new Promise<void>((resolve) => this.waiting.add(resolve));
    }
    return this.received;
  }

  closed(): Promise<void> {
    if (this.socket.closed) return Promise.resolve();
    return new Promise((resolve) => this.socket.once('close', () => resolve()));
  }

  leave(): void {
    this.socket.destroy();
  }

  private wake(): void {
    for (const resolve of this.waiting) resolve();
    this.waiting.clear();
  }
}
