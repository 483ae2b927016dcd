// How often processes died lately: a server whose processes keep dying is ended, not mended.

export const deathLimit = 3;
export const deathWindowMs = 10 * 60 * 1000;

export class DeathCount {
  private times: number[] = [];

  /** Notes a death at `nowMs` (monotonic); true if it is the one that is too many. */
  add(nowMs: number): boolean {
    this.times = this.times.filter((time) => nowMs - time < deathWindowMs);
    this.times.push(nowMs);
    return this.times.length >= deathLimit;
  }
}
