// Where each link binds: a unix socket per generation in the run directory, or, for frontends of
// other programs, two TCP ports with CURVE keys.
import { curveKeyPair } from 'zeromq';
import type { FrontendJson, Listen } from '../../common/config.ts';
import { exitCodes, StartError } from '../../common/errors.ts';
import { protocolVersion } from '../../common/wire/messages.ts';
import type { CurveKeys } from '../../common/wire/transport.ts';
import type { RunDir } from './run-dir.ts';

export interface TcpAddress {
  readonly host: string;
  /** The engine's; the detokenizer has the next one. */
  readonly port: number;
}

/** Reads --frontend-address tcp://HOST:PORT; null if it names a folder. */
export function parseTcpAddress(text: string): TcpAddress | null {
  if (!text.startsWith('tcp://')) return null;
  const match = /^tcp:\/\/(.+):(\d+)$/.exec(text);
  const [, host = '', port = ''] = match ?? [];
  const bad = (why: string) =>
    new StartError(exitCodes.badFlag, `--frontend-address ${text}: ${why}`);
  if (match === null || Number(port) < 1 || Number(port) > 65534)
    throw bad('tcp://HOST:PORT is expected, PORT from 1 to 65534');
  if (['*', '0.0.0.0', '[::]'].includes(host))
    throw bad('name one address to bind, not all of them');
  return { host, port: Number(port) };
}

export class Endpoints {
  readonly control: string;
  private readonly runDir: RunDir;
  private readonly tcp: TcpAddress | null;
  private readonly engineKeys: CurveKeys | null;
  private readonly detokenizerKeys: CurveKeys | null;
  private readonly workers: Listen | null;

  /** `workers` is where the engine binds for them over tcp; null where all are on this host. */
  constructor(runDir: RunDir, tcp: TcpAddress | null, workers: string | null = null) {
    this.runDir = runDir;
    this.tcp = tcp;
    this.control = runDir.socket('control.sock');
    this.engineKeys = tcp ? makeKeys() : null;
    this.detokenizerKeys = tcp ? makeKeys() : null;
    this.workers = workers === null ? null : { address: workers, curve: makeKeys() };
  }

  /** Where the engine binds for frontends. */
  engineFrontend(generation: number): Listen {
    const address = this.tcpAddress(0) ?? this.runDir.socket(`engine.${generation}.sock`);
    return { address, curve: this.engineKeys };
  }

  /** Where the engine binds for workers. */
  engineWorker(generation: number): Listen {
    if (this.workers) return this.workers;
    return { address: this.runDir.socket(`engine-worker.${generation}.sock`), curve: null };
  }

  /** Where the detokenizer binds for frontends. */
  detokenizerFrontend(generation: number): Listen {
    const address = this.tcpAddress(1) ?? this.runDir.socket(`detokenizer.${generation}.sock`);
    return { address, curve: this.detokenizerKeys };
  }

  /** Where the detokenizer binds for the engine. */
  detokenizerEngine(generation: number): Listen {
    return { address: this.runDir.socket(`detok-engine.${generation}.sock`), curve: null };
  }

  frontendJson(
    token: string,
    model: string,
    engineGeneration: number,
    detokenizerGeneration: number,
  ): FrontendJson {
    return {
      protocol: protocolVersion,
      engine: this.engineFrontend(engineGeneration).address,
      detokenizer: this.detokenizerFrontend(detokenizerGeneration).address,
      token,
      engineKey: this.engineKeys?.publicKey ?? null,
      detokenizerKey: this.detokenizerKeys?.publicKey ?? null,
      model,
    };
  }

  private tcpAddress(offset: number): string | null {
    return this.tcp && `tcp://${this.tcp.host}:${this.tcp.port + offset}`;
  }
}

function makeKeys(): CurveKeys {
  const { publicKey, secretKey } = curveKeyPair();
  return { publicKey, secretKey, serverKey: null };
}
