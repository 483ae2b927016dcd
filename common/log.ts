// One logger: time, level, process, message, key=value (or JSON lines with --log-format json), to
// stderr. Prompts, outputs and keys are never logged.
import { pino, type Logger } from 'pino';

export type { Logger };

export interface LogOptions {
  /** "engine", "worker 0", ... */
  readonly process: string;
  readonly level: 'debug' | 'info' | 'warn' | 'error';
  readonly format: 'text' | 'json';
}

export function createLogger({ process: name, level, format }: LogOptions): Logger {
  const stream = pino.destination({ dest: 2, sync: true });
  // Whoever read the log may have gone (`2>&1 | head`): that is no reason to stop serving.
  stream.on('error', () => undefined);
  if (format === 'json') return pino({ level, base: { process: name } }, stream);
  const write = (line: string) => stream.write(toText(JSON.parse(line) as LogLine));
  return pino({ level, base: { process: name } }, { write });
}

type LogLine = { time: number; level: number; process: string; msg?: string } & Record<
  string,
  unknown
>;

const levelNames: Readonly<Record<number, string>> = {
  10: 'TRACE',
  20: 'DEBUG',
  30: 'INFO',
  40: 'WARN',
  50: 'ERROR',
  60: 'FATAL',
};

function toText({ time, level, process: name, msg, ...rest }: LogLine): string {
  const fields = Object.entries(rest).map(([key, value]) => ` ${key}=${toValue(value)}`);
  return `${new Date(time).toISOString()} ${levelNames[level] ?? level} [${name}] ${msg ?? ''}${fields.join('')}\n`;
}

function toValue(value: unknown): string {
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return /[\s="]/.test(text) && typeof value === 'string' ? JSON.stringify(value) : text;
}
