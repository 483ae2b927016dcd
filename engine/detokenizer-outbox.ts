// What goes to the detokenizer: rows are collected, sent as one message a step, and acknowledged. It
// knows how far the detokenizer has got, and whether it is there at all.
import { silenceLimitMs } from '../common/own-pauses.ts';
import { Acknowledgements } from './acknowledgements.ts';
import type { EnginePorts } from './ports.ts';
import { TokenOutputsBuilder } from './token-outputs.ts';

export class DetokenizerOutbox {
  readonly rows = new TokenOutputsBuilder();
  isLost = false;
  private readonly generation: number;
  private readonly ports: Pick<EnginePorts, 'toDetokenizer' | 'replaceDetokenizer'>;
  private readonly acknowledgements = new Acknowledgements();

  constructor(
    generation: number,
    ports: Pick<EnginePorts, 'toDetokenizer' | 'replaceDetokenizer'>,
  ) {
    this.generation = generation;
    this.ports = ports;
  }

  /** Sends the rows collected so far, if there are any, as those of `step`. */
  send(step: number, nowMs: number): void {
    if (this.rows.numRows === 0) return;
    this.acknowledgements.sent(step, nowMs);
    this.ports.toDetokenizer(this.rows.take(step, this.generation));
  }

  acknowledged(step: number, nowMs: number): void {
    this.acknowledgements.acknowledged(step, nowMs);
  }

  /** Whatever was not sent yet has no receiver. */
  lost(): void {
    this.isLost = true;
    this.rows.take(this.acknowledgements.lastSent, this.generation);
  }

  /** A new detokenizer is there. */
  joined(): void {
    this.isLost = false;
    this.acknowledgements.reset();
  }

  /** Nobody was here to hear it. */
  forgive(nowMs: number): void {
    this.acknowledgements.forgive(nowMs);
  }

  /** Has a detokenizer replaced that owes an acknowledgement for too long. */
  tick(nowMs: number): void {
    const silentMs = this.acknowledgements.silentMs(nowMs);
    if (silentMs <= silenceLimitMs || this.isLost) return;
    this.acknowledgements.forgive(nowMs);
    this.ports.replaceDetokenizer(`no sign of life for ${Math.round(silentMs)} ms`);
  }

  /** Everything that was sent has been handled. */
  get isAcknowledged(): boolean {
    return this.acknowledgements.isAll;
  }

  /** Counting the rows collected so far, which will go out as those of `step`. */
  isTooFarBehind(step: number): boolean {
    return this.acknowledgements.isTooFarBehind(this.rows.numRows > 0 ? step : undefined);
  }
}
